//! f16 and bf16 with B widened to f32 once for all rows of a block, where there are enough of them.
//!
//! Intel's cores have two pipes for vectors of 512 bits, and widening takes both, so that a tile that
//! widens as it loads spends a third of its time so. Of Zen's four, two multiply and the others widen
//! beside them.

use super::super::avx512bw::Avx512Bw;
use super::super::is_amd;
use super::sums_of_f32;
use crate::arch::tile::{Lanes, table, tile};
use crate::kernel::{Init, LhsTile, Microkernel, RawTile, RhsPanel, TileMut, Unpacked, check_tile};
use crate::{Arithmetic, Operand};
use core::arch::x86_64::*;

/// A kernel that widens B as it loads it, element by element.
pub(crate) trait Narrow:
    Microkernel<Home = Avx512Bw, Acc = f32, Lhs = f32, Rhs = u16>
{
    /// Its vectors.
    type Lanes: Lanes<Acc = f32, Lhs = f32, Rhs = u16, Sums = __m512, A = __m512, B = __m512>;

    /// Tiles of full height that keep what they widen, by vectors.
    const WIDENING: [Widening; 4] = [
        widening::<Self::Lanes, 12, 1>,
        widening::<Self::Lanes, 12, 2>,
        widening::<Self::Lanes, 8, 3>,
        widening::<Self::Lanes, 6, 4>,
    ];
}

type Widening = unsafe fn(RawTile<f32, u16, f32>);

/// One tile of full height, which keeps B widened.
///
/// # Safety
///
/// The instructions run, the promises of [`RawTile`] hold for one tile of `R` rows and `16 · V` columns
/// over one segment, and as many f32 as B has elements fit where it is unpacked to.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn widening<I, const R: usize, const V: usize>(t: RawTile<f32, u16, f32>)
where
    I: Lanes<Acc = f32, Lhs = f32, Rhs = u16, Sums = __m512, A = __m512, B = __m512>,
{
    // SAFETY: as promised by the caller.
    unsafe { tile::<Keeping<I>, false, R, V>(t) }
}

/// Lanes that keep B as it was widened.
#[derive(Clone, Copy)]
struct Keeping<I>(I);

impl<I> Lanes for Keeping<I>
where
    I: Lanes<Acc = f32, Lhs = f32, Rhs = u16, Sums = __m512, A = __m512, B = __m512>,
{
    const ARITHMETIC: Arithmetic = I::ARITHMETIC;
    const LANES: usize = 16;
    const KG: usize = 1;
    const ASKS: bool = true;
    const KEPT: usize = 64;
    sums_of_f32!();
    type Lhs = f32;
    type Rhs = u16;
    type A = __m512;
    type B = __m512;
    #[inline(always)]
    unsafe fn a(p: *const f32) -> __m512 {
        // SAFETY: as promised by the caller.
        unsafe { I::a(p) }
    }
    #[inline(always)]
    unsafe fn b(p: *const u16) -> __m512 {
        // SAFETY: as promised by the caller.
        unsafe { I::b(p) }
    }
    #[inline(always)]
    unsafe fn keep(p: *mut u8, b: __m512) {
        // SAFETY: as promised by the caller.
        unsafe { _mm512_storeu_ps(p.cast(), b) }
    }
    #[inline(always)]
    unsafe fn step(sums: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as promised by the caller.
        unsafe { I::step(sums, a, b) }
    }
}

/// The kernel, which widens a panel at once for many rows.
#[derive(Clone, Copy)]
pub(crate) struct Widened<N>(N);

impl<N: From<Avx512Bw>> From<Avx512Bw> for Widened<N> {
    fn from(tier: Avx512Bw) -> Self {
        Widened(tier.into())
    }
}

impl<N: Narrow> Microkernel for Widened<N> {
    type Home = Avx512Bw;
    const ARITHMETIC: Arithmetic = N::ARITHMETIC;
    const ID: &'static str = N::ID;
    const KG: usize = N::KG;
    const UNIT: usize = N::UNIT;
    const NR: usize = N::NR;
    const ROWS: &'static [usize] = N::ROWS;
    const SIGNED_LHS_SHIFT: i32 = 0;
    const SHIFTS: bool = false;
    const UNPACKED: usize = size_of::<f32>();
    const UNPACKS_MEANWHILE: bool = true;
    const SEGMENTS: bool = true;
    const STACKS: bool = true;
    type Acc = f32;
    type Lhs = f32;
    type Rhs = u16;

    #[inline(always)]
    fn unpacks() -> bool {
        // Tests compare both ways on every processor.
        cfg!(test) || !is_amd()
    }

    #[inline(always)]
    fn asks() -> bool {
        Self::unpacks()
    }

    #[inline(always)]
    fn block_depth() -> usize {
        // So that a widened panel takes an eighth of L2.
        if Self::unpacks() {
            1024
        } else {
            N::block_depth()
        }
    }

    #[inline(always)]
    fn lhs<A: Operand>(a: A) -> f32 {
        N::lhs(a)
    }

    #[inline(always)]
    fn lhs_row<A: Operand>(self, from: &[A], to: &mut [f32]) {
        // Both operands are of one type, whose bits B has: known when it is compiled.
        if size_of::<A>() != size_of::<u16>() {
            return self.0.lhs_row(from, to);
        }
        let (from, rest) = bytemuck::cast_slice(from).as_chunks::<16>();
        let (whole, last) = to.split_at_mut(16 * from.len());
        // SAFETY: `self` proves the instructions.
        unsafe { widen::<N::Lanes>(from, whole.as_chunks_mut().0) };
        if last.is_empty() {
            return;
        }
        let mut all = ([0; 16], [0.0; 16]);
        all.0[..rest.len()].copy_from_slice(rest);
        // SAFETY: `self` proves the instructions.
        unsafe { widen::<N::Lanes>(&[all.0], core::slice::from_mut(&mut all.1)) };
        let (last, beyond) = last.split_at_mut(last.len().min(16));
        if let Some(last) = last.first_chunk_mut() {
            *last = all.1;
        } else {
            last.copy_from_slice(&all.1[..last.len()]);
        }
        beyond.fill(0.0);
    }

    #[inline(always)]
    fn rhs<B: Operand>(b: B) -> u16 {
        N::rhs(b)
    }

    #[inline(always)]
    fn unpack(self, b: RhsPanel<'_, u16>, to: &mut [u8]) {
        // SAFETY: `self` proves the instructions.
        unsafe { widen::<N::Lanes>(b.data().as_chunks().0, bytemuck::cast_slice_mut(to)) }
    }

    #[inline(always)]
    fn accumulate(
        self,
        a: LhsTile<'_, f32>,
        b: RhsPanel<'_, u16>,
        init: Option<Init<'_, f32>>,
        out: &mut TileMut<'_, f32>,
    ) {
        // The rows of the tables' tiles.
        const { assert!(matches!(N::ROWS, [12, 12, 8, 6])) };
        let units = b.width() / Self::UNIT;
        let wide = match b.unpacked() {
            Unpacked::No => return self.0.accumulate(a, b, init, out),
            Unpacked::Done(wide) => wide,
            Unpacked::Meanwhile(to) => {
                assert!(to.len() == b.data().len() * Self::UNPACKED);
                assert!(a.rows() == Self::ROWS[units - 1] && a.is_whole());
                let raw = check_tile::<Self>(&a, &b, init, out);
                let raw = RawTile {
                    unpacked: to.as_ptr().cast_mut().cast(),
                    ..raw
                };
                // SAFETY: `self` proves the instructions, `check_tile` keeps the promises of `raw`
                // for the width by which the table is indexed and one tile of its rows, and there
                // is room for all of the panel, which cells let nobody hold a reference into.
                return unsafe { N::WIDENING[units - 1](raw) };
            }
        };
        assert!(wide.len() == b.data().len() * Self::UNPACKED);
        let raw = check_tile::<Self>(&a, &b, init, out).with_rhs(wide.as_ptr().cast::<f32>());
        let tile = WIDE[units - 1][a.rows().min(Self::ROWS[units - 1]) - 1];
        // SAFETY: `self` proves the instructions, and `check_tile` keeps the promises of `raw` for
        // the width and the rows of a tile by which the table is indexed, as many tiles as there
        // are; the f32 are as many as the elements of the panel.
        unsafe { tile(raw) }
    }
}

/// Widens elements.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn widen<I: Lanes<Rhs = u16, B = __m512>>(b: &[[u16; 16]], to: &mut [[f32; 16]]) {
    for (b, to) in b.iter().zip(to) {
        // SAFETY: arrays of 16 elements.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), I::b(b.as_ptr())) }
    }
}

type Raw = RawTile<f32, f32, f32>;

/// Tiles by vectors, then by rows.
static WIDE: &[&[unsafe fn(Raw)]] = table!(wide, [12, 12, 8, 6]);

/// Tiles of `R` rows by `V` vectors of 16 columns.
///
/// # Safety
///
/// The instructions run, and the promises of [`RawTile`] hold for tiles of `R` rows and `16 · V`
/// columns.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn wide<const R: usize, const V: usize>(t: Raw) {
    // SAFETY: as promised by the caller.
    unsafe { tile::<WideLanes, false, R, V>(t) }
}

/// f32 by f32.
#[derive(Clone, Copy)]
struct WideLanes;

impl Lanes for WideLanes {
    /// Of the floats that were widened either way.
    const ARITHMETIC: Arithmetic = Arithmetic::F16;
    const LANES: usize = 16;
    const KG: usize = 1;
    const ASKS: bool = true;
    sums_of_f32!();
    type Lhs = f32;
    type Rhs = f32;
    type A = __m512;
    type B = __m512;
    #[inline(always)]
    unsafe fn a(p: *const f32) -> __m512 {
        // SAFETY: as promised by the caller.
        unsafe { _mm512_set1_ps(*p) }
    }
    #[inline(always)]
    unsafe fn b(p: *const f32) -> __m512 {
        // SAFETY: as promised by the caller.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn step(sums: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as promised by the caller.
        unsafe { _mm512_fmadd_ps(a, b, sums) }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::super::avx512bw::Avx512Bw;
    use super::super::{Bf16, PairedBf16};
    use crate::gemm::Run;
    use crate::isa::Tier;
    use crate::kernel::Microkernel;
    use crate::select::VisitKernel;
    use crate::tests::gemm::{Case, Runner, check, check_corners};
    use crate::{Arithmetic, Isa, KernelError, Layout, MatRef, Operand, PackedB};

    /// A kernel, whether or not this processor is given it.
    struct Only<K: Microkernel>(K::Home);

    impl<K: Microkernel> Runner for Only<K> {
        fn pack<B: Operand>(&self, b: MatRef<'_, B>, layout: Layout, how: Arithmetic) -> PackedB {
            assert!(how == K::ARITHMETIC);
            PackedB::pack_for::<K, B>(self.0, Isa::SCALAR, b, layout).unwrap()
        }
        fn run(&self, _how: Arithmetic, run: Run<'_, '_>) -> Result<(), KernelError> {
            run.visit::<K>(self.0)
        }
    }

    /// Makers of processors are given one or the other.
    #[test]
    fn both_kernels_of_bf16_equal_scalar_code() {
        fn check_both<R: Runner>(runner: &R, case: Case) {
            check::<bf16, bf16>(runner, case, Arithmetic::Bf16);
        }
        let Some(tier) = Avx512Bw::detect() else {
            println!("not run: no AVX-512 here");
            return;
        };
        let (widened, paired) = (Only::<Bf16>(tier), Only::<PairedBf16>(tier));
        check_corners::<Bf16, _>(&widened, check_both);
        check_corners::<PairedBf16, _>(&paired, check_both);
        for (m, n, k) in [(25, 65, 1025), (30, 17, 4097), (3, 64, 100), (97, 131, 203)] {
            let case = Case {
                m,
                n,
                k,
                gap: 1,
                scale: 2,
                seed: k as u64,
                ..Case::default()
            };
            check_both(&widened, case);
            check_both(&paired, case);
        }
    }
}
