//! Calls of databases: a span and a duration for each, under OpenTelemetry's stable names, and the figures of connection
//! pools ([`Pool`]). It speaks to no database: whoever does, says what is called in a few words of the program's own.
//! Source: <https://opentelemetry.io/docs/specs/semconv/db/>.

mod pool;

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use crate::metrics::memo::Memo;
use crate::metrics::{Exemplar, Histogram, Metrics};
use crate::{SPAN_TARGET, Telemetry};
pub use pool::{Pool, PoolFigures};

/// The error of a call that was given up before its end.
const CANCELLED: &str = "cancelled";

/// Measures the calls of one database; made by [`Telemetry::database`]. Clones share.
///
/// ```
/// # async fn insert() -> Result<u64, std::io::Error> { Ok(1) }
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// # let telemetry = telemetry::Telemetry::test();
/// let calls = telemetry.database("postgresql", "shop");
/// let inserted = calls.run("INSERT orders", insert(), |_| Some("io")).await;
/// # assert!(inserted.is_ok());
/// # }
/// ```
///
/// A call within a span is a span of kind client below it. A call outside of any has no span: a look for work every
/// second would be a trace of its own.
#[derive(Debug, Clone)]
pub struct DatabaseCalls {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    metrics: Metrics,
    system: &'static str,
    namespace: Box<str>,
    /// By summary and error.
    known: Memo<(&'static str, &'static str), Histogram>,
}

impl Telemetry {
    /// Measures calls of the database `namespace` of a `system` (`postgresql`, `sqlite`, `redis`, `mongodb`: the values of
    /// OpenTelemetry's `db.system.name`).
    pub fn database(&self, system: &'static str, namespace: &str) -> DatabaseCalls {
        DatabaseCalls {
            shared: Arc::new(Shared {
                metrics: self.metrics().clone(),
                system,
                namespace: namespace.into(),
                known: Memo::default(),
            }),
        }
    }

    /// Exports a pool of connections as `db_pool_*`; `name` is from the program, and no other pool has it.
    pub fn watch_pool(&self, name: &str, pool: impl Pool) {
        pool::watch(self.metrics(), name, pool);
    }
}

impl DatabaseCalls {
    /// Runs `call`, which is `summary`: the operation and the collection (`INSERT orders`), and whatever else belongs to
    /// it. It is a text of the program, so that no value of a query gets into it. `error_type` gives an error's class in
    /// one word (`timeout`, `locked`), or `None` for what is no failure of the database.
    ///
    /// # Errors
    /// Those of `call`.
    pub async fn run<T, E>(
        &self,
        summary: &'static str,
        call: impl Future<Output = Result<T, E>>,
        error_type: impl FnOnce(&E) -> Option<&'static str>,
    ) -> Result<T, E> {
        let measured = self.begin(summary);
        let result = call.instrument(measured.span().clone()).await;
        measured.end(result.as_ref().err().and_then(error_type));
        result
    }

    /// Begins a call that is no future; as [`DatabaseCalls::run`] otherwise.
    #[must_use = "the call ends when this is dropped"]
    pub fn begin(&self, summary: &'static str) -> DatabaseCall {
        let span = if Span::current().is_none() {
            Span::none()
        } else {
            self.span(summary)
        };
        DatabaseCall {
            shared: Arc::clone(&self.shared),
            summary,
            span,
            started: Instant::now(),
            error: Some(CANCELLED),
        }
    }

    fn span(&self, summary: &'static str) -> Span {
        let (operation, collection) = split(summary);
        tracing::info_span!(
            target: SPAN_TARGET,
            "database_call",
            otel.name = summary,
            otel.kind = "client",
            db.system.name = self.shared.system,
            db.namespace = &*self.shared.namespace,
            db.operation.name = operation,
            db.collection.name = collection,
            db.query.summary = summary,
            error.type = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
        )
    }
}

/// One call under way. Dropping it says that the call was given up.
#[derive(Debug)]
pub struct DatabaseCall {
    shared: Arc<Shared>,
    summary: &'static str,
    span: Span,
    started: Instant,
    error: Option<&'static str>,
}

impl DatabaseCall {
    /// The call's span, to be entered while it is worked on.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// The call has its answer; `error_type` is an error's class in one word.
    pub fn end(mut self, error_type: Option<&'static str>) {
        self.error = error_type;
    }
}

impl Drop for DatabaseCall {
    fn drop(&mut self) {
        let took = self.started.elapsed().as_secs_f64();
        if let Some(error) = self.error {
            self.span.record("error.type", error);
            self.span.record("otel.status_code", "ERROR");
        }
        let (shared, summary, error) = (&self.shared, self.summary, self.error.unwrap_or_default());
        let exemplar = if shared.metrics.has_exemplars() {
            Exemplar::of(&self.span)
        } else {
            None
        };
        let make = || {
            let (operation, collection) = split(summary);
            let labels = [shared.system, operation, collection, error];
            let handle = catalogue::DB_CLIENT_OPERATION_DURATION_SECONDS;
            shared.metrics.histogram(handle, labels)
        };
        match shared
            .known
            .get_or_make(|key| *key == (summary, error), || ((summary, error), make()))
        {
            Some(known) => known.observe_with(took, exemplar),
            None => make().observe_with(took, exemplar),
        }
    }
}

/// Operation and collection: the first two words.
fn split(summary: &'static str) -> (&'static str, &'static str) {
    let mut words = summary.split(' ');
    (words.next().unwrap_or_default(), words.next().unwrap_or_default())
}
