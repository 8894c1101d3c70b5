//! The state after merging is byte for byte that of one pass, whatever the split and the order.

use proptest::prelude::*;
use qcalib::observers::HistogramObserver;
use qcalib::{CalibError, Observer, ObserverKind, ObserverState, Policy};
use qformat::Granularity;

/// A part of a batch: rows of `CHANNELS` values.
#[derive(Debug, Clone)]
struct Shard {
    batch: u64,
    rows: Vec<[f32; CHANNELS]>,
}

const CHANNELS: usize = 3;

fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        6 => -4f32..4.0,
        2 => any::<f32>(),
        1 => Just(0.0),
        1 => Just(-0.0),
        1 => Just(f32::NAN),
        1 => Just(f32::INFINITY),
        1 => Just(f32::NEG_INFINITY),
        1 => Just(f32::MAX),
        1 => Just(f32::MIN),
        1 => Just(f32::from_bits(1)),
        1 => (0u32..1 << 23).prop_map(f32::from_bits),
        // Powers of two and their neighbours: the borders of bins.
        2 => (1u32..255, 0u32..3).prop_map(|(e, d)| f32::from_bits((e << 23) + d - 1)),
        1 => (-150i32..128).prop_map(|e| -(2f64.powi(e) as f32)),
    ]
}

fn shards() -> impl Strategy<Value = Vec<Shard>> {
    let few = shards_of(value(), 6);
    // Values of all binades below the highest of them, and so many that sums go through vectors.
    let many = (1u32..255).prop_flat_map(|top| {
        let bits = (0..(top + 1) << 23, any::<bool>());
        shards_of(
            bits.prop_map(|(b, negative)| f32::from_bits(b | u32::from(negative) << 31)),
            40,
        )
    });
    prop_oneof![4 => few, 1 => many]
}

fn shards_of(
    value: impl Strategy<Value = f32>,
    most_rows: usize,
) -> impl Strategy<Value = Vec<Shard>> {
    let rows = prop::collection::vec(prop::array::uniform3(value), 0..most_rows);
    let shard = (0u64..4, rows).prop_map(|(batch, rows)| Shard { batch, rows });
    prop::collection::vec(shard, 0..8)
}

fn observers() -> impl Strategy<Value = Box<dyn Observer>> {
    let granularity = prop_oneof![
        Just(Granularity::PerTensor),
        (0usize..3).prop_map(|axis| Granularity::PerChannel { axis }),
        (0usize..3, 1usize..5).prop_map(|(axis, block)| Granularity::PerBlock { axis, block }),
    ];
    let policy = prop::sample::select(&Policy::ALL[..]);
    (0..5, granularity, policy).prop_map(|(kind, g, p)| match kind {
        0 => ObserverKind::MinMax.observer(g, p).unwrap(),
        1 => ObserverKind::MovingAverage.observer(g, p).unwrap(),
        2 => Box::new(HistogramObserver::with_bins(g, p, 16).unwrap()),
        3 => ObserverKind::Moments.observer(g, p).unwrap(),
        _ => Box::new(HistogramObserver::with_bins(g, p, 128).unwrap()),
    })
}

/// Shows a shard with the channels on the observer's axis; refused ones must be so rightly.
fn observe(o: &mut dyn Observer, shard: &Shard) {
    let rows = shard.rows.len();
    let columns: Vec<f32>;
    let (x, shape): (&[f32], [usize; 3]) = match o.granularity() {
        Granularity::PerTensor | Granularity::PerChannel { axis: 1 } => {
            (shard.rows.as_flattened(), [rows, CHANNELS, 1])
        }
        Granularity::PerChannel { axis: 0 } => {
            columns = (0..CHANNELS)
                .flat_map(|c| shard.rows.iter().map(move |r| r[c]))
                .collect();
            (&columns, [CHANNELS, rows, 1])
        }
        Granularity::PerChannel { .. } => (shard.rows.as_flattened(), [rows, 1, CHANNELS]),
        // Blocks at every position of the other axes: a batch has one shape.
        Granularity::PerBlock { axis, .. } => {
            let mut shape = [1; 3];
            shape[axis] = CHANNELS;
            for row in &shard.rows {
                check(o.observe(shard.batch, row, &shape), o, row);
            }
            return;
        }
    };
    check(o.observe(shard.batch, x, &shape), o, x);
}

fn check(result: Result<(), CalibError>, o: &dyn Observer, x: &[f32]) {
    let refused = o.policy() == Policy::Error && x.iter().any(|v| !v.is_finite());
    match result {
        Ok(()) => assert!(!refused),
        Err(e) => assert!(refused && matches!(e, CalibError::NonFinite { .. }), "{e}"),
    }
}

/// What of the shards an observer takes: all, or what is finite.
fn taken(o: &dyn Observer, shards: &[Shard]) -> Vec<Shard> {
    let finite = |x: &[f32]| x.iter().all(|v| v.is_finite());
    let mut taken = shards.to_vec();
    if o.policy() == Policy::Error {
        match o.granularity() {
            Granularity::PerBlock { .. } => {
                taken.iter_mut().for_each(|s| s.rows.retain(|r| finite(r)));
            }
            _ => taken.retain(|s| finite(s.rows.as_flattened())),
        }
    }
    taken
}

/// The state in both formats.
fn bytes(o: &dyn Observer) -> (String, Vec<u8>) {
    let json = serde_json::to_string(&o.state()).unwrap();
    (json, postcard::to_allocvec(&o.state()).unwrap())
}

/// Everything in one pass, batches sorted and joined.
fn one_pass(fresh: &dyn Observer, shards: &[Shard]) -> Box<dyn Observer> {
    let mut o = fresh.clone_box();
    for batch in 0..4 {
        let rows = shards
            .iter()
            .filter(|s| s.batch == batch)
            .flat_map(|s| s.rows.clone());
        observe(
            &mut *o,
            &Shard {
                batch,
                rows: rows.collect(),
            },
        );
    }
    o
}

/// Trials of the main property: a thousand, or as many as `QCALIB_MERGE_TRIALS` says. A hundred
/// thousand take a minute in a release build.
fn trials() -> u32 {
    std::env::var("QCALIB_MERGE_TRIALS").map_or(1000, |n| n.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(trials()))]

    #[test]
    fn any_split_and_order_gives_the_bytes_of_one_pass(
        fresh in observers(),
        shards in shards(),
        owners in prop::collection::vec(0usize..4, 8),
        swaps in prop::collection::vec((0usize..8, 0usize..8), 8),
        tree in any::<bool>(),
    ) {
        let whole = one_pass(&*fresh, &taken(&*fresh, &shards));
        let mut mixed = shards.clone();
        for (a, b) in swaps {
            if a < mixed.len() && b < mixed.len() {
                mixed.swap(a, b);
            }
        }
        let mut parts = vec![fresh.clone(), fresh.clone(), fresh.clone(), fresh.clone()];
        for (shard, owner) in mixed.iter().zip(owners) {
            observe(&mut *parts[owner], shard);
        }
        let [mut a, mut b, mut c, d] = <[_; 4]>::try_from(parts).unwrap();
        if tree {
            // (a + b) + (c + d)
            a.merge(&*b).unwrap();
            c.merge(&*d).unwrap();
            a.merge(&*c).unwrap();
            prop_assert_eq!(bytes(&*a), bytes(&*whole));
        } else {
            // c + (b + (d + a)), through stored state
            let mut d: Box<dyn Observer> = restore(&*d);
            d.merge(&*restore(&*a)).unwrap();
            b.merge(&*d).unwrap();
            c.merge(&*b).unwrap();
            prop_assert_eq!(bytes(&*c), bytes(&*whole));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn channels_joined_are_the_tensor(kind in 0usize..4, shards in shards()) {
        let kind = ObserverKind::ALL[kind];
        let observer = |g| kind.observer(g, Policy::Ignore).unwrap();
        let mut channels = observer(Granularity::PerChannel { axis: 1 });
        let mut tensor = observer(Granularity::PerTensor);
        for s in &shards {
            observe(&mut *channels, s);
            observe(&mut *tensor, s);
        }
        prop_assert_eq!(bytes(&*channels.to_per_tensor().unwrap()), bytes(&*tensor));
    }
}

fn restore(o: &dyn Observer) -> Box<dyn Observer> {
    let (json, postcard) = bytes(o);
    let a: ObserverState = serde_json::from_str(&json).unwrap();
    let b: ObserverState = postcard::from_bytes(&postcard).unwrap();
    let a = a.into_observer();
    assert_eq!(bytes(&*a), bytes(&*b.into_observer()));
    a
}

/// Pieces long enough for every path of the histogram's fill, and ranges that grow in between.
#[test]
fn long_batches_in_any_order_give_the_same_bytes() {
    let mut s = 1u64;
    let mut x: Vec<f32> = (0..300_000)
        .map(|i| {
            s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let u = (s >> 40) as f32 / 8_388_608.0 - 1.0;
            if i % 3 == 0 {
                0.0
            } else {
                u * (1 << (i / 60_000)) as f32
            }
        })
        .collect();
    x[200_001] = -1e30;
    let granularities = [Granularity::PerTensor, Granularity::PerChannel { axis: 1 }];
    for (granularity, kind) in granularities
        .into_iter()
        .flat_map(|g| ObserverKind::ALL.map(|k| (g, k)))
    {
        let mut forward = kind.observer(granularity, Policy::Error).unwrap();
        let mut backward = forward.clone();
        forward.observe(0, &x, &[100_000, 3]).unwrap();
        for part in x.chunks(999).rev() {
            backward.observe(0, part, &[part.len() / 3, 3]).unwrap();
        }
        assert_eq!(bytes(&*forward), bytes(&*backward), "{kind}");
    }
}
