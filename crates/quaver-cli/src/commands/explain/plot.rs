//! The plot of a tensor: its histogram, and below it the range of every method.
//!
//! Colours are written as the light theme has them; the page's style sheet replaces each of
//! [`INK`], [`GRID`] and [`BARS`] where the reader prefers dark. Text is left to the viewer's fonts.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use quaver::explain::{MethodEffect, Tensor};

use super::text::number;

/// Text and axes.
pub(super) const INK: RGBColor = RGBColor(51, 51, 51);

/// Lines that only guide the eye.
pub(super) const GRID: RGBColor = RGBColor(221, 221, 221);

/// The bars of a histogram.
pub(super) const BARS: RGBColor = RGBColor(140, 152, 170);

/// The methods' colours in turn, told apart on light and dark ground.
const COLOURS: [RGBColor; 10] = [
    RGBColor(0, 114, 198),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 80, 160),
    RGBColor(196, 150, 0),
    RGBColor(70, 160, 220),
    RGBColor(150, 110, 220),
    RGBColor(190, 60, 60),
    RGBColor(110, 140, 60),
    RGBColor(130, 120, 110),
];

const WIDTH: u32 = 760;

/// Height of the histogram with its axis.
const HISTOGRAM: u32 = 220;

/// Height of the line of one method.
const LANE: u32 = 20;

/// What is above and below the lines of methods.
const MARGINS: u32 = 10;

/// Width of what stands on the left: counts, and names of methods.
const LABELS: u32 = 120;

/// What stays free on the right.
const RIGHT: u32 = 16;

/// Least height of a bar, below one value: counts are drawn by their logarithm.
const FLOOR: f64 = 0.7;

/// How far beyond the values a range is shown, in widths of the values.
const BEYOND: f64 = 0.5;

type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// The colour of the method at a place.
pub(super) fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// A colour as style sheets and SVG have it.
pub(super) fn hex(c: RGBColor) -> String {
    format!("#{:02X}{:02X}{:02X}", c.0, c.1, c.2)
}

/// The plot as SVG, or why there is none.
pub(super) fn svg(tensor: &Tensor) -> Result<String, String> {
    let lanes = u32::try_from(tensor.methods.len()).unwrap_or(u32::MAX / LANE / 2);
    let size = (WIDTH, HISTOGRAM + LANE * lanes + MARGINS);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let (above, below) = root.split_vertically(HISTOGRAM);
        let shown = span(tensor);
        histogram(&above, tensor, shown)
            .and_then(|()| ranges(&below, tensor, shown))
            .and_then(|()| root.present())
            .map_err(|e| e.to_string())?;
    }
    Ok(svg)
}

/// The numbers from left to right: all values and 0, with ranges that reach beyond them as far as
/// that stays readable.
fn span(tensor: &Tensor) -> (f64, f64) {
    let (low, high) = (
        f64::from(tensor.min).min(0.0),
        f64::from(tensor.max).max(0.0),
    );
    let width = if high > low { high - low } else { 1.0 };
    let reach = |m: &MethodEffect| (f64::from(m.min), f64::from(m.max));
    let (mut from, mut to) = (low, high);
    for (min, max) in tensor.methods.iter().map(reach) {
        from = from.min(min.max(low - BEYOND * width));
        to = to.max(max.min(high + BEYOND * width));
    }
    let pad = 0.01 * (to - from).max(width);
    (from - pad, to + pad)
}

fn histogram(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    tensor: &Tensor,
    (from, to): (f64, f64),
) -> Drawn {
    let h = &tensor.histogram;
    let most = h.counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    let mut chart = ChartBuilder::on(area)
        .margin_top(10)
        .margin_right(RIGHT)
        .set_label_area_size(LabelAreaPosition::Left, LABELS)
        .set_label_area_size(LabelAreaPosition::Bottom, 26)
        .build_cartesian_2d(from..to, (FLOOR..2.0 * most).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .x_labels(8)
        .y_labels(5)
        .x_label_formatter(&|x| axis(*x, to - from))
        .y_label_formatter(&|y| count(*y))
        .label_style(("sans-serif", 14).into_font().color(&INK))
        .draw()?;
    let bars = h.counts.iter().zip(h.edges.windows(2));
    chart.draw_series(bars.filter(|(c, _)| **c > 0).map(|(&c, edges)| {
        let corners = [
            (f64::from(edges[0]), FLOOR),
            (f64::from(edges[1]), c as f64),
        ];
        Rectangle::new(corners, BARS.filled())
    }))?;
    // Where the chosen range ends.
    if let Some((i, m)) = tensor.methods.iter().enumerate().find(|(_, m)| m.chosen) {
        for end in [f64::from(m.min), f64::from(m.max)] {
            if (from..=to).contains(&end) {
                let line = vec![(end, FLOOR), (end, 2.0 * most)];
                chart.draw_series([PathElement::new(line, colour(i).stroke_width(1))])?;
            }
        }
    }
    let style = ("sans-serif", 14)
        .into_font()
        .color(&INK)
        .pos(Pos::new(HPos::Left, VPos::Top));
    area.draw(&Text::new("number of values", (4, 8), style))
}

/// A line for every method from the lowest to the highest number that its range represents.
fn ranges(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    tensor: &Tensor,
    (from, to): (f64, f64),
) -> Drawn {
    let lanes = tensor.methods.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .margin_top(2)
        .margin_bottom(MARGINS - 2)
        .margin_right(RIGHT)
        .set_label_area_size(LabelAreaPosition::Left, LABELS)
        .build_cartesian_2d(from..to, 0.0..lanes)?;
    for (i, m) in tensor.methods.iter().enumerate() {
        let c = colour(i);
        let y = lanes - i as f64 - 0.5;
        let (min, max) = (f64::from(m.min), f64::from(m.max));
        let (left, right) = (min.clamp(from, to), max.clamp(from, to));
        let width = if m.chosen { 5 } else { 2 };
        chart.draw_series([PathElement::new(
            vec![(left, y), (right, y)],
            c.stroke_width(width),
        )])?;
        // Ticks at ends that are shown; a line that runs out of the plot has none.
        for (end, shown) in [(min, left), (max, right)] {
            if end == shown {
                let tick = vec![(end, y - 0.32), (end, y + 0.32)];
                chart.draw_series([PathElement::new(tick, c.stroke_width(2))])?;
            }
        }
        let (_, row) = chart.backend_coord(&(from, y));
        let (_, top) = area.get_base_pixel();
        let style = ("sans-serif", 14)
            .into_font()
            .color(&c)
            .pos(Pos::new(HPos::Right, VPos::Center));
        let mark = if m.chosen { "▸ " } else { "" };
        let label = format!("{mark}{}", m.method);
        let place = (LABELS.saturating_sub(8).cast_signed(), row - top);
        area.draw(&Text::new(label, place, style))?;
    }
    Ok(())
}

/// A number at the axis: 0 where rounding left next to nothing of it.
fn axis(x: f64, width: f64) -> String {
    number(if x.abs() < 1e-9 * width {
        0.0
    } else {
        x as f32
    })
}

/// A count at the axis: powers of ten from 1.
fn count(y: f64) -> String {
    if y >= 1e4 {
        format!("10^{:.0}", y.log10())
    } else {
        format!("{y:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tensor between two numbers, with a range that is `reach` times as wide.
    fn tensor(min: f32, max: f32, reach: f32, counts: &[u64]) -> Tensor {
        let edges: Vec<f32> = (0..=counts.len())
            .map(|i| min + (max - min) * (i as f32 / counts.len().max(1) as f32))
            .collect();
        let method = |name: &str, chosen: bool| {
            serde_json::json!({
                "method": name, "chosen": chosen, "min": min * reach, "max": max * reach,
                "scale": 1.0, "least_scale": 1.0, "zero_point": 0, "clipped_below": 0.0,
                "clipped_above": 0.0, "sqnr": "noiseless", "saturated": 0.0, "dead_codes": 0.0,
                "switch_db": null
            })
        };
        serde_json::from_value(serde_json::json!({
            "name": "x", "role": "activation", "readers": [], "count": 0, "min": min, "max": max,
            "histogram": { "zeros": 0, "edges": edges, "counts": counts },
            "methods": [method("minmax", true), method("lsq", false)]
        }))
        .unwrap()
    }

    #[test]
    fn every_range_of_numbers_is_drawn() {
        for (min, max, counts) in [
            (0.0, 0.0, &[][..]),
            (0.0, f32::from_bits(1), &[1]),
            (-1.0, -1.0, &[5]),
            (-1.5e38, 1.5e38, &[1, 0, u64::MAX]),
            (1000.0, 1000.1, &[3, 4]),
        ] {
            for reach in [0.0, 0.5, 1.0, 2.0] {
                let svg = svg(&tensor(min, max, reach, counts)).unwrap();
                assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
                assert!(svg.contains("▸ minmax") && svg.contains("lsq"));
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }

    #[test]
    fn a_range_far_beyond_the_values_leaves_them_room() {
        let t = tensor(0.0, 1.0, 1000.0, &[1]);
        let (from, to) = span(&t);
        assert!(from > -0.1 && to < 1.6, "{from} {to}");
    }
}
