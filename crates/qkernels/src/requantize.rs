//! i32 sums to quantized values with an f32 multiplier.

use qformat::{QParams, QuantElement};

use crate::error::check_len;
use crate::isa::{Task, Tier};
use crate::quantize::{check_type, limits, round_clamped};
use crate::{Isa, KernelError};

/// Requantizes: `out[i] = saturate(rne(f32(acc[i]) · multiplier) + Z)`, as
/// [`qformat::requantize`] but vectorised. `params` gives zero point and range of the output; its
/// scale is already in the multiplier (`S_a · S_b / S_out`) and is not used again.
///
/// # Errors
///
/// [`KernelError::Length`] when the lengths differ, [`KernelError::Type`] when the parameters are
/// for another type than `T`.
///
/// ```
/// use qformat::{DType, QParams, Scheme};
/// use qkernels::{Isa, requantize};
/// let p = QParams::new(1.0, 10, DType::U8, Scheme::Affine)?;
/// let mut q = [0u8; 3];
/// requantize(Isa::detect(), &[5, 7, 1000], 0.5, &p, &mut q)?;
/// assert_eq!(q, [12, 14, 255]); // 2.5 and 3.5 go to the even neighbour
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn requantize<T: QuantElement>(
    isa: Isa,
    acc: &[i32],
    multiplier: f32,
    params: &QParams,
    out: &mut [T],
) -> Result<(), KernelError> {
    check_type::<T>(params)?;
    check_len("out", out.len(), acc.len())?;
    isa.enter(Requantize {
        acc,
        multiplier,
        params,
        out,
    });
    Ok(())
}

struct Requantize<'a, T> {
    acc: &'a [i32],
    multiplier: f32,
    params: &'a QParams,
    out: &'a mut [T],
}

impl<E: QuantElement> Task for Requantize<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<T: Tier>(self, _tier: T) {
        let (range, z) = (self.params.range(), self.params.zero_point());
        match limits(z, range.min(), range.max()) {
            Some((lo, hi)) => {
                for (o, &acc) in self.out.iter_mut().zip(self.acc) {
                    *o = E::saturate(round_clamped(acc as f32 * self.multiplier, lo, hi) + z);
                }
            }
            None => {
                for (o, &acc) in self.out.iter_mut().zip(self.acc) {
                    *o = E::saturate(qformat::requantize(acc, self.multiplier, z, range));
                }
            }
        }
    }
}
