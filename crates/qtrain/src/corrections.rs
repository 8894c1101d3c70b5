//! Corrections of weights and biases, and what each is worth at few bits.
//!
//! The arithmetic is [`qcalib::correct`]'s; here is who belongs together in a chain of layers.

use qcalib::correct::{
    Equalization, bias_correction, bias_scale_floor, channel_abs_max, equalize, quantize_bias,
    scale_channels, smooth, unscale_inputs,
};
use qcalib::train::Quantizer;
use qcalib::{CalibError, Method};
use qformat::Granularity;

use crate::calibrate;
use crate::data::Samples;
use crate::evaluate::{self, Score};
use crate::graph::{Float, Graph};
use crate::quantized::{Fixed, LayerQuantizers, Width, cover_weights};
use crate::{Network, TrainError};

/// How often all pairs of layers are equalized: each pair disturbs its neighbours, so the paper
/// repeats until nothing moves.
const SWEEPS: usize = 20;

/// The strength of smoothing: the paper's choice.
const ALPHA: f32 = 0.5;

/// What is done to a network before it is quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Correction {
    /// Nothing.
    None,
    /// Biases are integers of the accumulator.
    IntegerBias,
    /// The mean error of quantized weights is taken off the biases.
    Bias,
    /// Channels between layers are made equally wide.
    Equalization,
    /// Equalization, then bias correction.
    EqualizationBias,
    /// Range moves from activations to weights.
    Smoothing,
    /// Smoothing, then bias correction.
    SmoothingBias,
}

impl Correction {
    /// Every correction, in the order of the table.
    pub const ALL: [Correction; 7] = [
        Correction::None,
        Correction::IntegerBias,
        Correction::Bias,
        Correction::Equalization,
        Correction::EqualizationBias,
        Correction::Smoothing,
        Correction::SmoothingBias,
    ];

    /// The name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Correction::None => "none",
            Correction::IntegerBias => "i32 biases",
            Correction::Bias => "bias correction",
            Correction::Equalization => "cross-layer equalization",
            Correction::EqualizationBias => "equalization + bias correction",
            Correction::Smoothing => "smoothing",
            Correction::SmoothingBias => "smoothing + bias correction",
        }
    }

    /// Where it is from.
    #[must_use]
    pub const fn paper(self) -> &'static str {
        match self {
            Correction::None => "",
            Correction::IntegerBias => "Jacob et al. 2018, Integer-arithmetic-only inference, §2.4",
            Correction::Bias => "Nagel et al. 2019, Data-free quantization, §4.2",
            Correction::Equalization => "Nagel et al. 2019, §4.1",
            Correction::EqualizationBias => "Nagel et al. 2019, §4",
            Correction::Smoothing => "Xiao et al. 2023, SmoothQuant, §4",
            Correction::SmoothingBias => "Xiao et al. 2023; Nagel et al. 2019, §4.2",
        }
    }

    /// Whether biases are corrected last.
    const fn corrects_biases(self) -> bool {
        matches!(
            self,
            Correction::Bias | Correction::EqualizationBias | Correction::SmoothingBias
        )
    }
}

/// The weights that read the channels which layer `first` makes, as `outputs × channels × inner`.
///
/// Behind a `Flatten`, each channel is as many neighbouring inputs as it had pixels.
fn reading(network: &Network, first: usize) -> Result<[usize; 3], TrainError> {
    let (made, read) = (&network.layers[first], &network.layers[first + 1]);
    let [channels, ..] = made.extents();
    let outputs = read.shape[0];
    let shape = [outputs, channels, read.weight.len() / (outputs * channels)];
    if shape.iter().product::<usize>() == read.weight.len() {
        return Ok(shape);
    }
    Err(TrainError::Unsupported {
        place: read.node.clone(),
        given: format!("weights {:?} behind {channels} channels", read.shape),
        allowed: "a whole number of inputs a channel",
    })
}

/// Equalizes all neighbouring layers, over and over, in place, and returns for each pair how far
/// its channels were apart at first and are at the end. The float network computes the same, but
/// for rounding.
///
/// # Errors
///
/// Those of [`equalize`].
pub fn equalize_layers(network: &mut Network) -> Result<Vec<Equalization>, TrainError> {
    let pairs = network.layers.len().saturating_sub(1);
    let mut outcome: Vec<Equalization> = Vec::with_capacity(pairs);
    for sweep in 0..SWEEPS {
        for pair in 0..pairs {
            let shape = reading(network, pair)?;
            let (first, second) = network.layers.split_at_mut(pair + 1);
            let (made, read) = (&mut first[pair], &mut second[0]);
            let channels = made.shape[0];
            let bias = Some(&mut made.bias[..]);
            let e = equalize(
                &mut made.weight,
                bias,
                &mut read.weight,
                channels,
                shape,
                false,
            )?;
            if sweep == 0 {
                outcome.push(e);
            } else {
                let all = &mut outcome[pair];
                all.spread_after = e.spread_after;
                let factors = all.factors.iter_mut().zip(&e.factors);
                factors.for_each(|(f, s)| *f *= s);
            }
        }
    }
    Ok(outcome)
}

/// Smooths the inputs of all layers but the first, whose input no layer makes, in place. The float
/// network computes the same, but for rounding.
///
/// # Errors
///
/// Those of calibration and of [`smooth`].
pub fn smooth_layers(
    network: &mut Network,
    samples: &Samples,
    alpha: f32,
) -> Result<(), TrainError> {
    let layers = network.layers.len();
    let observers = calibrate::channels(&Graph::new(network)?, samples, layers)?;
    for pair in 0..layers.saturating_sub(1) {
        let shape @ [_, channels, _] = reading(network, pair)?;
        let observer = &observers[pair + 1];
        let mut largest = vec![0f32; channels];
        let groups = observer.groups();
        for group in 0..groups {
            if let Some(range) = observer.record(group).and_then(|r| r.range().ok()) {
                // Inputs that one channel makes are neighbours.
                let channel = &mut largest[group * channels / groups];
                *channel = channel.max(range.max.abs()).max(range.min.abs());
            }
        }
        let read = channel_abs_max(&network.layers[pair + 1].weight, shape)?;
        let factors = smooth(&largest, &read, alpha)?;
        scale_channels(&mut network.layers[pair].weight, &factors)?;
        scale_channels(&mut network.layers[pair].bias, &factors)?;
        unscale_inputs(&mut network.layers[pair + 1].weight, shape, &factors)?;
    }
    Ok(())
}

/// Takes the mean error that quantized weights make on `samples` off the biases, in place.
///
/// # Errors
///
/// Those of calibration and of [`bias_correction`]; [`TrainError::Count`] unless there is a
/// quantizer for each layer.
pub fn correct_biases(
    network: &mut Network,
    weights: &[Quantizer],
    samples: &Samples,
) -> Result<(), TrainError> {
    let layers = network.layers.len();
    if weights.len() != layers {
        return Err(TrainError::Count {
            what: "quantizers of weights",
            given: weights.len(),
            expected: layers,
        });
    }
    let observers = calibrate::channels(&Graph::new(network)?, samples, layers)?;
    for ((layer, q), observer) in network.layers.iter_mut().zip(weights).zip(&observers) {
        let mut means = Vec::with_capacity(observer.groups());
        for group in 0..observer.groups() {
            let record = observer.record(group).ok_or(CalibError::NoData { group })?;
            means.push(record.statistics()?.mean as f32);
        }
        let mut quantized = vec![0f32; layer.weight.len()];
        q.forward(&layer.weight, &layer.shape, &mut quantized)?;
        layer.bias = bias_correction(
            &layer.weight,
            &quantized,
            layer.extents(),
            &means,
            Some(&layer.bias),
        )?;
    }
    Ok(())
}

/// The most steps of the accumulator that a bias may take: half of i32, so that as much is left to
/// the products.
const BIAS_LIMIT: i32 = i32::MAX / 2;

/// Rounds every bias to a multiple of `S_a · S_w`, the step of its layer's accumulator, as integer
/// kernels hold it, in place; returns for each layer the largest of them, in steps.
///
/// Where a bias would take more than half of i32, the scales of the weights are raised until it
/// does not.
///
/// # Errors
///
/// Those of [`bias_scale_floor`] and [`quantize_bias`]; [`TrainError::Count`] unless there are
/// quantizers for each layer, and one scale for its input.
pub fn round_biases(
    network: &mut Network,
    quantizers: &mut [LayerQuantizers],
) -> Result<Vec<u32>, TrainError> {
    let count = |what, given, expected| TrainError::Count {
        what,
        given,
        expected,
    };
    let layers = network.layers.len();
    if quantizers.len() != layers {
        return Err(count("layers with quantizers", quantizers.len(), layers));
    }
    let mut largest = Vec::with_capacity(layers);
    for (layer, q) in network.layers.iter_mut().zip(quantizers) {
        let &[activation] = q.input.scales() else {
            return Err(count("scales of an input", q.input.scales().len(), 1));
        };
        let scales = bias_scale_floor(&layer.bias, activation, q.weight.scales(), BIAS_LIMIT)?;
        if scales != q.weight.scales() {
            let zeros = q.weight.zero_points().to_vec();
            q.weight.set(scales, zeros)?;
        }
        let rounded = quantize_bias(&layer.bias, activation, q.weight.scales())?;
        let values = rounded.values.iter().zip(&rounded.scales);
        layer.bias = values.map(|(&b, &s)| b as f32 * s).collect();
        let steps = rounded.values.iter().map(|b| b.unsigned_abs());
        largest.push(steps.max().unwrap_or(0));
    }
    Ok(largest)
}

/// One cell of the table.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Cell {
    /// What was done.
    pub correction: Correction,
    /// Bits.
    pub width: Width,
    /// What it gave.
    #[serde(flatten)]
    pub score: Score,
}

/// How corrections are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Study {
    /// The widths to quantize to.
    pub widths: Vec<Width>,
    /// One scale a weight tensor, or one an output channel.
    pub granularity: Granularity,
    /// The method that chooses ranges of activations; weights are covered wholly.
    pub method: Method,
}

impl Study {
    /// Corrects a copy of the network in each way, quantizes it to each width and rates it on
    /// `test`; `done` is called for each cell.
    ///
    /// # Errors
    ///
    /// Those of the corrections, of calibration and of evaluation.
    pub fn run(
        &self,
        network: &Network,
        calibration: &Samples,
        test: &Samples,
        done: &mut dyn FnMut(&Cell),
    ) -> Result<Vec<Cell>, TrainError> {
        let float = evaluate::logits(&Graph::new(network)?, test, &mut Float)?;
        let mut cells = Vec::new();
        for correction in Correction::ALL {
            let mut changed = network.clone();
            match correction {
                Correction::Equalization | Correction::EqualizationBias => {
                    equalize_layers(&mut changed)?;
                }
                Correction::Smoothing | Correction::SmoothingBias => {
                    smooth_layers(&mut changed, calibration, ALPHA)?;
                }
                Correction::None | Correction::IntegerBias | Correction::Bias => {}
            }
            for &width in &self.widths {
                let mut corrected = changed.clone();
                let weights = cover_weights(&corrected, width, self.granularity)?;
                if correction.corrects_biases() {
                    correct_biases(&mut corrected, &weights, calibration)?;
                }
                let mut sets = [calibrate::schedules(&corrected, self.method, width)?];
                calibrate::observe(&Graph::new(&corrected)?, calibration, &mut sets)?;
                let inputs = calibrate::choose(&mut sets[0])?;
                let mut quantizers = calibrate::join(weights, inputs);
                if correction == Correction::IntegerBias {
                    round_biases(&mut corrected, &mut quantizers)?;
                }
                let graph = Graph::new(&corrected)?;
                let outputs = evaluate::logits(&graph, test, &mut Fixed(&quantizers))?;
                let cell = Cell {
                    correction,
                    width,
                    score: evaluate::score(&outputs, &float, &test.labels)?,
                };
                done(&cell);
                cells.push(cell);
            }
        }
        Ok(cells)
    }
}
