//! Archives: sharded equals whole, to the byte, and nothing that is wrong with a file panics.

use proptest::prelude::*;
use qcalib::{Archive, CalibError, Observer, ObserverKind, Policy, TensorView};
use qformat::Granularity;

const TENSORS: [(&str, Granularity); 3] = [
    ("conv_1", Granularity::PerTensor),
    ("conv_2", Granularity::PerChannel { axis: 1 }),
    ("weight", Granularity::PerBlock { axis: 0, block: 2 }),
];

fn fresh() -> Archive {
    let mut a = Archive::new("model");
    for (tensor, granularity) in TENSORS {
        for kind in ObserverKind::ALL {
            let o = kind.observer(granularity, Policy::Ignore).unwrap();
            a.place(tensor, o).unwrap();
        }
    }
    a
}

/// Every batch is a function of its index.
fn observe(a: &mut Archive, batch: u64) {
    let x: Vec<f32> = (0..12)
        .map(|i| ((batch * 12 + i) * 2_654_435_761 % 1009) as f32 / 64.0 - 4.0)
        .collect();
    for (tensor, _) in TENSORS {
        let view = TensorView::new(&x[..], &[4, 3]).unwrap();
        a.observe(batch, tensor, view).unwrap();
    }
}

fn filled(batches: impl IntoIterator<Item = u64>) -> Archive {
    let mut a = fresh();
    batches.into_iter().for_each(|b| observe(&mut a, b));
    a
}

proptest! {
    #[test]
    fn shards_merge_to_the_file_of_one_process(
        owners in prop::collection::vec(0usize..4, 1..30),
        order in Just([0usize, 1, 2, 3]).prop_shuffle(),
    ) {
        let n = owners.len() as u64;
        let whole = filled(0..n).to_bytes().unwrap();
        let parts: Vec<Archive> = (0..4)
            .map(|p| filled((0..n).filter(|&b| owners[b as usize] == p)))
            .collect();
        let mut sum = fresh();
        for p in order {
            sum.merge(&Archive::from_bytes(&parts[p].to_bytes().unwrap()).unwrap()).unwrap();
        }
        prop_assert_eq!(sum.batches(), n);
        prop_assert_eq!(sum.to_bytes().unwrap(), whole);
    }

    /// A few flipped bits anywhere, or a cut anywhere, are always noticed.
    #[test]
    fn damage_is_always_noticed(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 0..4),
        cut in any::<Option<prop::sample::Index>>(),
        more in prop::collection::vec(any::<u8>(), 0..9),
    ) {
        let good = filled(0..3).to_bytes().unwrap();
        let mut bad = good.clone();
        for (at, bit) in flips {
            let at = at.index(bad.len());
            bad[at] ^= 1 << bit;
        }
        if let Some(cut) = cut {
            bad.truncate(cut.index(bad.len()));
        } else {
            bad.extend(more);
        }
        let read = Archive::from_bytes(&bad);
        if bad == good {
            prop_assert!(read.is_ok());
        } else {
            prop_assert!(matches!(read, Err(CalibError::Mismatch { .. })), "{:?}", read.err());
        }
    }

    /// Bodies that were damaged before their checksum was made.
    #[test]
    fn hostile_bodies_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let good = filled(0..3).to_bytes().unwrap();
        let mut body = good[16..good.len() - 4].to_vec();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        if let Ok(mut a) = Archive::from_bytes(&sealed(&body)) {
            // Whatever it means now, it works.
            let _ = a.merge(&filled(7..9));
            let x = [1.0f32; 12];
            for (tensor, _) in TENSORS {
                let _ = a.observe(9, tensor, TensorView::new(&x[..], &[4, 3]).unwrap());
            }
            a.to_bytes().unwrap();
        }
    }
}

fn sealed(body: &[u8]) -> Vec<u8> {
    let mut file = b"QARC\x01\0\0\0".to_vec();
    file.extend((body.len() as u64).to_le_bytes());
    file.extend(body);
    let sum = crc32fast::hash(&file);
    file.extend(sum.to_le_bytes());
    file
}

/// Every byte of a small file set to every other value, and every length.
#[test]
fn every_byte_and_every_length_matter() {
    let good = filled(0..1).to_bytes().unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        for flip in [0x01, 0x80, 0xff] {
            bad[at] = good[at] ^ flip;
            assert!(Archive::from_bytes(&bad).is_err(), "{at} {flip}");
        }
        assert!(Archive::from_bytes(&good[..at]).is_err(), "{at}");
    }
    assert!(Archive::from_bytes(&good).is_ok());
    assert_eq!(sealed(&good[16..good.len() - 4]), good);
}

/// A body that claims to be huge is refused without room for it being made.
#[test]
fn lengths_are_not_believed() {
    // An empty name, no batches, and 2^62 tensors.
    let mut body = vec![0, 0];
    body.extend([0x80; 8]);
    body.push(0x40);
    let e = Archive::from_bytes(&sealed(&body)).unwrap_err();
    assert!(matches!(e, CalibError::Decode { .. }), "{e}");
    let mut file = sealed(&[]);
    file[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    let e = Archive::from_bytes(&file).unwrap_err();
    assert!(e.to_string().contains("length"), "{e}");
}

#[test]
fn what_does_not_belong_together_is_refused_with_its_name() {
    let mut a = filled(0..3);
    let before = a.to_bytes().unwrap();
    let mut model = Archive::new("other");
    model
        .place("conv_1", observer(ObserverKind::MinMax))
        .unwrap();
    let mut fewer = Archive::new("model");
    fewer
        .place("conv_1", observer(ObserverKind::MinMax))
        .unwrap();
    let mut renamed = fresh();
    renamed.place("a", observer(ObserverKind::MinMax)).unwrap();
    let mut policy = Archive::new("model");
    for (tensor, granularity) in TENSORS {
        for kind in ObserverKind::ALL {
            policy
                .place(
                    tensor,
                    kind.observer(granularity, Policy::Saturate).unwrap(),
                )
                .unwrap();
        }
    }
    observe(&mut policy, 7);
    for (other, word) in [
        (&model, "model"),
        (&fewer, "number"),
        (&renamed, "tensor"),
        (&policy, "conv_1"),
        (&filled(2..4), "batch 2"),
    ] {
        let e = a.merge(other).unwrap_err().to_string();
        assert!(e.contains(word), "{e}");
        assert_eq!(a.to_bytes().unwrap(), before);
    }
    let twice = a.place("conv_1", observer(ObserverKind::MinMax));
    assert!(matches!(twice, Err(CalibError::Mismatch { .. })));
    let x = [0.0f32; 3];
    let view = TensorView::new(&x[..], &[3]).unwrap();
    assert!(matches!(
        a.observe(9, "nowhere", view),
        Err(CalibError::Name { .. })
    ));
    let e = a.observe(9, "conv_2", view).unwrap_err();
    assert!(matches!(e, CalibError::Tensor { .. }), "{e}");
    // Other versions are named.
    let mut newer = before.clone();
    newer[4] = 2;
    let e = Archive::from_bytes(&newer).unwrap_err().to_string();
    assert!(e.contains("version") && e.contains('2'), "{e}");
}

fn observer(kind: ObserverKind) -> Box<dyn Observer> {
    kind.observer(Granularity::PerTensor, Policy::Ignore)
        .unwrap()
}

/// postcard has no room for messages, but the reason arrives.
#[test]
fn what_is_wrong_inside_is_named() {
    let mut a = Archive::new("m");
    a.place("t", observer(ObserverKind::MinMax)).unwrap();
    let x = [1.0f32, 2.0];
    a.observe(5, "t", TensorView::new(&x[..], &[2]).unwrap())
        .unwrap();
    let good = a.to_bytes().unwrap();
    let body = &good[16..good.len() - 4];
    // Name, one range of batches, one tensor of one state, whose last four bytes are counts.
    assert_eq!(&body[..5], [1, b'm', 1, 5, 5]);
    let read = |at: usize, byte: u8| {
        let mut body = body.to_vec();
        body[at] = byte;
        Archive::from_bytes(&sealed(&body)).unwrap_err()
    };
    let e = read(body.len() - 4, 0);
    let CalibError::Tensor { tensor, source } = &e else {
        panic!("{e}");
    };
    assert_eq!(tensor, "t");
    assert!(
        matches!(
            **source,
            CalibError::State {
                field: "range",
                group: 0,
                ..
            }
        ),
        "{e}"
    );
    let e = read(4, 4);
    assert!(
        matches!(
            e,
            CalibError::State {
                field: "batches",
                ..
            }
        ),
        "{e}"
    );
    // The state's own version, after "t" and the number of its states.
    let version = body.windows(4).position(|w| w == [1, b't', 1, 1]).unwrap() + 3;
    let e = read(version, 2).to_string();
    assert!(e.contains("\"t\"") && e.contains("version"), "{e}");
}

#[test]
fn other_files_are_no_archives() {
    let mut other = filled(0..1).to_bytes().unwrap();
    other[..4].copy_from_slice(b"QCAL");
    let e = Archive::from_bytes(&other).unwrap_err().to_string();
    assert!(
        ["not an archive", "QCAL", "QARC"]
            .iter()
            .all(|w| e.contains(w)),
        "{e}"
    );
}

/// Of several observers of a tensor either all record a batch or none does.
#[test]
fn a_batch_is_recorded_by_all_observers_or_by_none() {
    let channel = Granularity::PerChannel { axis: 1 };
    let placed = |list: [(ObserverKind, Granularity, Policy); 2]| {
        let mut a = Archive::new("m");
        for (kind, granularity, policy) in list {
            a.place("t", kind.observer(granularity, policy).unwrap())
                .unwrap();
        }
        a
    };
    let (lenient, strict) = (Policy::Ignore, Policy::Error);
    let tensor = Granularity::PerTensor;
    let (cheap, last) = (ObserverKind::MinMax, ObserverKind::Histogram);
    for (list, x, shape) in [
        // The second refuses the value, the axis, the number of channels.
        (
            [(cheap, tensor, lenient), (last, tensor, strict)],
            &[1.0, f32::NAN][..],
            &[1, 2][..],
        ),
        (
            [(cheap, tensor, strict), (last, channel, strict)],
            &[1.0, 2.0],
            &[2],
        ),
        (
            [(cheap, tensor, lenient), (last, channel, lenient)],
            &[1.0; 3],
            &[1, 3],
        ),
    ] {
        let mut a = placed(list);
        let good = TensorView::new(&[0.5f32, 0.25][..], &[1, 2]).unwrap();
        a.observe(0, "t", good).unwrap();
        let before = a.to_bytes().unwrap();
        let bad = TensorView::new(x, shape).unwrap();
        let e = a.observe(1, "t", bad).unwrap_err();
        assert!(matches!(e, CalibError::Tensor { .. }), "{e}");
        assert_eq!(a.to_bytes().unwrap(), before);
        a.observe(1, "t", good).unwrap();
        assert_eq!(a.batches(), 2);
    }
}
