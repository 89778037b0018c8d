//! What can be said of how lanes differ, and what holds of either of two.

/// How the lanes of a value differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The same in all lanes of the workgroup.
    Uniform,
    /// Within a row, the word grows by this from lane to lane, wrapping; 0 is the same in each row.
    Row(i32),
    /// A [`Shape::Row`] wherever the index that it is made of is within its count in all lanes of the row.
    Checked(i32),
    /// Anything.
    Varying,
}

impl Shape {
    pub(super) fn step(self) -> i32 {
        if let Shape::Row(step) = self { step } else { 0 }
    }

    /// What is left of it when an operator does anything to each lane.
    pub(super) fn as_operand(self) -> Shape {
        match self {
            Shape::Uniform | Shape::Row(0) => self,
            _ => Shape::Varying,
        }
    }
}

/// What holds of a value that is either of two.
pub(super) fn join(a: Shape, b: Shape) -> Shape {
    match (a, b) {
        _ if a == b => a,
        (Shape::Uniform, Shape::Row(0)) | (Shape::Row(0), Shape::Uniform) => Shape::Row(0),
        _ => Shape::Varying,
    }
}
