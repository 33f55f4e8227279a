//! Whatever the data is: hostile names, numbers that are none, too much of everything.

use pictures::{
    Axis, Bar, Bars, Cell, Chart, Colour, Gauge, Gauges, Heat, Legend, Lines, Look, Mark, Number, Numbers, Panel,
    Series, Shape, Sheet, Span, States, Table, Theme, Threshold, Tone, Unit, Words, svg,
};
use proptest::prelude::*;

use crate::gallery::curve;
use crate::judge::judge;

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -1e3..1e3_f64,
        2 => any::<f64>(),
        1 => prop::sample::select(vec![
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MAX,
            f64::MIN,
            f64::MIN_POSITIVE,
            0.0,
            -0.0,
        ]),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => "[a-z]{0,12}",
        1 => ".{0,40}",
        1 => prop::sample::select(vec![
            "</text><script>alert(1)</script>",
            "\" onload=\"alert(1)",
            "]]>&amp;&#0;<!--",
            "\u{202e}gnp.exe\u{0}\u{fffe}\u{1b}[31m",
        ])
        .prop_map(str::to_owned),
    ]
}

fn points() -> impl Strategy<Value = Vec<(f64, f64)>> {
    prop_oneof![
        prop::collection::vec((number(), number()), 0..30),
        prop::collection::vec(number(), 0..40).prop_map(|values| values
            .into_iter()
            .enumerate()
            .map(|(x, y)| (x as f64, y))
            .collect()),
    ]
}

fn colour() -> impl Strategy<Value = Colour> {
    (0..20_usize).prop_map(|n| {
        if n < 4 {
            Colour::Of([Tone::Plain, Tone::Good, Tone::Bad, Tone::Other][n])
        } else {
            Colour::Series(n - 4)
        }
    })
}

fn unit() -> impl Strategy<Value = Unit> {
    let known = ["short", "s", "bytes", "percentunit", "none", "bool", "dateTimeAsIso"];
    prop_oneof![
        prop::sample::select(known.to_vec()).prop_map(Unit::named),
        name().prop_map(|name| Unit::named(&name))
    ]
}

fn lines() -> impl Strategy<Value = Lines> {
    let shape = prop::sample::select(vec![Shape::Line, Shape::Step, Shape::Points, Shape::Bars]);
    let series = (name(), points(), shape, prop::option::of(colour()), 0.0..1.0_f64).prop_map(
        |(name, points, shape, colour, fill)| Series {
            shape,
            colour,
            fill: if fill < 0.5 { 0.0 } else { fill },
            ..Series::new(&name, points)
        },
    );
    (
        prop::collection::vec(series, 0..5),
        (unit(), name(), any::<bool>(), any::<bool>(), any::<bool>()),
        prop::collection::vec((number(), name()), 0..4),
        prop::collection::vec((number(), number()), 0..3),
        (
            prop::option::of(number()),
            prop::option::of(number()),
            prop::option::of((number(), number())),
        ),
    )
        .prop_map(
            |(series, (unit, label, stacked, logarithmic, clock), named, bands, (low, high, span))| Lines {
                axis: if clock {
                    Axis::Clock
                } else {
                    Axis::Number(label.clone())
                },
                span,
                label,
                unit,
                series,
                stacked,
                logarithmic,
                marks: named.iter().map(|(x, words)| Mark::new(*x, words, Tone::Bad)).collect(),
                thresholds: named
                    .iter()
                    .map(|(value, label)| Threshold {
                        value: *value,
                        label: label.clone(),
                        tone: Tone::Good,
                    })
                    .collect(),
                bands,
                low,
                high,
                legend: Legend::Values,
                ..Lines::default()
            },
        )
}

fn chart() -> impl Strategy<Value = Box<dyn Chart>> {
    let boxed = |chart: Lines| Box::new(chart) as Box<dyn Chart>;
    let few = 0..30_usize;
    let number_of = (name(), name(), colour(), points()).prop_map(|(label, text, colour, way)| Number {
        label,
        text,
        colour,
        way,
    });
    let bar = (name(), number(), name(), colour()).prop_map(|(label, value, text, colour)| Bar {
        label,
        value,
        text,
        colour,
    });
    let gauge = (
        name(),
        number(),
        colour(),
        prop::collection::vec((number(), colour()), 0..4),
    )
        .prop_map(|(label, part, colour, steps)| Gauge {
            text: label.clone(),
            label,
            part,
            colour,
            steps,
        });
    let cell = (name(), any::<bool>()).prop_map(|(text, number)| Cell {
        text,
        number,
        colour: Colour::Ink,
    });
    let table = (
        prop::collection::vec(name(), 0..16),
        prop::collection::vec(prop::collection::vec(cell, 0..16), 0..30),
    )
        .prop_map(|(head, rows)| Table { head, rows });
    let heat = (prop::collection::vec((name(), points()), 0..12), unit()).prop_map(|(rows, unit)| Heat {
        rows,
        unit,
        span: None,
    });
    let span =
        (number(), number(), name(), colour()).prop_map(|(from, to, text, colour)| Span { from, to, text, colour });
    let states = prop::collection::vec((name(), prop::collection::vec(span, 0..6)), 0..6)
        .prop_map(|rows| States { rows, span: None });
    let markdown = prop::collection::vec(prop_oneof![name(), "[#*`_<>!\\[\\]() a-z\n-]{0,60}"], 0..12)
        .prop_map(|lines| Words::markdown(&lines.join("\n")));
    prop_oneof![
        4 => lines().prop_map(boxed),
        1 => prop::collection::vec(number_of, few.clone()).prop_map(|numbers| Box::new(Numbers { numbers }) as Box<dyn Chart>),
        1 => (prop::collection::vec(bar, few.clone()), prop::option::of(number()))
            .prop_map(|(bars, full)| Box::new(Bars { bars, full }) as Box<dyn Chart>),
        1 => prop::collection::vec(gauge, few).prop_map(|gauges| Box::new(Gauges { gauges }) as Box<dyn Chart>),
        1 => table.prop_map(|table| Box::new(table) as Box<dyn Chart>),
        1 => heat.prop_map(|heat| Box::new(heat) as Box<dyn Chart>),
        1 => states.prop_map(|states| Box::new(states) as Box<dyn Chart>),
        1 => markdown.prop_map(|words| Box::new(words) as Box<dyn Chart>),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn any_data_gives_a_picture_that_keeps_the_rules(
        chart in chart(),
        title in name(),
        width in prop_oneof![1.0..40.0_f64, 100.0..1600.0, number()],
        height in prop_oneof![1.0..40.0_f64, 60.0..800.0],
    ) {
        let alone = svg(chart.as_ref(), &title, &Look::new(Theme::Light, &title, width, height));
        judge(alone.as_str());
        let look = Look::new(Theme::Viewer, "sheet", width, height);
        let mut sheet = Sheet::new(&look, &title, &title);
        sheet.title((16.0, 30.0), &title, &title);
        let panel = Panel { title: title.clone(), chart, note: title };
        sheet.panel(pictures::Area::new(5.0, 40.0, width, height), &panel);
        sheet.panel(pictures::Area::new(5.0, 40.0, width / 2.0, height), &panel);
        judge(sheet.finish().as_str());
    }
}

/// However much there is, a picture stays of a size that can be sent and looked at.
#[test]
fn too_much_of_everything_is_drawn_in_little() {
    let look = Look::new(Theme::Light, "much", 800.0, 300.0);
    let drawn = |chart: &dyn Chart| {
        let picture = svg(chart, "much", &look);
        judge(picture.as_str());
        assert!(picture.as_str().len() < 400_000, "{} bytes", picture.as_str().len());
        picture
    };
    let million = Series::new("one", curve(0, 1_000_000, 5.0));
    // The least and the greatest of a million are still seen.
    let mut spike = million.clone();
    spike.points[123_456].1 = 500.0;
    let picture = drawn(&Lines {
        series: vec![spike],
        ..Lines::default()
    });
    assert!(picture.as_str().contains("500"));
    // Every other sample is missing.
    let mut holes = million;
    for point in holes.points.iter_mut().step_by(2) {
        point.1 = f64::NAN;
    }
    drawn(&Lines {
        series: vec![holes],
        ..Lines::default()
    });
    let many = (0..2000).map(|n| Series::new(&format!("series {n}"), curve(n, 50, 5.0)));
    let picture = drawn(&Lines {
        series: many.collect(),
        legend: Legend::Values,
        ..Lines::default()
    });
    assert!(picture.as_str().contains("more</text>"));
    let rows = (0..300).map(|n| (n.to_string(), curve(n, 500, 5.0)));
    drawn(&Heat {
        rows: rows.collect(),
        unit: Unit::default(),
        span: None,
    });
    let row = |n: usize| (0..30).map(|c| Cell::words(&format!("{n} {c}"))).collect();
    drawn(&Table {
        head: (0..30).map(|n| n.to_string()).collect(),
        rows: (0..5000).map(row).collect(),
    });
    let spans = |_| {
        (0..5000).map(|n| Span {
            from: f64::from(n),
            to: f64::from(n + 1),
            text: format!("{}", n % 2),
            colour: Colour::Of(Tone::Good),
        })
    };
    drawn(&States {
        rows: (0..5).map(|n| (n.to_string(), spans(n).collect())).collect(),
        span: None,
    });
    drawn(&Words::markdown(&"[[[[(((<<<***".repeat(20_000)));
}
