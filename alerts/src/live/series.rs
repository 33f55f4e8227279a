//! Which series are there that the rules ask for: a few selectors in one query, each only counted.

use std::collections::{BTreeMap, BTreeSet};

use endpoint::EndpointError;
use futures::{StreamExt, TryStreamExt};

use super::prometheus::Prometheus;
use super::world::Expected;
use promql::ast::{Expr, Selector};

/// How many selectors one query counts.
const BATCH: usize = 20;
/// A query is no longer than this, unless one selector alone is.
const LONGEST: usize = 6_000;
/// How many queries run at one time.
const AT_ONCE: usize = 2;
/// How many selectors are asked for at all.
pub(super) const MOST: usize = 2_000;
/// The label that says which selector a count is of.
const WHICH: &str = "opsctl_selector";

/// Which series are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presence {
    /// Selectors without any series now.
    pub empty: BTreeSet<String>,
    /// Metrics of those, which have no series whatever their labels.
    pub unknown: BTreeSet<String>,
    /// How many selectors were not asked for, since there are too many.
    pub left_out: usize,
}

/// The selectors of an expression for which there should be series, without their ranges, and the metric of each.
pub(super) fn wanted(expression: &str) -> BTreeMap<String, Option<String>> {
    let mut found = BTreeMap::new();
    let Ok(query) = promql::parse(expression) else {
        return found;
    };
    let mut pending = vec![&query.expr];
    while let Some(expr) = pending.pop() {
        match expr {
            // These ask for what is not there, for values of their own, or for what may never have been.
            Expr::Call(call)
                if call
                    .function
                    .known()
                    .is_some_and(|known| known.name.starts_with("absent")) => {}
            Expr::Selector(selector) => {
                let text = text(&query.text, selector);
                let metric = selector.metric().map(str::to_owned);
                if !matches!(metric.as_deref(), Some("ALERTS" | "ALERTS_FOR_STATE")) {
                    found.insert(text, metric);
                }
            }
            other => pending.extend(other.children()),
        }
    }
    found
}

fn text(query: &str, selector: &Selector) -> String {
    let spans = [selector.name.as_ref().map(|name| name.span), selector.braces];
    let parts = spans.into_iter().flatten().filter_map(|span| query.get(span.range()));
    parts.collect()
}

/// Asks for every selector of `expected`, then for the metrics of those that have no series.
pub(super) async fn look(prometheus: &Prometheus, expected: &Expected) -> Result<Presence, EndpointError> {
    let rules = expected.rules.iter().flat_map(|(_, file)| file.rules());
    let mut all: BTreeMap<String, Option<String>> = rules.flat_map(|(_, rule)| wanted(&rule.expr.value)).collect();
    let left_out = all.len().saturating_sub(MOST);
    while all.len() > MOST {
        all.pop_last();
    }
    let selectors: Vec<&str> = all.keys().map(String::as_str).collect();
    let empty = empty(prometheus, &selectors).await?;
    let metrics: BTreeSet<&str> = empty.iter().filter_map(|selector| all[selector].as_deref()).collect();
    let names: Vec<String> = metrics.iter().map(|name| format!("{{__name__={name:?}}}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let nameless = self::empty(prometheus, &names).await?;
    let unknown = metrics
        .into_iter()
        .filter(|name| nameless.contains(&format!("{{__name__={name:?}}}")));
    Ok(Presence {
        unknown: unknown.map(str::to_owned).collect(),
        empty,
        left_out,
    })
}

/// Those of the selectors that have no series.
async fn empty(prometheus: &Prometheus, selectors: &[&str]) -> Result<BTreeSet<String>, EndpointError> {
    let there: Vec<BTreeSet<String>> = futures::stream::iter(batches(selectors))
        .map(|batch| async move {
            let answer = prometheus.query(&query(batch)).await?;
            let numbers = answer
                .into_iter()
                .filter_map(|series| series.labels.get(WHICH)?.parse::<usize>().ok());
            Ok(numbers
                .filter_map(|number| batch.get(number))
                .map(|selector| (*selector).to_owned())
                .collect())
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let there: BTreeSet<String> = there.into_iter().flatten().collect();
    let missing = selectors.iter().filter(|selector| !there.contains(**selector));
    Ok(missing.map(|selector| (*selector).to_owned()).collect())
}

fn batches<'a, 'b>(selectors: &'a [&'b str]) -> Vec<&'a [&'b str]> {
    let mut batches = Vec::new();
    let mut rest = selectors;
    while !rest.is_empty() {
        let mut length = 0;
        let fits = rest.iter().take(BATCH).take_while(|selector| {
            length += selector.len();
            length <= LONGEST
        });
        let (batch, after) = rest.split_at(fits.count().max(1));
        batches.push(batch);
        rest = after;
    }
    batches
}

fn query(selectors: &[&str]) -> String {
    let counts = selectors
        .iter()
        .enumerate()
        .map(|(number, selector)| format!("label_replace(count({selector}), \"{WHICH}\", \"{number}\", \"\", \"\")"));
    counts.collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_bounded() {
        let long = "a".repeat(LONGEST * 2);
        let mut selectors = vec!["up"; 45];
        selectors.insert(10, &long);
        let sizes: Vec<_> = batches(&selectors).iter().map(|batch| batch.len()).collect();
        assert_eq!(sizes, [10, 1, 20, 15]);
        assert_eq!(
            query(&["up", "x{y=\"z\"}"]),
            "label_replace(count(up), \"opsctl_selector\", \"0\", \"\", \"\") or \
             label_replace(count(x{y=\"z\"}), \"opsctl_selector\", \"1\", \"\", \"\")"
        );
    }
}
