//! The parameters of activations, by value.

use std::collections::HashMap;

use qformat::QParams;

use crate::QuantizeError;

/// Scale and zero point of every value that was observed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ranges {
    params: HashMap<String, QParams>,
}

impl Ranges {
    pub(crate) fn insert(&mut self, value: String, params: QParams) {
        self.params.insert(value, params);
    }

    pub(crate) fn params(&self, value: &str) -> Result<QParams, QuantizeError> {
        self.params
            .get(value)
            .copied()
            .ok_or_else(|| QuantizeError::Unobserved {
                value: value.to_owned(),
            })
    }
}
