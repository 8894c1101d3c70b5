//! `Div`, with broadcasting.

use super::broadcast::{Arithmetic, Number, Rule};
use super::{Operator, Spec};
use crate::ModelError;

struct Quotient;

impl Rule for Quotient {
    #[inline]
    fn apply<T: Number>(a: T, b: T) -> T {
        a.div(b)
    }
}

pub(crate) fn build(spec: &Spec<'_>) -> Result<Box<dyn Operator>, ModelError> {
    Arithmetic::<Quotient>::build(spec)
}
