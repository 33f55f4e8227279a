//! One picture of each kind, with data as it is and data as it may be: what the other tests look at, and people.

use pictures::{
    Axis, Bar, Bars, Cell, Chart, Colour, Dot, Gauge, Gauges, Heat, Legend, Lines, Mark, Number, Numbers, Series,
    Shape, Span, States, Table, Threshold, Tone, Unit, Words,
};

/// 2026-11-23 00:00:00 UTC.
pub const BEGIN: f64 = 1_795_392_000.0;
const STEP: f64 = 30.0;

/// A curve that only looks measured.
pub fn curve(number: usize, count: usize, height: f64) -> Vec<(f64, f64)> {
    (0..count)
        .map(|index| {
            let (t, n) = (index as f64 / 10.0, number as f64);
            let wave = (t * 0.7 + n).sin() * 0.3 + (t * 2.3 + n * 1.7).sin() * 0.12 + (t * 11.0 + n).sin() * 0.04;
            (BEGIN + index as f64 * STEP, (1.0 + wave) * height / (1.0 + n * 0.4))
        })
        .collect()
}

fn series(name: &str, number: usize, height: f64) -> Series {
    Series::new(name, curve(number, 120, height))
}

fn requests() -> Lines {
    let mut second = series("orders \u{b7} Place", 1, 840.0);
    // Nothing was scraped for a while.
    second.points.drain(40..58);
    let mut lonely = series("orders \u{b7} Cancel", 3, 300.0);
    lonely
        .points
        .retain(|point| point.0 > BEGIN + 3000.0 && ((point.0 / STEP) as u64).is_multiple_of(7));
    let mut first = series("orders \u{b7} List", 0, 900.0);
    first.dots = vec![Dot {
        x: BEGIN + 1500.0,
        y: 1100.0,
        words: "trace 4bf92f3577b34da6".to_owned(),
    }];
    Lines {
        unit: Unit::named("reqps"),
        series: vec![first, second, lonely],
        apart: Some(STEP * 2.5),
        marks: vec![
            Mark::new(BEGIN + 900.0, "deploy 1.4.2", Tone::Plain),
            Mark::new(BEGIN + 2000.0, "drill pod-kill", Tone::Bad),
        ],
        legend: Legend::Values,
        ..Lines::default()
    }
}

fn latency() -> Lines {
    Lines {
        unit: Unit::named("s"),
        series: vec![series("p50", 2, 0.042), series("p95", 1, 0.18), series("p99", 0, 0.41)],
        thresholds: vec![Threshold {
            value: 0.5,
            label: "objective".to_owned(),
            tone: Tone::Bad,
        }],
        ..Lines::default()
    }
}

fn memory() -> Lines {
    let mut series: Vec<Series> = (0..4).map(|n| series(&format!("pod-{n}"), n, 3.1e8)).collect();
    for series in &mut series {
        series.fill = 0.35;
    }
    Lines {
        unit: Unit::named("bytes"),
        series,
        stacked: true,
        ..Lines::default()
    }
}

fn errors() -> Lines {
    let mut bars = Series::of("errors", Tone::Bad, curve(2, 24, 12.0));
    bars.shape = Shape::Bars;
    let mut ready = Series::of("ready", Tone::Good, curve(0, 24, 3.0));
    ready.shape = Shape::Step;
    for point in &mut ready.points {
        point.1 = point.1.round();
    }
    Lines {
        axis: Axis::Number("seconds".to_owned()),
        label: "per second".to_owned(),
        series: vec![bars, ready]
            .into_iter()
            .map(|mut series| {
                for point in &mut series.points {
                    point.0 -= BEGIN;
                }
                series
            })
            .collect(),
        bands: vec![(200.0, 420.0)],
        marks: vec![
            Mark::new(200.0, "orders-1 killed", Tone::Bad),
            Mark::new(230.0, "another one is ready", Tone::Good),
        ],
        ..Lines::default()
    }
}

fn numbers() -> Numbers {
    let number = |label: &str, text: &str, colour, n| Number {
        label: label.to_owned(),
        text: text.to_owned(),
        colour,
        way: curve(n, 60, 10.0),
    };
    Numbers {
        numbers: vec![
            number("Availability", "99.93%", Colour::Of(Tone::Good), 1),
            number("Errors", "12", Colour::Of(Tone::Bad), 2),
            number("Budget left", "41%", Colour::Of(Tone::Other), 3),
        ],
    }
}

fn gauges() -> Gauges {
    let steps = vec![
        (0.0, Colour::Of(Tone::Good)),
        (0.7, Colour::Of(Tone::Other)),
        (0.9, Colour::Of(Tone::Bad)),
    ];
    let gauge = |label: &str, part: f64, tone| Gauge {
        label: label.to_owned(),
        part,
        text: format!("{:.0}%", part * 100.0),
        colour: Colour::Of(tone),
        steps: steps.clone(),
    };
    Gauges {
        gauges: vec![gauge("CPU", 0.34, Tone::Good), gauge("Connections", 0.93, Tone::Bad)],
    }
}

fn bars() -> Bars {
    let bar = |label: &str, value: f64, tone| Bar {
        label: label.to_owned(),
        value,
        text: Unit::named("s").format(value, None),
        colour: Colour::Of(tone),
    };
    Bars {
        bars: vec![
            bar("/checkout", 0.82, Tone::Bad),
            bar("/orders", 0.31, Tone::Other),
            bar("/health", 0.004, Tone::Good),
        ],
        full: None,
    }
}

fn table() -> Table {
    let row = |name: &str, value: f64| {
        vec![
            Cell::words(name),
            Cell::words("eu-central-1"),
            Cell::number(Unit::named("reqps").format(value, None), Colour::Ink),
        ]
    };
    Table {
        head: ["service", "region", "requests"].map(str::to_owned).to_vec(),
        rows: (0..20)
            .map(|n| row(&format!("service-{n}"), 1234.5 / f64::from(n + 1)))
            .collect(),
    }
}

fn heat() -> Heat {
    let bounds = [
        "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "+Inf",
    ];
    let rows = bounds.iter().enumerate().map(|(n, bound)| {
        let near = |time: f64| (-(n as f64 - 4.0 - (time / 400.0).sin() * 2.0).powi(2) / 3.0).exp() * 180.0;
        let cells = (0..80).map(|index| {
            let time = f64::from(index) * STEP;
            (BEGIN + time, near(time).floor())
        });
        ((*bound).to_owned(), cells.collect())
    });
    Heat {
        rows: rows.collect(),
        unit: Unit::named("short"),
        span: None,
    }
}

fn states() -> States {
    let span = |from: f64, to: f64, text: &str, tone| Span {
        from: BEGIN + from,
        to: BEGIN + to,
        text: text.to_owned(),
        colour: Colour::Of(tone),
    };
    States {
        rows: vec![
            (
                "payments".to_owned(),
                vec![
                    span(0.0, 900.0, "closed", Tone::Good),
                    span(900.0, 1100.0, "open", Tone::Bad),
                    span(1100.0, 1200.0, "half open", Tone::Other),
                    span(1200.0, 3600.0, "closed", Tone::Good),
                ],
            ),
            ("identity".to_owned(), vec![span(0.0, 3600.0, "closed", Tone::Good)]),
        ],
        span: None,
    }
}

fn words() -> Words {
    Words::markdown(
        "# On call\n\nThe **runbook** says what to do; see [its page](https://example.com/runbook). <script>no</script>\n\n\
         - look at `orders` first\n- then at the_database\n",
    )
}

/// Every kind with its name and the size that it is drawn in.
pub fn all() -> Vec<(&'static str, Box<dyn Chart>, f64, f64)> {
    vec![
        ("requests", Box::new(requests()), 640.0, 280.0),
        ("latency", Box::new(latency()), 640.0, 240.0),
        ("memory", Box::new(memory()), 640.0, 240.0),
        ("errors", Box::new(errors()), 640.0, 240.0),
        ("numbers", Box::new(numbers()), 640.0, 140.0),
        ("gauges", Box::new(gauges()), 400.0, 180.0),
        ("bars", Box::new(bars()), 400.0, 100.0),
        ("table", Box::new(table()), 640.0, 240.0),
        ("heat", Box::new(heat()), 640.0, 240.0),
        ("states", Box::new(states()), 640.0, 120.0),
        ("words", Box::new(words()), 400.0, 140.0),
        ("nothing", Box::new(Lines::default()), 300.0, 80.0),
    ]
}
