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

/// A file that is whole and has the right checksum, but whose content cannot be: the value is
/// named, the field and the reason.
#[test]
fn what_no_observer_can_have_seen_is_refused_with_the_reason() {
    let whole = part(1, 1);
    let bytes = whole.to_bytes().unwrap();
    let content = 20;
    let refused = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes[4..16]);
        crc.update(&bytes[content..]);
        bytes[16..content].copy_from_slice(&crc.finalize().to_le_bytes());
        Recorded::from_bytes(&bytes).err().map(|e| e.to_string())
    };
    let problems: Vec<String> = (content..bytes.len()).filter_map(refused).collect();
    for value in whole.values() {
        let prefix = format!("value \"{value}\": the stored state is not valid: ");
        let own: Vec<&String> = problems.iter().filter(|p| p.contains(&prefix)).collect();
        assert!(!own.is_empty(), "{value}");
        assert!(
            own.iter().all(|p| p.contains(" of group 0 ")),
            "{value}: {own:?}"
        );
        // Of more than one field.
        assert!(own.iter().any(|p| *p != own[0]), "{value}: {own:?}");
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
