//! Recorded calibration: damaged, foreign and incomplete files.

mod common;

use common::{dataset, shared_weight};
use quaver::calib::Policy;
use quaver::{BatchPlan, Method, Operators, QuantizeError, Recorded};

fn part(shard: u64, count: u64) -> Recorded {
    let data = dataset(7, &[8], 1);
    let plan = BatchPlan {
        samples: 7,
        batch: 2,
    };
    let chosen = Operators::new().choose(&shared_weight()).unwrap();
    let mut o = chosen.observe(&Method::ALL, Policy::Error).unwrap();
    for b in plan.shard(shard, count) {
        let rows = plan.rows(b);
        let rows = usize::try_from(rows.start).unwrap()..usize::try_from(rows.end).unwrap();
        o.observe_at(b, &data.rows(rows)).unwrap();
    }
    o.record(plan).unwrap()
}

#[test]
fn parts_merge_to_the_bytes_of_the_whole_even_where_some_are_empty() {
    let whole = part(1, 1).to_bytes().unwrap();
    for count in [1, 2, 3, 9] {
        for first in 1..=count {
            let mut all = part(first, count);
            for i in (1..=count).rev().filter(|i| *i != first) {
                all.merge(&part(i, count)).unwrap();
            }
            assert_eq!(all.to_bytes().unwrap(), whole, "{count} from {first}");
        }
    }
    let again = Recorded::from_bytes(&whole).unwrap();
    assert_eq!(again.to_bytes().unwrap(), whole);
}

#[test]
fn every_cut_and_every_flipped_bit_is_a_typed_error() {
    let bytes = part(1, 2).to_bytes().unwrap();
    for cut in (0..300).chain((300..bytes.len()).step_by(11)) {
        assert!(Recorded::from_bytes(&bytes[..cut]).is_err(), "{cut}");
    }
    // Every bit of the head, and a sample of the rest.
    for bit in (0..200).chain((200..bytes.len() * 8).step_by(137)) {
        let mut broken = bytes.clone();
        broken[bit / 8] ^= 1 << (bit % 8);
        assert!(Recorded::from_bytes(&broken).is_err(), "{bit}");
    }
}

#[test]
fn parts_of_the_data_are_not_taken_for_the_whole() {
    let chosen = Operators::new().choose(&shared_weight()).unwrap();
    assert!(matches!(
        chosen.clone().restore(&part(1, 2)),
        Err(QuantizeError::Incomplete {
            first: 2,
            last: 3,
            total: 4
        })
    ));
    assert!(matches!(
        part(1, 2).merge(&part(1, 4)),
        Err(QuantizeError::Overlap { batch: 0 })
    ));
    let other = Operators::new()
        .choose(&common::convnet(common::relu()))
        .unwrap();
    assert!(matches!(
        other.restore(&part(1, 1)),
        Err(QuantizeError::StateMismatch { what: "model", .. })
    ));
    assert!(chosen.restore(&part(1, 1)).is_ok());
}
