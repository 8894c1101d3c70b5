//! Amounts of data for elementwise work, by the level of memory that holds them.

use crate::BenchError;
use crate::machine::Machine;

/// An amount of data, read and written together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Size {
    /// What it is called: a level of memory or the amount itself.
    pub name: String,
    /// Bytes read and written together.
    pub bytes: usize,
}

/// The names that stand for a level of memory, and what each is.
pub const LEVELS: &[(&str, &str)] = &[
    ("l1", "half of the first-level cache"),
    ("l2", "half of the second-level cache"),
    ("l3", "half of the third-level cache"),
    ("mem", "eight times the third-level cache"),
];

/// Reads a comma-separated list of levels and amounts (`64KiB`, `16MiB`, `1000`).
///
/// # Errors
///
/// [`BenchError::Argument`] for a part that is neither.
pub fn parse(text: &str, machine: &Machine) -> Result<Vec<Size>, BenchError> {
    text.split(',')
        .map(|part| one(part.trim(), machine))
        .collect()
}

fn one(text: &str, machine: &Machine) -> Result<Size, BenchError> {
    let size = |bytes| {
        Ok(Size {
            name: text.to_owned(),
            bytes,
        })
    };
    match text {
        "l1" => return size(machine.l1d / 2),
        "l2" => return size(machine.l2 / 2),
        "l3" => return size(machine.l3 / 2),
        "mem" => return size(machine.l3 * 8),
        _ => {}
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let bytes = digits
        .parse::<usize>()
        .ok()
        .zip(factor)
        .and_then(|(count, factor)| count.checked_mul(factor))
        // Less than one element of the widest kind is no work.
        .filter(|&bytes| bytes >= 64);
    bytes.map_or_else(
        || {
            let levels = LEVELS
                .iter()
                .map(|(name, _)| *name)
                .collect::<Vec<_>>()
                .join(", ");
            Err(BenchError::Argument {
                argument: "--sizes",
                given: text.to_owned(),
                allowed: format!("an amount from 64 bytes such as 64KiB or 16MiB, or {levels}"),
            })
        },
        size,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_amounts_are_read() {
        let machine = Machine::detect();
        let sizes = parse("l2,64KiB, 16MiB,1000", &machine).unwrap();
        let bytes: Vec<usize> = sizes.iter().map(|size| size.bytes).collect();
        assert_eq!(bytes, [machine.l2 / 2, 65_536, 16 << 20, 1000]);
        for (name, _) in LEVELS {
            assert_eq!(parse(name, &machine).unwrap()[0].name, *name);
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "l4",
            "12KB",
            "KiB",
            "-1KiB",
            "63",
            "99999999999999GiB",
            "1,,2",
        ] {
            assert!(parse(text, &Machine::detect()).is_err(), "{text}");
        }
    }
}
