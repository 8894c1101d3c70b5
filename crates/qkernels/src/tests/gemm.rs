//! Products against plain scalar code: every tier that runs here, and the fake ones.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Debug;

use proptest::prelude::*;

use super::data::Rng;
use super::fakes::{Fake, FakeBytes};
use crate::gemm::Call;
use crate::isa::{Tier, Visit};
use crate::kernel::Microkernel;
use crate::{
    Epilogue, Isa, KernelError, Layout, Lhs, MatMut, MatRef, OutMut, OutParams, PackedB, Scale,
    Threads, Workspace, ZeroPoint, ZeroPoints,
};

/// Which of the inputs a call has, and how they lie in memory.
#[derive(Debug, Clone, Copy)]
struct Case {
    m: usize,
    n: usize,
    k: usize,
    /// Unused elements: between rows, and before the first (a misaligned start).
    gap: usize,
    offset: usize,
    layout: Layout,
    /// 0: none, 1: per tensor, 2: vector.
    za: u8,
    zb: u8,
    scale: u8,
    bias: bool,
    bias_f32: bool,
    clamp: bool,
    output: u8,
    threads: Threads,
    seed: u64,
}

fn all_threads() -> Vec<Threads> {
    vec![
        Threads::Single,
        #[cfg(feature = "rayon")]
        Threads::Rayon,
    ]
}

fn any_case() -> impl Strategy<Value = Case> {
    // Half of the shapes are small, where the tails are.
    let size = || prop_oneof![0usize..=20, 0usize..=200];
    (
        (size(), size(), size(), 0usize..5, 0usize..4, any::<u64>()),
        prop_oneof![Just(Layout::RowMajor), Just(Layout::Transposed)],
        (0u8..3, 0u8..3, 0u8..3, any::<[bool; 3]>(), 0u8..4),
        prop::sample::select(all_threads()),
    )
        .prop_map(
            |((m, n, k, gap, offset, seed), layout, (za, zb, scale, flags, output), threads)| {
                let [bias, bias_f32, clamp] = flags;
                Case {
                    m,
                    n,
                    k,
                    gap,
                    offset,
                    layout,
                    za,
                    zb,
                    scale,
                    bias,
                    bias_f32,
                    clamp,
                    output,
                    threads,
                    seed,
                }
            },
        )
}

/// What may run a product: a tier of this machine, or a fake one.
trait Runner {
    fn pack(&self, b: MatRef<'_, i8>, layout: Layout) -> PackedB;
    fn run<A: Lhs>(&self, call: Call<'_, '_, A>) -> Result<(), KernelError>;
}

impl Runner for Isa {
    fn pack(&self, b: MatRef<'_, i8>, layout: Layout) -> PackedB {
        PackedB::pack(*self, b, layout).unwrap()
    }
    fn run<A: Lhs>(&self, call: Call<'_, '_, A>) -> Result<(), KernelError> {
        self.dispatch(call)
    }
}

struct Faked<T>(T);

impl<T: Tier> Runner for Faked<T> {
    fn pack(&self, b: MatRef<'_, i8>, layout: Layout) -> PackedB {
        PackedB::pack_for::<T::Int8>(Isa::SCALAR, b, layout).unwrap()
    }
    fn run<A: Lhs>(&self, call: Call<'_, '_, A>) -> Result<(), KernelError> {
        call.visit(self.0)
    }
}

/// A matrix in memory with gaps, and its logical values.
struct Laid<T> {
    data: Vec<T>,
    offset: usize,
    stride: usize,
}

impl<T: Copy + Default> Laid<T> {
    fn new(rows: usize, cols: usize, case: &Case, fill: Vec<T>) -> Self {
        let stride = cols + case.gap;
        let len = if rows == 0 {
            0
        } else {
            (rows - 1) * stride + cols
        };
        assert!(fill.len() >= case.offset + len);
        // The slice ends with the last element, so that reading beyond it is out of bounds.
        let mut data = fill;
        data.truncate(case.offset + len);
        data.shrink_to_fit();
        Laid {
            data,
            offset: case.offset,
            stride,
        }
    }
    fn at(&self, i: usize, j: usize) -> T {
        self.data[self.offset + i * self.stride + j]
    }
}

fn room(rows: usize, cols: usize, case: &Case) -> usize {
    case.offset + rows * (cols + case.gap)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    Int(i32),
    Bits(u32),
}

/// Runs a case and compares every element, and every gap, with plain scalar code.
fn check<A: Lhs + Debug>(runner: &impl Runner, case: Case, from_byte: fn(u8) -> A) {
    let mut rng = Rng(case.seed);
    let Case { m, n, k, .. } = case;
    let a_data = rng
        .bytes(room(m, k, &case))
        .into_iter()
        .map(from_byte)
        .collect();
    let a = Laid::<A>::new(m, k, &case, a_data);
    let (brows, bcols) = match case.layout {
        Layout::RowMajor => (k, n),
        Layout::Transposed => (n, k),
    };
    let b_data = rng
        .bytes(room(brows, bcols, &case))
        .into_iter()
        .map(|b| b as i8)
        .collect();
    let b = Laid::<i8>::new(brows, bcols, &case, b_data);
    let b_at = |kk: usize, j: usize| match case.layout {
        Layout::RowMajor => b.at(kk, j),
        Layout::Transposed => b.at(j, kk),
    };

    let mut points = |count: usize| -> Vec<i32> {
        (0..count.max(1))
            .map(|_| rng.below(512) as i32 - 256)
            .collect()
    };
    let (za_all, zb_all) = (points(m), points(n));
    let bias_all: Vec<i32> = (0..n).map(|_| rng.next() as i32 >> 12).collect();
    let mut float = |spread: f32| (rng.next() as i32 as f32) / 2f32.powi(31) * spread;
    let scale_all: Vec<f32> = (0..n.max(1)).map(|_| float(0.02)).collect();
    let bias_f32_all: Vec<f32> = (0..n).map(|_| float(100.0)).collect();
    fn zero(kind: u8, all: &[i32], count: usize) -> ZeroPoint<'_> {
        match kind {
            0 => ZeroPoint::Tensor(0),
            1 => ZeroPoint::Tensor(all[0]),
            _ => ZeroPoint::Vector(&all[..count]),
        }
    }
    let zp = ZeroPoints {
        a: zero(case.za, &za_all, m),
        b: zero(case.zb, &zb_all, n),
    };
    let floats = case.output != 0;
    let epilogue = Epilogue {
        bias: case.bias.then_some(&bias_all),
        scale: match case.scale {
            1 if floats => Scale::Tensor(scale_all[0]),
            2 if floats => Scale::Channel(&scale_all[..n]),
            _ => Scale::None,
        },
        bias_f32: (case.bias_f32 && floats).then_some(&bias_f32_all),
        clamp: (case.clamp && case.output == 1).then_some((-3.0, 250.5)),
    };
    let params = if case.output == 2 {
        OutParams {
            zero_point: 7,
            min: if case.clamp { 7 } else { 0 },
            max: 255,
        }
    } else {
        OutParams {
            zero_point: -5,
            min: -128,
            max: if case.clamp { 90 } else { 127 },
        }
    };

    let expected = |i: usize, j: usize| -> Value {
        let sum: i64 = (0..k)
            .map(|kk| {
                let x = i64::from(a.at(i, kk).to_i32()) - i64::from(zp.a.at(i));
                x * (i64::from(b_at(kk, j)) - i64::from(zp.b.at(j)))
            })
            .sum();
        let acc = i32::try_from(sum + i64::from(epilogue.bias.map_or(0, |b| b[j]))).unwrap();
        if !floats {
            return Value::Int(acc);
        }
        let scale = match epilogue.scale {
            Scale::None => 1.0,
            Scale::Tensor(s) => s,
            Scale::Channel(s) => s[j],
        };
        let mut v = acc as f32 * scale;
        if let Some(b) = epilogue.bias_f32 {
            v += b[j];
        }
        if case.output == 1 {
            if let Some((lo, hi)) = epilogue.clamp {
                v = if v > lo { v } else { lo };
                v = if v < hi { v } else { hi };
            }
            return Value::Bits(v.to_bits());
        }
        let q = (qformat::rne(v) as i64).saturating_add(params.zero_point.into());
        Value::Int(q.clamp(params.min.into(), params.max.into()) as i32)
    };

    let packed = {
        let view = MatRef::with_stride(&b.data[b.offset..], brows, bcols, b.stride).unwrap();
        runner.pack(view, case.layout)
    };
    let mut ws = Workspace::new();
    let view = MatRef::with_stride(&a.data[a.offset..], m, k, a.stride).unwrap();
    let mut run = |out: OutMut<'_>| {
        let call = Call::new(view, &packed, zp, &epilogue, out, &mut ws, case.threads).unwrap();
        runner.run(call).unwrap();
    };
    macro_rules! compare {
        ($elem:ty, $mark:expr, $out:expr, $value:expr) => {{
            let mark: $elem = $mark;
            let mut c = Laid::<$elem>::new(m, n, &case, vec![mark; room(m, n, &case)]);
            let view = MatMut::with_stride(&mut c.data[case.offset..], m, n, c.stride).unwrap();
            run($out(view));
            for (at, &v) in c.data.iter().enumerate() {
                let inside = at
                    .checked_sub(c.offset)
                    .map(|p| (p / c.stride.max(1), p % c.stride.max(1)));
                match inside {
                    Some((i, j)) if j < n => {
                        assert_eq!($value(v), expected(i, j), "row {i} column {j} of {case:?}");
                    }
                    _ => assert_eq!(v, mark, "a gap was written: {case:?}"),
                }
            }
        }};
    }
    match case.output {
        0 => compare!(i32, 0x5a5a_5a5a, OutMut::I32, Value::Int),
        1 => compare!(f32, 1.5e30, OutMut::F32, |v: f32| Value::Bits(v.to_bits())),
        2 => compare!(u8, 0x5a, |c| OutMut::U8(c, params), |v: u8| Value::Int(
            v.into()
        )),
        _ => compare!(i8, 0x5a, |c| OutMut::I8(c, params), |v: i8| Value::Int(
            v.into()
        )),
    }
}

fn check_both(runner: &impl Runner, case: Case) {
    check::<u8>(runner, case, |b| b);
    check::<i8>(runner, case, |b| b as i8);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn every_tier_equals_scalar_code(case in any_case()) {
        for isa in Isa::available() {
            check_both(&isa, case);
        }
    }

    #[test]
    fn odd_tiles_equal_scalar_code(case in any_case()) {
        check_both(&Faked(Fake::<3, 5, 1, 2>), case);
        check_both(&Faked(FakeBytes::<3, 5, 2, 3>), case);
        check_both(&Faked(FakeBytes::<1, 1, 1, 1>), case);
        check_both(&Faked(Fake::<2, 3, 4, 7>), case);
    }
}

/// Sizes with a reason: 0 and 1; a group, a unit, a full panel and every tile height, each one
/// less and one more. They come from the kernel's own constants.
fn corner_sizes<K: Microkernel>() -> [Vec<usize>; 3] {
    let around = |sizes: &mut dyn Iterator<Item = usize>| {
        let mut all: Vec<usize> = sizes
            .flat_map(|s| [s.saturating_sub(1), s, s + 1])
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    let rows = around(&mut K::ROWS[..K::NR / K::UNIT].iter().copied().chain([0]));
    let cols = around(&mut [0, K::UNIT, K::NR, K::NR + K::UNIT].into_iter());
    let depth = around(&mut [0, K::KG, 2 * K::KG, 5 * K::KG].into_iter());
    [rows, cols, depth]
}

fn check_corners<K: Microkernel>(runner: &impl Runner) {
    let [rows, cols, depth] = corner_sizes::<K>();
    let mut seed = 0;
    for &m in &rows {
        for &n in &cols {
            for &k in &depth {
                seed += 1;
                let pick = |count: u64| (seed * 7 / count % 3) as u8;
                let case = Case {
                    m,
                    n,
                    k,
                    gap: (seed % 2) as usize,
                    offset: (seed % 3) as usize,
                    layout: Layout::RowMajor,
                    za: pick(1),
                    zb: pick(3),
                    scale: pick(9),
                    bias: true,
                    bias_f32: seed % 2 == 0,
                    clamp: seed % 3 == 0,
                    output: (seed % 4) as u8,
                    threads: Threads::Single,
                    seed,
                };
                check_both(runner, case);
            }
        }
    }
}

#[test]
fn corners_of_every_kernel_equal_scalar_code() {
    struct Corners(Isa);
    impl Visit for Corners {
        type Output = ();
        fn visit<T: Tier>(self, _tier: T) {
            check_corners::<T::Int8>(&self.0);
        }
    }
    for isa in Isa::available() {
        isa.dispatch(Corners(isa));
    }
    check_corners::<Fake<3, 5, 1, 2>>(&Faked(Fake::<3, 5, 1, 2>));
    check_corners::<FakeBytes<2, 3, 4, 3>>(&Faked(FakeBytes::<2, 3, 4, 3>));
}

/// Depths at which K is cut into blocks, and blocks of rows: one less, equal, one more.
#[test]
fn block_edges_equal_scalar_code() {
    for isa in Isa::available() {
        for (m, n, k) in [
            (7, 17, 4095),
            (7, 65, 4096),
            (13, 17, 4097),
            (3, 5, 8193),
            (170, 3, 4100),
        ] {
            for output in 0..4 {
                let case = Case {
                    m,
                    n,
                    k,
                    gap: 1,
                    offset: 1,
                    layout: Layout::Transposed,
                    za: 1,
                    zb: output % 2,
                    scale: 2,
                    bias: true,
                    bias_f32: false,
                    clamp: false,
                    output,
                    threads: Threads::Single,
                    seed: k as u64,
                };
                check_both(&isa, case);
            }
        }
    }
}

/// Enough work for ten shares, cut across rows, panels and both; a single tall column and a
/// single wide row too.
#[cfg(feature = "rayon")]
#[test]
fn shares_on_pools_of_any_size_equal_scalar_code() {
    for threads in [1, 2, 3, 4, 6, 7] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        for (m, n, k) in [
            (97, 500, 450),
            (1, 20_000, 300),
            (20_000, 1, 300),
            (260, 65, 1300),
        ] {
            let output = (threads + m) % 4;
            let case = Case {
                m,
                n,
                k,
                gap: 3,
                offset: 1,
                layout: Layout::RowMajor,
                za: 2,
                zb: (output % 3) as u8,
                scale: 2,
                bias: true,
                bias_f32: false,
                clamp: true,
                output: output as u8,
                threads: Threads::Rayon,
                seed: threads as u64,
            };
            pool.install(|| check::<u8>(&Isa::detect(), case, |b| b));
        }
    }
}
