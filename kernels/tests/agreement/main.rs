//! WGSL on every executor: what machine code, the interpreter and a GPU make of one text, held against each other and,
//! where it is known, against plain Rust.
//!
//! ```text
//! arithmetic matrices functions memory control workgroups    a corpus by hand, one `check` for each part of the language
//! subgroups                                                  against plain Rust
//! generated                                                  texts at random
//! refused                                                    what must end in a typed error, soon
//! ```
//!
//! Invariant: machine code and interpreter agree on every bit of what does not depend on the order in which invocations
//! reach an atomic, which WGSL leaves open; a GPU on every integer, and on floats as far as WGSL says ("Floating Point
//! Accuracy").
#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

mod arithmetic;
mod cases;
mod control;
mod functions;
mod generated;
mod machines;
mod matrices;
mod memory;
mod refused;
mod subgroups;
mod workgroups;
