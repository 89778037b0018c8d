//! A field on the screen, straight from the pages where kernels leave it: no byte of it comes back to the CPU.
//!
//! ```text
//! own tiles:  pages ─ copied on the device ─┐
//! others':    put(tile, bytes) ─────────────┴► one buffer, tile by tile ─ field.wgsl ─► a texture, or a canvas
//! ```
//!
//! Invariant: what is shown of own tiles is one and the same tick; of tiles that were never there nothing is shown.

use peercompute_buffers::layout::{ElementKind, Scalar};
use peercompute_buffers::transfer::tile_bytes;
use peercompute_buffers::{Grid, TileId};

use super::tables::layout_entry;
use super::{Checks, Gpu, GpuRun};
use crate::executor::ExecutorError;
use crate::program::Program;

const FIELD_WGSL: &str = include_str!("../../../../shaders/framework/field.wgsl");
/// Colours from low to high: red, green, blue, alpha.
pub type Palette = [[u8; 4]; 256];

/// As the shader's `Field`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct FieldUniform {
    shape: [u32; 4],
    tile: [u32; 4],
    tiles: [u32; 4],
    look: [u32; 4],
    range: [f32; 4],
}

/// How a field is looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sight {
    /// The values of the darkest and the brightest colour.
    pub range: [f32; 2],
    /// Whether it is lit as a landscape whose heights the values are.
    pub is_relief: bool,
}

/// Shows one field of a program.
pub struct Painter {
    buffer: usize,
    grid: Grid,
    stride: u32,
    scalar: Scalar,
    /// Every tile, at a multiple of a whole one's bytes.
    content: wgpu::Buffer,
    tile_bytes: u64,
    known: wgpu::Buffer,
    is_known: Vec<bool>,
    uniform: wgpu::Buffer,
    bindings: wgpu::BindGroup,
    pipeline: wgpu::RenderPipeline,
}

impl Painter {
    /// A painter for targets of one format; `None` if the buffer is no field with two axes or more of scalars or vectors, or is larger
    /// than the adapter binds.
    pub fn new(gpu: &Gpu, program: &Program, buffer: usize, palette: &Palette, format: wgpu::TextureFormat) -> Option<Painter> {
        let grid = program.grid_of(buffer)?;
        let element = &program.elements[buffer];
        let first = match &element.kind {
            ElementKind::Struct(fields) => &fields.first()?.element.kind,
            kind => kind,
        };
        let scalar = match *first {
            ElementKind::Scalar(scalar) | ElementKind::Vector(scalar, _) if grid.dims > 1 => scalar,
            _ => return None,
        };
        let tile_bytes = grid.tile.iter().map(|axis| u64::from(*axis)).product::<u64>() * u64::from(element.stride);
        let bytes = tile_bytes * u64::from(grid.tile_count());
        if bytes > gpu.limits.max_storage_buffer_binding_size || bytes > gpu.limits.max_buffer_size {
            return None;
        }
        let make = |label, size: u64, usage| {
            let usage = usage | wgpu::BufferUsages::COPY_DST;
            gpu.device.create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
        };
        let content = make("shown field", bytes, wgpu::BufferUsages::STORAGE);
        let known = make("shown tiles", u64::from(grid.tile_count()) * 4, wgpu::BufferUsages::STORAGE);
        let colours = make("palette", size_of::<Palette>() as u64, wgpu::BufferUsages::STORAGE);
        gpu.queue.write_buffer(&colours, 0, palette.as_flattened());
        let uniform = make("sight", size_of::<FieldUniform>() as u64, wgpu::BufferUsages::UNIFORM);
        let (pipeline, layout) = pipeline(gpu, format);
        let entries: Vec<_> = [&uniform, &content, &known, &colours]
            .iter()
            .zip(0..)
            .map(|(buffer, binding)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let bindings = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor { label: Some("field"), layout: &layout, entries: &entries });
        let is_known = vec![false; grid.tile_count() as usize];
        Some(Painter { buffer, grid, stride: element.stride, scalar, content, tile_bytes, known, is_known, uniform, bindings, pipeline })
    }

    /// Pixels along x and y of a picture whose longer side has at most so many: every so many-th point is one.
    pub fn pixels(&self, side_max: u32) -> [u32; 2] {
        let [x, y, _] = self.grid.shape;
        let step = x.max(y).div_ceil(side_max.max(1));
        [x.div_ceil(step), y.div_ceil(step)]
    }

    /// Takes a tile in that another peer computes: its elements, row by row. Bytes of another length are passed over.
    pub fn put(&mut self, gpu: &Gpu, tile: TileId, bytes: &[u8]) {
        if tile.0 < self.grid.tile_count() && bytes.len() == tile_bytes(&self.grid, tile, self.stride as usize) {
            gpu.queue.write_buffer(&self.content, u64::from(tile.0) * self.tile_bytes, bytes);
            self.is_known[tile.0 as usize] = true;
        }
    }

    /// Paints what the run has come to, and what was put in beside it. `size` is the target's in pixels.
    ///
    /// **Errors:** the device is lost.
    pub fn paint(&mut self, run: &mut GpuRun<'_>, target: &wgpu::TextureView, size: [u32; 2], sight: Sight) -> Result<(), ExecutorError> {
        for tile in run.copy_tiles(self.buffer, &self.content, self.tile_bytes) {
            self.is_known[tile.0 as usize] = true;
        }
        let known: Vec<u32> = self.is_known.iter().map(|known| u32::from(*known)).collect();
        let [x, y, z] = self.grid.shape;
        let tiles = [0, 1, 2].map(|axis| self.grid.shape[axis].div_ceil(self.grid.tile[axis]));
        let uniform = FieldUniform {
            shape: [x, y, z, z / 2],
            tile: [self.grid.tile[0], self.grid.tile[1], self.grid.tile[2], self.stride / 4],
            tiles: [tiles[0], tiles[1], tiles[2], (self.tile_bytes / 4) as u32],
            look: [self.scalar as u32, u32::from(sight.is_relief), 0, 0],
            range: [sight.range[0], sight.range[1], size[0] as f32, size[1] as f32],
        };
        let gpu = run.gpu();
        gpu.queue.write_buffer(&self.known, 0, bytemuck::cast_slice(&known));
        gpu.queue.write_buffer(&self.uniform, 0, bytemuck::bytes_of(&uniform));
        run.render(target, &self.pipeline, &self.bindings)
    }

    /// A picture as bytes: red, green, blue, alpha, row by row.
    ///
    /// **Errors:** the device is lost.
    pub async fn picture(&mut self, run: &mut GpuRun<'_>, size: [u32; 2], sight: Sight) -> Result<Vec<u8>, ExecutorError> {
        let extent = wgpu::Extent3d { width: size[0], height: size[1], depth_or_array_layers: 1 };
        let texture = run.gpu().device.create_texture(&wgpu::TextureDescriptor {
            label: Some("picture"),
            size: extent,
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: wgpu::TextureFormat::Rgba8Unorm,
            usage: wgpu::TextureUsages::RENDER_ATTACHMENT | wgpu::TextureUsages::COPY_SRC,
            view_formats: &[],
        });
        self.paint(run, &texture.create_view(&Default::default()), size, sight)?;
        run.read_texture(&texture, size).await
    }
}

fn pipeline(gpu: &Gpu, format: wgpu::TextureFormat) -> (wgpu::RenderPipeline, wgpu::BindGroupLayout) {
    let storage = |binding| {
        let entry = layout_entry(binding, wgpu::BufferBindingType::Storage { read_only: true });
        wgpu::BindGroupLayoutEntry { visibility: wgpu::ShaderStages::FRAGMENT, ..entry }
    };
    let uniform = layout_entry(0, wgpu::BufferBindingType::Uniform);
    let uniform = wgpu::BindGroupLayoutEntry { visibility: wgpu::ShaderStages::FRAGMENT, ..uniform };
    let entries = [uniform, storage(1), storage(2), storage(3)];
    let layout = gpu.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some("field"), entries: &entries });
    let pipeline_layout = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some("field"),
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let module = gpu.module("field", FIELD_WGSL, Checks::Checked);
    let pipeline = gpu.device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
        label: Some("field"),
        layout: Some(&pipeline_layout),
        vertex: wgpu::VertexState { module: &module, entry_point: Some("corner"), compilation_options: Default::default(), buffers: &[] },
        primitive: Default::default(),
        depth_stencil: None,
        multisample: Default::default(),
        fragment: Some(wgpu::FragmentState {
            module: &module,
            entry_point: Some("colour"),
            compilation_options: Default::default(),
            targets: &[Some(format.into())],
        }),
        multiview_mask: None,
        cache: None,
    });
    (pipeline, layout)
}

/// A canvas of a browser that a worker draws on.
#[cfg(target_arch = "wasm32")]
pub struct Canvas {
    surface: wgpu::Surface<'static>,
    size: [u32; 2],
}

#[cfg(target_arch = "wasm32")]
impl Canvas {
    /// What this browser shows without converting it first.
    pub fn format() -> wgpu::TextureFormat {
        super::web::canvas_format()
    }

    /// Takes an `OffscreenCanvas`, and gives it so many pixels.
    ///
    /// **Errors:** it is none, or has been given to something else.
    pub fn new(gpu: &Gpu, canvas: wasm_bindgen::JsValue, size: [u32; 2]) -> Result<Canvas, String> {
        use wasm_bindgen::JsCast;
        let canvas: wgpu::web_sys::OffscreenCanvas = canvas.dyn_into().map_err(|_| "not an OffscreenCanvas".to_owned())?;
        canvas.set_width(size[0]);
        canvas.set_height(size[1]);
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = wgpu::Backends::BROWSER_WEBGPU;
        let target = wgpu::SurfaceTarget::OffscreenCanvas(canvas);
        let surface = wgpu::Instance::new(descriptor).create_surface(target).map_err(|error| error.to_string())?;
        surface.configure(
            &gpu.device,
            &wgpu::SurfaceConfiguration {
                usage: wgpu::TextureUsages::RENDER_ATTACHMENT,
                format: Canvas::format(),
                width: size[0],
                height: size[1],
                present_mode: wgpu::PresentMode::Fifo,
                desired_maximum_frame_latency: 2,
                alpha_mode: wgpu::CompositeAlphaMode::PreMultiplied,
                view_formats: Vec::new(),
            },
        );
        Ok(Canvas { surface, size })
    }

    /// Paints the next frame. What the browser does not want to show now is not painted.
    ///
    /// **Errors:** the device is lost.
    pub fn paint(&mut self, painter: &mut Painter, run: &mut GpuRun<'_>, sight: Sight) -> Result<(), ExecutorError> {
        let (wgpu::CurrentSurfaceTexture::Success(frame) | wgpu::CurrentSurfaceTexture::Suboptimal(frame)) = self.surface.get_current_texture()
        else {
            return Ok(());
        };
        painter.paint(run, &frame.texture.create_view(&Default::default()), self.size, sight)?;
        frame.present();
        Ok(())
    }
}
