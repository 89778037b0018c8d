//! One suite for every executor: against the oracles and against itself, whatever the shape, the tiles,
//! the pages, the borders and the number of peers, the bits are the same.
//!
//! A test is a function of a [`cases::Kind`]; the list below makes one of each for every kind, as
//! `gpu::…`, `cpu::…` and `interpreted::…`. What only one executor has, and what holds between them, is in `together`.
//! `tests/conformance` of the package runs the same functions in a browser.
#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

#[macro_use]
mod list;

mod cases;
mod executors;
mod features;
mod limits;
mod oracle;
mod together;
mod workloads;

macro_rules! suite {
    ($($file:ident :: $test:ident),* $(,)?) => {
        mod gpu {
            $(#[test] fn $test() { crate::$file::$test(crate::cases::Kind::Gpu) })*
        }
        mod cpu {
            $(#[test] fn $test() { crate::$file::$test(crate::cases::Kind::Cpu) })*
        }
        mod interpreted {
            $(#[test] fn $test() { crate::$file::$test(crate::cases::Kind::Interpreted) })*
        }
    };
}

every_test!(suite);
