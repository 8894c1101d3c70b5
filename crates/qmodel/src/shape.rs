//! Shape inference over a whole graph.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;
use qkernels::{Isa, Threads, Workspace};

use crate::ops::{
    Arg, Fact, Facts, Inputs, Operator, RunContext, known_count, known_shape, registry,
};
use crate::session::Pool;
use crate::{Model, ModelError, Tensor, TensorType};

/// Values with more elements than this are not computed while shapes are inferred: what shapes
/// hang on (shapes, axes) is small.
const MOST_FOLDED: usize = 1024;

/// The type of every value of a model's graph, inputs and initializers included, in the order in
/// which they are defined.
///
/// Symbolic dimensions of the inputs stay symbolic: a batch `N` is `N` all the way through. What
/// cannot be known before a run is [`Dim::Unknown`](crate::Dim::Unknown). Declared types of
/// intermediate values are not trusted, except for refining what inference leaves open in the
/// graph's outputs.
///
/// # Errors
///
/// Whatever is wrong with an operator of the graph: unknown, attributes, operand types or shapes;
/// and [`ModelError::ElementType`] for inputs that are not tensors of a supported type.
///
/// ```
/// use qmodel::{Dim, ElementType, Graph, Model, Node, ValueInfo, infer_shapes};
///
/// let mut g = Graph::new("demo");
/// g.inputs.push(ValueInfo::tensor("x", ElementType::F32, vec![Dim::Symbol("N".into()), 4.into(), 2.into()]));
/// g.outputs.push(ValueInfo::tensor("y", ElementType::F32, vec![Dim::Unknown, Dim::Unknown]));
/// g.nodes.push(Node::new("f", "Flatten", ["x"], ["y"]));
/// let types = infer_shapes(&Model::new(g, 17))?;
/// assert_eq!(types["y"].to_string(), "f32[N, 8]");
/// # Ok::<(), qmodel::ModelError>(())
/// ```
pub fn infer_shapes(model: &Model) -> Result<IndexMap<String, TensorType>, ModelError> {
    let mut graph = model.graph.clone();
    graph.validate()?;
    graph.sort()?;
    let mut facts: IndexMap<String, Fact> = IndexMap::new();
    for (name, init) in &graph.initializers {
        facts.insert(name.clone(), Fact::constant(&init.tensor));
    }
    for input in graph.required_inputs() {
        facts.insert(
            input.name.clone(),
            Fact {
                ty: input_type(input)?,
                value: None,
            },
        );
    }
    for node in &graph.nodes {
        let op = registry::build(node, model)?;
        let given: Vec<Option<Fact>> = (0..node.inputs.len())
            .map(|i| facts.get(node.input(i)?).cloned())
            .collect();
        let outputs = infer(op.as_ref(), &given, &node.label())?;
        for (i, fact) in outputs.into_iter().enumerate() {
            if let Some(name) = node.output(i) {
                facts.insert(name.to_owned(), fact);
            }
        }
    }
    Ok(facts.into_iter().map(|(name, f)| (name, f.ty)).collect())
}

/// The declared type of a graph input.
pub(crate) fn input_type(input: &crate::ValueInfo) -> Result<TensorType, ModelError> {
    input
        .tensor_type()
        .cloned()
        .ok_or_else(|| ModelError::ElementType {
            what: "input",
            name: input.name.clone(),
            given: "a type that is not a tensor of a supported element type".to_owned(),
            allowed: crate::tensor::ALL_NAMES,
        })
}

/// Types of a node's outputs, and their values where everything they hang on is known and small.
pub(crate) fn infer(
    op: &dyn Operator,
    given: &[Option<Fact>],
    label: &str,
) -> Result<Vec<Fact>, ModelError> {
    let types = op.infer(&Facts(given)).map_err(|e| e.at(label))?;
    let small =
        |dims: Option<&[crate::Dim]>| dims.and_then(known_count).is_some_and(|n| n <= MOST_FOLDED);
    let values: Option<Vec<Option<Arc<Tensor>>>> = given
        .iter()
        .map(|f| {
            f.as_ref()
                .map(|f| f.value.clone())
                .map_or(Some(None), |v| v.map(Some))
        })
        .collect();
    let foldable = types.iter().all(|t| small(t.shape.as_deref()))
        && given.iter().flatten().all(|f| small(f.ty.shape.as_deref()));
    if let (Some(values), true) = (values, foldable) {
        let args = values
            .iter()
            .map(|v| v.as_deref().map(Arg::Borrowed))
            .collect();
        let shapes: Vec<Vec<usize>> = types
            .iter()
            .filter_map(|t| known_shape(t.shape.as_deref()?))
            .collect();
        let mut cx = RunContext {
            pool: &mut Pool::default(),
            workspace: &mut Workspace::new(),
            isa: Isa::SCALAR,
            threads: Threads::Single,
            max_elements: 1 << 24,
        };
        let out = op
            .run(&mut cx, &mut Inputs(args), &shapes)
            .map_err(|e| e.at(label))?;
        return Ok(out
            .into_iter()
            .map(|t| Fact::constant(&Arc::new(t)))
            .collect());
    }
    Ok(types
        .into_iter()
        .map(|ty| Fact { ty, value: None })
        .collect())
}

/// Whether a concrete shape is one that a declared type allows, given what its symbols stand for
/// already; symbols that are met for the first time are noted.
pub(crate) fn matches(
    declared: &TensorType,
    shape: &[usize],
    symbols: &mut HashMap<String, usize>,
) -> bool {
    let Some(dims) = &declared.shape else {
        return true;
    };
    dims.len() == shape.len()
        && dims.iter().zip(shape).all(|(d, &n)| match d {
            crate::Dim::Known(k) => *k == n,
            crate::Dim::Symbol(s) => *symbols.entry(s.clone()).or_insert(n) == n,
            crate::Dim::Unknown => true,
        })
}
