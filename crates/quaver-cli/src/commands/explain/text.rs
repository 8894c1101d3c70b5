//! Numbers and names as people read them, in the terminal and on the page.

use quaver::explain::{Action, Histogram, MethodEffect, Quality, Tensor};

/// Heights of a sparkline's columns.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A name without characters that steer a terminal.
pub(super) fn printable(name: &str) -> String {
    let safe = |c: char| {
        // Marks that turn the direction of text would shuffle what stands beside them.
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns {
            '\u{fffd}'
        } else {
            c
        }
    };
    name.chars().map(safe).collect()
}

/// A name cut to `width` characters; its end is what tells names apart most.
pub(super) fn short(name: &str, width: usize) -> String {
    let count = name.chars().count();
    if count <= width {
        return name.to_owned();
    }
    let kept: String = name.chars().skip(count - (width - 1)).collect();
    format!("…{kept}")
}

/// A share from 0 to 1 in percent; what is there is never shown as nothing, nor less than all as
/// all.
pub(super) fn percent(share: f64) -> String {
    let p = 100.0 * share;
    if p == 0.0 {
        "0 %".to_owned()
    } else if p < 0.01 {
        "<0.01 %".to_owned()
    } else if (99.95..100.0).contains(&p) {
        ">99.9 %".to_owned()
    } else if p < 1.0 {
        format!("{p:.2} %")
    } else {
        format!("{p:.1} %")
    }
}

/// A number with three or four digits.
pub(super) fn number(x: f32) -> String {
    let size = x.abs();
    if x == 0.0 {
        "0".to_owned()
    } else if !(1e-3..1e5).contains(&size) {
        format!("{x:.2e}")
    } else if size >= 100.0 {
        format!("{x:.0}")
    } else if size >= 1.0 {
        format!("{x:.2}")
    } else {
        format!("{x:.4}")
    }
}

/// A change in dB with its sign.
pub(super) fn change(db: Option<f64>) -> String {
    match db {
        // No sign on what would be shown as zero.
        Some(db) if db.abs() < 0.05 => "0.0 dB".to_owned(),
        Some(db) => format!("{db:+.1} dB"),
        None => "–".to_owned(),
    }
}

/// The method with the least noise, where it is better than the chosen one by what is shown at all.
pub(super) fn better(t: &Tensor) -> Option<&MethodEffect> {
    let shown = |m: &&MethodEffect| !m.chosen && m.switch_db.is_none_or(|db| db >= 0.05);
    t.best().filter(shown)
}

/// What came of a model, in a line.
pub(super) fn quality(q: &Quality) -> String {
    let mut text = format!("SQNR {}", q.sqnr);
    if let Some(a) = q.agreement {
        text.push_str(&format!(", top-1 as float on {}", percent(a)));
    }
    if let Some(a) = q.accuracy {
        text.push_str(&format!(", accuracy {}", percent(a)));
    }
    text
}

/// The option of `quaver quantize` that carries a change out; `None` where a node has no name.
pub(super) fn option(action: &Action) -> Option<String> {
    match action {
        Action::SwitchMethod { method } => Some(format!("--method {method}")),
        Action::SwitchTensor { tensor, method, .. } => Some(format!(
            "--tensor-method {}",
            quoted(&format!("{tensor}={method}"))
        )),
        Action::KeepFloat {
            layer, named: true, ..
        } => Some(format!("--exclude {}", quoted(layer))),
        _ => None,
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,+@%".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The distribution in `width` characters, heights by the logarithm of counts; exact zeros are left
/// out.
pub(super) fn sparkline(h: &Histogram, width: usize) -> String {
    let mut columns = vec![0u64; width];
    let bins = h.counts.len();
    for (i, &c) in h.counts.iter().enumerate() {
        // A histogram with fewer bins than columns leaves gaps, unless every column takes the bin
        // below it.
        let (from, to) = (i * width / bins, ((i + 1) * width).div_ceil(bins));
        if bins >= width {
            columns[from.min(width - 1)] += c;
        } else {
            for column in &mut columns[from..to.min(width)] {
                *column = (*column).max(c);
            }
        }
    }
    let most = columns.iter().copied().max().unwrap_or(0) as f64;
    let block = |&c: &u64| {
        if c == 0 {
            return ' ';
        }
        let height = (1.0 + c as f64).ln() / (1.0 + most).ln();
        let top = BLOCKS.len() - 1;
        BLOCKS[((height * top as f64).round() as usize).min(top)]
    };
    columns.iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quaver::explain::Role;

    fn histogram(counts: &[u64]) -> Histogram {
        Histogram {
            zeros: 7,
            edges: (0..=counts.len()).map(|i| i as f32).collect(),
            counts: counts.to_vec(),
        }
    }

    #[test]
    fn sparklines_keep_their_width_and_every_value() {
        assert_eq!(sparkline(&histogram(&[0, 1, 1000]), 3), " ▂█");
        assert_eq!(sparkline(&histogram(&[1, 1000]), 4), "▂▂██");
        assert_eq!(sparkline(&histogram(&[]), 4), "    ");
        for bins in [1, 2, 5, 15, 16, 17, 96, 1000] {
            let mut counts = vec![0; bins];
            counts[bins - 1] = 1;
            let line = sparkline(&histogram(&counts), 16);
            assert_eq!(line.chars().count(), 16, "{bins}");
            assert!(line.ends_with('█'), "{bins}: {line}");
        }
    }

    #[test]
    fn names_cannot_steer_a_terminal_or_a_shell() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}"), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(short("abcdef", 4), "…def");
        assert_eq!(short("abcd", 4), "abcd");
        let option = option(&Action::SwitchTensor {
            tensor: "it's; rm".to_owned(),
            role: Role::Activation,
            method: "mse".to_owned(),
        });
        assert_eq!(option.unwrap(), r"--tensor-method 'it'\''s; rm=mse'");
    }

    #[test]
    fn numbers_are_short_and_never_lie_about_zero() {
        let shown = [0.0, 0.000_01, 0.005, 0.5, 0.9999, 1.0].map(percent);
        assert_eq!(
            shown,
            ["0 %", "<0.01 %", "0.50 %", "50.0 %", ">99.9 %", "100.0 %"]
        );
        let shown = [0.0, 1e-7, 0.0123, -1.5, 123.4, 1e9].map(number);
        assert_eq!(shown, ["0", "1.00e-7", "0.0123", "-1.50", "123", "1.00e9"]);
        assert_eq!(change(Some(-0.01)), "0.0 dB");
        assert_eq!(change(Some(2.25)), "+2.2 dB");
        assert_eq!(change(None), "–");
    }
}
