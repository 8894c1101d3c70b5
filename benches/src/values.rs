//! Slices of whichever element type, handed to peers and compared with their answers.

use qformat::{DType, bf16, f16};

macro_rules! element_types {
    ($($variant:ident $element:ident $dtype:ident, $extremes:expr;)*) => {
        /// A borrowed slice of one of the element types.
        #[derive(Debug, Clone, Copy)]
        pub enum Values<'a> {
            $(#[doc = concat!("Elements of type `", stringify!($element), "`.")]
            $variant(&'a [$element]),)*
        }

        /// A vector of one of the element types.
        #[derive(Debug, Clone)]
        pub enum Data {
            $(#[doc = concat!("Elements of type `", stringify!($element), "`.")]
            $variant(Vec<$element>),)*
        }

        impl Values<'_> {
            /// The element type.
            #[must_use]
            pub fn dtype(&self) -> DType {
                match self { $(Values::$variant(_) => DType::$dtype,)* }
            }

            /// How many elements there are.
            #[must_use]
            pub fn len(&self) -> usize {
                match self { $(Values::$variant(values) => values.len(),)* }
            }

            /// A copy.
            #[must_use]
            pub fn to_data(&self) -> Data {
                match self { $(Values::$variant(values) => Data::$variant(values.to_vec()),)* }
            }

            /// Where the first element lies.
            #[must_use]
            pub fn as_ptr(&self) -> *const u8 {
                match self { $(Values::$variant(values) => values.as_ptr().cast(),)* }
            }

            /// The bits of the elements at `places`.
            ///
            /// # Panics
            ///
            /// If a place is beyond the end.
            #[must_use]
            pub fn bits(&self, places: &[usize]) -> Vec<u64> {
                places.iter().map(|&at| self.bits_at(at)).collect()
            }

            /// The bits of an element.
            fn bits_at(&self, index: usize) -> u64 {
                match self { $(Values::$variant(values) => Element::bits(values[index]),)* }
            }

            /// An element as a number: exact for all these types.
            pub(crate) fn number(&self, index: usize) -> f64 {
                match self { $(Values::$variant(values) => f64::from(values[index]),)* }
            }
        }

        impl Data {
            /// So many zeros; none for types that no answer has.
            #[must_use]
            pub fn zeros(dtype: DType, len: usize) -> Option<Self> {
                match dtype {
                    $(DType::$dtype => Some(Data::$variant(vec![$element::default(); len])),)*
                    _ => None,
                }
            }

            /// The elements.
            #[must_use]
            pub fn values(&self) -> Values<'_> {
                match self { $(Data::$variant(values) => Values::$variant(values),)* }
            }

            /// Where the first element lies, to be written.
            pub fn as_mut_ptr(&mut self) -> *mut u8 {
                match self { $(Data::$variant(values) => values.as_mut_ptr().cast(),)* }
            }
        }

        $(impl Element for $element {
            const DTYPE: DType = DType::$dtype;

            fn values(slice: &[Self]) -> Values<'_> {
                Values::$variant(slice)
            }

            fn bits(self) -> u64 {
                let mut bytes = [0; 8];
                let own = self.to_le_bytes();
                bytes[..own.len()].copy_from_slice(&own);
                u64::from_le_bytes(bytes)
            }

            fn extremes() -> Vec<Self> {
                $extremes
            }
        })*
    };
}

/// A type that [`Values`] can hold.
pub trait Element: Copy + Default + PartialEq + std::fmt::Debug + Send + Sync + 'static {
    /// Its name in the table of element types.
    const DTYPE: DType;

    /// The slice as one of whichever type.
    fn values(slice: &[Self]) -> Values<'_>;

    /// Its bits: equal for equal values, different for 0.0 and −0.0 and for each NaN.
    fn bits(self) -> u64;

    /// The values at which conversions go wrong: all that a small type has, and of a large one the
    /// surroundings of those that round up in one type and down in the next.
    fn extremes() -> Vec<Self>;
}

element_types! {
    U8 u8 U8, (u8::MIN..=u8::MAX).collect();
    I8 i8 I8, (i8::MIN..=i8::MAX).collect();
    U16 u16 U16, (u16::MIN..=u16::MAX).collect();
    I16 i16 I16, (i16::MIN..=i16::MAX).collect();
    I32 i32 I32, vec![i32::MIN, -1, 0, 1, i32::MAX];
    F16 f16 F16, (u16::MIN..=u16::MAX).map(f16::from_bits).collect();
    Bf16 bf16 Bf16, (u16::MIN..=u16::MAX).map(bf16::from_bits).collect();
    F32 f32 F32, halfway();
}

/// Every f16 and bf16, infinities and NaNs among them, each with the f32 halfway to the next and that
/// one's neighbours.
fn halfway() -> Vec<f32> {
    let with = |start: f32, middle: f32| [start, middle.next_down(), middle, middle.next_up()];
    let half = |bits: u16| f16::from_bits(bits).to_f32();
    (u16::MIN..=u16::MAX)
        .flat_map(|bits| {
            // What rounds to infinity begins halfway to the power of two that f16 lacks.
            let next = half(bits.wrapping_add(1)).clamp(-65_536.0, 65_536.0);
            let brain = u32::from(bits) << 16;
            [
                with(half(bits), f32::midpoint(half(bits), next)),
                with(f32::from_bits(brain), f32::from_bits(brain | 1 << 15)),
            ]
        })
        .flatten()
        .collect()
}

/// The most that float answers may lie apart and still count as equal, relative to the largest. What
/// roundings could do in theory is more in deep sums, and far more than they do.
const CLOSE: f64 = 1e-4;

impl Values<'_> {
    /// Each element in f32, rounded where it has more digits.
    #[must_use]
    pub fn to_f32s(&self) -> Vec<f32> {
        (0..self.len())
            .map(|index| self.number(index) as f32)
            .collect()
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The share of the elements at `places` that equal `expected`, one by one. Where either is a
    /// float they may lie `slack` apart, yet never more than 10⁻⁴ of the largest magnitude; floats of
    /// one type without slack are equal where their bits are. Which NaN stands for none is left to
    /// each library. Elements that are not there equal nothing.
    #[must_use]
    pub fn agreement(&self, places: &[usize], expected: &Values<'_>, slack: f64) -> f64 {
        let float = self.dtype().is_float() || expected.dtype().is_float();
        let largest = (0..expected.len())
            .map(|index| expected.number(index).abs())
            .fold(0.0, f64::max);
        let by_bits = slack == 0.0 && self.dtype() == expected.dtype();
        let slack = if float {
            slack.min(CLOSE * largest)
        } else {
            0.0
        };
        let equal = |at: usize, index: usize| {
            let (found, wanted) = (self.number(at), expected.number(index));
            if found.is_nan() || wanted.is_nan() {
                found.is_nan() && wanted.is_nan()
            } else if by_bits {
                self.bits_at(at) == expected.bits_at(index)
            } else {
                // Infinities are not so far apart as their difference says.
                found == wanted || (found - wanted).abs() <= slack
            }
        };
        let equal = places
            .iter()
            .zip(0..expected.len())
            .filter(|&(&at, index)| at < self.len() && equal(at, index))
            .count();
        equal as f64 / places.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_is_exact_for_integers_and_close_for_floats() {
        let share = |a: Values<'_>, b: Values<'_>| a.agreement(&[0, 2], &b, 1e-3);
        let half = share(Values::I32(&[1, 2, 3]), Values::I32(&[1, 4]));
        assert!((half - 0.5).abs() < 1e-9);
        let all = share(Values::F32(&[1.0, 0.0, 9.0]), Values::F32(&[1.0, 9.0005]));
        assert!((all - 1.0).abs() < 1e-9);
        let all = share(Values::F32(&[7.0, 0.0, 8.0]), Values::I32(&[7, 8]));
        assert!((all - 1.0).abs() < 1e-9);
        // More slack than 10⁻⁴ of the largest is none.
        let half = share(Values::F32(&[1.0, 0.0, 9.0]), Values::F32(&[1.0, 9.00095]));
        assert!((half - 0.5).abs() < 1e-9);
        // What is not there equals nothing.
        assert!((share(Values::U8(&[1, 2]), Values::U8(&[1, 2])) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn without_slack_floats_agree_bit_for_bit() {
        let equal =
            |a: f32, b: f32| Values::F32(&[a]).agreement(&[0], &Values::F32(&[b]), 0.0) > 0.5;
        let quiet = f32::from_bits(0x7fc0_0001);
        assert!(equal(quiet, f32::NAN) && !equal(quiet, 0.0) && !equal(0.0, quiet));
        assert!(equal(f32::INFINITY, f32::INFINITY));
        assert!(!equal(f32::INFINITY, f32::NEG_INFINITY) && !equal(f32::INFINITY, f32::MAX));
        assert!(!equal(0.0, -0.0));
        assert!(!equal(1.0, 1.0 + f32::EPSILON));
    }

    #[test]
    fn extremes_hold_what_conversions_stumble_over() {
        let extremes = f32::extremes();
        // The largest f16, what rounds down to it and up from it, half its smallest, the same ends of
        // bf16, and a NaN that is infinity where it is cut off.
        for bits in [
            0x477f_e000,
            0x477f_efff,
            0x477f_f000,
            0x3300_0000,
            0x7f7f_7fff,
            0x7f7f_8000,
            0x7f80_8000,
        ] {
            assert!(extremes.iter().any(|x| x.to_bits() == bits), "{bits:#x}");
        }
        assert_eq!(f16::extremes().len(), 1 << 16);
    }

    #[test]
    fn zeros_have_the_type_asked_for() {
        let zeros = Data::zeros(DType::Bf16, 3).unwrap();
        assert_eq!(
            (zeros.values().dtype(), zeros.values().len()),
            (DType::Bf16, 3)
        );
        assert!(Data::zeros(DType::I4, 3).is_none());
    }
}
