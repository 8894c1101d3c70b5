//! Step 1: which operators are quantized.

use globset::{Glob, GlobMatcher};
use qmodel::{Model, Node};

use crate::QuantizeError;
use crate::placement::Kind;

/// The operator types that are quantized unless a list says otherwise.
pub const DEFAULT_TYPES: [&str; 3] = ["Conv", "Gemm", "MatMul"];

/// One entry of an include or exclude list: an exact node name, a glob over node names, or an
/// operator type.
#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    /// The pattern as a glob, or why it is none: names may hold characters that globs reserve.
    glob: Result<GlobMatcher, globset::Error>,
}

impl Pattern {
    fn new(text: &str) -> Pattern {
        Pattern {
            text: text.to_owned(),
            glob: Glob::new(text).map(|g| g.compile_matcher()),
        }
    }

    fn matches(&self, node: &Node) -> bool {
        let by_glob = |g: &GlobMatcher| !node.name.is_empty() && g.is_match(&node.name);
        // An empty pattern is no way to name the nodes without a name.
        (node.name == self.text && !self.text.is_empty())
            || node.op_type == self.text
            || self.glob.as_ref().is_ok_and(by_glob)
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
/// let operators = Operators::new().include(["Conv"]).exclude(["conv1"]);
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
    pub fn include<S: AsRef<str>>(mut self, patterns: impl IntoIterator<Item = S>) -> Self {
        self.include
            .extend(patterns.into_iter().map(|p| Pattern::new(p.as_ref())));
        self
    }

    /// Leaves out nodes that match one of these.
    pub fn exclude<S: AsRef<str>>(mut self, patterns: impl IntoIterator<Item = S>) -> Self {
        self.exclude
            .extend(patterns.into_iter().map(|p| Pattern::new(p.as_ref())));
        self
    }

    /// The indices of the chosen nodes of a model, in its order.
    pub(crate) fn select(&self, model: &Model) -> Result<Vec<usize>, QuantizeError> {
        let nodes = &model.graph.nodes;
        let quantizable = |n: &Node| n.is_standard() && Kind::of(&n.op_type).is_some();
        for (list, patterns) in [("include", &self.include), ("exclude", &self.exclude)] {
            for p in patterns {
                let mut matched = nodes.iter().filter(|n| p.matches(n)).peekable();
                if matched.peek().is_none() {
                    if let Err(source) = &p.glob {
                        return Err(QuantizeError::Pattern {
                            given: p.text.clone(),
                            source: source.clone(),
                        });
                    }
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

/// The nodes a pattern could have matched, cut to a readable number.
fn known(nodes: &[Node]) -> String {
    const SHOWN: usize = 12;
    let mut text: Vec<String> = nodes
        .iter()
        .take(SHOWN)
        .map(|n| n.display_name().to_owned())
        .collect();
    if nodes.len() > SHOWN {
        text.push(format!("and {} more", nodes.len() - SHOWN));
    }
    text.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_types_are_those_with_an_integer_form() {
        assert!(DEFAULT_TYPES.iter().all(|t| Kind::of(t).is_some()));
        assert!(Kind::of("Relu").is_none());
    }

    #[test]
    fn names_match_exactly_even_where_they_are_no_globs() {
        let node = |name: &str| Node::new(name, "Conv", ["x", "w"], ["y"]);
        assert!(Pattern::new("blk[0").matches(&node("blk[0")));
        assert!(Pattern::new("blk*").matches(&node("blk[0")));
        assert!(Pattern::new("Conv").matches(&node("")));
        assert!(!Pattern::new("").matches(&node("")));
        assert!(!Pattern::new("*").matches(&node("")));
    }
}
