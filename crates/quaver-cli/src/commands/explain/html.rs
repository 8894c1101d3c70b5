//! The explanation as one HTML file that asks the network for nothing.

mod parts;

use std::fmt::Write as _;

use quaver::Explanation;
use quaver::explain::{Role, Tensor};

use self::parts::{bar, cards, heading, layers, methods, suggestions};
use super::plot;
use super::text::{better, change, number, percent, printable, sparkline};
use crate::error::CliError;

/// The style sheet. Colours of the plots are replaced in `style`.
const STYLE: &str = include_str!("html/style.css");

/// What explains the columns to newcomers.
const GUIDE: &str = include_str!("html/guide.html");

/// Tensors whose plots are open at first.
const OPEN: usize = 3;

/// Columns of the small distribution beside a name.
const SPARKLINE: usize = 24;

/// The page.
pub(super) fn page(title: &str, e: &Explanation) -> Result<String, CliError> {
    let mut body = String::new();
    cards(&mut body, e);
    suggestions(&mut body, e);
    body.push_str(GUIDE);
    methods(&mut body, &e.methods);
    layers(&mut body, &e.layers, e.other_share);
    heading(
        &mut body,
        "Tensors",
        "The noisiest under the chosen method first. Open one for its histogram and the range of \
         every method.",
    );
    for (i, t) in e.tensors.iter().enumerate() {
        tensor(&mut body, t, i < OPEN)?;
    }
    let s = &e.settings;
    let mut page = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}: what quantization does</title>\n<style>\n{style}</style>\n</head>\n\
         <body>\n<main>\n<h1>{title}</h1>\n\
         <p class=\"sub\">Activations by <b>{method}</b>, {scheme}; weights {weights}; {format}. \
         Calibrated on {batches} batches; models compared on {samples} samples.</p>\n{body}\
         </main>\n</body>\n</html>\n",
        title = escape(title),
        style = style(),
        method = escape(&s.method),
        scheme = escape(&s.activations),
        weights = escape(&s.weights),
        format = escape(&s.format),
        batches = s.batches,
        samples = s.samples,
    );
    Ok(page)
}

/// The style sheet, with the colours of the plots for readers who prefer dark.
fn style() -> String {
    let mut style = STYLE.to_owned();
    for (colour, name) in [
        (plot::INK, "--ink"),
        (plot::GRID, "--grid"),
        (plot::BARS, "--bars"),
    ] {
        let hex = plot::hex(colour);
        let _ = writeln!(
            style,
            "svg [fill=\"{hex}\"] {{ fill: var({name}) }}\nsvg [stroke=\"{hex}\"] {{ stroke: var({name}) }}"
        );
    }
    style
}

/// Text that is no markup, inside of elements and of quoted attributes, without the characters that
/// no document may hold or that would turn the text beside it.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A tensor: a line, and behind it the plot and the table of methods.
fn tensor(page: &mut String, t: &Tensor, open: bool) -> Result<(), CliError> {
    let Some(chosen) = t.chosen() else {
        return Ok(());
    };
    let best = match better(t) {
        Some(b) => format!(
            "<span class=\"good\">{} {}</span>",
            escape(&b.method),
            change(b.switch_db)
        ),
        None => "<span class=\"dim\">none is better</span>".to_owned(),
    };
    let role = match t.role {
        Role::Activation => "activation",
        Role::Weight => "weight",
    };
    let _ = write!(
        page,
        "<details class=\"tensor\"{open}>\n<summary><span class=\"name\">{name}</span>\
         <span class=\"tag\">{role}</span><span class=\"spark\" aria-hidden=\"true\">{spark}</span>\
         <span class=\"num\">{sqnr}</span><span class=\"num\">{clipped} clipped</span>\
         <span class=\"best\">{best}</span></summary>\n",
        open = if open { " open" } else { "" },
        name = escape(&t.name),
        spark = sparkline(&t.histogram, SPARKLINE),
        sqnr = chosen.sqnr,
        clipped = percent(chosen.clipped()),
    );
    let zeros = if t.count > 0 {
        t.histogram.zeros as f64 / t.count as f64
    } else {
        0.0
    };
    let _ = writeln!(
        page,
        "<p class=\"sub\">{count} values from {min} to {max}; {zeros} are exactly 0 and not drawn. \
         Read by {readers}.</p>",
        count = t.count,
        min = number(t.min),
        max = number(t.max),
        zeros = percent(zeros),
        readers = readers(&t.readers),
    );
    let svg = plot::svg(t).map_err(CliError::Plot)?;
    let _ = writeln!(
        page,
        "<div class=\"scroll plot\" role=\"img\" aria-label=\"Histogram of {name} with the range of \
         every method\">{svg}</div>",
        name = escape(&t.name),
    );
    effects(page, t);
    page.push_str("</details>\n");
    Ok(())
}

/// Names of layers, cut where there are many.
fn readers(names: &[String]) -> String {
    const SHOWN: usize = 6;
    if names.is_empty() {
        return "no quantized layer".to_owned();
    }
    let mut text = names
        .iter()
        .take(SHOWN)
        .map(|n| format!("<code>{}</code>", escape(n)))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN {
        let _ = write!(text, " and {} more", names.len() - SHOWN);
    }
    text
}

/// What every method does to a tensor.
fn effects(page: &mut String, t: &Tensor) {
    page.push_str(
        "<div class=\"scroll\"><table>\n<thead><tr><th>method</th><th class=\"r\">range</th>\
         <th class=\"r\">scale</th><th class=\"r\">zero point</th><th class=\"r\">clipped below</th>\
         <th class=\"r\">above</th><th class=\"r\">SQNR</th><th class=\"r\">at the ends</th>\
         <th class=\"r\">dead codes</th><th class=\"r\">switching</th></tr></thead>\n<tbody>\n",
    );
    for (i, m) in t.methods.iter().enumerate() {
        let scale = if m.least_scale < m.scale {
            format!("{} to {}", number(m.least_scale), number(m.scale))
        } else {
            number(m.scale)
        };
        let switching = if m.chosen {
            "chosen".to_owned()
        } else {
            change(m.switch_db)
        };
        let class = match m.switch_db {
            Some(db) if db >= 0.05 => "good",
            Some(db) if db <= -0.05 => "bad",
            _ => "dim",
        };
        let _ = writeln!(
            page,
            "<tr{row}><td><span class=\"key\" style=\"background:{colour}\"></span>{method}</td>\
             <td class=\"r\">{min} to {max}</td><td class=\"r\">{scale}</td>\
             <td class=\"r\">{zero}</td><td class=\"r\">{below}</td><td class=\"r\">{above}</td>\
             <td class=\"r\">{sqnr}</td><td class=\"r\">{ends}</td>\
             <td class=\"r\">{dead}{bar}</td><td class=\"r {class}\">{switching}</td></tr>",
            row = if m.chosen { " class=\"chosen\"" } else { "" },
            colour = plot::hex(plot::colour(i)),
            method = escape(&m.method),
            min = number(m.min),
            max = number(m.max),
            zero = m.zero_point,
            below = percent(m.clipped_below),
            above = percent(m.clipped_above),
            sqnr = m.sqnr,
            ends = percent(m.saturated),
            dead = percent(m.dead_codes),
            bar = bar(m.dead_codes),
        );
    }
    page.push_str("</tbody></table></div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_markup() {
        assert_eq!(
            escape("<script>alert('x')</script> & \"\u{1b}\""),
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;\u{fffd}&quot;"
        );
    }

    #[test]
    fn the_style_follows_the_plots_colours() {
        let style = style();
        assert!(style.contains("svg [fill=\"#333333\"] { fill: var(--ink) }"));
        for name in ["--ink", "--grid", "--bars"] {
            // Once for light and once for dark, and used.
            assert_eq!(style.matches(&format!("{name}:")).count(), 2, "{name}");
        }
        assert!(!style.contains("url(") && !GUIDE.contains("http"));
    }
}
