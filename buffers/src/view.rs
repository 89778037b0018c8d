//! A buffer's bytes as Rust values.
//!
//! Invariant: bytes are seen as `T` only after `T` was compared with the WGSL element, field by field.

use std::borrow::Cow;

use crate::layout::{Element, HostElement, LayoutMismatch, check_host};

/// Why bytes cannot be seen as values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The types do not lie in memory alike.
    #[error(transparent)]
    Layout(#[from] LayoutMismatch),
    /// The bytes are not a whole number of elements.
    #[error("{bytes} bytes are not a whole number of elements of {stride} bytes")]
    Length {
        /// Bytes given.
        bytes: usize,
        /// Bytes of an element.
        stride: u32,
    },
}

/// Sees bytes as elements: in place where their address is aligned for `T`, as a copy otherwise.
///
/// **Errors:** [`ViewError`]; a layout mismatch comes with a table of fields and the padding to insert.
pub fn view<'a, T: HostElement>(element: &Element, bytes: &'a [u8]) -> Result<Cow<'a, [T]>, ViewError> {
    check_host::<T>(element)?;
    match bytemuck::try_cast_slice(bytes) {
        Ok(values) => Ok(Cow::Borrowed(values)),
        Err(bytemuck::PodCastError::TargetAlignmentGreaterAndInputNotAligned) if bytes.len().is_multiple_of(element.stride as usize) => {
            Ok(Cow::Owned(bytemuck::pod_collect_to_vec(bytes)))
        }
        Err(_) => Err(ViewError::Length { bytes: bytes.len(), stride: element.stride }),
    }
}

/// The bytes of values, checked the same way.
///
/// **Errors:** [`ViewError::Layout`].
pub fn bytes_of<'a, T: HostElement>(element: &Element, values: &'a [T]) -> Result<&'a [u8], ViewError> {
    check_host::<T>(element)?;
    Ok(bytemuck::cast_slice(values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Scalar;

    #[test]
    fn bytes_are_values_wherever_they_lie() {
        let element = Element::scalar(Scalar::U32);
        let bytes: Vec<u8> = (0..13).collect();
        for start in 0..4 {
            let values = view::<u32>(&element, &bytes[start..start + 8]).unwrap();
            assert_eq!(values[1], u32::from_le_bytes([4, 5, 6, 7].map(|b| b + start as u8)));
            assert_eq!(bytes_of(&element, &values).unwrap(), &bytes[start..start + 8]);
        }
        assert!(matches!(view::<u32>(&element, &bytes[..7]), Err(ViewError::Length { bytes: 7, .. })));
        assert!(matches!(view::<[u32; 2]>(&element, &bytes[..8]), Err(ViewError::Layout(_))));
    }
}
