//! ONNX Runtime: small graphs of one operator, loaded from the shared library that
//! `ORT_DYLIB_PATH` names.
//!
//! Weights are initializers, so that it packs them when the session is made; input and output are
//! bound once. Its idle workers spin for a while, as it likes them to: the bench rests after every
//! turn of several threads.

mod graphs;

use ort::environment::Environment;
use ort::session::{IoBinding, Session};
use ort::value::{DynTensor, Tensor, TensorElementType};
use qformat::{DType, bf16, f16};
use qkernels::Isa;

use self::graphs::Small;
use super::task::{Task, Weights};
use super::{Peer, Work};
use crate::BenchError;
use crate::values::Values;

/// More copies of the weights than this would be as many sessions.
const MOST_COPIES: usize = 16;

struct OnnxRuntime {
    environment: Environment,
}

/// Loads the library.
pub(super) fn open(_cap: Option<Isa>) -> Result<Box<dyn Peer>, BenchError> {
    let missing = |reason: String| BenchError::PeerNotFound {
        peer: "onnxruntime",
        reason,
        needs: "set ORT_DYLIB_PATH to libonnxruntime.so, for example the one in capi/ of Python's \
                onnxruntime",
    };
    let path = std::env::var_os("ORT_DYLIB_PATH")
        .ok_or_else(|| missing("ORT_DYLIB_PATH is not set".to_owned()))?;
    let environment = ort::init_from(&path)
        .map_err(|error| missing(error.to_string()))?
        .with_telemetry(false)
        .build()
        .map_err(|error| missing(error.to_string()))?;
    Ok(Box::new(OnnxRuntime { environment }))
}

impl Peer for OnnxRuntime {
    fn name(&self) -> &'static str {
        "onnxruntime"
    }

    fn prepare(
        &self,
        task: &Task<'_>,
        threads: usize,
    ) -> Result<Option<Box<dyn Work>>, BenchError> {
        let copies = match task {
            Task::MatMul(task) => match task.weights {
                Weights::Packed(copies) => copies,
                Weights::Plain => 1,
            },
            Task::Map(_) | Task::Conv(_) => 1,
        };
        let Some(graph) = graphs::of(task).filter(|_| copies <= MOST_COPIES) else {
            return Ok(None);
        };
        let model = graph.model().map_err(|error| failed(&error))?;
        let bound = (0..copies)
            .map(|_| self.bind(&model, &graph, threads))
            .collect::<Result<Vec<_>, ort::Error>>()
            .map_err(|error| failed(&error))?;
        Ok(Some(Box::new(OrtWork {
            bound,
            next: 0,
            last: 0,
        })))
    }
}

impl OnnxRuntime {
    fn bind(&self, model: &[u8], graph: &Small<'_>, threads: usize) -> Result<Bound, ort::Error> {
        let session = Session::builder(&self.environment)?
            .with_intra_threads(threads)?
            .commit_from_memory(model)?;
        let mut binding = session.create_binding()?;
        for input in &graph.inputs {
            binding.bind_input(input.name, &tensor(input.values, &input.shape)?)?;
        }
        let mut output = DynTensor::new(
            session.allocator(),
            element(graph.output),
            &graph.output_shape[..],
        )?;
        binding.bind_output("c", &mut output)?;
        Ok(Bound {
            session,
            binding,
            output,
            dtype: graph.output,
        })
    }
}

/// A session with its memory.
struct Bound {
    session: Session,
    binding: IoBinding,
    output: DynTensor,
    dtype: DType,
}

struct OrtWork {
    /// One for each copy of the weights.
    bound: Vec<Bound>,
    next: usize,
    last: usize,
}

impl Work for OrtWork {
    fn run(&mut self) -> Result<(), BenchError> {
        self.last = self.next;
        self.next = (self.next + 1) % self.bound.len();
        let Bound {
            session, binding, ..
        } = &mut self.bound[self.last];
        session
            .run_binding(binding)
            .map(drop)
            .map_err(|error| failed(&error))
    }

    fn answer(&self) -> Values<'_> {
        let Bound { output, dtype, .. } = &self.bound[self.last];
        // The type is the one that the tensor was made with; an empty answer agrees with nothing.
        match dtype {
            DType::U8 => Values::U8(slice(output)),
            DType::I8 => Values::I8(slice(output)),
            DType::U16 => Values::U16(slice(output)),
            DType::I16 => Values::I16(slice(output)),
            DType::I32 => Values::I32(slice(output)),
            DType::F16 => Values::F16(slice(output)),
            DType::Bf16 => Values::Bf16(slice(output)),
            _ => Values::F32(slice(output)),
        }
    }
}

fn slice<T: ort::value::PrimitiveTensorElementType>(tensor: &DynTensor) -> &[T] {
    tensor
        .try_extract_tensor::<T>()
        .map_or(&[], |(_, values)| values)
}

/// An owned tensor of ONNX Runtime.
fn tensor(values: Values<'_>, shape: &[usize]) -> Result<DynTensor, ort::Error> {
    Ok(match values {
        Values::U8(values) => Tensor::from_array((shape, values.to_vec()))?.upcast(),
        Values::I8(values) => Tensor::from_array((shape, values.to_vec()))?.upcast(),
        Values::U16(values) => Tensor::from_array((shape, values.to_vec()))?.upcast(),
        Values::I16(values) => Tensor::from_array((shape, values.to_vec()))?.upcast(),
        Values::I32(values) => Tensor::from_array((shape, values.to_vec()))?.upcast(),
        Values::F16(values) => Tensor::<f16>::from_array((shape, values.to_vec()))?.upcast(),
        Values::Bf16(values) => Tensor::<bf16>::from_array((shape, values.to_vec()))?.upcast(),
        Values::F32(values) => Tensor::from_array((shape, values.to_vec()))?.upcast(),
    })
}

fn element(dtype: DType) -> TensorElementType {
    match dtype {
        DType::U8 => TensorElementType::Uint8,
        DType::I8 => TensorElementType::Int8,
        DType::U16 => TensorElementType::Uint16,
        DType::I16 => TensorElementType::Int16,
        DType::I32 => TensorElementType::Int32,
        DType::F16 => TensorElementType::Float16,
        DType::Bf16 => TensorElementType::Bfloat16,
        _ => TensorElementType::Float32,
    }
}

fn failed(reason: &dyn std::fmt::Display) -> BenchError {
    BenchError::Peer {
        peer: "onnxruntime",
        reason: reason.to_string(),
    }
}
