//! Why rules cannot be derived from a landscape.

use std::time::Duration;

use manifest::landscape::{Ratio, Slo, window};
use thiserror::Error;

/// Why rules cannot be derived.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum RenderError {
    /// A burn alert that pages would need more errors than there are requests.
    #[error(
        "service `{service}`: the {slo} objective of {} leaves so much budget that it can burn at most {reachable:.1} times as \
         fast as it may; the slowest alert that pages needs {needed} times", objective.percent()
    )]
    NeverFires {
        /// The service.
        service: String,
        /// The objective's kind.
        slo: Slo,
        /// The objective.
        objective: Ratio,
        /// So many times as fast as it may the budget has to burn for the slowest alert that pages.
        needed: f64,
        /// So fast it burns when every request is bad.
        reachable: f64,
    },
    /// An objective of all requests has no budget that could burn.
    #[error("service `{service}`: 100% is no objective of {slo}: it has no budget, the first bad request breaks it")]
    NoBudget {
        /// The service.
        service: String,
        /// The objective's kind.
        slo: Slo,
    },
    /// A latency objective is no bound of a bucket.
    #[error(
        "service `{service}`: nothing counts requests that take longer than {}: it is no bucket's bound{}",
        window(*bound), nearest(*below, *above)
    )]
    NoBucket {
        /// The service.
        service: String,
        /// The objective.
        bound: Duration,
        /// The next bound below, in seconds.
        below: Option<f64>,
        /// The next bound above, in seconds.
        above: Option<f64>,
    },
    /// A name cannot stand in templates, files and objects.
    #[error("{what} `{name}`: a name consists of letters, digits, `-`, `_` and `.`, and begins with a letter or digit")]
    Name {
        /// Whose name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Two of a kind have one name.
    #[error("{what} `{name}` is there twice")]
    Twice {
        /// Whose name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A base address of links that cannot stand in an annotation.
    #[error("the address `{address}` of links does not begin with http:// or https://, or holds spaces or braces")]
    Address {
        /// The address.
        address: String,
    },
    /// A query of a service's own is no selector.
    #[error("service `{service}`: `{query}` is no selector of one counter: {why}")]
    Query {
        /// The service.
        service: String,
        /// What was written.
        query: String,
        /// What is wrong with it.
        why: String,
    },
}

fn nearest(below: Option<f64>, above: Option<f64>) -> String {
    let bounds: Vec<String> = [below, above]
        .iter()
        .flatten()
        .map(|bound| format!("{bound} s"))
        .collect();
    if bounds.is_empty() {
        String::new()
    } else {
        format!("; the nearest are {}", bounds.join(" and "))
    }
}
