//! Products against plain scalar code: one check for every operand type, arithmetic, epilogue, tier
//! that runs here, and the fake tiers.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Debug;

use half::{bf16, f16};
use proptest::prelude::*;

use super::data::{Rng, cases, plain_code_too, rounds, tiers};
use super::fakes::{Fake, FakeBytes, FakeFree, FakeThrees};
use crate::gemm::{Call, Run, Target};
use crate::isa::Tier;
use crate::kernel::Microkernel;
use crate::plan::Plan;
use crate::select::{VisitKernel, kernel_of, with_kernel, with_kernel_for, with_split_kernel};
use crate::source::source;
use crate::{
    Arithmetic, Epilogue, Isa, KernelError, Layout, MatMut, MatRef, Operand, OutMut, OutParams,
    PackedB, ParallelFor, Residual, Scale, Threads, Workspace, ZeroPoint, ZeroPoints,
};

/// Which of the inputs a call has, and how they lie in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// Unused elements: between rows, and before the first (a misaligned start).
    pub(crate) gap: usize,
    pub(crate) offset: usize,
    /// Whether A is a transposed view.
    pub(crate) a_transposed: bool,
    pub(crate) layout: Layout,
    /// 0: none, 1: per tensor, 2: vector.
    pub(crate) za: u8,
    pub(crate) zb: u8,
    pub(crate) scale: u8,
    pub(crate) row_scale: bool,
    pub(crate) bias: bool,
    pub(crate) bias_f32: bool,
    /// 0: none, 1: f32, 2: u8, 3: i8.
    pub(crate) residual: u8,
    pub(crate) clamp: bool,
    pub(crate) table: bool,
    /// 0: i32, 1: f32, 2: u8, 3: i8, 4: f16, 5: bf16.
    pub(crate) output: u8,
    pub(crate) threads: Threads<'static>,
    pub(crate) seed: u64,
}

impl Default for Case {
    fn default() -> Case {
        Case {
            m: 1,
            n: 1,
            k: 1,
            gap: 0,
            offset: 0,
            a_transposed: false,
            layout: Layout::RowMajor,
            za: 0,
            zb: 0,
            scale: 0,
            row_scale: false,
            bias: false,
            bias_f32: false,
            residual: 0,
            clamp: false,
            table: false,
            output: 0,
            threads: Threads::Single,
            seed: 0,
        }
    }
}

/// Runs shares backwards, on the calling thread, with wrong numbers, and the last one not at all.
struct Careless(usize);

impl ParallelFor for Careless {
    fn threads(&self) -> usize {
        self.0
    }
    fn run(&self, shares: usize, work: &(dyn Fn(usize) + Sync)) {
        for _ in 1..shares {
            work(usize::MAX);
        }
    }
}

pub(crate) fn all_threads() -> Vec<Threads<'static>> {
    vec![
        Threads::Single,
        Threads::Custom(&Careless(3)),
        #[cfg(feature = "rayon")]
        Threads::Rayon,
    ]
}

pub(crate) fn any_case() -> impl Strategy<Value = Case> {
    // Half of the shapes are small, where the tails are; K has its own range.
    let size = || prop_oneof![0usize..=20, 0usize..=200];
    let depth = prop_oneof![0usize..=20, 0usize..=300];
    (
        (
            (size(), size(), depth),
            (0usize..5, 0usize..4),
            any::<u64>(),
        ),
        prop_oneof![Just(Layout::RowMajor), Just(Layout::Transposed)],
        (0u8..3, 0u8..3, 0u8..3, 0u8..4, 0u8..6),
        any::<[bool; 6]>(),
        prop::sample::select(all_threads()),
    )
        .prop_map(
            |(((m, n, k), (gap, offset), seed), layout, choices, flags, threads)| {
                let (za, zb, scale, residual, output) = choices;
                let [bias, bias_f32, clamp, a_transposed, row_scale, table] = flags;
                Case {
                    m,
                    n,
                    k,
                    gap,
                    offset,
                    a_transposed,
                    layout,
                    za,
                    zb,
                    scale,
                    row_scale,
                    bias,
                    bias_f32,
                    residual,
                    clamp,
                    table,
                    output,
                    threads,
                    seed,
                }
            },
        )
}

/// What may run a product: a tier of this machine, or a fake one.
pub(crate) trait Runner {
    fn pack<B: Operand>(&self, b: MatRef<'_, B>, layout: Layout, how: Arithmetic) -> PackedB;
    fn run(&self, how: Arithmetic, run: Run<'_, '_>) -> Result<(), KernelError>;
}

impl Runner for Isa {
    fn pack<B: Operand>(&self, b: MatRef<'_, B>, layout: Layout, how: Arithmetic) -> PackedB {
        PackedB::pack_with(*self, b, layout, how).unwrap()
    }
    fn run(&self, how: Arithmetic, run: Run<'_, '_>) -> Result<(), KernelError> {
        assert!(run.call.operands.b.isa() == *self && run.call.operands.b.arithmetic() == how);
        let (b, rows) = (run.call.operands.b, run.call.operands.a.rows());
        with_kernel_for(&b, rows, run)
    }
}

pub(crate) struct Faked<T>(pub(crate) T);

impl<T: Tier> Runner for Faked<T> {
    fn pack<B: Operand>(&self, b: MatRef<'_, B>, layout: Layout, how: Arithmetic) -> PackedB {
        struct Pack<'a, B>(MatRef<'a, B>, Layout);
        impl<B: Operand> VisitKernel for Pack<'_, B> {
            type Output = PackedB;
            fn visit<K: Microkernel>(self, tier: K::Home) -> PackedB {
                PackedB::pack_for::<K, B>(tier, Isa::SCALAR, self.0, self.1).unwrap()
            }
        }
        kernel_of(self.0, how, Pack(b, layout))
    }
    fn run(&self, how: Arithmetic, run: Run<'_, '_>) -> Result<(), KernelError> {
        kernel_of(self.0, how, run)
    }
}

/// An operand type with data that breaks kernels, and plain sums of its products.
pub(crate) trait Sample: Operand + Debug {
    fn sample(rng: &mut Rng, n: usize) -> Vec<Self>;
    /// As right operand.
    fn weights(rng: &mut Rng, n: usize) -> Vec<Self> {
        Self::sample(rng, n)
    }
}

impl Sample for u8 {
    fn sample(rng: &mut Rng, n: usize) -> Vec<u8> {
        rng.bytes(n)
    }
    fn weights(rng: &mut Rng, n: usize) -> Vec<u8> {
        i8::weights(rng, n)
            .into_iter()
            .map(|w| w as u8 ^ 0x80)
            .collect()
    }
}

impl Sample for i8 {
    fn sample(rng: &mut Rng, n: usize) -> Vec<i8> {
        rng.bytes(n).into_iter().map(|b| b as i8).collect()
    }
    fn weights(rng: &mut Rng, n: usize) -> Vec<i8> {
        match rng.below(2) {
            0 => rng.weights(n),
            _ => Self::sample(rng, n),
        }
    }
}

impl Sample for i16 {
    /// 11 bits, so that thousands of products fit i32.
    fn sample(rng: &mut Rng, n: usize) -> Vec<i16> {
        (0..n).map(|_| (rng.next() as i16) >> 5).collect()
    }
}

impl Sample for f16 {
    fn sample(rng: &mut Rng, n: usize) -> Vec<f16> {
        let wild = rng.below(4) == 0;
        floats(rng, n, wild)
            .into_iter()
            .map(f16::from_f32)
            .collect()
    }
}

impl Sample for bf16 {
    fn sample(rng: &mut Rng, n: usize) -> Vec<bf16> {
        let wild = rng.below(4) == 0;
        floats(rng, n, wild)
            .into_iter()
            .map(bf16::from_f32)
            .collect()
    }
}

/// Ordinary numbers, or any bits at all: NaN, infinities, subnormals.
fn floats(rng: &mut Rng, n: usize, wild: bool) -> Vec<f32> {
    (0..n)
        .map(|_| match rng.below(16) {
            0 => 0.0,
            1 => -0.0,
            2 if wild => f32::from_bits(rng.next()),
            3 => f32::from_bits(rng.next() & 0x80ff_ffff | 0x1b00_0000),
            _ => rng.next() as i32 as f32 / 2f32.powi(30),
        })
        .collect()
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
    fn view(&self, rows: usize, cols: usize) -> MatRef<'_, T> {
        MatRef::with_stride(&self.data[self.offset..], rows, cols, self.stride).unwrap()
    }
    fn at(&self, i: usize, j: usize) -> T {
        self.data[self.offset + i * self.stride + j]
    }
}

fn room(rows: usize, cols: usize, case: &Case) -> usize {
    case.offset + rows * (cols + case.gap)
}

/// Runs a case and compares every element, and every gap, with plain scalar code.
pub(crate) fn check<A: Sample, B: Sample>(runner: &impl Runner, case: Case, how: Arithmetic) {
    let mut rng = Rng(case.seed);
    let Case { m, n, k, .. } = case;
    let integer = how.integer();
    let turned = |turned: bool, (rows, cols): (usize, usize)| {
        if turned { (cols, rows) } else { (rows, cols) }
    };
    let (arows, acols) = turned(case.a_transposed, (m, k));
    let a = Laid::<A>::new(
        arows,
        acols,
        &case,
        A::sample(&mut rng, room(arows, acols, &case)),
    );
    let a_at = |i: usize, kk: usize| {
        let (i, kk) = turned(case.a_transposed, (i, kk));
        a.at(i, kk)
    };
    let b_turned = case.layout == Layout::Transposed;
    let (brows, bcols) = turned(b_turned, (k, n));
    let b = Laid::<B>::new(
        brows,
        bcols,
        &case,
        B::weights(&mut rng, room(brows, bcols, &case)),
    );
    let b_at = |kk: usize, j: usize| {
        let (kk, j) = turned(b_turned, (kk, j));
        b.at(kk, j)
    };

    let mut points = |count: usize| -> Vec<i32> {
        (0..count.max(1))
            .map(|_| rng.below(512) as i32 - 256)
            .collect()
    };
    let (za_all, zb_all) = (points(m), points(n));
    let bias_all: Vec<i32> = (0..n).map(|_| rng.next() as i32 >> 12).collect();
    let mut float = |spread: f32| (rng.next() as i32 as f32) / 2f32.powi(31) * spread;
    let spread = if integer { 0.02 } else { 2.0 };
    let scale_all: Vec<f32> = (0..n.max(1)).map(|_| float(spread)).collect();
    let rows_all: Vec<f32> = (0..m).map(|_| float(2.0)).collect();
    let bias_f32_all: Vec<f32> = (0..n).map(|_| float(100.0)).collect();
    let residual_f32 = Laid::<f32>::new(
        m,
        n,
        &case,
        (0..room(m, n, &case)).map(|_| float(9.0)).collect(),
    );
    let residual_u8 = Laid::<u8>::new(m, n, &case, rng.bytes(room(m, n, &case)));
    let residual_i8 = Laid::<i8>::new(m, n, &case, i8::sample(&mut rng, room(m, n, &case)));
    let table: [u8; 256] = core::array::from_fn(|_| rng.next() as u8);

    fn zero(kind: u8, all: &[i32], count: usize) -> ZeroPoint<'_> {
        match kind {
            0 => ZeroPoint::Tensor(0),
            1 => ZeroPoint::Tensor(all[0]),
            _ => ZeroPoint::Vector(&all[..count]),
        }
    }
    // Full-range i16 leave no room for zero points.
    let zeros = |kind: u8| if how == Arithmetic::Int8 { kind } else { 0 };
    let zp = ZeroPoints {
        a: zero(zeros(case.za), &za_all, m),
        b: zero(zeros(case.zb), &zb_all, n),
    };
    // Sums of floats are stored as floats.
    let output = if case.output == 0 && !integer {
        1
    } else {
        case.output
    };
    let scaled = output != 0;
    let quantized = matches!(output, 2 | 3);
    let epilogue = Epilogue {
        bias: (case.bias && how == Arithmetic::Int8).then_some(&bias_all),
        scale: match case.scale {
            1 if scaled => Scale::Tensor(scale_all[0]),
            2 if scaled => Scale::Channel(&scale_all[..n]),
            _ => Scale::None,
        },
        row_scale: (case.row_scale && scaled).then_some(&rows_all),
        bias_f32: (case.bias_f32 && scaled).then_some(&bias_f32_all),
        residual: match case.residual {
            1 if scaled => Some(Residual::F32(residual_f32.view(m, n))),
            2 if scaled => Some(Residual::U8 {
                q: residual_u8.view(m, n),
                zero_point: 131,
                multiplier: 0.37,
            }),
            3 if scaled => Some(Residual::I8 {
                q: residual_i8.view(m, n),
                zero_point: -3,
                multiplier: -0.61,
            }),
            _ => None,
        },
        clamp: (case.clamp && scaled && !quantized).then_some((-3.0, 250.5)),
        table: (case.table && quantized).then_some(&table),
    };
    let params = if output == 2 {
        OutParams {
            zero_point: 7,
            min: if case.clamp { 7 } else { 0 },
            max: 255,
        }
    } else {
        OutParams {
            zero_point: -5,
            min: if case.clamp { 3 } else { -128 },
            max: if case.clamp { 90 } else { 127 },
        }
    };

    let expected = |i: usize, j: usize| -> u32 {
        let products = (0..k).map(|kk| (a_at(i, kk), b_at(kk, j)));
        let acc = if integer {
            let (za, zb) = (i64::from(zp.a.at(i)), i64::from(zp.b.at(j)));
            let sum: i64 = products
                .map(|(a, b)| (i64::from(a.int()) - za) * (i64::from(b.int()) - zb))
                .sum();
            let acc = i32::try_from(sum + i64::from(epilogue.bias.map_or(0, |b| b[j]))).unwrap();
            if !scaled {
                return acc as u32;
            }
            acc as f32
        } else {
            products.fold(0.0, |sum, (a, b)| {
                sum_floats(how, sum, a.float(), b.float())
            })
        };
        let mut factor = match epilogue.scale {
            Scale::None => 1.0,
            Scale::Tensor(s) => s,
            Scale::Channel(s) => s[j],
        };
        if let Some(rows) = epilogue.row_scale {
            factor *= rows[i];
        }
        let mut v = acc * factor;
        if let Some(b) = epilogue.bias_f32 {
            v += b[j];
        }
        v += match epilogue.residual {
            Some(Residual::F32(_)) => residual_f32.at(i, j),
            Some(Residual::U8 { .. }) => (i32::from(residual_u8.at(i, j)) - 131) as f32 * 0.37,
            Some(Residual::I8 { .. }) => (i32::from(residual_i8.at(i, j)) + 3) as f32 * -0.61,
            None => -0.0,
        };
        if quantized {
            let q = (qformat::rne(v) as i64).saturating_add(params.zero_point.into());
            let q = if v.is_nan() { i64::MIN } else { q };
            let q = q.clamp(params.min.into(), params.max.into()) as u8;
            return u32::from(epilogue.table.map_or(q, |t| t[usize::from(q)]));
        }
        if let Some((lo, hi)) = epilogue.clamp {
            v = if v > lo { v } else { lo };
            v = if v < hi { v } else { hi };
        }
        if v.is_nan() {
            v = f32::NAN;
        }
        match output {
            1 => v.to_bits(),
            4 => f16::from_f32(v).to_bits().into(),
            _ => bf16::from_f32(v).to_bits().into(),
        }
    };

    let packed = runner.pack(b.view(brows, bcols), case.layout, how);
    let mut ws = Workspace::new();
    let view = a.view(arows, acols);
    let view = if case.a_transposed {
        view.transposed()
    } else {
        view
    };
    let mut run = |out: OutMut<'_>| {
        let b = packed.as_ref();
        let target = Target::new(out, &epilogue);
        let call = Call::new(source(view), b, zp, &epilogue, target, case.threads);
        call.check().unwrap();
        let ws = &mut ws;
        runner.run(how, Run { call: &call, ws }).unwrap();
    };
    macro_rules! compare {
        ($elem:ty, $mark:expr, $out:expr, $bits:expr) => {{
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
                        assert_eq!(
                            $bits(v),
                            expected(i, j),
                            "row {i} column {j} of {case:?} with {how:?}"
                        );
                    }
                    _ => assert_eq!(v, mark, "a gap was written: {case:?}"),
                }
            }
        }};
    }
    match output {
        0 => compare!(i32, 0x5a5a_5a5a, OutMut::I32, |v: i32| v as u32),
        1 => compare!(f32, 1.5e30, OutMut::F32, f32::to_bits),
        2 => compare!(u8, 0x5a, |c| OutMut::U8(c, params), u32::from),
        3 => compare!(i8, 0x5a, |c| OutMut::I8(c, params), |v: i8| u32::from(
            v as u8
        )),
        4 => compare!(f16, f16::from_f32(99.0), OutMut::F16, |v: f16| u32::from(
            v.to_bits()
        )),
        _ => compare!(bf16, bf16::from_f32(99.0), OutMut::Bf16, |v: bf16| {
            u32::from(v.to_bits())
        }),
    }
}

/// One step of a sum of floats, as the contract says.
fn sum_floats(how: Arithmetic, sum: f32, a: f32, b: f32) -> f32 {
    match how {
        Arithmetic::F16 => sum + a * b,
        Arithmetic::F16Sums => {
            let product = f16::from_f32(a * b).to_f32();
            f16::from_f32(sum + product).to_f32()
        }
        _ => a.mul_add(b, sum),
    }
}

/// Every pair of operand types, and every arithmetic that has the same bits everywhere.
fn check_all(runner: &impl Runner, case: Case) {
    check_bytes(runner, case);
    check::<i16, i16>(runner, case, Arithmetic::Int16);
    check::<f16, f16>(runner, case, Arithmetic::F16);
    check::<f16, f16>(runner, case, Arithmetic::F16Sums);
    check::<bf16, bf16>(runner, case, Arithmetic::Bf16);
}

pub(crate) fn check_bytes(runner: &impl Runner, case: Case) {
    check::<u8, i8>(runner, case, Arithmetic::Int8);
    check::<i8, i8>(runner, case, Arithmetic::Int8);
    check::<u8, u8>(runner, case, Arithmetic::Int8);
    check::<i8, u8>(runner, case, Arithmetic::Int8);
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn every_tier_equals_scalar_code(case in any_case()) {
        for isa in tiers() {
            check_all(&isa, case);
        }
    }

    #[test]
    fn odd_tiles_equal_scalar_code(case in any_case()) {
        if !plain_code_too() {
            return Ok(());
        }
        check_bytes(&Faked(Fake::<3, 5, 1, 2>), case);
        check_bytes(&Faked(FakeBytes::<3, 5, 2, 3>), case);
        check_bytes(&Faked(FakeBytes::<1, 1, 1, 1>), case);
        check_bytes(&Faked(FakeFree::<2, 3, 2, 3>), case);
        check_bytes(&Faked(FakeThrees::<2, 3, 2, 4>), case);
        check_bytes(&Faked(FakeThrees::<1, 5, 1, 3>), case);
        check_bytes(&Faked(Fake::<2, 3, 4, 7>), case);
    }
}

/// What the kernel must shift, it shifts as it reads or has copied: of several panels both are tested.
#[test]
fn fakes_read_several_panels_of_shifted_rows_either_way() {
    fn in_place<K: Microkernel, A: Operand>(kernel: K, panels: usize) -> bool {
        let a = [A::zeroed(); 5 * 7];
        let a = source(MatRef::new(&a, 5, 7).unwrap());
        let plan = Plan::new::<K>(5, panels * K::NR, 7, 1);
        a.in_place(kernel, &plan).is_some()
    }
    let (copying, free) = (FakeBytes::<3, 5, 2, 3>, FakeFree::<2, 3, 2, 3>);
    for (panels, copied) in [(1, false), (2, true), (3, true)] {
        assert_eq!(in_place::<_, i8>(copying, panels), !copied);
        assert!(in_place::<_, i8>(free, panels));
        assert!(in_place::<_, u8>(copying, panels));
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

pub(crate) fn check_corners<K: Microkernel, R: Runner>(runner: &R, check: fn(&R, Case)) {
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
                    za: pick(1),
                    zb: pick(3),
                    scale: pick(9),
                    bias: true,
                    bias_f32: seed % 2 == 0,
                    clamp: seed % 3 == 0,
                    output: (seed % 6) as u8,
                    seed,
                    ..Case::default()
                };
                check(runner, case);
            }
        }
    }
}

#[test]
fn corners_of_every_kernel_equal_scalar_code() {
    struct Corners(Isa, fn(&Isa, Case));
    impl VisitKernel for Corners {
        type Output = ();
        fn visit<K: Microkernel>(self, _tier: K::Home) {
            check_corners::<K, Isa>(&self.0, self.1);
        }
    }
    for isa in tiers() {
        for (how, check) in [
            (Arithmetic::Int8, check_bytes as fn(&Isa, Case)),
            (Arithmetic::Int16, |r, c| {
                check::<i16, i16>(r, c, Arithmetic::Int16);
            }),
            (Arithmetic::F16, |r, c| {
                check::<f16, f16>(r, c, Arithmetic::F16);
            }),
            (Arithmetic::F16Sums, |r, c| {
                check::<f16, f16>(r, c, Arithmetic::F16Sums);
            }),
            (Arithmetic::Bf16, |r, c| {
                check::<bf16, bf16>(r, c, Arithmetic::Bf16);
            }),
        ] {
            with_kernel(isa, how, Corners(isa, check));
            if how == Arithmetic::Int8 {
                with_split_kernel(isa, (usize::MAX, 0, 0), Corners(isa, check));
            }
        }
    }
    if !plain_code_too() {
        return;
    }
    check_corners::<Fake<3, 5, 1, 2>, _>(&Faked(Fake::<3, 5, 1, 2>), check_bytes);
    check_corners::<FakeBytes<2, 3, 4, 3>, _>(&Faked(FakeBytes::<2, 3, 4, 3>), check_bytes);
    check_corners::<FakeFree<2, 3, 2, 3>, _>(&Faked(FakeFree::<2, 3, 2, 3>), check_bytes);
    check_corners::<FakeThrees<1, 3, 2, 2>, _>(&Faked(FakeThrees::<1, 3, 2, 2>), check_bytes);
}

/// Depths at which K is cut into blocks, and blocks of rows: one less, equal, one more.
#[test]
fn block_edges_equal_scalar_code() {
    for isa in tiers() {
        for (m, n, k) in [
            (7, 17, 4095),
            (7, 65, 4096),
            (13, 17, 4097),
            (3, 5, 8193),
            (170, 3, 4100),
            (65, 9, 8192),
            (33, 9, 8196),
        ] {
            // Sums, and what one of the other outputs makes of them.
            for output in [0, 1 + (k % 3) as u8] {
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
                    output,
                    seed: k as u64,
                    ..Case::default()
                };
                check_bytes(&isa, case);
                check::<f16, f16>(&isa, case, Arithmetic::F16);
                check::<bf16, bf16>(&isa, case, Arithmetic::Bf16);
            }
        }
    }
}

/// Rows of several tiles in a call, and of more than one call has; panels that stay in L1 and longer
/// ones, for which the last tiles are of nearly equal height; every width; K in several blocks.
#[test]
fn stacks_of_tiles_equal_scalar_code() {
    for isa in tiers() {
        for (i, (m, n, k)) in [
            (60, 64, 9),
            (252, 64, 30),
            (257, 64, 401),
            (262, 17, 60),
            (85, 130, 401),
            (85, 64, 100),
            (13, 64, 120),
            (50, 16, 21),
            (50, 32, 21),
            (50, 48, 21),
            (20, 64, 4100),
        ]
        .into_iter()
        .enumerate()
        {
            let plain = Case {
                m,
                n,
                k,
                gap: i % 2,
                seed: k as u64,
                ..Case::default()
            };
            check::<f16, f16>(&isa, plain, Arithmetic::F16);
            check::<bf16, bf16>(&isa, plain, Arithmetic::Bf16);
            for output in 0..5 {
                let case = Case {
                    za: (output + i as u8) % 3,
                    zb: u8::from(i % 4 == 1),
                    scale: 2,
                    row_scale: (output + i as u8).is_multiple_of(4),
                    bias: true,
                    bias_f32: output % 2 == 1,
                    clamp: output % 2 == 0,
                    output,
                    ..plain
                };
                check::<u8, i8>(&isa, case, Arithmetic::Int8);
                check::<i8, i8>(&isa, case, Arithmetic::Int8);
            }
        }
    }
}

/// Enough work for ten shares, cut across rows, panels and both; a single tall column and a
/// single wide row too.
#[cfg(feature = "rayon")]
#[test]
fn shares_on_pools_of_any_size_equal_scalar_code() {
    for threads in [3, 4, 7, 2].into_iter().take(rounds(4) as usize) {
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
                za: 2,
                zb: (output % 3) as u8,
                scale: 2,
                bias: true,
                clamp: true,
                output: output as u8,
                threads: Threads::Rayon,
                seed: threads as u64,
                ..Case::default()
            };
            pool.install(|| check::<u8, i8>(&Isa::detect(), case, Arithmetic::Int8));
        }
    }
}
