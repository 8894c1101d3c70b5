//! The network on candle: parameters that can be trained, and one forward pass for all uses.

use candle_core::{Device, Result as TensorResult, Tensor, Var};

use crate::ops::{MaxPool, Patches};
use crate::{Network, Passing, Product, TrainError};

/// What happens to the operands of each product on the way: nothing, observation, or one of the
/// forms of fake quantization.
pub trait Operands {
    /// The input of a layer's product, not negative: an image `[N, H, W, C]` or rows `[N, I]`.
    ///
    /// # Errors
    ///
    /// The implementation's own.
    fn input(&mut self, layer: usize, x: Tensor) -> Result<Tensor, TrainError>;

    /// The weights of a layer, in the shape of [`Layer::shape`](crate::Layer::shape).
    ///
    /// # Errors
    ///
    /// The implementation's own.
    fn weight(&mut self, layer: usize, w: &Tensor) -> Result<Tensor, TrainError>;

    /// The result of a layer's product before its bias, channels last: `y` is what the operands
    /// above gave, and `float` computes the product of the same input and the layer's weights as
    /// they were before [`weight`](Self::weight). As it is, unless implemented.
    ///
    /// # Errors
    ///
    /// The implementation's own.
    fn output(
        &mut self,
        layer: usize,
        y: Tensor,
        float: &dyn Fn() -> Result<Tensor, TrainError>,
    ) -> Result<Tensor, TrainError> {
        let _ = (layer, float);
        Ok(y)
    }
}

/// Float operands as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Float;

impl Operands for Float {
    fn input(&mut self, _: usize, x: Tensor) -> Result<Tensor, TrainError> {
        Ok(x)
    }

    fn weight(&mut self, _: usize, w: &Tensor) -> Result<Tensor, TrainError> {
        Ok(w.clone())
    }
}

/// A network on candle's tensors.
#[derive(Debug, Clone)]
pub struct Graph<'n> {
    network: &'n Network,
    weights: Vec<Tensor>,
    biases: Vec<Tensor>,
    parameters: Vec<Var>,
}

impl<'n> Graph<'n> {
    /// The network as it is; nothing is remembered for a backward pass.
    ///
    /// # Errors
    ///
    /// [`TrainError::Tensor`].
    pub fn new(network: &'n Network) -> Result<Self, TrainError> {
        let tensor =
            |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu);
        let layers = network.layers.iter();
        let weights: TensorResult<_> = layers
            .clone()
            .map(|l| tensor(&l.weight, &l.shape))
            .collect();
        let biases: TensorResult<_> = layers.map(|l| tensor(&l.bias, &[l.bias.len()])).collect();
        Ok(Graph {
            network,
            weights: weights?,
            biases: biases?,
            parameters: Vec::new(),
        })
    }

    /// The network with weights and biases that candle differentiates by.
    ///
    /// # Errors
    ///
    /// [`TrainError::Tensor`].
    pub fn trainable(network: &'n Network) -> Result<Self, TrainError> {
        let mut graph = Graph::new(network)?;
        for t in graph.weights.iter_mut().chain(&mut graph.biases) {
            let var = Var::from_tensor(t)?;
            // Shares the variable's memory: steps of an optimizer are seen here.
            *t = var.as_tensor().clone();
            graph.parameters.push(var);
        }
        Ok(graph)
    }

    /// The parameters that are trained: weights, then biases, in the order of the layers; none
    /// unless the graph is [`trainable`](Self::trainable).
    #[must_use]
    pub fn parameters(&self) -> &[Var] {
        &self.parameters
    }

    /// The network with the parameters as they are now.
    ///
    /// # Errors
    ///
    /// [`TrainError::Tensor`].
    pub fn network(&self) -> Result<Network, TrainError> {
        let mut network = self.network.clone();
        let parameters = self.weights.iter().zip(&self.biases);
        for (layer, (weight, bias)) in network.layers.iter_mut().zip(parameters) {
            layer.weight = weight.flatten_all()?.to_vec1()?;
            layer.bias = bias.to_vec1()?;
        }
        Ok(network)
    }

    /// Images as [`logits`](Self::logits) takes them, from rows of pixels `[N, H, W, C]`.
    ///
    /// # Errors
    ///
    /// [`TrainError::Tensor`] when the pixels are no whole number of images.
    pub fn images(&self, pixels: Vec<f32>) -> Result<Tensor, TrainError> {
        let [c, h, w] = self.network.sample;
        let count = pixels.len() / (c * h * w);
        Ok(Tensor::from_vec(pixels, (count, h, w, c), &Device::Cpu)?)
    }

    /// The outputs `[N, classes]` for images `[N, H, W, C]`; `operands` sees the operands of every
    /// product, the input first, and then its result.
    ///
    /// # Errors
    ///
    /// [`TrainError::Tensor`] for images of another shape, and those of `operands`.
    pub fn logits(
        &self,
        images: &Tensor,
        operands: &mut dyn Operands,
    ) -> Result<Tensor, TrainError> {
        let mut x = images.clone();
        for (i, layer) in self.network.layers.iter().enumerate() {
            for step in &layer.before {
                x = match *step {
                    Passing::MaxPool { size } => x.apply_op1(MaxPool { size })?,
                    // Rows are channel by channel, as in the file.
                    Passing::Flatten if x.rank() == 4 => {
                        x.permute((0, 3, 1, 2))?.flatten_from(1)?
                    }
                    Passing::Flatten => x.flatten_from(1)?,
                };
            }
            x = operands.input(i, x)?;
            let w = operands.weight(i, &self.weights[i])?;
            // Rows that weights are multiplied with, and the shape of what comes out.
            let (rows, dims) = match layer.product {
                Product::Conv { size, pad } => {
                    let (n, h, w_in, _) = x.dims4()?;
                    let along = |length: usize| length + 2 * pad + 1 - size;
                    let rows = x.apply_op1(Patches { size, pad })?;
                    (rows, vec![n, along(h), along(w_in), layer.shape[0]])
                }
                Product::Dense => {
                    let dims = vec![x.dim(0)?, layer.shape[0]];
                    (x, dims)
                }
            };
            let multiply = |w: &Tensor| {
                let filters = match layer.product {
                    Product::Conv { .. } => w.permute((0, 2, 3, 1))?.flatten_from(1)?,
                    Product::Dense => w.clone(),
                };
                Ok(rows.matmul(&filters.t()?)?)
            };
            let y = multiply(&w)?;
            let y = operands.output(i, y, &|| multiply(&self.weights[i]))?;
            x = y.broadcast_add(&self.biases[i])?.reshape(dims)?;
            if layer.relu {
                x = x.relu()?;
            }
        }
        Ok(x)
    }
}
