//! Batches of integer products give the sums that the definition gives.

mod common;

use common::{Numbers, graph, run, slice, zero};
use qmodel::{Dim, ElementType, Model, Node, Tensor};

#[test]
fn batched_products_are_those_of_their_matrices() {
    // Leading dimensions that go together, that broadcast on either side, and unevenly.
    let shapes: [(&[usize], &[usize]); 5] = [
        (&[2, 3, 5, 7], &[2, 3, 7, 4]),
        (&[5, 7], &[3, 7, 4]),
        (&[2, 1, 5, 7], &[2, 3, 7, 4]),
        (&[3, 5, 7], &[2, 3, 7, 4]),
        (&[2, 3, 5, 7], &[2, 1, 7, 4]),
    ];
    let mut r = Numbers(40);
    for (i, (a_shape, b_shape)) in shapes.into_iter().enumerate() {
        for types in 0..4 {
            let (signed, b_signed) = (types & 1 == 1, types & 2 == 2);
            let a = r.bytes(a_shape, signed);
            let b = r.bytes(b_shape, b_signed);
            let element = if signed {
                ElementType::I8
            } else {
                ElementType::U8
            };
            let dims = a_shape.iter().map(|&d| Dim::Known(d)).collect();
            let node = Node::new("n", "MatMulInteger", ["x", "b", "za", "zb"], ["y"]);
            let mut g = graph(("x", element, dims), vec![node], &["y"]);
            g.set_initializer("b", b.clone());
            g.set_initializer("za", zero(if signed { -5 } else { 120 }, signed));
            let zeros = r.bytes(&[4], b_signed);
            g.set_initializer("zb", zeros.clone());
            let bytes = |t: &Tensor| -> Vec<i32> {
                match t.as_slice::<u8>() {
                    Some(v) => v.iter().map(|&q| q.into()).collect(),
                    None => slice::<i8>(t).iter().map(|&q| q.into()).collect(),
                }
            };
            let (a_values, b_values, zb) = (bytes(&a), bytes(&b), bytes(&zeros));
            let za = if signed { -5 } else { 120 };
            let y = run(&Model::new(g, 17), &a, true).unwrap();
            // The matrix of an operand that belongs to a product, by its leading dimensions.
            let of = |shape: &[usize], product: usize| {
                let lead = &y.shape()[..y.rank() - 2];
                let mut rest = product;
                let (mut at, mut step) = (0, 1);
                for (d, &size) in lead.iter().enumerate().rev() {
                    let index = rest % size;
                    rest /= size;
                    if let Some(own) = (d + shape.len()).checked_sub(y.rank())
                        && shape[own] > 1
                    {
                        at += index * step;
                        step *= shape[own];
                    }
                }
                at
            };
            for (j, &sum) in slice::<i32>(&y).iter().enumerate() {
                let (product, row, col) = (j / 20, j / 4 % 5, j % 4);
                let (left, right) = (of(a_shape, product), of(b_shape, product));
                let expected: i32 = (0..7)
                    .map(|k| {
                        (a_values[(left * 5 + row) * 7 + k] - za)
                            * (b_values[(right * 7 + k) * 4 + col] - zb[col])
                    })
                    .sum();
                assert_eq!(sum, expected, "{i} {types} {j}");
            }
        }
    }
}
