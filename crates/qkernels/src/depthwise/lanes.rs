//! What a depthwise kernel is made of: vectors of sums, and their plain form.

use crate::arch::scalar::Scalar;
use crate::isa::Tier;
use crate::store::Steps;

/// Channels that a 128-bit lane of bytes holds. The interleaving of rows works lane by lane, so
/// that it scatters the channels of a lane over four vectors: vector `j` has channels
/// `4 j .. 4 j + 4` of each lane. Narrowing the sums of the four puts them back in order.
pub(crate) const LANE: usize = 16;

/// The instructions of a depthwise convolution. A value proves that they run.
///
/// A word (i32) holds the bytes of one channel from `GROUP` rows of the image below each other,
/// and one instruction multiplies and adds a word of them with a word of weights.
pub(crate) trait DepthwiseLanes: Copy + Send + Sync + 'static {
    /// The lowest tier that has them.
    type Home: Tier<Depthwise = Self>;
    /// Identifies the layout of packed weights.
    const ID: &'static str;
    /// Rows of taps in a word: 4 (bytes) or 2 (16-bit).
    const GROUP: usize;
    /// Sums in a vector: a multiple of 4.
    const WORDS: usize;
    /// Whether 16 sums and their operands fit the registers; otherwise 8.
    const MANY_REGISTERS: bool;
    /// `WORDS` values of i32.
    type Vector: Copy;

    /// Reads a vector.
    ///
    /// # Safety
    ///
    /// `p` is valid for reads of `WORDS` elements.
    unsafe fn load(self, p: *const i32) -> Self::Vector;

    /// The same value in every place.
    fn splat(self, v: i32) -> Self::Vector;

    /// `acc + a · w`, the products of a word's bytes summed.
    fn dot(self, acc: Self::Vector, a: Self::Vector, w: Self::Vector) -> Self::Vector;

    /// `acc + a · b` modulo 2^32.
    fn multiply_add(self, acc: Self::Vector, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// Interleaves `W` bytes of `GROUP` rows, every byte flipped by `flip`: the words of vector
    /// `j` go to `out + j · run`. `W` is 16, 32 or 64 and at most `4 · WORDS`.
    ///
    /// # Safety
    ///
    /// The first `GROUP` rows are valid for reads of `W` bytes; `out + j · run` is valid for
    /// writes of `W / 4` elements for each `j < 4`.
    unsafe fn interleave<const W: usize>(
        self,
        rows: [*const u8; 4],
        flip: u8,
        out: *mut i32,
        run: usize,
    );

    /// Whether there is [`words`](Self::words), for sums of two outputs in registers.
    const STREAMS: bool = false;

    /// The words of `4 · WORDS` channels of `GROUP` rows, every byte flipped by `flip`.
    ///
    /// # Safety
    ///
    /// The first `GROUP` rows are valid for reads of `4 · WORDS` bytes.
    unsafe fn words(self, _rows: [*const u8; 4], _flip: u8) -> [Self::Vector; 4] {
        [self.splat(0); 4]
    }

    /// Stores `4 · WORDS` sums in the order of their channels.
    ///
    /// # Safety
    ///
    /// `out` is valid for writes of as many.
    unsafe fn store(self, sums: [Self::Vector; 4], out: *mut i32);

    /// Whether there is a [`finish`](Self::finish); otherwise sums go through memory.
    const FINISHES: bool = false;

    /// Runs the epilogue by its steps on `4 · WORDS` sums, and stores what `F` says in the order
    /// of their channels. Only called for steps of this kind, without a table.
    ///
    /// # Safety
    ///
    /// `scale` and `bias` are valid for reads of `4 · WORDS` elements in the order of the sums,
    /// and `out` for writes of as many of the kind.
    unsafe fn finish<F: Finish>(
        self,
        _limits: &Limits,
        _sums: [Self::Vector; 4],
        _scale: *const f32,
        _bias: Option<*const f32>,
        _out: *mut u8,
    ) {
    }
}

/// The numbers of [`Steps`], each as wide as a sum: of narrower ones, as often as they fit in, the compiler
/// would make one vector, and take it apart for every pixel.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "only lanes that finish in registers read them")]
pub(crate) struct Limits {
    /// Whether floats are clamped.
    pub(crate) clamp: bool,
    pub(crate) lo: f32,
    pub(crate) hi: f32,
    /// Of bytes: what takes them to unsigned ones, so that those of both types are made alike.
    pub(crate) flip: i32,
    /// Their zero point, in 16 bits, and their lowest value, as unsigned ones.
    pub(crate) zero_point: i32,
    pub(crate) min: i32,
}

impl Limits {
    #[inline(always)]
    pub(crate) fn new(steps: &Steps<'_>) -> Limits {
        let mut limits = Limits {
            clamp: false,
            lo: 0.0,
            hi: 0.0,
            flip: 0,
            zero_point: 0,
            min: 0,
        };
        match *steps {
            Steps::Floats {
                clamp: Some((lo, hi)),
            } => {
                limits = Limits {
                    clamp: true,
                    lo,
                    hi,
                    ..limits
                }
            }
            Steps::Bytes {
                lo, hi, zero_point, ..
            } => {
                // The lowest value tells the type; of values that both types have, either will do.
                let lowest = lo as i32 + zero_point;
                let shift = if lowest < 0 { 128 } else { 0 };
                // Shifted values are bytes; a zero point below them is not.
                let bytes = |v: i32| v.wrapping_mul(0x0101_0101);
                let pair = |v: i32| (v & 0xffff).wrapping_mul(0x1_0001);
                limits = Limits {
                    hi,
                    flip: bytes(shift),
                    zero_point: pair(zero_point + shift),
                    min: bytes(lowest + shift),
                    ..limits
                };
            }
            _ => {}
        }
        limits
    }
}

/// What sums become before they are stored, as a type: the choice is made once a segment.
pub(crate) trait Finish {
    const KIND: Kind;
}

/// What sums become.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// They stay i32.
    Sums,
    Floats,
    Bytes,
}

impl Kind {
    /// Bytes of an element.
    pub(crate) const fn size(self) -> usize {
        match self {
            Kind::Sums | Kind::Floats => 4,
            Kind::Bytes => 1,
        }
    }
}

/// Defines the types.
macro_rules! finishes {
    ($($name:ident)*) => {$(
        pub(crate) struct $name;
        impl Finish for $name {
            const KIND: Kind = Kind::$name;
        }
    )*};
}
finishes!(Sums Floats Bytes);

/// A word of `GROUP` values: bytes, or 16-bit values.
#[inline(always)]
pub(crate) fn word<L: DepthwiseLanes>(values: impl Iterator<Item = i32>) -> i32 {
    let bits = 32 / L::GROUP;
    let mask = (1u32 << bits) - 1;
    values.enumerate().fold(0u32, |word, (i, v)| {
        // Two's complement cut to the bits that the instruction reads.
        word | (v as u32 & mask) << (i * bits)
    }) as i32
}

/// Plain Rust, for every tier without a kernel of its own: four sums a vector, so the compiler may
/// use what 128-bit instructions the tier has.
#[derive(Clone, Copy)]
pub(crate) struct PlainLanes;

impl DepthwiseLanes for PlainLanes {
    type Home = Scalar;
    const ID: &'static str = "plain/dw/2x4";
    const GROUP: usize = 2;
    const WORDS: usize = 4;
    const MANY_REGISTERS: bool = false;
    type Vector = [i32; 4];

    #[inline(always)]
    unsafe fn load(self, p: *const i32) -> [i32; 4] {
        // SAFETY: as promised by the caller.
        unsafe { p.cast::<[i32; 4]>().read_unaligned() }
    }

    #[inline(always)]
    fn splat(self, v: i32) -> [i32; 4] {
        [v; 4]
    }

    #[inline(always)]
    fn dot(self, acc: [i32; 4], a: [i32; 4], w: [i32; 4]) -> [i32; 4] {
        core::array::from_fn(|i| {
            let (a, w) = (a[i], w[i]);
            let low = i32::from(a as i16) * i32::from(w as i16);
            let high = (a >> 16) * (w >> 16);
            acc[i].wrapping_add(low).wrapping_add(high)
        })
    }

    #[inline(always)]
    fn multiply_add(self, acc: [i32; 4], a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        core::array::from_fn(|i| acc[i].wrapping_add(a[i].wrapping_mul(b[i])))
    }

    #[inline(always)]
    unsafe fn interleave<const W: usize>(
        self,
        rows: [*const u8; 4],
        flip: u8,
        out: *mut i32,
        run: usize,
    ) {
        const { assert!(W.is_multiple_of(LANE)) };
        for lane in 0..W / LANE {
            // SAFETY: lane `lane < W / 16` of two rows of `W` bytes, as promised by the caller.
            let (first, second) = unsafe {
                let at = lane * LANE;
                let first = rows[0].add(at).cast::<[u8; LANE]>().read();
                (first, rows[1].add(at).cast::<[u8; LANE]>().read())
            };
            let words: [i32; LANE] = core::array::from_fn(|i| {
                i32::from(first[i] ^ flip) | i32::from(second[i] ^ flip) << 16
            });
            for (j, words) in words.as_chunks::<4>().0.iter().enumerate() {
                // SAFETY: words `4 lane .. 4 lane + 4` of the `W / 4` that the caller promised.
                unsafe {
                    let out = out.add(j * run + 4 * lane);
                    out.cast::<[i32; 4]>().write_unaligned(*words);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn store(self, sums: [[i32; 4]; 4], out: *mut i32) {
        // SAFETY: as promised by the caller.
        unsafe { out.cast::<[[i32; 4]; 4]>().write_unaligned(sums) };
    }
}
