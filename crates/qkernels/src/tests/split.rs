//! Weights that are split: that they are where it pays, what is known of the parts, and products at
//! every extreme. The contract tests run over them too.

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::data::{Rng, cases, tiers};
use crate::isa::{Tier, Visit};
use crate::kernel::Microkernel;
use crate::outliers::{Outliers, QUAD};
use crate::pack::Panels;
use crate::select::{VisitKernel, with_kernel};
use crate::{
    Arithmetic, Epilogue, Isa, Layout, Lhs, MatMut, MatRef, OutMut, PackedB, PackedRef, Threads,
    Workspace, ZeroPoint, ZeroPoints, gemm,
};

/// Whether a tier splits weights.
fn splits(isa: Isa) -> bool {
    struct Splits;
    impl Visit for Splits {
        type Output = bool;
        fn visit<T: Tier>(self, tier: T) -> bool {
            tier.outliers(&[0; 64], 4, 16).is_some()
        }
    }
    isa.dispatch(Splits)
}

/// Weights whose sums of four are at the limit and around it, a twentieth of them extremes.
fn at_the_limit(k: usize, n: usize) -> Vec<i8> {
    const RARE: [i8; 7] = [127, -128, -128, 33, 127, 127, -127];
    (0..k * n)
        .map(|i| match i % 131 {
            // Neighbours in a column, where extremes meet.
            0 => RARE[i / 131 % 7],
            _ if i / n % 97 < 4 && i % n == 3 => -128,
            _ if i / n % 89 < 8 && i % n == 5 => 127,
            _ if i % n < 4 => 32,
            _ => -32,
        })
        .collect()
}

fn bell(k: usize, n: usize) -> Vec<i8> {
    let mut rng = Rng(5);
    let part = |rng: &mut Rng| f64::from(rng.next()) / f64::from(u32::MAX) - 0.5;
    (0..k * n)
        .map(|_| {
            let sum: f64 = (0..4).map(|_| part(&mut rng)).sum();
            (sum / 2.0 * 127.0).round() as i8
        })
        .collect()
}

/// Checks that parts add up to the weights, and that neither part can saturate.
struct Check<'a> {
    packed: PackedRef<'a>,
    outliers: &'a Outliers,
}

impl VisitKernel for Check<'_> {
    type Output = ();

    fn visit<K: Microkernel>(self, _tier: K::Home) {
        let Check { packed, outliers } = self;
        let (k, n) = (packed.k(), packed.n());
        let depth = k.next_multiple_of(K::K_UNIT);
        let all: &[i8] = bytemuck::cast_slice(packed.data);
        let panels = Panels::new::<K>(n);
        for p in 0..panels.count() {
            let (cols, width) = (panels.cols(p), panels.width(p));
            let panel = &all[cols.start * depth..][..width * depth];
            let weight =
                |k: usize, j: usize| panel[k / K::KG * K::KG * width + j * K::KG + k % K::KG];
            let outliers = outliers.panel(p, width);
            let order = outliers.order();
            let mut sorted = order.to_vec();
            sorted.sort_unstable();
            assert!(sorted.iter().map(|&q| usize::from(q)).eq(0..depth / QUAD));

            // What is left, quad by quad in their order.
            let mut rest: Vec<i8> = Vec::new();
            for &q in order {
                for j in 0..width {
                    rest.extend((0..QUAD).map(|i| weight(usize::from(q) * QUAD + i, j)));
                }
            }
            for patch in outliers.patches() {
                rest[patch.at as usize..][..QUAD].copy_from_slice(&patch.weights);
            }
            let fits = |quads: &[&[i8]]| {
                for lane in 0..2 {
                    for sign in [1, -1] {
                        let of = |quad: &&[i8]| -> i32 {
                            let pair = quad[2 * lane..2 * lane + 2].iter();
                            pair.map(|&w| (sign * i32::from(w)).max(0)).sum()
                        };
                        let sum: i32 = quads.iter().map(of).sum();
                        assert!(sum <= 128, "{quads:?}");
                    }
                }
            };
            for pair in rest.chunks(2 * width * QUAD) {
                for j in 0..width {
                    let quads: Vec<&[i8]> = pair
                        .chunks_exact(width * QUAD)
                        .map(|quad| &quad[j * QUAD..][..QUAD])
                        .collect();
                    fits(&quads);
                }
            }

            let mut sum = vec![0i32; depth * width];
            for (quad, &q) in rest.chunks_exact(width * QUAD).zip(order) {
                for (i, &w) in quad.iter().enumerate() {
                    let k = usize::from(q) * QUAD + i % QUAD;
                    sum[k * width + i / QUAD] += i32::from(w);
                }
            }
            for group in outliers.groups() {
                fits(&[&group.excess[0], &group.excess[1]]);
                assert!((group.column as usize) < width);
                for (excess, q) in group.excess.iter().zip(group.quads) {
                    for (i, &e) in excess.iter().enumerate() {
                        let k = usize::from(q) * QUAD + i;
                        sum[k * width + group.column as usize] += i32::from(e);
                    }
                }
            }
            for k in 0..depth {
                for j in 0..width {
                    assert_eq!(sum[k * width + j], i32::from(weight(k, j)), "{k} {j}");
                }
            }
        }
    }
}

fn check_parts(packed: &PackedB) {
    let packed = packed.as_ref();
    if let Some(outliers) = packed.outliers {
        with_kernel(packed.isa(), Arithmetic::Int8, Check { packed, outliers });
    }
}

/// Products of all extremes of A and a zero point with these weights, against plain sums.
fn check_products<A: Lhs>(packed: &PackedB, b: &[i8], m: usize, from_byte: fn(u8) -> A) {
    let (k, n) = (packed.k(), packed.n());
    let mut rng = Rng(m as u64);
    for kind in 0..4 {
        let a: Vec<A> = (0..m * k)
            .map(|_| {
                from_byte(match kind {
                    0 => 255,
                    1 => 0,
                    2 => [0, 127, 128, 255][rng.below(4) as usize],
                    _ => rng.next() as u8,
                })
            })
            .collect();
        for zero in [0, -7] {
            let zp = ZeroPoints {
                a: ZeroPoint::Tensor(zero),
                b: ZeroPoint::Tensor(3 * zero),
            };
            let mut out = vec![0i32; m * n];
            let mut ws = Workspace::new();
            gemm(
                MatRef::new(&a, m, k).unwrap(),
                packed,
                zp,
                &Epilogue::default(),
                OutMut::I32(MatMut::new(&mut out, m, n).unwrap()),
                &mut ws,
                Threads::Single,
            )
            .unwrap();
            for (i, row) in out.chunks_exact(n).enumerate() {
                for (j, &sum) in row.iter().enumerate() {
                    let products = (0..k).map(|kk| {
                        (a[i * k + kk].to_i32() - zero) * (i32::from(b[kk * n + j]) - 3 * zero)
                    });
                    assert_eq!(sum, products.sum::<i32>(), "{i} {j} {kind} {zero}");
                }
            }
        }
    }
}

#[test]
fn products_of_split_weights_are_exact_at_every_extreme() {
    for isa in tiers() {
        for (m, n, k) in [
            (16, 8, 1024),
            (17, 17, 64),
            (33, 24, 387),
            (24, 20, 49),
            (31, 16, 1022),
            (40, 40, 520),
            (67, 9, 260),
        ] {
            for b in [at_the_limit(k, n), bell(k, n)] {
                let matrix = MatRef::new(&b, k, n).unwrap();
                let packed = PackedB::pack(isa, matrix, Layout::RowMajor).unwrap();
                assert_eq!(packed.as_ref().outliers.is_some(), splits(isa), "{k} {n}");
                check_parts(&packed);
                check_products::<u8>(&packed, &b, m, |b| b);
                check_products::<i8>(&packed, &b, m, |b| b as i8);
                // Found again where weights come from bytes.
                let stored = packed.to_bytes();
                let again = PackedB::from_bytes(&stored).unwrap();
                assert_eq!(again.as_ref().outliers.is_some(), splits(again.isa()));
                check_products::<u8>(&again, &b, m, |b| b);
                if let Ok(view) = PackedRef::from_bytes(&stored) {
                    assert!(view.outliers.is_none());
                }
            }
        }
    }
}

#[test]
fn weights_of_full_range_stay_together() {
    let mut rng = Rng(3);
    let b: Vec<i8> = (0..256 * 64).map(|_| rng.next() as i8).collect();
    for isa in tiers() {
        for b in [&b[..], &[127; 256 * 64], &[-128; 256 * 64]] {
            let matrix = MatRef::new(b, 256, 64).unwrap();
            let packed = PackedB::pack(isa, matrix, Layout::RowMajor).unwrap();
            assert!(packed.as_ref().outliers.is_none());
        }
    }
}

#[test]
fn weights_of_no_or_too_much_depth_stay_together() {
    for isa in tiers() {
        for (k, split) in [
            (0, false),
            (1, true),
            (6, true),
            (7, true),
            (8192, true),
            (8193, false),
        ] {
            let b = vec![1i8; k * 3];
            let matrix = MatRef::new(&b, k, 3).unwrap();
            let packed = PackedB::pack(isa, matrix, Layout::RowMajor).unwrap();
            assert_eq!(
                packed.as_ref().outliers.is_some(),
                split && splits(isa),
                "{k}"
            );
        }
    }
}

proptest! {
    #![proptest_config(cases(64))]

    /// Whatever the weights are: either they stay together, or the parts keep their promises.
    #[test]
    fn parts_add_up_and_fit(n in 1usize..40, k in 1usize..300, seed in any::<u64>()) {
        let b = Rng(seed).weights(k * n);
        for isa in tiers() {
            let matrix = MatRef::new(&b, k, n).unwrap();
            check_parts(&PackedB::pack(isa, matrix, Layout::RowMajor).unwrap());
        }
    }
}
