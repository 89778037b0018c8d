//! The workloads that executors are compared by: memory, arithmetic, integers, and a tree with barriers.

use peercompute_kernels::VerifiedBundle;

use crate::BenchError;
use crate::kernels::load;
use crate::twin::cpu::{CpuTwin, HeatCpuTwin, NbodyCpuTwin, NoiseCpuTwin, SumCpuTwin};

/// A workload and its twin.
pub(crate) struct Case {
    /// What it is, and how large.
    pub(crate) name: String,
    workload: &'static str,
    shape: Vec<u32>,
    pub(crate) twin: Box<dyn CpuTwin>,
    /// What is compared.
    pub(crate) output: Output,
    /// The largest difference allowed, relative to values above 1.
    pub(crate) tolerance: f32,
    /// The unit of speed, and how much of it, without the giga, a tick is.
    pub(crate) unit: &'static str,
    pub(crate) units_per_tick: f64,
    pub(crate) targets: Targets,
}

/// Where a workload keeps what it computes.
pub(crate) enum Output {
    Field(&'static str),
    Table(&'static str),
}

impl Output {
    /// The buffer.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Output::Field(name) | Output::Table(name) => name,
        }
    }
}

/// The ratios that the cpu executor is to reach.
#[derive(Clone, Copy)]
pub(crate) struct Targets {
    /// Over an adapter in software.
    pub(crate) adapter: f64,
    /// Over hand-written Rust.
    pub(crate) rust: f64,
}

impl Case {
    /// The workload, signed, with the tile that it declares.
    pub(crate) fn bundle(&self) -> Result<VerifiedBundle, BenchError> {
        load(self.workload, &self.shape, &[])
    }
}

/// All cases; `bodies` is the number of bodies, if not the usual one.
pub(crate) fn all(is_tiny: bool, bodies: Option<u32>) -> Vec<Case> {
    let size = |tiny: u32, full: u32| if is_tiny { tiny } else { full };
    vec![
        heat(size(64, 4096)),
        nbody(bodies.unwrap_or(size(256, 8192))),
        noise(size(64, 2048)),
        // In the tiny case the last workgroup is not full.
        sum(size(4000, 1 << 24)),
    ]
}

fn heat(side: u32) -> Case {
    Case {
        name: format!("heat, {side} x {side} cells"),
        workload: "heat",
        shape: vec![side, side],
        twin: Box::new(HeatCpuTwin::new(side)),
        output: Output::Field("temperature"),
        tolerance: 1e-5,
        unit: "Gcell/s",
        units_per_tick: f64::from(side) * f64::from(side),
        targets: Targets { adapter: 6.0, rust: 0.38 },
    }
}

fn nbody(bodies: u32) -> Case {
    Case {
        name: format!("nbody, {bodies} bodies"),
        workload: "nbody",
        shape: vec![bodies],
        twin: Box::new(NbodyCpuTwin::new(bodies)),
        output: Output::Field("body"),
        tolerance: 1e-4,
        unit: "Ginteractions/s",
        units_per_tick: f64::from(bodies) * f64::from(bodies),
        targets: Targets { adapter: 4.0, rust: 0.20 },
    }
}

fn noise(side: u32) -> Case {
    Case {
        name: format!("noise, {side} x {side} points"),
        workload: "noise",
        shape: vec![side, side],
        twin: Box::new(NoiseCpuTwin::new(side)),
        output: Output::Field("height"),
        tolerance: 1e-5,
        unit: "Gpoint/s",
        units_per_tick: f64::from(side) * f64::from(side),
        targets: Targets { adapter: 1.2, rust: 0.24 },
    }
}

fn sum(values: u32) -> Case {
    Case {
        name: format!("sum, {values} values"),
        workload: "sum",
        shape: vec![values],
        twin: Box::new(SumCpuTwin::new(values)),
        output: Output::Table("total"),
        tolerance: 1e-5,
        unit: "Gvalue/s",
        units_per_tick: f64::from(values),
        targets: Targets { adapter: 6.0, rust: 0.12 },
    }
}
