//! Vectors whose length comes from a shape that need not hold as much.

use alloc::vec::Vec;

use crate::CalibError;

/// Makes room for `len` elements in all; an error where memory ends, instead of a panic.
pub(crate) fn reserve<T>(v: &mut Vec<T>, what: &'static str, len: usize) -> Result<(), CalibError> {
    v.try_reserve_exact(len.saturating_sub(v.len()))
        .map_err(|_| CalibError::Memory { what, given: len })
}

/// `len` times the same value.
pub(crate) fn filled<T: Clone>(
    what: &'static str,
    len: usize,
    value: T,
) -> Result<Vec<T>, CalibError> {
    let mut v = Vec::new();
    reserve(&mut v, what, len)?;
    v.resize(len, value);
    Ok(v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_an_error() {
        assert_eq!(filled("channels", 3, 7u8), Ok(alloc::vec![7; 3]));
        for given in [usize::MAX, isize::MAX as usize] {
            let what = "channels";
            assert_eq!(
                filled(what, given, 0u64),
                Err(CalibError::Memory { what, given })
            );
        }
    }
}
