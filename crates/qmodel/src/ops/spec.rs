//! Reading a node: arity, attributes, versions.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::{Attribute, ModelError, Node, Tensor};

/// A node that an operator is built from, with the version of the operator set that it is of.
pub(crate) struct Spec<'a> {
    pub(crate) node: &'a Node,
    pub(crate) version: i64,
}

impl Spec<'_> {
    /// Demands a number of inputs (the first `inputs.start()` of them given), of outputs, and no
    /// attributes other than these.
    pub(crate) fn check(
        &self,
        inputs: RangeInclusive<usize>,
        outputs: RangeInclusive<usize>,
        attributes: &[&str],
    ) -> Result<(), ModelError> {
        self.check_with_gaps(inputs, &[], outputs, attributes)
    }

    /// [`check`](Self::check), where inputs of the numbers `gaps` need not be given.
    pub(crate) fn check_with_gaps(
        &self,
        inputs: RangeInclusive<usize>,
        gaps: &[usize],
        outputs: RangeInclusive<usize>,
        attributes: &[&str],
    ) -> Result<(), ModelError> {
        arity("inputs", &self.node.inputs, &inputs, gaps)?;
        arity("outputs", &self.node.outputs, &outputs, &[])?;
        match self
            .node
            .attributes
            .iter()
            .find(|a| !attributes.contains(&a.name.as_str()))
        {
            None => Ok(()),
            Some(a) => {
                let allowed = if attributes.is_empty() {
                    "this version of the operator has no attributes".to_owned()
                } else {
                    format!("this version of the operator has {}", attributes.join(", "))
                };
                Err(self.refuse(&a.name, allowed))
            }
        }
    }

    /// The error for an attribute as it is.
    pub(crate) fn refuse(&self, attribute: &str, allowed: impl Into<String>) -> ModelError {
        ModelError::Attribute {
            node: String::new(),
            attribute: attribute.to_owned(),
            given: self
                .node
                .attribute(attribute)
                .map_or_else(|| "(absent)".to_owned(), Attribute::describe),
            allowed: allowed.into(),
        }
    }

    pub(crate) fn int(&self, name: &str) -> Result<Option<i64>, ModelError> {
        match self.node.attribute(name) {
            None => Ok(None),
            Some(Attribute::Int(v)) => Ok(Some(*v)),
            Some(_) => Err(self.refuse(name, "an integer")),
        }
    }

    pub(crate) fn int_or(&self, name: &str, default: i64) -> Result<i64, ModelError> {
        Ok(self.int(name)?.unwrap_or(default))
    }

    /// An integer attribute that is 0 or 1.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, ModelError> {
        match self.int_or(name, 0)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.refuse(name, "0 or 1")),
        }
    }

    pub(crate) fn float(&self, name: &str) -> Result<Option<f32>, ModelError> {
        match self.node.attribute(name) {
            None => Ok(None),
            Some(Attribute::Float(v)) => Ok(Some(*v)),
            Some(_) => Err(self.refuse(name, "a number")),
        }
    }

    pub(crate) fn float_or(&self, name: &str, default: f32) -> Result<f32, ModelError> {
        Ok(self.float(name)?.unwrap_or(default))
    }

    pub(crate) fn string(&self, name: &str) -> Result<Option<&str>, ModelError> {
        match self.node.attribute(name) {
            None => Ok(None),
            Some(Attribute::String(v)) => Ok(Some(v)),
            Some(_) => Err(self.refuse(name, "text")),
        }
    }

    pub(crate) fn ints(&self, name: &str) -> Result<Option<&[i64]>, ModelError> {
        match self.node.attribute(name) {
            None => Ok(None),
            Some(Attribute::Ints(v)) => Ok(Some(v)),
            Some(_) => Err(self.refuse(name, "integers")),
        }
    }

    pub(crate) fn floats(&self, name: &str) -> Result<Option<&[f32]>, ModelError> {
        match self.node.attribute(name) {
            None => Ok(None),
            Some(Attribute::Floats(v)) => Ok(Some(v)),
            Some(_) => Err(self.refuse(name, "numbers")),
        }
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<Option<&Arc<Tensor>>, ModelError> {
        match self.node.attribute(name) {
            None => Ok(None),
            Some(Attribute::Tensor(v)) => Ok(Some(v)),
            Some(_) => Err(self.refuse(name, "a tensor of a supported element type")),
        }
    }
}

fn arity(
    what: &'static str,
    names: &[String],
    allowed: &RangeInclusive<usize>,
    gaps: &[usize],
) -> Result<(), ModelError> {
    // Empty names at the end are operands that are not given.
    let given = names
        .iter()
        .rposition(|n| !n.is_empty())
        .map_or(0, |i| i + 1);
    let least = *allowed.start();
    let mut needed = names.iter().enumerate().take(least);
    let holes = needed.any(|(i, n)| n.is_empty() && !gaps.contains(&i));
    if allowed.contains(&given) && !holes {
        return Ok(());
    }
    let given = if holes {
        names.iter().filter(|n| !n.is_empty()).count()
    } else {
        given
    };
    let allowed = if allowed.start() == allowed.end() {
        least.to_string()
    } else {
        format!("{least} to {}", allowed.end())
    };
    Err(ModelError::Arity {
        node: String::new(),
        what,
        given,
        allowed,
    })
}
