//! What a call under each policy costs: one thread and all cores, ours beside tower's layers, tower-resilience, recloser
//! and failsafe, as the crate's own driver measures them in one run; and whether each required figure is met.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::requirement::Requirement;
use super::{machine, page::Section};
use crate::step;

/// Whose rows the bars are for.
const OURS: &str = "resilience";
/// The floor of everything that has a time limit.
const TIMEOUT: &str = "tokio::time::timeout";
/// How much slower a thread may be among others before that is more than the machine's own noise.
const TOGETHER_SLACK: f64 = 1.1;
/// The same for windows of several lengths and fillings.
const GROWTH_SLACK: f64 = 1.1;

/// The most that a call of ours may cost.
const BARS: [(&str, Bar); 5] = [
    ("closed breaker", Bar::Nanoseconds(8.0)),
    ("closed breaker, slow calls", Bar::Nanoseconds(55.0)),
    ("open breaker", Bar::Nanoseconds(10.0)),
    ("standard pipeline, ready", Bar::Nanoseconds(120.0)),
    ("standard pipeline, pending once", Bar::TimesTimeout(1.3)),
];

/// What must not be slower in a thread among others.
const UNCONTENDED: [&str; 6] = [
    "closed breaker",
    "closed breaker, slow calls",
    "open breaker",
    "retry, first try",
    "standard pipeline, ready",
    // Without the runtime, whose kernel calls meet on all cores.
    "standard pipeline, pending once, by hand",
];

enum Bar {
    Nanoseconds(f64),
    /// So many times one timeout of tokio's around the same future.
    TimesTimeout(f64),
}

/// The driver's document.
#[derive(Debug, Deserialize)]
struct Measured {
    cores: usize,
    rounds: usize,
    rounds_together: usize,
    figures: Vec<Figure>,
}

/// What one candidate costs: nanoseconds a call. `None` where it was not measured.
#[derive(Debug, Clone, Deserialize)]
struct Figure {
    what: String,
    who: String,
    ns: Option<f64>,
    ns_together: Option<f64>,
    wall_ns_together: Option<f64>,
}

/// Builds and runs the driver.
pub fn measure() -> Result<Section> {
    let text = step::output(&mut step::cargo([
        "bench",
        "--quiet",
        "--package",
        "resilience",
        "--bench",
        "policies",
    ]))?;
    section(&serde_json::from_str(&text).context("the driver printed no JSON document")?)
}

fn section(measured: &Measured) -> Result<Section> {
    let requirements = requirements(measured)?;
    let judged: Vec<String> = requirements
        .iter()
        .map(|requirement| format!("- {requirement}"))
        .collect();
    let mut figures = measured.figures.clone();
    // Those that are compared stand together, in the order in which the first of them was measured.
    let order = |what: &str| measured.figures.iter().position(|figure| figure.what == what);
    figures.sort_by_key(|figure| order(&figure.what));
    Ok(Section {
        area: "resilience",
        title: "Policies",
        method: format!(
            "A call through each policy around an answer that is there at once, unless it says otherwise; the state is shared \
             by all threads. The thread's own processor time: on one thread the least of {} batches, on {} cores the median of \
             up to {} that ran undisturbed, candidates in turn. Wall time a call of each thread beside it. Futures are polled \
             by hand, so no scheduler is in it, except that `pending once` is awaited by a task on a whole current-thread \
             runtime, which is what wakes it (`by hand` is the same without). A bulkhead counts exactly: beside it stands \
             what going up and down in one word costs that all cores write (`a shared word`).\n\n{}\n\nRequired:\n\n{}",
            measured.rounds,
            measured.cores,
            measured.rounds_together,
            machine::describe(),
            judged.join("\n"),
        ),
        columns: vec![
            "what",
            "whose",
            "ns, one thread",
            "ns, all cores",
            "wall ns, all cores",
            "times one thread",
        ],
        rows: figures.iter().map(Figure::row).collect(),
    })
}

fn requirements(measured: &Measured) -> Result<Vec<Requirement>> {
    let find = |what: &str, who: &str| {
        let found = measured
            .figures
            .iter()
            .find(|figure| figure.what == what && figure.who == who);
        found.with_context(|| format!("the driver measured no `{what}` of {who}"))
    };
    let mut all = Vec::new();
    for (what, bar) in BARS {
        let ours = find(what, OURS)?.ns;
        all.push(match bar {
            Bar::Nanoseconds(most) => Requirement::at_most(what, ours, most, "ns"),
            Bar::TimesTimeout(most) => {
                let one = find(what, TIMEOUT)?.ns;
                Requirement::at_most(what, quotient(ours, one), most, "times one timeout")
            }
        });
    }
    for what in UNCONTENDED {
        let what_together = format!("{what}, all cores");
        all.push(Requirement::at_most(
            &what_together,
            find(what, OURS)?.slowdown(),
            TOGETHER_SLACK,
            "times one thread",
        ));
    }
    for verdict in ["success", "failure"] {
        let windows: Vec<f64> = (measured.figures.iter())
            .filter(|figure| figure.who == OURS && figure.what.starts_with(&format!("{verdict}, window")))
            .filter_map(|figure| figure.ns)
            .collect();
        ensure!(windows.len() > 1, "the driver measured no windows");
        let [least, most] = [f64::min, f64::max].map(|pick| windows.iter().copied().reduce(pick));
        let what = format!("{verdict}, dearest window");
        all.push(Requirement::at_most(
            &what,
            quotient(most, least),
            GROWTH_SLACK,
            "times the cheapest",
        ));
    }
    Ok(all)
}

fn quotient(of: Option<f64>, by: Option<f64>) -> Option<f64> {
    Some(of? / by?)
}

impl Figure {
    fn slowdown(&self) -> Option<f64> {
        quotient(self.ns_together, self.ns)
    }

    fn row(&self) -> Vec<String> {
        let cell = |value: Option<f64>, digits: usize| value.map_or(String::new(), |value| format!("{value:.digits$}"));
        vec![
            self.what.clone(),
            self.who.clone(),
            cell(self.ns, 1),
            cell(self.ns_together, 1),
            cell(self.wall_ns_together, 1),
            cell(self.slowdown(), 2),
        ]
    }
}
