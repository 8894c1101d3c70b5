//! Constants of a model, computed ahead for good.

use std::collections::HashSet;
use std::sync::Arc;

use qkernels::Workspace;

use super::plan::Step;
use super::{Pool, SessionOptions, execute};
use crate::ops::registry;
use crate::{Graph, Model, ModelError, Node, Tensor, ValueInfo};

/// Replaces every node that only constants go into by its result, an initializer of the same name,
/// and returns how many nodes went.
///
/// Constants are initializers that are not inputs as well (see
/// [`Model::drop_default_inputs`] for files that list all of them), `Constant` nodes, and what
/// follows from those. These stay:
///
/// - `DequantizeLinear`, so that what is quantized stays quantized, and what reads from it;
/// - nodes that define an output of the graph;
/// - nodes that [`Session`](crate::Session) cannot run, for whatever reason;
/// - nodes whose results, all together, would have more elements than a tensor may have by
///   default ([`SessionOptions::max_elements`]).
///
/// Constants that nobody reads any more stay too, until [`Graph::remove_dead`]. Nodes are
/// [sorted](Graph::sort); the version of the file format is raised to 4, where initializers that
/// are not inputs are new.
///
/// # Errors
///
/// Those of [`Graph::validate`]; the model is then as it was.
///
/// ```
/// use qmodel::{ElementType, Graph, Model, Node, Tensor, ValueInfo, fold_constants};
///
/// let mut g = Graph::new("demo");
/// g.inputs.push(ValueInfo::tensor("x", ElementType::F32, vec![1.into(), 2.into()]));
/// g.outputs.push(ValueInfo::tensor("y", ElementType::F32, vec![1.into(), 3.into()]));
/// g.set_initializer("w", Tensor::new(&[3, 2], vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0])?);
/// g.nodes.push(Node::new("turn", "Transpose", ["w"], ["wt"]));
/// g.nodes.push(Node::new("fc", "MatMul", ["x", "wt"], ["y"]));
/// let mut model = Model::new(g, 17);
/// assert_eq!(fold_constants(&mut model)?, 1);
/// assert_eq!(model.graph.nodes.len(), 1);
/// assert_eq!(model.graph.initializer("wt").map(|t| t.shape()), Some(&[2, 3][..]));
/// # Ok::<(), qmodel::ModelError>(())
/// ```
pub fn fold_constants(model: &mut Model) -> Result<usize, ModelError> {
    model.graph.validate()?;
    model.graph.sort()?;
    let names = |values: &[ValueInfo]| values.iter().map(|v| v.name.clone()).collect();
    let inputs: HashSet<String> = names(&model.graph.inputs);
    let outputs: HashSet<String> = names(&model.graph.outputs);
    let mut folder = Folder::default();
    let mut folded: HashSet<String> = HashSet::new();
    let (mut kept, mut count) = (Vec::new(), 0);
    for node in std::mem::take(&mut model.graph.nodes) {
        let stays = node.is("DequantizeLinear") || node.outputs.iter().any(|o| outputs.contains(o));
        let results = operands(&model.graph, &node, &inputs)
            .filter(|_| !stays)
            .and_then(|constants| folder.run(model, &node, &constants));
        let Some(results) = results else {
            kept.push(node);
            continue;
        };
        count += 1;
        for (name, tensor) in results {
            model.graph.set_initializer(name.clone(), tensor);
            folded.insert(name);
        }
    }
    model.graph.nodes = kept;
    model.graph.value_info.retain(|v| !folded.contains(&v.name));
    if count > 0 {
        model.ir_version = model.ir_version.max(4);
    }
    Ok(count)
}

/// The operands of a node, where all are constants.
fn operands(
    graph: &Graph,
    node: &Node,
    inputs: &HashSet<String>,
) -> Option<Vec<Option<Arc<Tensor>>>> {
    (0..node.inputs.len())
        .map(|i| match node.input(i) {
            None => Some(None),
            Some(name) if inputs.contains(name) => None,
            Some(name) => graph.initializer(name).cloned().map(Some),
        })
        .collect()
}

/// What computes the results; `options` has the number of elements that may still come.
#[derive(Default)]
struct Folder {
    options: SessionOptions,
    pool: Pool,
    workspace: Workspace,
}

impl Folder {
    /// The results of a node by name, where it can run and they are not too large.
    fn run(
        &mut self,
        model: &Model,
        node: &Node,
        constants: &[Option<Arc<Tensor>>],
    ) -> Option<Vec<(String, Tensor)>> {
        let step = Step {
            op: registry::build(node, model).ok()?,
            label: node.label(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            last_uses: Vec::new(),
            node: None,
        };
        let (pool, workspace) = (&mut self.pool, &mut self.workspace);
        let results =
            execute::run_constant(&step, constants, &self.options, pool, workspace).ok()?;
        let wanted = |i: usize| node.output(i).is_some();
        if (results.len()..node.outputs.len()).any(wanted) {
            return None;
        }
        let named: Vec<(String, Tensor)> = results
            .into_iter()
            .enumerate()
            .filter_map(|(i, t)| Some((node.output(i)?.to_owned(), t)))
            .collect();
        let elements: usize = named.iter().map(|(_, t)| t.len()).sum();
        self.options.max_elements = self.options.max_elements.checked_sub(elements)?;
        Some(named)
    }
}
