//! `Sub`, with broadcasting.

use super::broadcast::{Arithmetic, Number, Rule};
use super::{Operator, Spec};
use crate::ModelError;

struct Difference;

impl Rule for Difference {
    #[inline]
    fn apply<T: Number>(a: T, b: T) -> T {
        a.sub(b)
    }
}

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    Arithmetic::<Difference>::build(spec)
}
