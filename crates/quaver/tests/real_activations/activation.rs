//! The digits model, run on some of its calibration digits.

use std::fs::File;
use std::path::PathBuf;
use std::sync::LazyLock;

use ndarray::Array4;
use ndarray_npy::NpzReader;
use qcalib::{Method, Observer, Policy};
use qformat::Granularity;
use quaver::model::{Model, Session, SessionOptions, Tensor};

/// Digits a batch, and batches: enough that 99.999 % of a tensor is not all of it.
const BATCH: usize = 6;
const BATCHES: usize = 4;

/// One value of the graph: everything it was, and what observers recorded of it.
pub(crate) struct Activation {
    pub(crate) name: String,
    /// The values of each batch, in order.
    pub(crate) batches: Vec<Vec<f32>>,
    /// All values, in ascending order.
    pub(crate) sorted: Vec<f32>,
    /// All magnitudes, in ascending order.
    pub(crate) magnitudes: Vec<f32>,
    records: Vec<Box<dyn Observer>>,
}

impl Activation {
    fn new(name: String, batches: Vec<Vec<f32>>) -> Activation {
        let mut sorted = batches.concat();
        assert!(sorted.iter().all(|v| v.is_finite()), "{name}");
        sorted.sort_by(f32::total_cmp);
        let mut magnitudes: Vec<f32> = sorted.iter().map(|v| v.abs()).collect();
        magnitudes.sort_by(f32::total_cmp);
        let records = Method::observers_for(&Method::ALL)
            .into_iter()
            .map(|kind| {
                // Dealt out to two observers, the last batch first, as shards might see them.
                let fresh = kind
                    .observer(Granularity::PerTensor, Policy::Error)
                    .unwrap();
                let mut shards = [fresh.clone(), fresh];
                for (i, batch) in batches.iter().enumerate().rev() {
                    shards[i % 2]
                        .observe(i as u64, batch, &[batch.len()])
                        .unwrap();
                }
                let [mut even, odd] = shards;
                even.merge(&*odd).unwrap();
                even
            })
            .collect();
        Activation {
            name,
            batches,
            sorted,
            magnitudes,
            records,
        }
    }

    /// What the observer recorded that serves a method.
    pub(crate) fn record_for(&self, method: Method) -> &dyn Observer {
        let mut records = self.records.iter();
        &**records.find(|o| method.served_by(o.kind())).unwrap()
    }

    /// The lowest and the highest value.
    pub(crate) fn ends(&self) -> (f32, f32) {
        (self.sorted[0], self.sorted[self.sorted.len() - 1])
    }

    /// The bins of a histogram are a power of two wide: the smallest with which 2,048 bins hold the
    /// largest magnitude.
    pub(crate) fn bin_width(&self) -> f64 {
        let largest = f64::from(self.magnitudes[self.magnitudes.len() - 1]);
        let mut width = 1.0;
        while largest >= 2048.0 * width {
            width *= 2.0;
        }
        while largest < 1024.0 * width {
            width /= 2.0;
        }
        width
    }

    /// Whether no value is below, or none above zero.
    pub(crate) fn one_sided(&self) -> bool {
        let (min, max) = self.ends();
        min >= 0.0 || max <= 0.0
    }
}

/// Every float value of the network, in the order in which they are computed.
pub(crate) fn observed() -> &'static [Activation] {
    static ALL: LazyLock<Vec<Activation>> = LazyLock::new(run);
    &ALL
}

fn run() -> Vec<Activation> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/digits");
    let model = Model::load(folder.join("digits.onnx")).unwrap();
    let file = File::open(folder.join("calibration.npz")).unwrap();
    let images: Array4<f32> = NpzReader::new(file).unwrap().by_name("image").unwrap();
    let pixels: Vec<f32> = images.iter().copied().collect();
    let mut session = Session::new(&model, SessionOptions::default()).unwrap();
    let mut values: Vec<(String, Vec<Vec<f32>>)> = Vec::new();
    for batch in pixels.chunks_exact(28 * 28 * BATCH).take(BATCHES) {
        let x = Tensor::new(&[BATCH, 1, 28, 28], batch.to_vec()).unwrap();
        session
            .run_observed(&[("image", &x)], &mut |name, tensor| {
                let batch = tensor.as_slice::<f32>().unwrap().to_vec();
                match values.iter_mut().find(|(known, _)| known == name) {
                    Some((_, batches)) => batches.push(batch),
                    None => values.push((name.to_owned(), vec![batch])),
                }
            })
            .unwrap();
    }
    assert!(values.iter().all(|(_, batches)| batches.len() == BATCHES));
    values
        .into_iter()
        .map(|(name, batches)| Activation::new(name, batches))
        .collect()
}
