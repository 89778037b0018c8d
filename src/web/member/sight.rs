//! A field on a canvas, drawn from the buffers that a member's kernels compute in.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use peercompute_kernels::executor::any::{AnyExecutor, AnyRun};
use peercompute_kernels::executor::gpu::{self, Canvas, Gpu, Painter};
use peercompute_net::membership::PartId;
use wasm_bindgen::prelude::*;

use super::super::told;
use super::{Member, VIEW_PIXELS_MAX};
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
    /// **Errors:** there is no such field, it is no plane of scalars or vectors, or no GPU computes here.
    pub fn sight(&self, canvas: JsValue, buffer: &str, is_relief: bool, pixels_max: u32) -> Result<Sight, JsError> {
        let (number, grid) = self.field(buffer)?;
        let AnyExecutor::Gpu(gpu) = self.executor.inner else {
            return Err(JsError::new("no GPU computes here: what a kernel leaves is in memory"));
        };
        let painter = Painter::new(gpu, self.bundle.program(), number, &palette(), Canvas::format());
        let painter = painter.ok_or_else(|| JsError::new(&format!("`{buffer}` is no plane that a canvas can show, or too large a one")))?;
        let size = painter.pixels(pixels_max.clamp(1, VIEW_PIXELS_MAX));
        let canvas = Canvas::new(gpu, canvas, size).map_err(|cause| JsError::new(&cause))?;
        Ok(Sight { gpu, inner: Rc::new(RefCell::new((canvas, painter))), number, grid, is_relief, stored: Cell::new(None) })
    }

    /// Shows a field as it is between two ticks: own tiles as they are now, others as in the newest snapshot. `low` and `high` are the values of
    /// the darkest and brightest colour.
    ///
    /// **Errors:** this member computes no more, or the device is lost.
    pub async fn paint(&self, sight: &Sight, low: f32, high: f32) -> Result<(), JsError> {
        let over = || JsError::new("this member computes no more");
        self.put_stored(sight);
        let (answer, answered) = flume::bounded(1);
        let inner = sight.inner.clone();
        let seen = gpu::Sight { range: [low, high], is_relief: sight.is_relief };
        let paint = move |run: &mut AnyRun<'_>| {
            let (canvas, painter) = &mut *inner.borrow_mut();
            let painted = match run {
                AnyRun::Gpu(run) => canvas.paint(painter, run, seen),
                AnyRun::Cpu(_) => Ok(()),
            };
            // Whoever asked may have gone.
            let _ = answer.try_send(painted);
        };
        self.looks.send_async(Look::Run(Box::new(paint))).await.map_err(|_| over())?;
        answered.recv_async().await.map_err(|_| over())?.map_err(told)
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
