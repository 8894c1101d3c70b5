//! The parts of the page above the tensors.

use std::fmt::Write as _;

use quaver::Explanation;
use quaver::explain::{Action, Layer, MethodQuality};

use super::super::text::{change, option, percent};
use super::escape;

/// A heading with what is below it in a sentence.
pub(super) fn heading(page: &mut String, title: &str, about: &str) {
    let _ = write!(page, "<h2>{title}</h2>\n<p class=\"sub\">{about}</p>\n");
}

/// A share as a bar.
pub(super) fn bar(share: f64) -> String {
    format!(
        "<span class=\"bar\"><span style=\"width:{:.1}%\"></span></span>",
        100.0 * share.clamp(0.0, 1.0)
    )
}

/// The most important numbers.
pub(super) fn cards(page: &mut String, e: &Explanation) {
    page.push_str("<div class=\"cards\">\n");
    let mut card = |value: String, what: &str| {
        let _ = writeln!(
            page,
            "<div class=\"card\"><b>{value}</b><span>{what}</span></div>"
        );
    };
    card(
        e.quality.sqnr.to_string(),
        "signal to quantization noise of the output",
    );
    if let Some(a) = e.quality.agreement {
        card(percent(a), "of samples: the float model's answer");
    }
    if let Some(a) = e.quality.accuracy {
        card(percent(a), "of samples: the label");
    }
    if let Some(l) = e.layers.first() {
        let name = format!("<code>{}</code>", escape(&l.name));
        card(name, &format!("hurts most alone: {}", l.alone.sqnr));
    }
    page.push_str("</div>\n");
}

/// What helps.
pub(super) fn suggestions(page: &mut String, e: &Explanation) {
    let about = format!(
        "{} changes were tried, each on a model that was quantized with it and run; {} make the \
         output better. Gains do not add up.",
        e.tried,
        e.suggestions.len()
    );
    heading(page, "What helps", &about);
    if e.suggestions.is_empty() {
        page.push_str("<p>Nothing that was tried makes the output better.</p>\n");
        return;
    }
    page.push_str("<ol class=\"advice\">\n");
    for s in &e.suggestions {
        let gain = s
            .gain_db
            .map_or("no noise".to_owned(), |_| change(s.gain_db));
        let mut effect = format!("{} → {}", s.before.sqnr, s.after.sqnr);
        match (s.before.agreement, s.after.agreement) {
            (Some(a), Some(b)) if a == b => {
                let _ = write!(effect, "; float's answer on {}, as before", percent(b));
            }
            (Some(a), Some(b)) => {
                let (a, b) = (percent(a), percent(b));
                let _ = write!(effect, "; float's answer on {a} → {b}");
            }
            _ => {}
        }
        if let Action::KeepFloat {
            time_share: Some(share),
            ..
        } = s.action
        {
            let _ = write!(
                effect,
                "; {} of the run time stays in float",
                percent(share)
            );
        }
        let _ = write!(
            page,
            "<li><b class=\"good\">{gain}</b> {what}<br><span class=\"sub\">{effect}</span>",
            what = escape(&s.action.to_string()),
        );
        if let Some(option) = option(&s.action) {
            let _ = write!(
                page,
                "<br><code>quaver quantize … {}</code>",
                escape(&option)
            );
        }
        page.push_str("</li>\n");
    }
    page.push_str("</ol>\n");
}

/// The whole model, method by method.
pub(super) fn methods(page: &mut String, list: &[MethodQuality]) {
    heading(
        page,
        "Methods",
        "The whole model, with all activations by one method; the best first.",
    );
    page.push_str(
        "<div class=\"scroll\"><table>\n<thead><tr><th>method</th><th class=\"r\">SQNR</th>\
         <th class=\"r\">float's answer</th><th class=\"r\">accuracy</th></tr></thead>\n<tbody>\n",
    );
    for m in list {
        let share = |s: Option<f64>| s.map_or("–".to_owned(), percent);
        let _ = writeln!(
            page,
            "<tr{}><td>{}</td><td class=\"r\">{}</td><td class=\"r\">{}</td>\
             <td class=\"r\">{}</td></tr>",
            if m.chosen { " class=\"chosen\"" } else { "" },
            escape(&m.method),
            m.quality.sqnr,
            share(m.quality.agreement),
            share(m.quality.accuracy),
        );
    }
    page.push_str("</tbody></table></div>\n");
}

/// Every layer.
pub(super) fn layers(page: &mut String, list: &[Layer], other: Option<f64>) {
    heading(
        page,
        "Layers",
        "Each quantized alone, with all the rest in float; the one that hurts most first.",
    );
    page.push_str(
        "<div class=\"scroll\"><table>\n<thead><tr><th>layer</th><th>operator</th>\
         <th class=\"r\">SQNR alone</th><th class=\"r\">float's answer</th>\
         <th class=\"r\">run time in float</th></tr></thead>\n<tbody>\n",
    );
    let time = |share: Option<f64>| {
        share.map_or("–".to_owned(), |s| format!("{}{}", percent(s), bar(s)))
    };
    for l in list {
        let _ = writeln!(
            page,
            "<tr><td class=\"name\">{}</td><td>{}</td><td class=\"r\">{}</td>\
             <td class=\"r\">{}</td><td class=\"r\">{}</td></tr>",
            escape(&l.name),
            escape(&l.operator),
            l.alone.sqnr,
            l.alone.agreement.map_or("–".to_owned(), percent),
            time(l.time_share),
        );
    }
    if other.is_some() {
        let _ = writeln!(
            page,
            "<tr class=\"dim\"><td>all else</td><td></td><td></td><td></td>\
             <td class=\"r\">{}</td></tr>",
            time(other)
        );
    }
    page.push_str("</tbody></table></div>\n");
}
