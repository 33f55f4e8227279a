//! Spans from Jaeger or Tempo: both answer `GET /api/traces/{id}`, and the form of the answer says which it is.

use super::server::Server;
use super::span::Span;
use super::{jaeger, otlp};
use crate::config::Backend;
use crate::context::Context;
use crate::error::Failure;
use crate::exit::Exit;

/// A Jaeger or a Tempo that is asked.
#[derive(Debug)]
pub(super) struct TraceServer(Server);

impl TraceServer {
    pub(super) fn new(context: &Context, backend: &Backend) -> Result<Self, Failure> {
        Server::new(context, "the trace server", "traces", backend).map(Self)
    }

    pub(super) fn words(&self) -> String {
        self.0.words()
    }

    /// The spans of a trace; none when it is not there.
    pub(super) async fn spans(&self, trace: &str) -> Result<Vec<Span>, Failure> {
        let Some(answer) = self.0.get(&format!("/api/traces/{trace}"), &[]).await? else {
            return Ok(Vec::new());
        };
        if jaeger::is_jaeger(&answer) {
            Ok(jaeger::spans(&answer, trace))
        } else if otlp::is_otlp(&answer) {
            Ok(otlp::spans(&answer, trace))
        } else {
            Err(Failure::new(
                Exit::Usage,
                "bad_answer",
                format!("{} answers neither as Jaeger nor as Tempo", self.words()),
            )
            .help("does `traces` in opsctl.toml name the right server?"))
        }
    }
}
