//! Post-training quantization: ranges of inputs from calibration, and scales of weights.

use candle_core::Tensor;
use qcalib::train::{Quantizer, Schedule};
use qcalib::{CalibError, Method, Observer, ObserverKind, Policy};
use qformat::{DType, Granularity, QuantSpec, Scheme};

use crate::data::Samples;
use crate::evaluate::BATCH;
use crate::graph::{Graph, Operands};
use crate::ops::read;
use crate::quantized::{LayerQuantizers, Width, cover};
use crate::{Network, TrainError};

/// The methods that are tried on a network that is not trained further. Two of qcalib's are left
/// out: `lsq`, which is where training starts and no optimum, and `entropy-all`, which chooses what
/// `entropy` does, for inputs are not negative and have one end to choose.
pub const METHODS: [Method; 8] = [
    Method::MinMax,
    Method::MovingAverage,
    Method::Percentile(99.9),
    Method::Entropy,
    Method::Mse,
    Method::AciqLaplace,
    Method::AciqGauss,
    Method::MeanStd(3.0),
];

/// One schedule a layer's input, in the phase of observation.
///
/// # Errors
///
/// Those of [`Schedule::new`] and [`Width::activation_spec`].
pub fn schedules(
    network: &Network,
    method: Method,
    width: Width,
) -> Result<Vec<Schedule>, TrainError> {
    let spec = width.activation_spec()?;
    let layers = network.layers.iter();
    layers
        .map(|_| Ok(Schedule::new(method, spec, Policy::Error)?))
        .collect()
}

/// Sends samples through the float network and shows every layer's input to its schedule in each
/// of `sets`.
///
/// # Errors
///
/// Those of [`Graph::logits`] and [`Schedule::forward`].
pub fn observe(
    graph: &Graph<'_>,
    samples: &Samples,
    sets: &mut [Vec<Schedule>],
) -> Result<(), TrainError> {
    watch(graph, samples, &mut |batch, layer, x, dims| {
        let mut passed = vec![0f32; x.len()];
        for set in &mut *sets {
            if let Some(s) = set.get_mut(layer) {
                s.forward(batch, x, dims, &mut passed)?;
            }
        }
        Ok(())
    })
}

/// Records the inputs of every layer of the float network channel by channel: extremes, means.
///
/// # Errors
///
/// Those of [`Graph::logits`] and [`Observer::observe`].
pub fn channels(
    graph: &Graph<'_>,
    samples: &Samples,
    layers: usize,
) -> Result<Vec<Box<dyn Observer>>, TrainError> {
    let by_channel = Granularity::PerChannel { axis: 0 };
    let mut observers: Vec<Box<dyn Observer>> = (0..layers)
        .map(|_| ObserverKind::Moments.observer(by_channel, Policy::Error))
        .collect::<Result<_, _>>()?;
    watch(graph, samples, &mut |batch, layer, x, dims| {
        // Channels are last, in images and in rows; observers like long runs.
        let channels = dims.last().copied().unwrap_or(1).max(1);
        let mut turned = Vec::with_capacity(x.len());
        for channel in 0..channels {
            turned.extend(x.iter().skip(channel).step_by(channels));
        }
        match observers.get_mut(layer) {
            Some(o) => o.observe(batch, &turned, &[channels, x.len() / channels]),
            None => Ok(()),
        }
    })?;
    Ok(observers)
}

/// Gets batch, layer, values and shape of every input.
type Watch<'w> = dyn FnMut(u64, usize, &[f32], &[usize]) -> Result<(), CalibError> + 'w;

/// Shows every layer's input in the float network to `f`.
fn watch(graph: &Graph<'_>, samples: &Samples, f: &mut Watch<'_>) -> Result<(), TrainError> {
    struct Watching<'a, 'w> {
        batch: u64,
        f: &'a mut Watch<'w>,
    }
    impl Operands for Watching<'_, '_> {
        fn input(&mut self, layer: usize, x: Tensor) -> Result<Tensor, TrainError> {
            let mut outcome = Ok(());
            read(&x, |values| {
                outcome = (self.f)(self.batch, layer, values, x.dims());
                Ok(())
            })?;
            outcome?;
            Ok(x)
        }

        fn weight(&mut self, _: usize, w: &Tensor) -> Result<Tensor, TrainError> {
            Ok(w.clone())
        }
    }
    let pixels = samples.pixels.max(1);
    for (batch, images) in samples.images.chunks(BATCH * pixels).enumerate() {
        let batch = batch as u64;
        let images = graph.images(images.to_vec())?;
        graph.logits(&images, &mut Watching { batch, f })?;
    }
    Ok(())
}

/// The quantizers of a network's inputs, once observed: the range of each is chosen, and it goes on
/// to the phase in which values are quantized.
///
/// # Errors
///
/// Those of [`Schedule::advance`].
pub fn choose(schedules: &mut [Schedule]) -> Result<Vec<Quantizer>, TrainError> {
    schedules
        .iter_mut()
        .map(|s| {
            s.advance()?;
            current(s)
        })
        .collect()
}

/// The quantizer that a schedule uses now.
pub(crate) fn current(schedule: &Schedule) -> Result<Quantizer, TrainError> {
    let params = schedule.params().ok_or(CalibError::Phase {
        given: schedule.phase(),
        allowed: "a phase with parameters",
    })?;
    Ok(Quantizer::from_params(params)?)
}

/// The quantizers of all weights by a method of calibration; [`Method::Entropy`] and
/// [`Method::EntropyAll`] cover them wholly, for the few weights of a channel have no distribution that it could keep.
///
/// # Errors
///
/// Those of the method; [`TrainError::Setting`] for other than 4 or 8 bits unless the method is
/// [`Method::MinMax`] or one of those two, which any width has.
pub fn weights(
    network: &Network,
    method: Method,
    width: Width,
    granularity: Granularity,
) -> Result<Vec<Quantizer>, TrainError> {
    let levels = width.weight_levels()?;
    let dtype = match width.weights {
        4 => Some(DType::I4),
        8 => Some(DType::I8),
        _ => None,
    };
    let layers = network.layers.iter();
    layers
        .map(|l| match (method, dtype) {
            (Method::MinMax | Method::Entropy | Method::EntropyAll, _) => {
                cover(&l.weight, &l.shape, levels, granularity)
            }
            (_, Some(dtype)) => {
                let mut observer = method.observer(granularity, Policy::Error)?;
                observer.observe(0, &l.weight, &l.shape)?;
                let spec = QuantSpec {
                    dtype,
                    scheme: Scheme::Symmetric,
                    granularity,
                };
                let params = qcalib::params(&*observer, method, spec)?;
                Ok(Quantizer::from_params(&params)?)
            }
            (_, None) => Err(TrainError::Setting {
                argument: "bits of weights",
                given: width.weights.to_string(),
                allowed: "4 or 8 for methods other than minmax, entropy and entropy-all",
            }),
        })
        .collect()
}

/// Joins the quantizers of weights and inputs, layer by layer.
#[must_use]
pub fn join(weights: Vec<Quantizer>, inputs: Vec<Quantizer>) -> Vec<LayerQuantizers> {
    let pairs = weights.into_iter().zip(inputs);
    pairs
        .map(|(weight, input)| LayerQuantizers { weight, input })
        .collect()
}

/// All quantizers of a network by one method: inputs observed on `samples`, weights looked at.
///
/// # Errors
///
/// Those of [`observe`], [`choose`] and [`weights`].
pub fn quantize(
    network: &Network,
    samples: &Samples,
    method: Method,
    width: Width,
    granularity: Granularity,
) -> Result<Vec<LayerQuantizers>, TrainError> {
    let graph = Graph::new(network)?;
    let mut sets = [schedules(network, method, width)?];
    observe(&graph, samples, &mut sets)?;
    let inputs = choose(&mut sets[0])?;
    Ok(join(weights(network, method, width, granularity)?, inputs))
}
