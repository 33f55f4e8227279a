//! What an expression stands on: the ranges that it looks back over, the series that it reads, with recording rules looked
//! through, and how much of a range must fill until its threshold is crossed. It predicts nothing by itself.

use std::cell::Cell;
use std::time::Duration;

use opsctl_platform::prometheus::{AlertRule, Rules, Target};
use promql::ast::{Aggregator, Binary, BinaryOp, Expr, MatchOp, Selector};
use promql::{Dialect, Query};

/// Recording rules below recording rules, and expressions in expressions, are followed so deep.
const DEPTH: usize = 64;
/// Longer expressions, in bytes, are not read: a chain of operators makes a tree as deep as it is long.
const LARGEST: usize = 10_000;
/// So many recording rules are looked through for a ramp: those that stand on each other can be many times many.
const LOOKED_THROUGH: u32 = 1_000;

/// What was read from an expression.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Base {
    /// The longest range.
    pub(super) range: Duration,
    /// How much of it has to fill at the least, when all requests are hit and there are as many as before; in seconds.
    pub(super) ramp: f64,
    /// What the recording rules under it add to an evaluation, one after the other.
    pub(super) evaluations: Duration,
    /// The shortest time between two scrapes of what it reads.
    pub(super) scrape: Duration,
}

/// Reads the expression of a rule. One that is not understood stands on nothing.
pub(super) fn base(rule: &AlertRule, rules: &Rules, targets: &[Target]) -> Base {
    let Some(query) = parse(&rule.query) else {
        return Base {
            scrape: shortest(targets.iter()),
            ..Base::default()
        };
    };
    let mut base = Base {
        ramp: Ramp::under(rules).of(&query.expr, DEPTH),
        ..Base::default()
    };
    let mut scraped = Vec::new();
    let mut known: Vec<String> = Vec::new();
    let mut level = vec![(query, rule.group.as_str())];
    while !level.is_empty() {
        let mut next = Vec::new();
        let mut waits = Duration::ZERO;
        for (query, group) in &level {
            query.expr.walk(&mut |expr| {
                let range = match expr {
                    Expr::Selector(selector) => selector.range.as_ref().map(|range| &range.duration),
                    Expr::Subquery(subquery) => Some(&subquery.range),
                    _ => None,
                };
                let seconds = range.and_then(promql::ast::Duration::seconds).unwrap_or_default();
                base.range = base.range.max(Duration::try_from_secs_f64(seconds).unwrap_or_default());
            });
            for selector in query.expr.selectors() {
                let name = selector.metric().unwrap_or_default();
                let mut recorded = rules.recordings.iter().filter(|rule| rule.name == name).peekable();
                if recorded.peek().is_none() {
                    scraped.extend(targets.iter().filter(|target| fits(selector, target)));
                }
                if known.iter().any(|known| known == name) {
                    continue;
                }
                known.push(name.to_owned());
                for rule in recorded {
                    // Rules of one group are evaluated one after the other.
                    if rule.group != *group {
                        waits = waits.max(rule.interval);
                    }
                    next.extend(parse(&rule.query).map(|query| (query, rule.group.as_str())));
                }
            }
        }
        base.evaluations += waits;
        level = next;
    }
    base.scrape = if scraped.is_empty() {
        shortest(targets.iter())
    } else {
        shortest(scraped.into_iter())
    };
    base
}

fn parse(query: &str) -> Option<Query> {
    if query.len() > LARGEST {
        return None;
    }
    Dialect::all_features().parse(query).ok()
}

fn shortest<'a>(targets: impl Iterator<Item = &'a Target>) -> Duration {
    targets.filter_map(|target| target.interval).min().unwrap_or_default()
}

/// Whether a selector may read what a target exports: no label that the target gives is asked to be another.
fn fits(selector: &Selector, target: &Target) -> bool {
    selector.views().filter(|view| view.op == MatchOp::Equal).all(|view| {
        let given = target.labels.get(view.label);
        given.is_none_or(|given| given == view.value)
    })
}

/// How much of its range must fill until an expression gives something.
struct Ramp<'a> {
    rules: &'a Rules,
    /// How many more recording rules are looked through.
    left: Cell<u32>,
}

impl<'a> Ramp<'a> {
    fn under(rules: &'a Rules) -> Self {
        Self {
            rules,
            left: Cell::new(LOOKED_THROUGH),
        }
    }

    /// In seconds; 0 where that is not known.
    fn of(&self, expr: &Expr, depth: usize) -> f64 {
        let Expr::Binary(binary) = expr.unparenthesised() else {
            return 0.0;
        };
        let Some(depth) = depth.checked_sub(1) else { return 0.0 };
        let (left, right) = (&binary.left, &binary.right);
        match binary.op {
            BinaryOp::And => self.of(left, depth).max(self.of(right, depth)),
            BinaryOp::Or => self.of(left, depth).min(self.of(right, depth)),
            BinaryOp::Unless => self.of(left, depth),
            BinaryOp::Greater | BinaryOp::GreaterOrEqual => {
                constant(right, DEPTH).map_or(0.0, |threshold| self.crossed(left, threshold, depth))
            }
            BinaryOp::Less | BinaryOp::LessOrEqual => {
                constant(left, DEPTH).map_or(0.0, |threshold| self.crossed(right, threshold, depth))
            }
            _ => 0.0,
        }
    }

    /// Until `expr` grows beyond `threshold`.
    fn crossed(&self, expr: &Expr, threshold: f64, depth: usize) -> f64 {
        let Some(depth) = depth.checked_sub(1) else { return 0.0 };
        match expr.unparenthesised() {
            Expr::Binary(binary) => self.of_both(binary, threshold, depth),
            Expr::Call(call) if call.name() == "histogram_quantile" => {
                let [quantile, buckets] = call.arguments.as_slice() else {
                    return 0.0;
                };
                // The slow ones have to be that many of all.
                let share = constant(quantile, DEPTH).map_or(0.0, |quantile| 1.0 - quantile);
                share.clamp(0.0, 1.0) * self.window(buckets, depth)
            }
            Expr::Aggregation(aggregation)
                if [Aggregator::Max, Aggregator::Min, Aggregator::Avg]
                    .map(Some)
                    .contains(&aggregation.aggregator()) =>
            {
                self.crossed(&aggregation.expr, threshold, depth)
            }
            Expr::Selector(selector) => match self.recorded(selector) {
                Some(query) => self.crossed(&query.expr, threshold, depth),
                None => 0.0,
            },
            _ => 0.0,
        }
    }

    fn of_both(&self, binary: &Binary, threshold: f64, depth: usize) -> f64 {
        let (left, right) = (&binary.left, &binary.right);
        match (binary.op, constant(left, DEPTH), constant(right, DEPTH)) {
            (BinaryOp::Div, None, None) => {
                // A share of requests: so much of the window must be bad.
                let window = self.window(left, depth);
                if (window - self.window(right, depth)).abs() < 1e-9 {
                    threshold.clamp(0.0, 1.0) * window
                } else {
                    0.0
                }
            }
            // Percent.
            (BinaryOp::Mul, Some(factor), None) if factor > 0.0 => self.crossed(right, threshold / factor, depth),
            (BinaryOp::Mul, None, Some(factor)) if factor > 0.0 => self.crossed(left, threshold / factor, depth),
            (BinaryOp::Div, None, Some(divisor)) if divisor > 0.0 => self.crossed(left, threshold * divisor, depth),
            // What is not good.
            (BinaryOp::Sub, Some(whole), None) if (whole - 1.0).abs() < 1e-9 => self.crossed(right, threshold, depth),
            _ => 0.0,
        }
    }

    /// The shortest range in an expression, in seconds; 0 where there is none.
    fn window(&self, expr: &Expr, depth: usize) -> f64 {
        let Some(depth) = depth.checked_sub(1) else { return 0.0 };
        let ranges = expr.selectors().into_iter().map(|selector| match &selector.range {
            Some(range) => range.duration.seconds().unwrap_or_default(),
            None => self
                .recorded(selector)
                .map_or(0.0, |query| self.window(&query.expr, depth)),
        });
        ranges.reduce(f64::min).unwrap_or_default().max(0.0)
    }

    fn recorded(&self, selector: &Selector) -> Option<Query> {
        self.left.set(self.left.get().checked_sub(1)?);
        let name = selector.metric()?;
        let rule = self.rules.recordings.iter().find(|rule| rule.name == name)?;
        parse(&rule.query)
    }
}

/// The value of an expression of numbers alone.
fn constant(expr: &Expr, depth: usize) -> Option<f64> {
    let depth = depth.checked_sub(1)?;
    match expr.unparenthesised() {
        Expr::Binary(binary) => {
            let (left, right) = (constant(&binary.left, depth)?, constant(&binary.right, depth)?);
            match binary.op {
                BinaryOp::Add => Some(left + right),
                BinaryOp::Sub => Some(left - right),
                BinaryOp::Mul => Some(left * right),
                BinaryOp::Div => Some(left / right),
                _ => None,
            }
        }
        other => other.as_number(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use opsctl_platform::prometheus::RecordingRule;
    use proptest::prelude::*;

    use super::*;

    fn rules() -> Rules {
        let recording = |name: &str, group: &str, query: &str, interval| RecordingRule {
            name: name.to_owned(),
            group: group.to_owned(),
            query: query.to_owned(),
            interval: Duration::from_secs(interval),
        };
        Rules {
            recordings: vec![
                recording("errors:ratio", "ratios", "errors:rate / requests:rate", 30),
                recording("errors:rate", "ratios", "rate(errors_total[10m])", 30),
                recording("requests:rate", "requests", "rate(requests_total[10m])", 15),
                recording("a:ring", "a", "b:ring + rate(x[2m])", 1),
                recording("b:ring", "b", "a:ring", 1),
                recording("c:many", "c", "d:many + d:many + d:many", 1),
                recording("d:many", "d", "c:many + c:many + c:many", 1),
            ],
            ..Rules::default()
        }
    }

    fn read(query: &str) -> Base {
        let target = |job: &str, seconds| Target {
            labels: BTreeMap::from([("job".to_owned(), job.to_owned())]),
            up: true,
            error: None,
            scraped_at: None,
            interval: Some(Duration::from_secs(seconds)),
        };
        let rule = AlertRule {
            query: query.to_owned(),
            group: "alerts".to_owned(),
            ..AlertRule::default()
        };
        base(
            &rule,
            &rules(),
            &[target("slow", 60), target("quick", 15), target("other", 5)],
        )
    }

    #[test]
    fn a_share_of_requests_needs_that_share_of_its_window() {
        for (query, range, ramp) in [
            ("up == 0", 0, 0.0),
            ("rate(errors_total[5m]) > 0", 300, 0.0),
            (
                "sum(rate(errors_total[5m])) / sum(rate(requests_total[5m])) > 0.05",
                300,
                15.0,
            ),
            (
                "0.05 < sum(rate(errors_total[5m])) / sum(rate(requests_total[5m]))",
                300,
                15.0,
            ),
            (
                "100 * (sum by (a) (rate(e[5m])) / sum by (a) (rate(r[5m]))) >= 5",
                300,
                15.0,
            ),
            ("1 - sum(rate(good[5m])) / sum(rate(all[5m])) > 0.1", 300, 30.0),
            ("max by (s) (rate(e[10m]) / rate(r[10m])) > 2", 600, 600.0),
            (
                "histogram_quantile(0.95, sum by (le) (rate(d_bucket[10m]))) > 0.3",
                600,
                30.0,
            ),
            // Both windows have to be crossed, or one of them.
            (
                "rate(e[1h]) / rate(r[1h]) > 14.4 * 0.001 and rate(e[5m]) / rate(r[5m]) > 14.4 * 0.001",
                3600,
                51.84,
            ),
            (
                "rate(e[1h]) / rate(r[1h]) > 0.1 or rate(e[5m]) / rate(r[5m]) > 0.1",
                3600,
                30.0,
            ),
            // Neither is a share of the other.
            ("rate(e[5m]) / rate(r[1h]) > 0.5", 3600, 0.0),
            ("max_over_time(x[30m:1m]) > 3", 1800, 0.0),
            ("x{a=\"[9m]\"} > 1 # [9m]", 0, 0.0),
            ("errors:ratio > 0.1", 600, 60.0),
        ] {
            let base = read(query);
            assert_eq!(base.range, Duration::from_secs(range), "{query}");
            assert!((base.ramp - ramp).abs() < 1e-6, "{query}: {base:?}");
        }
    }

    #[test]
    fn recording_rules_are_looked_through_and_a_ring_of_them_ends() {
        // The errors are recorded in the group of the ratio, right before it; the requests in another.
        assert_eq!(read("errors:ratio > 0.1").evaluations, Duration::from_secs(30 + 15));
        let ring = read("a:ring / a:ring > 0.1");
        assert_eq!(
            (ring.range, ring.evaluations),
            (Duration::from_mins(2), Duration::from_secs(2))
        );
        let many = read("c:many / c:many > 0.1");
        assert_eq!(many.evaluations, Duration::from_secs(2));
    }

    #[test]
    fn only_those_scrapes_count_that_it_reads() {
        for (query, seconds) in [
            ("up{job=\"slow\"} == 0", 60),
            ("up{job=~\"slow\"} == 0", 5),
            ("a{job=\"slow\"} / b{job=\"quick\"} > 1", 15),
            ("a{code=\"500\"} > 1", 5),
            ("vector(1)", 5),
            ("no query (", 5),
        ] {
            assert_eq!(read(query).scrape, Duration::from_secs(seconds), "{query}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in ".{0,100}", depth in 0_usize..100) {
            read(&text);
            read(&format!("{}x{} > 1", "(".repeat(depth), ")".repeat(depth)));
            read(&format!("{} > 1", vec!["x"; depth + 1].join(" and ")));
        }
    }
}
