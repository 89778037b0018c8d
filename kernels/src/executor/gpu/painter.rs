//! A field on the screen, straight from the pages where kernels leave it: no byte of it comes back to the CPU.
//!
//! ```text
//! own tiles:  pages ─ copied on the device ─┐                              ┌► found: the range, or the window
//! others':    put(tile, bytes) ─────────────┴► one buffer, tile by tile ───┴► field.wgsl │ points.wgsl ─► a texture, or a canvas
//! ```
//!
//! A plane is coloured between the least and the greatest value that is there; points are seen through a window that follows them.
//! Invariant: what is shown of own tiles is one and the same tick; of tiles that were never there nothing is shown.

use peercompute_buffers::layout::Scalar;
use peercompute_buffers::transfer::tile_bytes;
use peercompute_buffers::{Grid, TileId};

use super::run::Mapping;
use super::tables::layout_entry;
use super::{Checks, Gpu, GpuRun};
use crate::executor::ExecutorError;
use crate::look::Look;
use crate::program::Program;

const FIELD_WGSL: &str = include_str!("../../../../shaders/framework/field.wgsl");
const POINTS_WGSL: &str = include_str!("../../../../shaders/framework/points.wgsl");
/// Invocations of a workgroup of `spread` in field.wgsl, along x and y.
const SPREAD: u32 = 16;
/// Bytes of what `spread` finds.
const FOUND_BYTES: u64 = 16;
/// Ranks of no value at all: the least is the greatest there is, and the other way round.
const NONE_FOUND: [u32; 2] = [u32::MAX, 0];
/// Behind points. **Units**: red, green, blue, alpha, 0 to 1.
const NIGHT: wgpu::Color = wgpu::Color { r: 0.03, g: 0.04, b: 0.08, a: 1.0 };

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
    pixels: [f32; 4],
}

/// As the shader's `Points`, and as long as a `FieldUniform`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct PointsUniform {
    shape: [u32; 4],
    pixels: [f32; 4],
    unused: [u32; 12],
}

/// How a field is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Whether a plane is lit as a landscape whose heights the values are.
    pub is_relief: bool,
}

/// Shows one field of a program.
pub struct Painter {
    buffer: usize,
    grid: Grid,
    stride: u32,
    look: Look,
    /// Every tile, at a multiple of a whole one's bytes.
    content: wgpu::Buffer,
    tile_bytes: u64,
    known: wgpu::Buffer,
    is_known: Vec<bool>,
    uniform: wgpu::Buffer,
    found: wgpu::Buffer,
    spread: (wgpu::ComputePipeline, wgpu::BindGroup),
    picture: (wgpu::RenderPipeline, wgpu::BindGroup),
}

impl Painter {
    /// A painter for targets of one format; `None` if the buffer is no field that can be seen, or is larger than the adapter binds.
    pub fn new(gpu: &Gpu, program: &Program, buffer: usize, palette: &Palette, format: wgpu::TextureFormat) -> Option<Painter> {
        let grid = program.grid_of(buffer)?;
        let element = &program.elements[buffer];
        let look = Look::of(&grid, element)?;
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
        let found = make("found", FOUND_BYTES, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC);
        let uniform = make("sight", size_of::<FieldUniform>() as u64, wgpu::BufferUsages::UNIFORM);
        let buffers = [&uniform, &content, &known, &colours, &found, &found];
        let Pipelines { spread, picture } = pipelines(gpu, look, format);
        let group = |layout: &wgpu::BindGroupLayout, bindings: &[u32]| {
            let entry = |binding: &u32| wgpu::BindGroupEntry { binding: *binding, resource: buffers[*binding as usize].as_entire_binding() };
            let entries: Vec<_> = bindings.iter().map(entry).collect();
            gpu.device.create_bind_group(&wgpu::BindGroupDescriptor { label: Some("field"), layout, entries: &entries })
        };
        let spread = (spread.0, group(&spread.1, &SPREAD_BINDINGS));
        let picture = (picture.0, group(&picture.1, &PICTURE_BINDINGS));
        let is_known = vec![false; grid.tile_count() as usize];
        Some(Painter { buffer, grid, stride: element.stride, look, content, tile_bytes, known, is_known, uniform, found, spread, picture })
    }

    /// Pixels along x and y of a picture whose longer side has at most so many: of a plane every so many-th point is one, points are
    /// seen in a square.
    pub fn pixels(&self, side_max: u32) -> [u32; 2] {
        let side_max = side_max.max(1);
        let [x, y, _] = self.grid.shape;
        match self.look {
            Look::Plane(_) => {
                let step = x.max(y).div_ceil(side_max);
                [x.div_ceil(step), y.div_ceil(step)]
            }
            Look::Points => [side_max; 2],
        }
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
        let (gpu, [x, y, z]) = (run.gpu(), self.grid.shape);
        gpu.queue.write_buffer(&self.known, 0, bytemuck::cast_slice(&known));
        match self.look {
            Look::Plane(scalar) => {
                gpu.queue.write_buffer(&self.uniform, 0, bytemuck::bytes_of(&self.plane(scalar, size, sight)));
                gpu.queue.write_buffer(&self.found, 0, bytemuck::bytes_of(&NONE_FOUND));
                run.dispatch(&self.spread.0, &self.spread.1, [x.div_ceil(SPREAD), y.div_ceil(SPREAD)]);
                run.render(target, &self.picture.0, &self.picture.1, (3, 1), wgpu::Color::TRANSPARENT)
            }
            Look::Points => {
                let count = x * y * z;
                gpu.queue.write_buffer(&self.uniform, 0, bytemuck::bytes_of(&self.points(count, size)));
                run.dispatch(&self.spread.0, &self.spread.1, [1, 1]);
                run.render(target, &self.picture.0, &self.picture.1, (6, count), NIGHT)
            }
        }
    }

    fn plane(&self, scalar: Scalar, size: [u32; 2], sight: Sight) -> FieldUniform {
        let [x, y, z] = self.grid.shape;
        let tiles = [0, 1, 2].map(|axis| self.grid.shape[axis].div_ceil(self.grid.tile[axis]));
        FieldUniform {
            shape: [x, y, z, z / 2],
            tile: [self.grid.tile[0], self.grid.tile[1], self.grid.tile[2], self.stride / 4],
            tiles: [tiles[0], tiles[1], tiles[2], (self.tile_bytes / 4) as u32],
            look: [scalar as u32, u32::from(sight.is_relief), 0, 0],
            pixels: [size[0] as f32, size[1] as f32, 0.0, 0.0],
        }
    }

    /// The more points there are to a pixel, the smaller and the fainter each is.
    fn points(&self, count: u32, size: [u32; 2]) -> PointsUniform {
        let pixels = size[0] as f32 * size[1] as f32;
        let apart = (pixels / count.max(1) as f32).sqrt();
        PointsUniform {
            shape: [count, self.grid.tile.iter().product(), self.stride / 4, (self.tile_bytes / 4) as u32],
            pixels: [size[0] as f32, size[1] as f32, (apart * 0.2).clamp(1.2, 6.0), (apart * 0.04).clamp(0.02, 0.9)],
            unused: [0; 12],
        }
    }

    /// Begins to read what the darkest and the brightest colour of the latest picture stand for.
    ///
    /// **Errors:** the device is lost.
    pub fn range(&self, run: &mut GpuRun<'_>) -> Result<RangeReading, ExecutorError> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let descriptor = wgpu::BufferDescriptor { label: Some("range"), size: FOUND_BYTES, usage, mapped_at_creation: false };
        let staging = run.gpu().device.create_buffer(&descriptor);
        run.copy(&self.found, &staging, FOUND_BYTES)?;
        let mapping = Mapping::begin(&staging, FOUND_BYTES);
        Ok(RangeReading { staging, mapping, look: self.look })
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

/// A range on its way back.
pub struct RangeReading {
    staging: wgpu::Buffer,
    mapping: Mapping,
    look: Look,
}

impl RangeReading {
    /// The values of the darkest and the brightest colour; `None` where there is no value at all, and of points.
    ///
    /// **Errors:** the device is lost.
    pub async fn get(self, gpu: &Gpu) -> Result<Option<[f32; 2]>, ExecutorError> {
        #[cfg(not(target_arch = "wasm32"))]
        gpu.wait(None)?;
        self.mapping.done(gpu).await?;
        let mut ranks = NONE_FOUND;
        Mapping::end(&self.staging, FOUND_BYTES, &mut |bytes| ranks.copy_from_slice(&bytemuck::pod_collect_to_vec::<u8, u32>(bytes)[..2]));
        Ok((self.look != Look::Points && ranks[0] <= ranks[1]).then(|| ranks.map(value_of)))
    }
}

/// As field.wgsl ranks floats.
fn value_of(rank: u32) -> f32 {
    f32::from_bits(if rank >> 31 == 1 { rank & 0x7fff_ffff } else { !rank })
}

/// What each entry point of the shaders uses, by binding.
const SPREAD_BINDINGS: [u32; 4] = [0, 1, 2, 4];
const PICTURE_BINDINGS: [u32; 5] = [0, 1, 2, 3, 5];

struct Pipelines {
    spread: (wgpu::ComputePipeline, wgpu::BindGroupLayout),
    picture: (wgpu::RenderPipeline, wgpu::BindGroupLayout),
}

fn pipelines(gpu: &Gpu, look: Look, format: wgpu::TextureFormat) -> Pipelines {
    let layout = |bindings: &[u32], visibility| {
        let entry = |binding: &u32| {
            let ty = match binding {
                0 => wgpu::BufferBindingType::Uniform,
                binding => wgpu::BufferBindingType::Storage { read_only: *binding != 4 },
            };
            wgpu::BindGroupLayoutEntry { visibility, ..layout_entry(*binding, ty) }
        };
        let entries: Vec<_> = bindings.iter().map(entry).collect();
        gpu.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some("field"), entries: &entries })
    };
    let around = |layout: &wgpu::BindGroupLayout| {
        let layouts = [Some(layout)];
        let descriptor = wgpu::PipelineLayoutDescriptor { label: Some("field"), bind_group_layouts: &layouts, immediate_size: 0 };
        gpu.device.create_pipeline_layout(&descriptor)
    };
    let (wgsl, blend) = match look {
        Look::Plane(_) => (FIELD_WGSL, None),
        Look::Points => {
            let added =
                wgpu::BlendComponent { src_factor: wgpu::BlendFactor::One, dst_factor: wgpu::BlendFactor::One, operation: wgpu::BlendOperation::Add };
            (POINTS_WGSL, Some(wgpu::BlendState { color: added, alpha: added }))
        }
    };
    let module = gpu.module("field", wgsl, Checks::Checked);
    let spread = layout(&SPREAD_BINDINGS, wgpu::ShaderStages::COMPUTE);
    let picture = layout(&PICTURE_BINDINGS, wgpu::ShaderStages::VERTEX_FRAGMENT);
    let spread_pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some("spread"),
        layout: Some(&around(&spread)),
        module: &module,
        entry_point: Some("spread"),
        compilation_options: Default::default(),
        cache: None,
    });
    let target = wgpu::ColorTargetState { format, blend, write_mask: wgpu::ColorWrites::ALL };
    let picture_pipeline = gpu.device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
        label: Some("field"),
        layout: Some(&around(&picture)),
        vertex: wgpu::VertexState { module: &module, entry_point: Some("corner"), compilation_options: Default::default(), buffers: &[] },
        primitive: Default::default(),
        depth_stencil: None,
        multisample: Default::default(),
        fragment: Some(wgpu::FragmentState {
            module: &module,
            entry_point: Some("colour"),
            compilation_options: Default::default(),
            targets: &[Some(target)],
        }),
        multiview_mask: None,
        cache: None,
    });
    Pipelines { spread: (spread_pipeline, spread), picture: (picture_pipeline, picture) }
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
