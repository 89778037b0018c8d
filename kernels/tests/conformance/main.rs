//! One suite for every executor: against the oracles and against itself, whatever the shape, the tiles,
//! the pages, the borders and the number of peers, the bits are the same.
//!
//! A test is a function of an [`executors::Kind`]; the list below makes one of each for every kind, as
//! `gpu::…`, `cpu::…` and `interpreted::…`. What only one executor has, and what holds between them, is in `together`.
#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

mod executors;
mod features;
mod limits;
mod oracle;
mod together;
mod workloads;

macro_rules! suite {
    ($($file:ident :: $test:ident),* $(,)?) => {
        mod gpu {
            $(#[test] fn $test() { crate::$file::$test(crate::executors::Kind::Gpu) })*
        }
        mod cpu {
            $(#[test] fn $test() { crate::$file::$test(crate::executors::Kind::Cpu) })*
        }
        mod interpreted {
            $(#[test] fn $test() { crate::$file::$test(crate::executors::Kind::Interpreted) })*
        }
    };
}

suite! {
    workloads::results_are_the_oracles,
    workloads::the_partition_changes_no_bit,
    workloads::tiles_pages_and_borders_change_no_bit,
    features::cells_and_bodies_on_grids_of_their_own,
    features::fields_of_one_grid_with_boundaries_of_their_own,
    features::what_a_pass_does_not_write_keeps_its_value,
    features::reductions_of_vectors_and_signed_integers,
    features::whole_reads_find_points_in_two_dimensions,
    features::whole_reads_see_the_grid_and_no_more,
    features::workgroups_wider_than_the_grid_count_no_element_twice,
    limits::what_does_not_fit_is_named,
}
