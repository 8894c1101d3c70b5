//! What is written is what was read.

use std::sync::Arc;

use qmodel::{
    Attribute, Dim, ElementType, Graph, Model, ModelError, Node, Tensor, TensorData, ValueInfo,
};

fn rich_model() -> Model {
    let mut g = Graph::new("rich");
    g.doc_string = "what it is for".into();
    g.metadata.push(("key".into(), "value".into()));
    g.inputs.push(ValueInfo::tensor(
        "x",
        ElementType::F32,
        vec![Dim::Symbol("N".into()), Dim::Unknown, Dim::Known(3)],
    ));
    g.outputs
        .push(ValueInfo::tensor("y", ElementType::F32, vec![Dim::Unknown]));
    for &t in ElementType::ALL {
        let data = TensorData::zeros(t, 6);
        g.set_initializer(t.name(), Tensor::new(&[2, 3], data).unwrap());
    }
    g.set_initializer("empty", Tensor::new(&[0, 3], Vec::<f32>::new()).unwrap());
    g.set_initializer("scalar", Tensor::scalar(-0.0f32));
    g.nodes.push(
        Node::new("n", "Made", ["x", "", "scalar"], ["y"])
            .with_domain("my.domain")
            .with_attribute("i", Attribute::Int(0))
            .with_attribute("f", Attribute::Float(0.0))
            .with_attribute("s", Attribute::String(String::new()))
            .with_attribute("is", Attribute::Ints(vec![]))
            .with_attribute("fs", Attribute::Floats(vec![1.5, -2.0]))
            .with_attribute("ss", Attribute::Strings(vec!["a".into(), String::new()]))
            .with_attribute(
                "t",
                Attribute::Tensor(Arc::new(Tensor::vector(vec![1i64, -1]))),
            ),
    );
    let mut m = Model::new(g, 17);
    m.set_opset("my.domain", 3);
    m.metadata.push(("author".into(), "nobody".into()));
    m.doc_string = "model".into();
    m
}

#[test]
fn a_rich_model_survives() {
    let model = rich_model();
    assert_eq!(Model::from_bytes(&model.to_bytes()).unwrap(), model);
}

#[test]
fn saving_replaces_the_file_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    std::fs::write(&path, "old").unwrap();
    let model = rich_model();
    model.save(&path).unwrap();
    assert_eq!(Model::load(&path).unwrap(), model);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let missing = dir.path().join("no/such/m.onnx");
    assert!(matches!(model.save(&missing), Err(ModelError::Io { path, .. }) if path == missing));
}

#[test]
fn empty_and_foreign_bytes_are_errors() {
    assert!(matches!(
        Model::from_bytes(&[]),
        Err(ModelError::Missing { what: "graph" })
    ));
    assert!(matches!(
        Model::from_bytes(b"PK\x03\x04junk"),
        Err(ModelError::Decode { .. })
    ));
}
