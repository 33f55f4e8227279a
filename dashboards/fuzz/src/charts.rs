//! What holds for every picture, whatever is to be drawn: it is XML, stays inside of itself, and runs nothing.

use fixtures::fuzzing::Target;
use pictures::{
    Bar, Bars, Cell, Chart, Colour, Gauge, Gauges, Heat, Legend, Lines, Look, Mark, Number, Numbers, Series, Shape,
    Span, States, Table, Theme, Threshold, Tone, Unit, Words, svg,
};

use super::judge;

/// The targets of this file.
pub const TARGETS: &[Target] = &[Target {
    name: "chart",
    seeds,
    property: chart,
    odd: &[
        "NaN",
        "inf",
        "-inf",
        "1e308",
        "-1e308",
        "5e-324",
        "-0",
        "1e-9",
        "\u{202e}",
        "\u{0}",
        "\u{1b}[2J",
        "</text><script>",
        "\" x=\"",
        "&#0;",
        "]]>",
        "|a|b|\n|-|-|\n",
        "# ",
        "* ",
        "**",
        "`",
        "[a](b)",
        "\n\n",
        "😀",
        "\u{fffe}",
        " 1 2 3",
        "dateTimeAsIso",
        "percentunit",
    ],
}];

fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "Load\nreqps\n800 300\norders 1 2 3 NaN 5\npayments 0.5 0.25 1e3",
        "Latency\ns\n400 200\np99 0.001 0.002 60\n# a\n* b **c** `d`\n\n| e | f |\n|---|---|\n| 1 | 2 |",
        "Memory\nbytes\n0.5 1e9\na 1073741824 0 -1\nb inf",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// A title, a unit, a size, then a series a line: a name and its values.
fn chart(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.lines();
    let title = lines.next().unwrap_or_default();
    let unit = Unit::named(lines.next().unwrap_or_default());
    let mut size = lines
        .next()
        .unwrap_or_default()
        .split(' ')
        .map(|word| word.parse().unwrap_or(100.0));
    let (width, height): (f64, f64) = (size.next().unwrap_or(300.0), size.next().unwrap_or(200.0));
    let rows: Vec<(String, Vec<(f64, f64)>)> = lines
        .map(|line| {
            let (name, values) = line.split_once(' ').unwrap_or((line, ""));
            let values = values.split(' ').filter_map(|word| word.parse().ok());
            (
                name.to_owned(),
                values.enumerate().map(|(at, value)| (at as f64, value)).collect(),
            )
        })
        .collect();
    let last = |row: &(String, Vec<(f64, f64)>)| row.1.last().map_or(f64::NAN, |point| point.1);
    let name = |row: &(String, Vec<(f64, f64)>)| row.0.clone();

    let shapes = [Shape::Line, Shape::Step, Shape::Points, Shape::Bars];
    let series = rows.iter().zip(shapes.into_iter().cycle()).map(|(row, shape)| Series {
        shape,
        ..Series::new(&row.0, row.1.clone())
    });
    let threshold = |row| Threshold {
        value: last(row),
        label: name(row),
        tone: Tone::Bad,
    };
    let plain = Lines {
        series: series.collect(),
        unit: unit.clone(),
        label: title.to_owned(),
        marks: rows
            .iter()
            .take(3)
            .map(|row| Mark::new(last(row), &row.0, Tone::Other))
            .collect(),
        thresholds: rows.iter().take(3).map(threshold).collect(),
        legend: Legend::Values,
        ..Lines::default()
    };
    let stacked = Lines {
        stacked: true,
        low: rows.first().map(last),
        ..plain.clone()
    };
    let logarithmic = Lines {
        logarithmic: true,
        span: rows.first().map(|row| (last(row), 10.0)),
        ..plain.clone()
    };
    let charts: [Box<dyn Chart>; 10] = [
        Box::new(plain),
        Box::new(stacked),
        Box::new(logarithmic),
        Box::new(Numbers {
            numbers: rows
                .iter()
                .map(|row| Number {
                    label: name(row),
                    text: unit.format(last(row), None),
                    colour: Colour::Ink,
                    way: row.1.clone(),
                })
                .collect(),
        }),
        Box::new(Bars {
            bars: rows
                .iter()
                .map(|row| Bar {
                    label: name(row),
                    value: last(row),
                    text: unit.format(last(row), Some(2)),
                    colour: Colour::Series(3),
                })
                .collect(),
            full: rows.first().map(last),
        }),
        Box::new(Gauges {
            gauges: rows
                .iter()
                .map(|row| Gauge {
                    label: name(row),
                    text: name(row),
                    part: last(row),
                    colour: Colour::Of(Tone::Good),
                    steps: row.1.iter().map(|point| (point.1, Colour::Of(Tone::Bad))).collect(),
                })
                .collect(),
        }),
        Box::new(Heat {
            rows: rows.clone(),
            unit,
            span: None,
        }),
        Box::new(States {
            rows: rows
                .iter()
                .map(|row| {
                    let spans = row.1.windows(2).map(|pair| Span {
                        from: pair[0].1,
                        to: pair[1].1,
                        text: name(row),
                        colour: Colour::Series(1),
                    });
                    (name(row), spans.collect())
                })
                .collect(),
            span: None,
        }),
        Box::new(Table {
            head: rows.iter().map(name).collect(),
            rows: rows
                .iter()
                .map(|row| row.1.iter().map(|point| Cell::words(&point.1.to_string())).collect())
                .collect(),
        }),
        Box::new(Words::markdown(&text)),
    ];
    for chart in &charts {
        judge::judge(svg(chart.as_ref(), title, &Look::new(Theme::Viewer, "chart", width, height)).as_str());
    }
}
