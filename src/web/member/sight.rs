//! A field on a canvas, drawn from the buffers that a member's kernels compute in.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use js_sys::Object;
use peercompute_kernels::executor::any::{AnyExecutor, AnyRun};
use peercompute_kernels::executor::gpu::{self, Canvas, Gpu, GpuRun, Painter};
use peercompute_net::membership::PartId;
use wasm_bindgen::prelude::*;

use super::super::fault::Fault;
use super::{Member, VIEW_PIXELS_MAX, object};
use crate::node::member::Look;
use crate::node::parts::piece;
use crate::view::palette;

/// A canvas that shows a field. It outlives the member that it was made for: another of the same run, and on the same executor, may paint on it.
#[wasm_bindgen]
pub struct Sight {
    gpu: &'static Gpu,
    inner: Rc<RefCell<(Canvas, Painter)>>,
    number: usize,
    grid: usize,
    is_relief: bool,
    /// The tick of the snapshot that others' tiles are of.
    stored: Cell<Option<u64>>,
}

#[wasm_bindgen]
impl Member {
    /// Makes a canvas ready to show a field on, straight from the GPU's buffers; `canvas` is an `OffscreenCanvas`, and keeps to the
    /// executor for ever. Its longer side gets at most `pixels_max` pixels. A relief is lit as if its values were heights.
    ///
    /// **Errors:** there is no such field, it cannot be seen, or no GPU computes here.
    pub fn sight(&self, canvas: JsValue, buffer: &str, is_relief: bool, pixels_max: u32) -> Result<Sight, Fault> {
        let (number, grid) = self.field(buffer)?;
        let AnyExecutor::Gpu(gpu) = self.executor.inner else {
            return Err(Fault::new("executor", "no GPU computes here: what a kernel leaves is in memory"));
        };
        let painter = Painter::new(gpu, self.bundle.program(), number, &palette(), Canvas::format());
        let painter = painter.ok_or_else(|| Fault::new("executor", format!("`{buffer}` is nothing that a canvas can show, or too large")))?;
        let size = painter.pixels(pixels_max.clamp(1, VIEW_PIXELS_MAX));
        let canvas = Canvas::new(gpu, canvas, size).map_err(|cause| Fault::new("executor", cause))?;
        Ok(Sight { gpu, inner: Rc::new(RefCell::new((canvas, painter))), number, grid, is_relief, stored: Cell::new(None) })
    }

    /// Shows a field as it is between two ticks: own tiles as they are now, others as in the newest snapshot.
    ///
    /// **Errors:** this member computes no more, or the device is lost.
    pub async fn paint(&self, sight: &Sight) -> Result<(), Fault> {
        self.put_stored(sight);
        let inner = sight.inner.clone();
        let seen = gpu::Sight { is_relief: sight.is_relief };
        let painted = self.on_gpu(move |run| {
            let (canvas, painter) = &mut *inner.borrow_mut();
            canvas.paint(painter, run, seen)
        });
        Ok(painted.await?.unwrap_or(Ok(()))?)
    }

    /// What the darkest and the brightest colour of the latest picture stand for: `low` and `high`, or nothing of points and where there is no value.
    ///
    /// **Errors:** this member computes no more, or the device is lost.
    pub async fn range(&self, sight: &Sight) -> Result<Object, Fault> {
        let inner = sight.inner.clone();
        let reading = self.on_gpu(move |run| inner.borrow().1.range(run)).await?;
        let range = match reading.transpose()? {
            Some(reading) => reading.get(sight.gpu).await?,
            None => None,
        };
        Ok(range.map_or_else(Object::new, |[low, high]| object(&[("low", low.into()), ("high", high.into())])))
    }
}

impl Member {
    /// Does something with the run between two ticks; nothing, where the cpu computes.
    async fn on_gpu<T: 'static>(&self, work: impl FnOnce(&mut GpuRun<'_>) -> T + 'static) -> Result<Option<T>, Fault> {
        let (answer, answered) = flume::bounded(1);
        let work = move |run: &mut AnyRun<'_>| {
            let done = match run {
                AnyRun::Gpu(run) => Some(work(run)),
                AnyRun::Cpu(_) => None,
            };
            // Whoever asked may have gone.
            let _ = answer.try_send(done);
        };
        self.looks.send_async(Look::Run(Box::new(work))).await.map_err(|_| Fault::over())?;
        answered.recv_async().await.map_err(|_| Fault::over())
    }
}

impl Member {
    /// Gives a sight what others compute, where a newer snapshot is there than it has.
    fn put_stored(&self, sight: &Sight) {
        let state = self.state.borrow();
        let Some((tick, parts)) = state.stored.as_ref().filter(|(tick, _)| sight.stored.get() != Some(*tick)) else { return };
        sight.stored.set(Some(*tick));
        let program = self.bundle.program();
        let (_, painter) = &mut *sight.inner.borrow_mut();
        for (part, content) in (0..).map(PartId).zip(parts).filter(|(part, _)| state.owned.binary_search(&part.0).is_err()) {
            if let Some((grid, tile)) = self.parts.tile_of(part)
                && grid == sight.grid
                && let Some(bytes) = piece(program, &self.parts, part, content, sight.number)
            {
                painter.put(sight.gpu, tile, &bytes);
            }
        }
    }
}
