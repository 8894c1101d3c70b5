//! `Mul`, with broadcasting.

use super::broadcast::{Arithmetic, Number, Rule};
use super::{Operator, Spec};
use crate::ModelError;

struct Product;

impl Rule for Product {
    #[inline]
    fn apply<T: Number>(a: T, b: T) -> T {
        a.mul(b)
    }
}

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    Arithmetic::<Product>::build(spec)
}
