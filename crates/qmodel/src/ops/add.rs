//! `Add`, with broadcasting.

use super::broadcast::{Arithmetic, Number, Rule};
use super::{Operator, Spec};
use crate::ModelError;

struct Sum;

impl Rule for Sum {
    #[inline]
    fn apply<T: Number>(a: T, b: T) -> T {
        a.add(b)
    }
}

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    Arithmetic::<Sum>::build(spec)
}
