//! Every test of the suite, by file and function.

/// Gives the list to a macro.
macro_rules! every_test {
    ($with:ident) => {
        $with! {
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
    };
}
