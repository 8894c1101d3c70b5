//! The graph: nodes in topological order over named values, made to be rewritten.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use indexmap::IndexMap;

use crate::onnx::proto;
use crate::{Dim, ModelError, Node, Tensor, TensorType, ValueInfo};

/// A constant of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Initializer {
    /// Its value, shared between copies of the graph and the sessions that run it.
    pub tensor: Arc<Tensor>,
    /// Documentation.
    pub doc_string: String,
    /// Free key and value pairs.
    pub metadata: Vec<(String, String)>,
}

impl From<Tensor> for Initializer {
    fn from(tensor: Tensor) -> Self {
        Initializer {
            tensor: Arc::new(tensor),
            doc_string: String::new(),
            metadata: Vec::new(),
        }
    }
}

/// A graph of nodes over named values.
///
/// Every value is defined once: as an input, an initializer (which may also be listed as an
/// input: then it is the input's default), or an output of a node. The fields are open for
/// rewriting; [`validate`](Graph::validate) says whether what came out is a graph, and
/// [`sort`](Graph::sort) puts nodes in an order in which they can run.
///
/// ```
/// use qmodel::{ElementType, Graph, Node, ValueInfo};
///
/// let mut g = Graph::new("demo");
/// g.inputs.push(ValueInfo::tensor("x", ElementType::F32, vec![4.into()]));
/// g.outputs.push(ValueInfo::tensor("y", ElementType::F32, vec![4.into()]));
/// g.nodes.push(Node::new("relu", "Relu", ["x"], ["y"]));
/// g.validate()?;
///
/// // Put an Identity between x and its consumers.
/// let fresh = g.names().fresh("x_copy");
/// g.replace_uses("x", &fresh);
/// g.nodes.push(Node::new("copy", "Identity", ["x"], [fresh]));
/// g.sort()?;
/// assert_eq!(g.nodes[0].name, "copy");
/// # Ok::<(), qmodel::ModelError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Graph {
    /// Name of the graph.
    pub name: String,
    /// Documentation.
    pub doc_string: String,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The constants by name, in file order.
    pub initializers: IndexMap<String, Initializer>,
    /// The inputs; those that name an initializer are optional.
    pub inputs: Vec<ValueInfo>,
    /// The outputs.
    pub outputs: Vec<ValueInfo>,
    /// Types of intermediate values, where the file declares them.
    pub value_info: Vec<ValueInfo>,
    /// Free key and value pairs.
    pub metadata: Vec<(String, String)>,
    /// What is only carried from file to file.
    pub(crate) rest: GraphRest,
}

/// Parts of a graph that nothing here looks into.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct GraphRest {
    pub(crate) sparse_initializer: Vec<proto::SparseTensorProto>,
    pub(crate) quantization_annotation: Vec<proto::TensorAnnotation>,
}

/// Who defines and who reads each value of a graph: made once, borrowed from it.
#[derive(Debug)]
pub struct Links<'g> {
    producers: HashMap<&'g str, usize>,
    consumers: HashMap<&'g str, Vec<usize>>,
    /// Values read from inside subgraphs.
    captured: HashSet<String>,
    outputs: HashSet<&'g str>,
}

impl<'g> Links<'g> {
    /// The node (an index into [`Graph::nodes`]) that defines `value`.
    #[must_use]
    pub fn producer(&self, value: &str) -> Option<usize> {
        self.producers.get(value).copied()
    }

    /// The nodes that read `value`, each once, in node order.
    #[must_use]
    pub fn consumers(&self, value: &str) -> &[usize] {
        self.consumers.get(value).map_or(&[], Vec::as_slice)
    }

    /// Whether `value` is an output of the graph.
    #[must_use]
    pub fn is_output(&self, value: &str) -> bool {
        self.outputs.contains(value)
    }

    /// The one node that reads `value`, when nothing else does: no other node, no subgraph, and
    /// the graph does not return it.
    #[must_use]
    pub fn only_consumer(&self, value: &str) -> Option<usize> {
        match self.consumers(value) {
            [one] if !self.is_output(value) && !self.captured.contains(value) => Some(*one),
            _ => None,
        }
    }
}

/// The names in use in a graph, to find new ones. It does not borrow the graph, and remembers the
/// names it gave out.
#[derive(Debug, Clone, Default)]
pub struct Names {
    used: HashSet<String>,
}

impl Names {
    /// `wanted` if no value or node has that name, else the first free one of `wanted_1`,
    /// `wanted_2`, …
    pub fn fresh(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut n = 0u64;
        while name.is_empty() || !self.used.insert(name.clone()) {
            n += 1;
            name = format!("{wanted}_{n}");
        }
        name
    }
}

impl Graph {
    /// An empty graph.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Graph {
        Graph {
            name: name.into(),
            ..Graph::default()
        }
    }

    /// The value of an initializer.
    #[must_use]
    pub fn initializer(&self, name: &str) -> Option<&Arc<Tensor>> {
        self.initializers.get(name).map(|i| &i.tensor)
    }

    /// Adds or replaces an initializer.
    pub fn set_initializer(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.initializers.insert(name.into(), tensor.into());
    }

    /// The inputs that a run must be given: those without an initializer.
    pub fn required_inputs(&self) -> impl Iterator<Item = &ValueInfo> {
        self.inputs
            .iter()
            .filter(|i| !self.initializers.contains_key(&i.name))
    }

    /// The declared type of a value, from inputs, outputs, value infos and initializers.
    #[must_use]
    pub fn declared_type(&self, value: &str) -> Option<TensorType> {
        if let Some(t) = self.initializer(value) {
            return Some(TensorType::known(t.element_type(), t.shape()));
        }
        self.inputs
            .iter()
            .chain(&self.outputs)
            .chain(&self.value_info)
            .find(|v| v.name == value)
            .and_then(|v| v.tensor_type().cloned())
    }

    /// Who defines and who reads each value.
    #[must_use]
    pub fn links(&self) -> Links<'_> {
        let mut links = Links {
            producers: HashMap::new(),
            consumers: HashMap::new(),
            captured: HashSet::new(),
            outputs: self.outputs.iter().map(|o| o.name.as_str()).collect(),
        };
        for (i, node) in self.nodes.iter().enumerate() {
            for output in node.outputs.iter().filter(|o| !o.is_empty()) {
                links.producers.insert(output, i);
            }
            for input in node.inputs.iter().filter(|o| !o.is_empty()) {
                let list = links.consumers.entry(input).or_default();
                if list.last() != Some(&i) {
                    list.push(i);
                }
            }
            if node.has_subgraphs() {
                node.for_each_use(&mut |v| {
                    links.captured.insert(v.to_owned());
                });
            }
        }
        links
    }

    /// The node (an index) that defines `value`, by a search; see [`links`](Self::links) for
    /// many questions.
    #[must_use]
    pub fn producer(&self, value: &str) -> Option<usize> {
        self.nodes
            .iter()
            .position(|n| n.outputs.iter().any(|o| o == value && !o.is_empty()))
    }

    /// The nodes (indices) that read `value`, by a search.
    #[must_use]
    pub fn consumers(&self, value: &str) -> Vec<usize> {
        let reads = |n: &Node| n.inputs.iter().any(|i| i == value && !i.is_empty());
        (0..self.nodes.len())
            .filter(|&i| reads(&self.nodes[i]))
            .collect()
    }

    /// Whether `value` is one of the graph's outputs.
    #[must_use]
    pub fn is_output(&self, value: &str) -> bool {
        self.outputs.iter().any(|o| o.name == value)
    }

    /// Whether `value` is one of the graph's inputs.
    #[must_use]
    pub fn is_input(&self, value: &str) -> bool {
        self.inputs.iter().any(|o| o.name == value)
    }

    /// The names in use, of values and of nodes, to find new ones.
    #[must_use]
    pub fn names(&self) -> Names {
        let mut used: HashSet<String> = self.initializers.keys().cloned().collect();
        for v in self
            .inputs
            .iter()
            .chain(&self.outputs)
            .chain(&self.value_info)
        {
            used.insert(v.name.clone());
        }
        for n in &self.nodes {
            used.insert(n.name.clone());
            used.extend(n.outputs.iter().cloned());
            n.for_each_use(&mut |v| {
                used.insert(v.to_owned());
            });
        }
        Names { used }
    }

    /// Makes every node that reads `old` read `new` instead, and returns how many inputs that
    /// were. Neither the graph's outputs nor subgraphs are touched.
    pub fn replace_uses(&mut self, old: &str, new: &str) -> usize {
        let mut count = 0;
        for input in self.nodes.iter_mut().flat_map(|n| &mut n.inputs) {
            if input == old {
                new.clone_into(input);
                count += 1;
            }
        }
        count
    }

    /// Puts the nodes in an order in which each runs after those it reads from; nodes that do not
    /// depend on each other stay in the order they have.
    ///
    /// # Errors
    ///
    /// [`ModelError::Cycle`]; the nodes are then left as they were.
    pub fn sort(&mut self) -> Result<(), ModelError> {
        let order = self.order()?;
        if order.iter().enumerate().any(|(i, &n)| i != n) {
            let mut nodes: Vec<Option<Node>> = std::mem::take(&mut self.nodes)
                .into_iter()
                .map(Some)
                .collect();
            self.nodes = order.into_iter().filter_map(|i| nodes[i].take()).collect();
        }
        Ok(())
    }

    /// Node indices in an order in which they can run: of the nodes that are ready, the first in
    /// file order comes first.
    fn order(&self) -> Result<Vec<usize>, ModelError> {
        let producers = self.links().producers;
        let mut waiting = vec![0usize; self.nodes.len()];
        let mut feeds: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            let mut from: Vec<usize> = Vec::new();
            node.for_each_use(&mut |v| from.extend(producers.get(v).copied()));
            from.sort_unstable();
            from.dedup();
            waiting[i] = from.len();
            for p in from {
                feeds[p].push(i);
            }
        }
        let mut ready: std::collections::BTreeSet<usize> =
            (0..self.nodes.len()).filter(|&i| waiting[i] == 0).collect();
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(i) = ready.pop_first() {
            order.push(i);
            for &next in &feeds[i] {
                waiting[next] -= 1;
                if waiting[next] == 0 {
                    ready.insert(next);
                }
            }
        }
        if order.len() == self.nodes.len() {
            return Ok(order);
        }
        let stuck: Vec<String> = (0..self.nodes.len())
            .filter(|&i| waiting[i] > 0)
            .take(4)
            .map(|i| self.nodes[i].label())
            .collect();
        Err(ModelError::Cycle {
            nodes: stuck.join(", "),
        })
    }

    /// Checks that every value is defined once, that everything read is defined, and that there is
    /// no cycle.
    ///
    /// Two nodes of one name are allowed (the standard's checker allows them too); an order in
    /// which nodes cannot run is, because [`sort`](Self::sort) mends it.
    ///
    /// # Errors
    ///
    /// [`ModelError::DuplicateValue`], [`ModelError::UndefinedValue`], [`ModelError::Cycle`].
    pub fn validate(&self) -> Result<(), ModelError> {
        let mut defined: HashSet<&str> = HashSet::new();
        let twice = |value: &str| ModelError::DuplicateValue {
            value: value.to_owned(),
        };
        for input in &self.inputs {
            if !defined.insert(&input.name) {
                return Err(twice(&input.name));
            }
        }
        defined.extend(self.initializers.keys().map(String::as_str));
        for sparse in &self.rest.sparse_initializer {
            if let Some(v) = &sparse.values {
                defined.insert(&v.name);
            }
        }
        for output in self
            .nodes
            .iter()
            .flat_map(|n| &n.outputs)
            .filter(|o| !o.is_empty())
        {
            if !defined.insert(output) {
                return Err(twice(output));
            }
        }
        for node in &self.nodes {
            if let Some(v) = node
                .inputs
                .iter()
                .find(|i| !i.is_empty() && !defined.contains(i.as_str()))
            {
                return Err(ModelError::UndefinedValue {
                    node: node.label(),
                    value: v.clone(),
                });
            }
        }
        let mut returned = HashSet::new();
        for output in &self.outputs {
            if !defined.contains(output.name.as_str()) {
                return Err(ModelError::UndefinedValue {
                    node: "graph output".to_owned(),
                    value: output.name.clone(),
                });
            }
            if !returned.insert(&output.name) {
                return Err(twice(&output.name));
            }
        }
        self.order().map(drop)
    }

    /// Removes the nodes whose outputs nobody reads, the initializers that nobody reads (unless
    /// they are also graph inputs), and the value infos of values that no longer exist. Returns
    /// how many nodes and initializers went.
    pub fn remove_dead(&mut self) -> usize {
        let producers = self.links().producers;
        let mut live_nodes = vec![false; self.nodes.len()];
        let mut live_values: HashSet<String> = HashSet::new();
        let mut todo: Vec<String> = self.outputs.iter().map(|o| o.name.clone()).collect();
        while let Some(value) = todo.pop() {
            if let Some(&i) = producers.get(value.as_str())
                && !live_nodes[i]
            {
                live_nodes[i] = true;
                self.nodes[i].for_each_use(&mut |v| todo.push(v.to_owned()));
            }
            live_values.insert(value);
        }
        let before = self.nodes.len() + self.initializers.len();
        let mut keep = live_nodes.into_iter();
        self.nodes.retain(|_| keep.next().unwrap_or(true));
        let inputs: HashSet<&str> = self.inputs.iter().map(|i| i.name.as_str()).collect();
        self.initializers
            .retain(|name, _| live_values.contains(name) || inputs.contains(name.as_str()));
        let produced: HashSet<&str> = self
            .nodes
            .iter()
            .flat_map(|n| &n.outputs)
            .map(String::as_str)
            .collect();
        self.value_info
            .retain(|v| live_values.contains(&v.name) || produced.contains(v.name.as_str()));
        before - self.nodes.len() - self.initializers.len()
    }

    /// Writes inferred types into [`value_info`](Self::value_info) for every intermediate value,
    /// replacing what was declared there.
    pub fn set_value_info(&mut self, types: impl IntoIterator<Item = (String, TensorType)>) {
        let produced: HashSet<String> = self
            .nodes
            .iter()
            .flat_map(|n| n.outputs.iter().cloned())
            .collect();
        let mut known: IndexMap<String, ValueInfo> = self
            .value_info
            .drain(..)
            .map(|v| (v.name.clone(), v))
            .collect();
        for (name, ty) in types {
            if produced.contains(&name) && !self.outputs.iter().any(|o| o.name == name) {
                known.insert(name.clone(), ValueInfo::new(name, ty));
            }
        }
        self.value_info = known.into_values().collect();
    }
}

/// The dimensions of a declared shape as an error message shows them: `[N, 1, 28, 28]`.
pub(crate) fn show_dims(dims: &[Dim]) -> String {
    let parts: Vec<String> = dims.iter().map(ToString::to_string).collect();
    format!("[{}]", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ElementType;

    fn chain() -> Graph {
        let mut g = Graph::new("g");
        g.inputs
            .push(ValueInfo::tensor("x", ElementType::F32, vec![4.into()]));
        g.outputs
            .push(ValueInfo::tensor("z", ElementType::F32, vec![4.into()]));
        g.set_initializer("w", Tensor::vector(vec![1f32; 4]));
        g.set_initializer("unused", Tensor::scalar(1f32));
        g.nodes.push(Node::new("b", "Relu", ["y"], ["z"]));
        g.nodes.push(Node::new("a", "Add", ["x", "w"], ["y"]));
        g.nodes.push(Node::new("dead", "Relu", ["y"], ["nobody"]));
        g
    }

    #[test]
    fn sorts_by_dependency_and_otherwise_by_place() {
        let mut g = chain();
        g.validate().unwrap();
        g.sort().unwrap();
        let names: Vec<_> = g.nodes.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "dead"]);
    }

    #[test]
    fn dead_nodes_and_constants_go() {
        let mut g = chain();
        assert_eq!(g.remove_dead(), 2);
        assert_eq!(g.nodes.len(), 2);
        assert!(g.initializer("w").is_some() && g.initializer("unused").is_none());
    }

    #[test]
    fn links_know_the_only_consumer() {
        let g = chain();
        let l = g.links();
        assert_eq!(l.producer("y"), Some(1));
        assert_eq!(l.consumers("y"), [0, 2]);
        assert_eq!(l.only_consumer("y"), None);
        assert_eq!(l.only_consumer("w"), Some(1));
        assert_eq!(l.only_consumer("z"), None);
    }

    #[test]
    fn cycles_duplicates_and_undefined_values_are_errors() {
        let mut g = chain();
        g.nodes[1].inputs[0] = "z".into();
        assert!(matches!(g.validate(), Err(ModelError::Cycle { .. })));
        assert!(matches!(g.sort(), Err(ModelError::Cycle { .. })));
        assert_eq!(g.nodes.len(), 3);

        let mut g = chain();
        g.nodes[2].outputs[0] = "y".into();
        assert!(matches!(g.validate(), Err(ModelError::DuplicateValue { value }) if value == "y"));

        let mut g = chain();
        g.nodes[1].inputs[1] = "v".into();
        assert!(
            matches!(g.validate(), Err(ModelError::UndefinedValue { value, .. }) if value == "v")
        );
    }

    #[test]
    fn fresh_names_are_new() {
        let g = chain();
        let mut names = g.names();
        assert_eq!(names.fresh("x"), "x_1");
        assert_eq!(names.fresh("x"), "x_2");
        assert_eq!(names.fresh("new"), "new");
        assert_eq!(names.fresh("dead"), "dead_1");
    }
}
