//! Step 1: which operators are quantized.

use globset::{Glob, GlobMatcher};
use qmodel::{Model, Node};

use crate::QuantizeError;

/// The operator types that are quantized unless a list says otherwise.
pub const DEFAULT_TYPES: [&str; 3] = ["Conv", "Gemm", "MatMul"];

/// One entry of an include or exclude list: an exact node name, a glob over node names, or an
/// operator type.
#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    glob: GlobMatcher,
}

impl Pattern {
    fn new(text: &str) -> Result<Pattern, QuantizeError> {
        let glob = Glob::new(text).map_err(|source| QuantizeError::Pattern {
            given: text.to_owned(),
            source,
        })?;
        Ok(Pattern {
            text: text.to_owned(),
            glob: glob.compile_matcher(),
        })
    }

    fn matches(&self, node: &Node) -> bool {
        // The name as written comes first: it may hold characters that a glob reads differently.
        node.name == self.text || node.op_type == self.text || self.glob.is_match(&node.name)
    }
}

/// The choice of operators, before it meets a model.
///
/// Without an include list, every [`Conv`, `Gemm` and `MatMul`](DEFAULT_TYPES) is chosen. An
/// entry of either list is an exact node name (`conv1`), a glob over node names (`block3/*`), or
/// an operator type (`Conv`); excluding wins over including. An entry that matches nothing is an
/// error, since a list that silently does nothing hides a mistake.
///
/// ```
/// use quaver::Operators;
/// let operators = Operators::new().include(["Conv"])?.exclude(["conv1"])?;
/// # Ok::<(), quaver::QuantizeError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Operators {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

impl Operators {
    /// Every `Conv`, `Gemm` and `MatMul`.
    #[must_use]
    pub fn new() -> Self {
        Operators::default()
    }

    /// Chooses only nodes that match one of these (and of earlier calls).
    ///
    /// # Errors
    ///
    /// [`QuantizeError::Pattern`] for an entry that is not a valid glob.
    pub fn include<S: AsRef<str>>(
        mut self,
        patterns: impl IntoIterator<Item = S>,
    ) -> Result<Self, QuantizeError> {
        extend(&mut self.include, patterns)?;
        Ok(self)
    }

    /// Leaves out nodes that match one of these.
    ///
    /// # Errors
    ///
    /// [`QuantizeError::Pattern`] for an entry that is not a valid glob.
    pub fn exclude<S: AsRef<str>>(
        mut self,
        patterns: impl IntoIterator<Item = S>,
    ) -> Result<Self, QuantizeError> {
        extend(&mut self.exclude, patterns)?;
        Ok(self)
    }

    /// The indices of the chosen nodes of a model, in its order.
    pub(crate) fn select(&self, model: &Model) -> Result<Vec<usize>, QuantizeError> {
        let nodes = &model.graph.nodes;
        let quantizable = |n: &Node| n.domain.is_empty() && DEFAULT_TYPES.contains(&&*n.op_type);
        for (list, patterns) in [("include", &self.include), ("exclude", &self.exclude)] {
            for p in patterns {
                let mut matched = nodes.iter().filter(|n| p.matches(n)).peekable();
                if matched.peek().is_none() {
                    return Err(QuantizeError::NoMatch {
                        list,
                        given: p.text.clone(),
                        known: known(nodes),
                    });
                }
                // An include list that names only operators without an int8 form asks for
                // something that would silently not happen.
                if list == "include" && !matched.any(quantizable) {
                    return Err(QuantizeError::NotQuantizable {
                        given: p.text.clone(),
                        allowed: DEFAULT_TYPES.join(", "),
                    });
                }
            }
        }
        let chosen: Vec<usize> = (0..nodes.len())
            .filter(|&i| {
                let n = &nodes[i];
                quantizable(n)
                    && (self.include.is_empty() || self.include.iter().any(|p| p.matches(n)))
                    && !self.exclude.iter().any(|p| p.matches(n))
            })
            .collect();
        if chosen.is_empty() {
            return Err(QuantizeError::NothingChosen {
                allowed: DEFAULT_TYPES.join(", "),
            });
        }
        Ok(chosen)
    }
}

fn extend<S: AsRef<str>>(
    list: &mut Vec<Pattern>,
    patterns: impl IntoIterator<Item = S>,
) -> Result<(), QuantizeError> {
    for p in patterns {
        list.push(Pattern::new(p.as_ref())?);
    }
    Ok(())
}

/// The names a pattern could have matched, cut to a readable number.
fn known(nodes: &[Node]) -> String {
    const SHOWN: usize = 12;
    let mut names: Vec<&str> = nodes
        .iter()
        .map(|n| &*n.name)
        .filter(|n| !n.is_empty())
        .collect();
    names.truncate(SHOWN);
    let rest = nodes.len().saturating_sub(names.len());
    let mut text = names.join(", ");
    if rest > 0 {
        text.push_str(&format!(" and {rest} more"));
    }
    text
}
