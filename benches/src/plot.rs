//! Results as pictures: a roofline of the products, and bars of every result, as SVG.
//!
//! Text is left to the viewer's own fonts, so that none is needed here.

use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::BenchError;
use crate::ops::OURS;
use crate::record::Record;

/// Width and height of the roofline.
const ROOFLINE_SIZE: (u32, u32) = (1000, 640);

/// Height of a bar with the gap below it.
const BAR: u32 = 18;

/// What is above and below the bars.
const MARGINS: u32 = 90;

/// Width of the picture of bars.
const BARS_WIDTH: u32 = 1100;

/// Width of the text beside the bars.
const LABELS: u32 = 420;

/// Ours in one colour that no peer has, the peers in the order that they come up.
const COLOURS: &[RGBColor] = &[
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(120, 120, 120),
];

const OUR_COLOUR: RGBColor = RGBColor(0, 92, 175);

/// Draws the records to SVG files: `path` itself for a name that ends in `.svg`, with the roofline
/// beside the bars as `NAME-roofline.svg`; else `bars.svg` and `roofline.svg` in the folder `path`.
/// The roofline is left out where no record is a product. Gives back what was written.
///
/// # Errors
///
/// [`BenchError::Plot`] when a picture cannot be drawn, [`BenchError::File`] when it cannot be
/// written.
pub fn write(path: &Path, records: &[Record]) -> Result<Vec<PathBuf>, BenchError> {
    let single = path.extension().is_some_and(|extension| extension == "svg");
    let (bars_path, roofline_path) = if single {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        (
            path.to_path_buf(),
            path.with_file_name(format!("{stem}-roofline.svg")),
        )
    } else {
        std::fs::create_dir_all(path).map_err(|source| BenchError::File {
            path: path.to_path_buf(),
            source,
        })?;
        (path.join("bars.svg"), path.join("roofline.svg"))
    };
    let mut written = Vec::new();
    let mut save = |path: PathBuf, svg: String| {
        std::fs::write(&path, svg).map_err(|source| BenchError::File {
            path: path.clone(),
            source,
        })?;
        written.push(path);
        Ok::<_, BenchError>(())
    };
    save(bars_path, bars(records)?)?;
    if let Some(svg) = roofline(records)? {
        save(roofline_path, svg)?;
    }
    Ok(written)
}

fn failed(error: &dyn std::fmt::Display) -> BenchError {
    BenchError::Plot {
        reason: error.to_string(),
    }
}

/// Libraries in the order that they come up, ours first.
fn libraries(records: &[Record]) -> Vec<&str> {
    let mut libraries = vec![OURS];
    for record in records {
        if !libraries.contains(&record.key.library.as_str()) {
            libraries.push(&record.key.library);
        }
    }
    libraries
}

fn colour(library: &str, libraries: &[&str]) -> RGBColor {
    match libraries.iter().position(|known| *known == library) {
        None | Some(0) => OUR_COLOUR,
        Some(index) => COLOURS[(index - 1) % COLOURS.len()],
    }
}

/// One bar for each record: its share of the limit, or its rate beside the fastest's where no limit
/// is known.
fn bars(records: &[Record]) -> Result<String, BenchError> {
    let fastest = records.iter().map(Record::rate).fold(0.0, f64::max);
    let mut svg = String::new();
    {
        let height = MARGINS + BAR * u32::try_from(records.len()).unwrap_or(u32::MAX / BAR / 2);
        let root = SVGBackend::with_string(&mut svg, (BARS_WIDTH, height)).into_drawing_area();
        draw_bars(&root, records, fastest).map_err(|error| failed(&error))?;
        root.present().map_err(|error| failed(&error))?;
    }
    Ok(svg)
}

type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn draw_bars(root: &DrawingArea<SVGBackend<'_>, Shift>, records: &[Record], fastest: f64) -> Drawn {
    root.fill(&WHITE)?;
    let libraries = libraries(records);
    let text = ("sans-serif", 12).into_font();
    let cpu = records.first().map_or("", |record| record.cpu.as_str());
    root.draw(&Text::new(
        format!("share of the limit measured in the same rounds · {cpu}"),
        (10, 12),
        ("sans-serif", 16).into_font(),
    ))?;
    let width = f64::from(BARS_WIDTH - LABELS - 150);
    let left = LABELS as i32;
    for (library, x) in libraries.iter().zip((10..).step_by(130)) {
        let colour = colour(library, &libraries);
        root.draw(&Rectangle::new([(x, 42), (x + 12, 54)], colour.filled()))?;
        root.draw(&Text::new(
            (*library).to_owned(),
            (x + 18, 42),
            text.clone(),
        ))?;
    }
    let bottom = MARGINS as i32 + BAR as i32 * records.len() as i32 - 20;
    for (share, label) in [(0.5, "50 %"), (1.0, "100 %")] {
        let x = left + (width * share) as i32;
        root.draw(&PathElement::new([(x, 66), (x, bottom)], BLACK.mix(0.2)))?;
        root.draw(&Text::new(label, (x - 14, bottom + 4), text.clone()))?;
    }
    for (record, y) in records.iter().zip((68..).step_by(BAR as usize)) {
        let key = &record.key;
        let share = record.share().unwrap_or(record.rate() / fastest.max(1e-9));
        let colour = colour(&key.library, &libraries);
        let end = left + (width * share.clamp(0.0, 1.15)) as i32;
        root.draw(&Rectangle::new(
            [(left, y), (end, y + BAR as i32 - 5)],
            colour.filled(),
        ))?;
        let name = format!(
            "{} {} {} {} {} {}t",
            key.op,
            key.types,
            crate::table::shape(record),
            key.data,
            key.isa,
            key.threads
        );
        root.draw(&Text::new(name, (10, y), text.clone()))?;
        let rate = crate::table::rate(record);
        root.draw(&Text::new(rate, (end + 6, y), text.clone()))?;
    }
    Ok(())
}

/// Operations for each byte that a product must at least move: both operands and the result once.
fn intensity(record: &Record) -> Option<f64> {
    record.gops?;
    let bytes = |name: &str| match name {
        "u8" | "i8" => Some(1.0),
        "u16" | "i16" | "f16" | "bf16" => Some(2.0),
        "i32" | "f32" => Some(4.0),
        "i64" => Some(8.0),
        _ => None,
    };
    let key = &record.key;
    let (operands, c) = key.types.split_once('→')?;
    let (a, b) = operands.split_once('·')?;
    let (m, k, n) = (key.m as f64, key.k as f64, key.n as f64);
    let moved = m * k * bytes(a)? + k * n * bytes(b)? + m * n * bytes(c)?;
    Some(2.0 * m * k * n / moved)
}

/// GOP/s over operations for each byte: each product a dot, its limit a stroke above it.
fn roofline(records: &[Record]) -> Result<Option<String>, BenchError> {
    let points: Vec<(f64, &Record)> = records
        .iter()
        .filter_map(|record| Some((intensity(record)?, record)))
        .collect();
    if points.is_empty() {
        return Ok(None);
    }
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, ROOFLINE_SIZE).into_drawing_area();
        draw_roofline(&root, &points, records).map_err(|error| failed(&error))?;
        root.present().map_err(|error| failed(&error))?;
    }
    Ok(Some(svg))
}

fn draw_roofline(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    points: &[(f64, &Record)],
    records: &[Record],
) -> Drawn {
    root.fill(&WHITE)?;
    let libraries = libraries(records);
    let range = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        (low / 1.5)..(high * 1.5)
    };
    let x = range(&mut points.iter().map(|(intensity, _)| *intensity));
    let y = range(
        &mut points
            .iter()
            .flat_map(|(_, record)| [record.rate(), record.limit.unwrap_or(record.rate())]),
    );
    let cpu = records.first().map_or("", |record| record.cpu.as_str());
    let mut chart = ChartBuilder::on(root)
        .caption(format!("roofline · {cpu}"), ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(x.log_scale(), y.log_scale())?;
    chart
        .configure_mesh()
        .x_desc("operations for each byte moved")
        .y_desc("GOP/s")
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (intensity, record) in points {
        if let (Some(limit), true) = (record.limit, record.is_ours()) {
            let stroke = [(intensity / 1.06, limit), (intensity * 1.06, limit)];
            chart.draw_series([PathElement::new(stroke, BLACK.stroke_width(2))])?;
        }
    }
    for library in &libraries {
        let colour = colour(library, &libraries);
        let own = points
            .iter()
            .filter(|(_, record)| record.key.library == *library);
        chart
            .draw_series(own.map(|(intensity, record)| {
                Circle::new((*intensity, record.rate()), 4, colour.mix(0.8).filled())
            }))?
            .label((*library).to_owned())
            .legend(move |(x, y)| Circle::new((x + 8, y), 4, colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    fn records() -> Vec<Record> {
        let mut peer = record("own", 40.0);
        peer.key.library = "onednn".to_owned();
        vec![record("avx2", 50.0), peer]
    }

    #[test]
    fn intensity_counts_every_byte_once() {
        // 1×2×3 of u8·i8→i32: 12 operations; 2 + 6 + 12 bytes.
        let found = intensity(&record("avx2", 1.0)).unwrap();
        assert!((found - 12.0 / 20.0).abs() < 1e-12);
        let mut bytes = record("avx2", 1.0);
        bytes.gops = None;
        assert!(intensity(&bytes).is_none());
    }

    #[test]
    fn pictures_show_every_library_and_shape() {
        let bars = bars(&records()).unwrap();
        let roofline = roofline(&records()).unwrap().unwrap();
        for svg in [&bars, &roofline] {
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
            assert!(svg.contains(OURS) && svg.contains("onednn"));
        }
        assert!(bars.contains("1x2x3"), "{bars}");
        assert_eq!(bars.matches("50.0 GOP/s").count(), 1);
    }

    #[test]
    fn a_folder_and_a_file_are_written() {
        let folder = std::env::temp_dir().join(format!("quaver-plots-{}", std::process::id()));
        let written = write(&folder, &records()).unwrap();
        assert_eq!(
            written,
            [folder.join("bars.svg"), folder.join("roofline.svg")]
        );
        let written = write(&folder.join("one.svg"), &records()).unwrap();
        assert_eq!(
            written,
            [folder.join("one.svg"), folder.join("one-roofline.svg")]
        );
        assert!(written.iter().all(|path| path.exists()));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
