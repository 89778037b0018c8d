//! The gpu executor: wgpu, native or in a browser. wgpu is named here and nowhere else in the crate.
//!
//! [`Gpu`] is one device; [`GpuRun`] is one program resident on it. Work is recorded into one encoder
//! and submitted in batches; nothing is read back but what another peer or a person needs.
//! Invariant: a shader module is made only from a [`VerifiedBundle`] or from the framework's own WGSL.

mod memory;
mod painter;
mod profile;
mod run;
mod tables;
#[cfg(target_arch = "wasm32")]
mod web;

pub use crate::executor::dispatch::Borders;
#[cfg(target_arch = "wasm32")]
pub use painter::Canvas;
pub use painter::{Painter, Palette, RangeReading, Sight};
pub use profile::PassTime;
pub use run::GpuRun;
/// What a picture's pixels are.
pub use wgpu::TextureFormat;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::bundle::VerifiedBundle;
use crate::diagnose::ErrorKind;
use crate::executor::limits::Limits;
use crate::executor::{ExecutorError, ExecutorInfo, Layout, Placement};
use crate::program::Program;

/// Whether kernels run with bounds and loop checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checks {
    /// Every access stays in its binding, every loop ends at last: for kernels of any origin.
    #[default]
    Checked,
    /// Neither: only for kernels whose author answers for them.
    Unchecked,
}

/// How a device is opened and used.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// A part of the adapter's name; otherwise the fastest kind there is.
    pub adapter: Option<String>,
    /// Whether an adapter that computes in software is no adapter.
    pub is_hardware: bool,
    /// Whether kernels are checked.
    pub checks: Checks,
    /// A page limit below the adapter's, in bytes: what a browser would give, or a test wants.
    pub page_bytes_max: Option<u64>,
    /// How borders are told from interiors; by default what suits the adapter.
    pub borders: Option<Borders>,
    /// Whether passes are timed on the device, where it can.
    pub is_profiled: bool,
}

/// A device that runs programs.
pub struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    info: ExecutorInfo,
    limits: wgpu::Limits,
    options: GpuOptions,
    borders: Borders,
    lost: Arc<Mutex<Option<String>>>,
    pipelines: Mutex<HashMap<[u8; 32], CachedPipeline>>,
}

/// What tells when a submission is done.
#[cfg(not(target_arch = "wasm32"))]
type Submitted = wgpu::SubmissionIndex;
/// The same in a browser, which has no index of submissions.
#[cfg(target_arch = "wasm32")]
type Submitted = flume::Receiver<()>;

/// A compiled kernel and the layout of its bindings.
type CachedPipeline = (wgpu::BindGroupLayout, wgpu::ComputePipeline);

/// Pipelines kept for loading a workload again.
const PIPELINES_MAX: usize = 512;

impl Gpu {
    /// Every adapter of this machine, fastest kind first.
    pub async fn adapters() -> Vec<ExecutorInfo> {
        adapters().await.into_iter().map(|(_, info)| info).collect()
    }

    /// Opens an adapter.
    ///
    /// **Errors:** none is there, none of that name, or it gives no device.
    pub async fn open(options: GpuOptions) -> Result<Gpu, ExecutorError> {
        let mut all = adapters().await;
        all.retain(|(_, info)| !(options.is_hardware && info.is_software));
        let (adapter, info) = match &options.adapter {
            None => all.into_iter().next().ok_or(ExecutorError::NoAdapter)?,
            Some(wanted) => {
                let available = all.iter().map(|(_, info)| info.adapter.clone()).collect();
                let matches = |(_, info): &(wgpu::Adapter, ExecutorInfo)| info.adapter.to_lowercase().contains(&wanted.to_lowercase());
                all.into_iter().find(matches).ok_or(ExecutorError::NoSuchAdapter { wanted: wanted.clone(), available })?
            }
        };
        let limits = adapter.limits();
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("peercompute"),
            required_features: adapter.features() & (wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::SUBGROUP),
            required_limits: limits.clone(),
            memory_hints: wgpu::MemoryHints::Performance,
            ..Default::default()
        };
        let (device, queue) = adapter
            .request_device(&descriptor)
            .await
            .map_err(|error| ExecutorError::NoDevice { adapter: info.adapter.clone(), cause: error.to_string() })?;
        let lost = Arc::new(Mutex::new(None));
        let (on_lost, on_error) = (lost.clone(), lost.clone());
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                note(&on_lost, format!("{reason:?}: {message}"));
            }
        });
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| note(&on_error, error.to_string())));
        let borders = options.borders.unwrap_or(if info.is_software { Borders::Apart } else { Borders::InPlace });
        Ok(Gpu { device, queue, info, limits, options, borders, lost, pipelines: Mutex::default() })
    }

    /// What this is.
    pub fn info(&self) -> &ExecutorInfo {
        &self.info
    }

    /// The device, for a twin that is measured beside the framework.
    pub fn device(&self) -> (&wgpu::Device, &wgpu::Queue) {
        (&self.device, &self.queue)
    }

    /// The largest page of an arena, in bytes.
    pub fn page_bytes_max(&self) -> u64 {
        let limit = self.limits.max_storage_buffer_binding_size.min(self.limits.max_buffer_size) / 4 * 4;
        self.options.page_bytes_max.unwrap_or(limit).min(limit)
    }

    /// Makes a verified workload resident: memory for the tiles that `placement` gives this peer, and pipelines.
    ///
    /// **Errors:** a limit of the adapter (named), no memory, or a kernel that its compiler refuses.
    pub async fn load(&self, bundle: &VerifiedBundle, placement: &Placement) -> Result<GpuRun<'_>, ExecutorError> {
        let program = bundle.program();
        self.check_limits(program).map_err(|kind| ExecutorError::limit(program, &self.info, kind))?;
        let layout = self.layout(program, placement)?;
        GpuRun::new(self, program.clone(), layout).await
    }

    /// Where a program's tiles would lie, without making them resident.
    ///
    /// **Errors:** they do not fit the adapter's pages.
    pub fn layout(&self, program: &Program, placement: &Placement) -> Result<Layout, ExecutorError> {
        Layout::new(program, placement, self.page_bytes_max()).map_err(|cause| ExecutorError::layout(program, &self.info, cause))
    }

    /// Holds a program against the adapter's limits.
    ///
    /// **Errors:** [`ErrorKind::Limit`] with what is needed and the limit's name.
    pub fn check_limits(&self, program: &Program) -> Result<(), ErrorKind> {
        let limits = &self.limits;
        Limits {
            invocations: limits.max_compute_invocations_per_workgroup,
            workgroup: [limits.max_compute_workgroup_size_x, limits.max_compute_workgroup_size_y, limits.max_compute_workgroup_size_z],
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            storage_buffers: limits.max_storage_buffers_per_shader_stage,
            bindings: limits.max_bindings_per_bind_group,
            uniform_bytes: limits.max_uniform_buffer_binding_size,
            has_subgroups: self.device.features().contains(wgpu::Features::SUBGROUP),
        }
        .check(program)
    }

    /// Whether the device went away: then nothing can be computed on it any more.
    pub fn is_lost(&self) -> bool {
        self.lost().is_err()
    }

    fn lost(&self) -> Result<(), ExecutorError> {
        match self.lost.lock() {
            Ok(lost) => lost.as_ref().map_or(Ok(()), |cause| Err(ExecutorError::Lost { cause: cause.clone() })),
            Err(_) => Err(ExecutorError::Lost { cause: "a callback of the driver failed".into() }),
        }
    }

    /// A shader module: the framework's own WGSL is always checked, a bundle's as the options say.
    fn module(&self, label: &str, wgsl: &str, checks: Checks) -> wgpu::ShaderModule {
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(label), source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
        match checks {
            Checks::Checked => self.device.create_shader_module(descriptor),
            #[allow(unsafe_code, clippy::disallowed_methods, reason = "the user answers for a bundle that they ask to run unchecked")]
            // SAFETY: the caller of `Checks::Unchecked` vouches that the kernels stay in bounds and end.
            Checks::Unchecked => unsafe { self.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) },
        }
    }

    /// A pipeline by what it is made of: compiled once, however often its workload is loaded.
    fn cached_pipeline<E>(&self, key: [u8; 32], make: impl FnOnce() -> Result<CachedPipeline, E>) -> Result<CachedPipeline, E> {
        let Ok(mut pipelines) = self.pipelines.lock() else { return make() };
        if let Some(known) = pipelines.get(&key) {
            return Ok(known.clone());
        }
        if pipelines.len() >= PIPELINES_MAX {
            pipelines.clear();
        }
        let made = make()?;
        pipelines.insert(key, made.clone());
        Ok(made)
    }

    /// Forgets every pipeline: after one that the adapter refused.
    fn forget_pipelines(&self) {
        if let Ok(mut pipelines) = self.pipelines.lock() {
            pipelines.clear();
        }
    }

    /// Drives the device until a submission is done.
    #[cfg(not(target_arch = "wasm32"))]
    fn wait(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<(), ExecutorError> {
        let waited = self.device.poll(wgpu::PollType::Wait { submission_index: submission, timeout: None });
        waited.map_err(|error| ExecutorError::Lost { cause: error.to_string() })?;
        self.lost()
    }

    /// Submits commands; what is returned tells when they are done.
    fn submit(&self, commands: wgpu::CommandBuffer) -> Submitted {
        #[cfg(not(target_arch = "wasm32"))]
        return self.queue.submit([commands]);
        #[cfg(target_arch = "wasm32")]
        {
            self.queue.submit([commands]);
            self.submitted()
        }
    }

    /// Tells when all that was submitted so far is done.
    #[cfg(target_arch = "wasm32")]
    fn submitted(&self) -> Submitted {
        let (send, receive) = flume::bounded(1);
        self.queue.on_submitted_work_done(move || {
            // Whoever would wait may have given up.
            let _ = send.send(());
        });
        receive
    }

    /// Waits for all that was submitted up to `submission`.
    async fn done(&self, submission: Option<Submitted>) -> Result<(), ExecutorError> {
        #[cfg(not(target_arch = "wasm32"))]
        return self.wait(submission);
        #[cfg(target_arch = "wasm32")]
        {
            let submitted = submission.unwrap_or_else(|| self.submitted());
            submitted.recv_async().await.map_err(|error| ExecutorError::Lost { cause: error.to_string() })?;
            self.lost()
        }
    }
}

fn note(place: &Mutex<Option<String>>, text: String) {
    if let Ok(mut place) = place.lock() {
        place.get_or_insert(text);
    }
}

async fn adapters() -> Vec<(wgpu::Adapter, ExecutorInfo)> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    let instance = wgpu::Instance::new(descriptor);
    let mut adapters = instance.enumerate_adapters(wgpu::Backends::PRIMARY).await;
    let rank = |adapter: &wgpu::Adapter| match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    };
    adapters.retain(|adapter| adapter.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS));
    adapters.sort_by_key(rank);
    let mut known = Vec::new();
    for adapter in adapters {
        let info = info(&adapter).await;
        known.push((adapter, info));
    }
    known
}

/// A browser has one adapter for us, and says more of it than wgpu passes on.
#[cfg(target_arch = "wasm32")]
async fn info(_: &wgpu::Adapter) -> ExecutorInfo {
    let web::Adapter { name, is_fallback } = web::adapter().await;
    let is_software = is_fallback || ["swiftshader", "llvmpipe", "lavapipe"].iter().any(|software| name.to_lowercase().contains(software));
    ExecutorInfo { executor: "gpu", adapter: name, backend: "WebGPU".into(), is_software }
}

#[cfg(not(target_arch = "wasm32"))]
async fn info(adapter: &wgpu::Adapter) -> ExecutorInfo {
    let info = adapter.get_info();
    ExecutorInfo {
        executor: "gpu",
        adapter: info.name,
        backend: format!("{:?} {} {}", info.backend, info.driver, info.driver_info).trim_end().to_string(),
        is_software: info.device_type == wgpu::DeviceType::Cpu,
    }
}
