//! Tensors as observers take them: three element types, any strides.

use alloc::vec::Vec;
use qformat::granularity::element_count;
use qformat::{bf16, f16};
use qkernels::{Isa, convert};

use crate::layout::check_len;
use crate::{CalibError, NonFinite};

/// The elements behind a [`TensorView`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Values<'a> {
    /// IEEE 754 binary32.
    F32(&'a [f32]),
    /// IEEE 754 binary16.
    F16(&'a [f16]),
    /// The upper half of binary32.
    Bf16(&'a [bf16]),
}

impl Values<'_> {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Values::F32(x) => x.len(),
            Values::F16(x) => x.len(),
            Values::Bf16(x) => x.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> From<&'a [f32]> for Values<'a> {
    fn from(x: &'a [f32]) -> Self {
        Values::F32(x)
    }
}

impl<'a> From<&'a [f16]> for Values<'a> {
    fn from(x: &'a [f16]) -> Self {
        Values::F16(x)
    }
}

impl<'a> From<&'a [bf16]> for Values<'a> {
    fn from(x: &'a [bf16]) -> Self {
        Values::Bf16(x)
    }
}

/// A tensor in memory that an observer reads: elements of any floating-point type, at any
/// strides.
///
/// Widening to f32 is exact, so a tensor in half precision is observed as its own f32 copy would
/// be. What is not row-major is copied in parts of at most 2^18 elements.
///
/// ```
/// use qcalib::{Observer, ObserverKind, Policy, TensorView};
/// use qformat::{Granularity, f16};
///
/// let mut o = ObserverKind::MinMax.observer(Granularity::PerChannel { axis: 0 }, Policy::Error)?;
/// // A 2 × 3 matrix in half precision, read as its 3 × 2 transpose.
/// let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0].map(f16::from_f32);
/// o.observe_view(0, TensorView::with_strides(&x[..], 0, &[3, 2], &[1, 3])?)?;
/// let r = o.record(0).unwrap().extent.range().unwrap();
/// assert_eq!((r.min, r.max), (1.0, 4.0));
/// # Ok::<(), qcalib::CalibError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    values: Values<'a>,
    shape: &'a [usize],
    len: usize,
    strides: Option<(usize, &'a [isize])>,
}

impl<'a> TensorView<'a> {
    /// A tensor in row-major order.
    ///
    /// # Errors
    ///
    /// [`CalibError::Length`] when the elements do not fill the shape, [`CalibError::Format`]
    /// when the shape overflows.
    pub fn new(
        values: impl Into<Values<'a>>,
        shape: &'a [usize],
    ) -> Result<TensorView<'a>, CalibError> {
        let values = values.into();
        check_len("x", values.len(), shape)?;
        Ok(TensorView {
            values,
            shape,
            len: values.len(),
            strides: None,
        })
    }

    /// A tensor whose element `[i₀, i₁, …]` lies at `offset + i₀ · strides[0] + i₁ · strides[1] + …`
    /// of `values`; strides count elements and may be zero or negative.
    ///
    /// # Errors
    ///
    /// [`CalibError::Strides`] unless there is one stride a dimension and every element lies in
    /// `values`, [`CalibError::Format`] when the shape overflows.
    pub fn with_strides(
        values: impl Into<Values<'a>>,
        offset: usize,
        shape: &'a [usize],
        strides: &'a [isize],
    ) -> Result<TensorView<'a>, CalibError> {
        let values = values.into();
        let len = element_count(shape)?;
        let bad = |reason| CalibError::Strides {
            given: strides.to_vec(),
            shape: shape.to_vec(),
            reason,
        };
        if strides.len() != shape.len() {
            return Err(bad("there must be one a dimension"));
        }
        if len > 0 {
            // Both extremes are reached, so they must be elements; i128 holds the sum of products
            // of words as long as no single step overflows it.
            let (mut low, mut high) = (offset as i128, offset as i128);
            for (&d, &s) in shape.iter().zip(strides) {
                let reach = (d as i128 - 1) * s as i128;
                let end = if reach < 0 { &mut low } else { &mut high };
                *end = end.saturating_add(reach);
            }
            if low < 0 || high >= values.len() as i128 {
                return Err(bad("they reach beyond the elements"));
            }
        }
        let mut dense = 1usize;
        let row_major = offset == 0
            && len == values.len()
            && shape.iter().zip(strides).rev().all(|(&d, &s)| {
                let fits = d == 1 || usize::try_from(s) == Ok(dense);
                dense = dense.saturating_mul(d);
                fits
            });
        Ok(TensorView {
            values,
            shape,
            len,
            strides: (!row_major).then_some((offset, strides)),
        })
    }

    /// The shape.
    #[must_use]
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// Number of elements of the shape.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements, where they need no copy.
    pub(crate) fn in_place(&self) -> Option<&'a [f32]> {
        match (self.values, self.strides) {
            (Values::F32(x), None) => Some(x),
            _ => None,
        }
    }

    /// Elements `start..start + len` in row-major order, as f32 in `buffer`.
    pub(crate) fn copy(
        &self,
        start: usize,
        len: usize,
        buffer: &mut Vec<f32>,
    ) -> Result<(), CalibError> {
        match self.values {
            Values::F32(x) => {
                buffer.clear();
                self.for_each_run(start, len, x, |run, step| extend(buffer, run, step));
            }
            Values::F16(x) => self.widen(start, len, x, buffer, convert::f16_to_f32)?,
            Values::Bf16(x) => self.widen(start, len, x, buffer, convert::bf16_to_f32)?,
        }
        Ok(())
    }

    fn widen<T: Copy>(
        &self,
        start: usize,
        len: usize,
        x: &'a [T],
        buffer: &mut Vec<f32>,
        convert: impl Fn(Isa, &[T], &mut [f32]) -> Result<(), qkernels::KernelError>,
    ) -> Result<(), CalibError> {
        let isa = Isa::detect();
        buffer.resize(len, 0.0);
        if self.strides.is_none() {
            return Ok(convert(isa, &x[start..start + len], buffer)?);
        }
        let mut narrow = Vec::with_capacity(len);
        self.for_each_run(start, len, x, |run, step| extend(&mut narrow, run, step));
        Ok(convert(isa, &narrow, buffer)?)
    }

    /// Calls `f` with slices whose every `step`-th element is next in row-major order.
    fn for_each_run<T>(&self, start: usize, len: usize, x: &[T], mut f: impl FnMut(&[T], usize)) {
        let Some((offset, strides)) = self.strides else {
            return f(&x[start..start + len], 1);
        };
        let (Some(&last), Some(&stride)) = (self.shape.last(), strides.last()) else {
            return f(&x[offset..offset + len], 1); // a scalar
        };
        let (mut at, end) = (start, start + len);
        while at < end {
            let (mut row, column) = (at / last, at % last);
            let n = (last - column).min(end - at);
            // Offsets stay within the elements: the extremes were checked.
            let mut first = offset as isize + column as isize * stride;
            for (&d, &s) in self.shape.iter().zip(strides).rev().skip(1) {
                first += (row % d) as isize * s;
                row /= d;
            }
            let reach = (n as isize - 1) * stride;
            let (low, high) = (first.min(first + reach), first.max(first + reach));
            let step = stride.unsigned_abs();
            let run = &x[low as usize..=high as usize];
            if stride > 0 || n == 1 {
                f(run, step.max(1));
            } else if stride == 0 {
                (0..n).for_each(|_| f(run, 1));
            } else {
                // Backwards, one element at a time.
                (0..n).rev().for_each(|i| f(&run[i * step..=i * step], 1));
            }
            at += n;
        }
    }
}

fn extend<T: Copy>(buffer: &mut Vec<T>, run: &[T], step: usize) {
    if step == 1 {
        buffer.extend_from_slice(run);
    } else {
        buffer.extend(run.iter().step_by(step));
    }
}

/// The first value that is not finite, and how many there are.
pub(crate) fn non_finite(x: &[f32]) -> Option<(usize, NonFinite, u64)> {
    const EXPONENT: u32 = 0x7f80_0000;
    let special = |v: &f32| v.to_bits() & EXPONENT == EXPONENT;
    // Whole chunks without an exit inside, which vectorises.
    if x.chunks(4096)
        .all(|c| !c.iter().fold(false, |any, v| any | special(v)))
    {
        return None;
    }
    let count = x.iter().filter(|v| special(v)).count() as u64;
    x.iter()
        .enumerate()
        .find_map(|(i, &v)| NonFinite::of(v).map(|kind| (i, kind, count)))
}
