//! What the page measures: workloads at sizes that it lets people choose.
//!
//! The first size of each case is for tests; the second suits an adapter in software, the third one in hardware.

/// A workload beside its twin, which has the workload's name.
pub(crate) struct Case {
    /// What people call it.
    pub(crate) name: &'static str,
    pub(crate) workload: &'static str,
    /// Extents along every axis.
    pub(crate) sizes: &'static [u32],
    is_square: bool,
    /// What is computed, and compared.
    pub(crate) output: &'static str,
    /// `f32` or `u32`.
    pub(crate) element: &'static str,
    /// The largest difference allowed, relative to values above 1.
    pub(crate) tolerance: f64,
    /// The unit of speed, with its giga.
    pub(crate) unit: &'static str,
    /// The ratio to reach.
    pub(crate) target: Option<f64>,
}

pub(crate) const CASES: [Case; 5] = [
    Case {
        name: "copy",
        workload: "copy",
        sizes: &[256, 1 << 20, 1 << 22, 1 << 24],
        is_square: false,
        output: "result",
        element: "u32",
        tolerance: 0.0,
        unit: "GB/s",
        target: None,
    },
    Case {
        name: "heat",
        workload: "heat",
        sizes: &[64, 1024, 4096, 8192],
        is_square: true,
        output: "temperature",
        element: "f32",
        tolerance: 1e-5,
        unit: "Gcell/s",
        target: Some(0.90),
    },
    Case {
        name: "n-body",
        workload: "nbody",
        sizes: &[256, 8192, 65_536, 262_144],
        is_square: false,
        output: "body",
        element: "f32",
        tolerance: 1e-4,
        unit: "Ginteractions/s",
        target: Some(0.95),
    },
    // No target: the twin adds many values an invocation, which a kernel of one invocation an element does not.
    Case {
        name: "reduce",
        workload: "sum",
        sizes: &[4000, 1 << 20, 1 << 24, 1 << 26],
        is_square: false,
        output: "total",
        element: "f32",
        tolerance: 1e-5,
        unit: "Gvalue/s",
        target: None,
    },
    Case {
        name: "noise",
        workload: "noise",
        sizes: &[64, 1024, 4096, 8192],
        is_square: true,
        output: "height",
        element: "f32",
        tolerance: 1e-5,
        unit: "Gpoint/s",
        target: Some(0.95),
    },
];

impl Case {
    pub(crate) fn shape(&self, size: u32) -> Vec<u32> {
        if self.is_square { vec![size, size] } else { vec![size] }
    }

    pub(crate) fn bundle_name(&self, size: u32) -> String {
        format!("{}-{size}.pcb", self.workload)
    }

    /// Units of work of a tick.
    pub(crate) fn units_per_tick(&self, size: u32) -> f64 {
        let size = f64::from(size);
        match self.workload {
            // Read and written.
            "copy" => 32.0 * size,
            "nbody" => size * size,
            _ if self.is_square => size * size,
            _ => size,
        }
    }

    /// A size in words.
    pub(crate) fn label(&self, size: u32) -> String {
        match self.workload {
            "copy" if size < 1 << 16 => format!("{} KiB", size >> 6),
            "copy" => format!("{} MiB", size >> 16),
            "heat" => format!("{size} x {size} cells"),
            "nbody" => format!("{size} bodies"),
            "noise" => format!("{size} x {size} points"),
            _ => format!("{size} values"),
        }
    }
}
