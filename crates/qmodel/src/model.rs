//! A model: a graph and what a file says about it.

use std::io::Write as _;
use std::path::Path;

use prost::Message as _;

use crate::node::canonical_domain;
use crate::onnx::{decode, encode, proto};
use crate::{Graph, ModelError};

/// A version of an operator set that a model uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpsetImport {
    /// The domain; empty for the standard one.
    pub domain: String,
    /// The version.
    pub version: i64,
}

/// An ONNX model.
///
/// What is read is written again: names, documentation, metadata, operator sets, and the parts
/// that this crate carries without looking into them (functions, training info, annotations).
///
/// ```
/// use qmodel::{ElementType, Graph, Model, Node, ValueInfo};
///
/// let mut g = Graph::new("demo");
/// g.inputs.push(ValueInfo::tensor("x", ElementType::F32, vec![4.into()]));
/// g.outputs.push(ValueInfo::tensor("y", ElementType::F32, vec![4.into()]));
/// g.nodes.push(Node::new("relu", "Relu", ["x"], ["y"]));
/// let model = Model::new(g, 17);
/// assert_eq!(Model::from_bytes(&model.to_bytes())?, model);
/// # Ok::<(), qmodel::ModelError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Version of the file format.
    pub ir_version: i64,
    /// Operator sets in use.
    pub opset_imports: Vec<OpsetImport>,
    /// The tool that wrote the model.
    pub producer_name: String,
    /// That tool's version.
    pub producer_version: String,
    /// Name space of the model.
    pub domain: String,
    /// Version of the model itself.
    pub model_version: i64,
    /// Documentation.
    pub doc_string: String,
    /// The graph.
    pub graph: Graph,
    /// Free key and value pairs.
    pub metadata: Vec<(String, String)>,
    /// What is only carried from file to file.
    pub(crate) rest: ModelRest,
}

/// Parts of a model that nothing here looks into.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct ModelRest {
    pub(crate) training_info: Vec<proto::TrainingInfoProto>,
    pub(crate) functions: Vec<proto::FunctionProto>,
    pub(crate) configuration: Vec<proto::DeviceConfigurationProto>,
}

impl Model {
    /// A model of a graph that uses version `opset` of the standard operators.
    #[must_use]
    pub fn new(graph: Graph, opset: i64) -> Model {
        Model {
            // The IR version of opset 15 to 18's releases: every runtime of today reads it.
            ir_version: 8,
            opset_imports: vec![OpsetImport {
                domain: String::new(),
                version: opset,
            }],
            producer_name: "quaver".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            domain: String::new(),
            model_version: 0,
            doc_string: String::new(),
            graph,
            metadata: Vec::new(),
            rest: ModelRest::default(),
        }
    }

    /// Reads a model from the bytes of a file and checks its graph.
    ///
    /// # Errors
    ///
    /// [`ModelError::Decode`] for bytes that are no model; errors naming the tensor for external
    /// data, unsupported element types, and data that does not fill its shape; and those of
    /// [`Graph::validate`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Model, ModelError> {
        let message = proto::ModelProto::decode(bytes).map_err(|source| ModelError::Decode {
            what: "model",
            source,
        })?;
        let mut model = decode::model(message)?;
        model.graph.validate()?;
        model.graph.sort()?;
        Ok(model)
    }

    /// Reads a model from a file.
    ///
    /// # Errors
    ///
    /// [`ModelError::Io`], and those of [`from_bytes`](Self::from_bytes).
    pub fn load(path: impl AsRef<Path>) -> Result<Model, ModelError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| io(path, e))?;
        Model::from_bytes(&bytes)
    }

    /// The bytes of the model's file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode::model(self).encode_to_vec()
    }

    /// Writes the model to a file, replacing it whole or not at all: the bytes go to a temporary
    /// file beside it, which is then renamed.
    ///
    /// # Errors
    ///
    /// [`ModelError::Io`]; an existing file is then as it was.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ModelError> {
        let path = path.as_ref();
        let folder = match path.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        let mut file = tempfile::Builder::new()
            .prefix(".quaver-")
            .suffix(".onnx.tmp")
            .tempfile_in(folder)
            .map_err(|e| io(path, e))?;
        file.write_all(&self.to_bytes()).map_err(|e| io(path, e))?;
        file.as_file().sync_all().map_err(|e| io(path, e))?;
        set_usual_permissions(file.as_file(), path).map_err(|e| io(path, e))?;
        file.persist(path).map_err(|e| io(path, e.error))?;
        Ok(())
    }

    /// Removes the inputs that name an initializer, and returns how many went.
    ///
    /// Files of format version 3 list every initializer as an input; in later ones, such an input
    /// is a default that a run may override. Nothing here overrides them
    /// ([`Session`](crate::Session) runs with the initializers), so this changes no result; it lets
    /// [`Graph::remove_dead`] remove initializers that nobody reads, and
    /// [`fold_constants`](crate::fold_constants) compute with them. The version of the file format
    /// is raised to 4, where initializers that are not inputs are new.
    ///
    /// ```
    /// use qmodel::{ElementType, Graph, Model, Tensor, ValueInfo};
    ///
    /// let mut g = Graph::new("demo");
    /// for name in ["x", "w"] {
    ///     g.inputs.push(ValueInfo::tensor(name, ElementType::F32, vec![1.into()]));
    /// }
    /// g.set_initializer("w", Tensor::vector(vec![1f32]));
    /// let mut model = Model::new(g, 17);
    /// assert_eq!(model.drop_default_inputs(), 1);
    /// assert_eq!(model.graph.inputs[0].name, "x");
    /// ```
    pub fn drop_default_inputs(&mut self) -> usize {
        let Graph {
            inputs,
            initializers,
            ..
        } = &mut self.graph;
        let before = inputs.len();
        inputs.retain(|i| !initializers.contains_key(&i.name));
        let count = before - inputs.len();
        if count > 0 {
            self.ir_version = self.ir_version.max(4);
        }
        count
    }

    /// The imported version of a domain's operators; the standard domain is `""` or `"ai.onnx"`.
    #[must_use]
    pub fn opset(&self, domain: &str) -> Option<i64> {
        let domain = canonical_domain(domain);
        self.opset_imports
            .iter()
            .find(|o| canonical_domain(&o.domain) == domain)
            .map(|o| o.version)
    }

    /// Sets the imported version of a domain's operators.
    pub fn set_opset(&mut self, domain: &str, version: i64) {
        let wanted = canonical_domain(domain);
        match self
            .opset_imports
            .iter_mut()
            .find(|o| canonical_domain(&o.domain) == wanted)
        {
            Some(o) => o.version = version,
            None => self.opset_imports.push(OpsetImport {
                domain: domain.to_owned(),
                version,
            }),
        }
    }
}

fn io(path: &Path, source: std::io::Error) -> ModelError {
    ModelError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Temporary files are made private to the user; the model gets the permissions of the file it
/// replaces, or else those of a new file.
#[cfg(unix)]
fn set_usual_permissions(file: &std::fs::File, replaced: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = match std::fs::metadata(replaced) {
        Ok(m) => m.permissions().mode() & 0o777,
        Err(_) => 0o644,
    };
    file.set_permissions(std::fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn set_usual_permissions(_: &std::fs::File, _: &Path) -> std::io::Result<()> {
    Ok(())
}
