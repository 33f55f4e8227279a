//! What happens inside of policies, as lines of the log and events of the call's span. How often it happened is the
//! metrics' matter; a line is for what a person may want to look at.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use resilience::{Event, Listener, State};
use tokio::time::Instant;

use crate::SpanExt as _;

/// How long a policy's spent budget is not told again. It is spent for as long as a dependency fails, with every call.
const QUIET: Duration = Duration::from_secs(10);

/// Target of the lines: `RUST_LOG=info,policy=debug` shows all of them.
const TARGET: &str = "policy";

/// A line at debug, which is an event of the span too; where nobody wants the line, the event alone.
macro_rules! debug {
    ($message:literal, $name:expr $(, $field:ident = $value:expr)*) => {
        if tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
            tracing::debug!(target: TARGET, policy = $name $(, $field = $value)*, $message);
        } else {
            on_span($message, $name, [$(KeyValue::new(stringify!($field), $value)),*]);
        }
    };
}

/// A listener for policies; made by [`Telemetry::policy_events`](crate::Telemetry::policy_events). Clones share.
///
/// | event | line |
/// |---|---|
/// | a breaker opens, or is forced | warn |
/// | a breaker half-opens or closes | info |
/// | a retry budget is spent | warn, once in ten seconds a policy, with how many were not told |
/// | retry, time limit, refusal, fallback | debug |
///
/// Each is an event of the span of the call besides, also where the filter leaves its line out.
#[derive(Debug, Clone, Default)]
pub struct PolicyEvents {
    /// Policies whose budget was spent lately. There are as many as policies were configured.
    spent: Arc<Mutex<HashMap<String, Spent>>>,
}

/// A budget that was told to be spent.
#[derive(Debug)]
struct Spent {
    told: Instant,
    /// How often it was not told since.
    silent: u64,
}

impl Listener for PolicyEvents {
    fn event(&self, event: &Event<'_>) {
        match *event {
            Event::Transition { name, from, to } => {
                let is_good = matches!(to, State::Closed | State::HalfOpen);
                let (from, to) = (from.as_str(), to.as_str());
                if is_good {
                    tracing::info!(target: TARGET, policy = name, from, to, "breaker changed");
                } else {
                    tracing::warn!(target: TARGET, policy = name, from, to, "breaker changed");
                }
            }
            Event::BudgetExhausted { name } => match self.may_tell(name) {
                Some(untold) => tracing::warn!(target: TARGET, policy = name, untold, "retry budget spent"),
                None => on_span("retry budget spent", name, []),
            },
            Event::Retry {
                name,
                attempt,
                reason,
                delay,
            } => debug!(
                "retry",
                name,
                attempt = i64::from(attempt),
                reason = reason,
                delay_seconds = delay.as_secs_f64()
            ),
            Event::Timeout { name, scope } => debug!("time limit", name, scope = scope.as_str()),
            Event::Rejected { name, by } => debug!("refused", name, by = by.as_str()),
            Event::Fallback { name, reason } => debug!("fallback", name, reason = reason),
            // What comes later is told when it is known what it means.
            _ => {}
        }
    }
}

impl PolicyEvents {
    /// Whether it is time to tell that a budget is spent, with how often it was not told before.
    fn may_tell(&self, name: &str) -> Option<u64> {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let Some(known) = spent.get_mut(name) else {
            spent.insert(name.to_owned(), Spent { told: now, silent: 0 });
            return Some(0);
        };
        if now.duration_since(known.told) < QUIET {
            known.silent += 1;
            return None;
        }
        known.told = now;
        Some(std::mem::take(&mut known.silent))
    }
}

/// An event of the call's span alone.
fn on_span<const N: usize>(message: &'static str, name: &str, attributes: [KeyValue; N]) {
    let policy = KeyValue::new("policy", name.to_owned());
    let all = std::iter::once(policy).chain(attributes).collect();
    tracing::Span::current().add_event(message, all);
}
