//! i32 sums to quantized values with an f32 multiplier.

use qformat::{QParams, QuantElement};

use crate::elementwise::Elementwise;
use crate::error::check_len;
use crate::isa::{Task, Tier};
use crate::quantize::{Target, check_type};
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
    isa.enter_shared(Requantize {
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
    fn run<T: Tier>(self, tier: T) {
        let p = self.params;
        match Target::new(p) {
            Some(to) => {
                let ops = tier.elementwise();
                ops.requantize(self.acc, self.multiplier, &to, self.out);
            }
            None => {
                for (o, &acc) in self.out.iter_mut().zip(self.acc) {
                    let q = qformat::requantize(acc, self.multiplier, p.zero_point(), p.range());
                    *o = E::saturate(q);
                }
            }
        }
    }
}
