//! The digit classifier and its data, built in.

use std::collections::HashSet;
use std::io::Cursor;

use ndarray::{Array1, Array4};
use ndarray_npy::NpzReader;
use qmodel::Model;

use crate::TrainError;

const MODEL: &[u8] = include_bytes!("../../../models/digits/digits.onnx");
const TRAINING: &[u8] = include_bytes!("../../../models/digits/training.npz");
const CALIBRATION: &[u8] = include_bytes!("../../../models/digits/calibration.npz");
const TEST: &[u8] = include_bytes!("../../../models/digits/test.npz");

/// Images with their labels.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Samples {
    /// Pixels of all images, row-major `[N, H, W, C]` (the files' `[N, C, H, W]` is the same, for
    /// there is one channel), in `[0, 1]`.
    pub images: Vec<f32>,
    /// Pixels of one image.
    pub pixels: usize,
    /// One class an image.
    pub labels: Vec<u32>,
}

impl Samples {
    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The pixels of image `i`; none where there is no such image.
    #[must_use]
    pub fn image(&self, i: usize) -> &[f32] {
        let start = i.saturating_mul(self.pixels);
        self.images
            .get(start..start.saturating_add(self.pixels))
            .unwrap_or(&[])
    }

    /// Some of the images, in the order of `rows`; rows that do not exist are left out.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Samples {
        let rows = rows.iter().copied().filter(|&i| i < self.len());
        let mut chosen = Samples {
            pixels: self.pixels,
            ..Samples::default()
        };
        for i in rows {
            chosen.images.extend_from_slice(self.image(i));
            chosen.labels.push(self.labels[i]);
        }
        chosen
    }

    /// Two parts: `held` images that are held out, and the rest. The files' order is random, so
    /// the last ones serve, but for those of `known`, by which other choices were made.
    #[must_use]
    pub fn hold_out(&self, held: usize, known: &Samples) -> (Samples, Samples) {
        let bits = |s: &Samples, i| s.image(i).iter().map(|p| p.to_bits()).collect::<Vec<_>>();
        let known: HashSet<_> = (0..known.len()).map(|i| bits(known, i)).collect();
        let (mut rest, mut chosen) = (Vec::new(), Vec::new());
        for i in (0..self.len()).rev() {
            if chosen.len() < held && !known.contains(&bits(self, i)) {
                chosen.push(i);
            } else {
                rest.push(i);
            }
        }
        rest.reverse();
        chosen.reverse();
        (self.select(&rest), self.select(&chosen))
    }
}

/// The float network.
///
/// # Errors
///
/// Those of [`Model::from_bytes`].
pub fn model() -> Result<Model, TrainError> {
    Ok(Model::from_bytes(MODEL)?)
}

/// 4,000 digits to train with; no test digit is among them.
///
/// # Errors
///
/// [`TrainError::Data`].
pub fn training() -> Result<Samples, TrainError> {
    let file = "models/digits/training.npz";
    // The same quotient as that of the other files.
    let pixels = array::<u8>(file, TRAINING)?.mapv(|p| f32::from(p) / 255.0);
    samples(file, TRAINING, &pixels)
}

/// 200 of them to calibrate with.
///
/// # Errors
///
/// [`TrainError::Data`].
pub fn calibration() -> Result<Samples, TrainError> {
    let file = "models/digits/calibration.npz";
    samples(file, CALIBRATION, &array(file, CALIBRATION)?)
}

/// 1,000 held-out digits.
///
/// # Errors
///
/// [`TrainError::Data`].
pub fn test() -> Result<Samples, TrainError> {
    let file = "models/digits/test.npz";
    samples(file, TEST, &array(file, TEST)?)
}

fn wrong(file: &'static str) -> impl Fn(&dyn std::fmt::Display) -> TrainError {
    move |problem| TrainError::Data {
        file,
        problem: problem.to_string(),
    }
}

fn array<T: ndarray_npy::ReadableElement>(
    file: &'static str,
    bytes: &[u8],
) -> Result<Array4<T>, TrainError> {
    let wrong = wrong(file);
    let mut archive = NpzReader::new(Cursor::new(bytes)).map_err(|e| wrong(&e))?;
    archive.by_name("image").map_err(|e| wrong(&e))
}

fn samples(file: &'static str, bytes: &[u8], images: &Array4<f32>) -> Result<Samples, TrainError> {
    let wrong = wrong(file);
    let mut archive = NpzReader::new(Cursor::new(bytes)).map_err(|e| wrong(&e))?;
    let labels: Array1<i64> = archive.by_name("label").map_err(|e| wrong(&e))?;
    let labels: Result<Vec<u32>, _> = labels.iter().map(|&l| u32::try_from(l)).collect();
    let labels = labels.map_err(|e| wrong(&e))?;
    let (count, channels, h, w) = images.dim();
    if count != labels.len() || channels != 1 {
        return Err(wrong(&format!(
            "images {:?} and {} labels, but as many images of one channel are needed",
            images.dim(),
            labels.len()
        )));
    }
    Ok(Samples {
        images: images.iter().copied().collect(),
        pixels: channels * h * w,
        labels,
    })
}
