//! Folding constants changes what a model computes with, not what it computes.

mod common;

use common::{Numbers, graph, run};
use qmodel::{Attribute, ElementType, Graph, Model, Node, Tensor, ValueInfo, fold_constants};
use std::sync::Arc;

fn transposed_constant() -> Model {
    let mut r = Numbers(5);
    let w = Arc::new(r.reals(&[3, 4]));
    let nodes = vec![
        Node::new("fc", "MatMul", ["x", "i"], ["y"]),
        Node::new("i", "Identity", ["t"], ["i"]),
        Node::new("t", "Transpose", ["c"], ["t"]),
        Node::new::<&str, _>("c", "Constant", [], ["c"])
            .with_attribute("value", Attribute::Tensor(w)),
    ];
    let mut g = graph(
        ("x", ElementType::F32, vec![2.into(), 4.into()]),
        nodes,
        &["y"],
    );
    g.value_info
        .push(ValueInfo::tensor("t", ElementType::F32, vec![]));
    Model::new(g, 17)
}

fn names(g: &Graph) -> Vec<&str> {
    g.nodes.iter().map(|n| n.name.as_str()).collect()
}

#[test]
fn chains_of_constants_become_initializers() {
    let before = transposed_constant();
    let mut model = before.clone();
    model.ir_version = 3;
    assert_eq!(fold_constants(&mut model).unwrap(), 3);
    assert_eq!(names(&model.graph), ["fc"]);
    assert!(model.graph.value_info.is_empty());
    assert_eq!(model.ir_version, 4);
    assert_eq!(model.graph.remove_dead(), 2);
    assert_eq!(model.graph.initializer("i").unwrap().shape(), [4, 3]);
    let x = Numbers(6).reals(&[2, 4]);
    assert_eq!(
        run(&model, &x, true).unwrap(),
        run(&before, &x, true).unwrap()
    );
    assert_eq!(fold_constants(&mut model).unwrap(), 0);
}

#[test]
fn outputs_of_the_graph_keep_their_nodes() {
    let mut model = transposed_constant();
    let ty = qmodel::TensorType::unknown(ElementType::F32);
    model.graph.outputs.push(ValueInfo::new("t", ty));
    assert_eq!(fold_constants(&mut model).unwrap(), 1);
    assert_eq!(names(&model.graph), ["t", "i", "fc"]);
    model.graph.validate().unwrap();
}

#[test]
fn what_is_quantized_stays_quantized() {
    let nodes = vec![
        Node::new("q", "QuantizeLinear", ["w", "s"], ["q"]),
        Node::new("d", "DequantizeLinear", ["q", "s"], ["d"]),
        Node::new("t", "Transpose", ["d"], ["t"]),
        Node::new("fc", "MatMul", ["x", "t"], ["y"]),
    ];
    let mut g = graph(
        ("x", ElementType::F32, vec![2.into(), 4.into()]),
        nodes,
        &["y"],
    );
    g.set_initializer("w", Numbers(7).reals(&[3, 4]));
    g.set_initializer("s", Tensor::scalar(0.01f32));
    let mut model = Model::new(g, 17);
    assert_eq!(fold_constants(&mut model).unwrap(), 1);
    assert_eq!(names(&model.graph), ["d", "t", "fc"]);
    let q = model.graph.initializer("q").unwrap();
    assert_eq!(q.element_type(), ElementType::U8);
}

#[test]
fn inputs_with_defaults_are_constants_once_they_are_dropped() {
    let mut model = transposed_constant();
    let g = &mut model.graph;
    g.nodes.retain(|n| n.name != "c");
    for name in ["c", "unused"] {
        g.set_initializer(name, Numbers(8).reals(&[3, 4]));
        g.inputs.push(ValueInfo::tensor(
            name,
            ElementType::F32,
            vec![3.into(), 4.into()],
        ));
    }
    assert_eq!(fold_constants(&mut model).unwrap(), 0);
    assert_eq!(model.drop_default_inputs(), 2);
    assert_eq!(model.graph.inputs.len(), 1);
    assert_eq!(fold_constants(&mut model).unwrap(), 2);
    assert_eq!(model.graph.remove_dead(), 3);
    assert_eq!(model.graph.initializers.keys().collect::<Vec<_>>(), ["i"]);
}

#[test]
fn what_cannot_run_is_left_alone() {
    let nodes = vec![
        Node::new("unknown", "Frobnicate", ["w"], ["u"]),
        Node::new("after", "Relu", ["u"], ["a"]),
        Node::new("shapes", "MatMul", ["w", "w"], ["m"]),
        Node::new("huge", "Add", ["column", "row"], ["h"]),
        Node::new("fine", "Relu", ["w"], ["f"]),
        Node::new("all", "Concat", ["a", "m", "h", "f", "x"], ["y"])
            .with_attribute("axis", Attribute::Int(0)),
    ];
    let mut g = graph(
        ("x", ElementType::F32, vec![2.into(), 3.into()]),
        nodes,
        &["y"],
    );
    let zeros = |shape: &[usize]| Tensor::new(shape, vec![0u8; 1 << 16]).unwrap();
    g.set_initializer("w", Numbers(9).reals(&[2, 3]));
    g.set_initializer("column", zeros(&[1 << 16, 1]));
    g.set_initializer("row", zeros(&[1, 1 << 16]));
    let mut model = Model::new(g, 17);
    assert_eq!(fold_constants(&mut model).unwrap(), 1);
    assert_eq!(
        names(&model.graph),
        ["unknown", "after", "shapes", "huge", "all"]
    );
    model.graph.nodes[1].inputs[0] = "nowhere".into();
    let before = model.clone();
    assert!(fold_constants(&mut model).is_err());
    assert_eq!(model, before);
}

#[test]
fn nodes_are_called_by_what_they_have() {
    let node = |name: &str, output: &str| Node::new(name, "Relu", ["x"], ["", output]);
    assert_eq!(node("r", "y").display_name(), "r");
    assert_eq!(node("", "y").display_name(), "y");
    assert_eq!(node("", "").display_name(), "Relu");
}
