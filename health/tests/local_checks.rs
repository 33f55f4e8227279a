//! The checks that need no server from outside: of HTTP and gRPC peers, clocks, the machine, and of what a closure tells.
//! Those of databases and brokers are `dependencies`.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::time::Duration;

use health::{Check, Failure, Outcome, Reason};

#[path = "local_checks/clock.rs"]
mod clock;
#[path = "local_checks/grpc.rs"]
mod grpc;
#[path = "local_checks/http.rs"]
mod http;
#[path = "local_checks/machine.rs"]
mod machine;
#[path = "local_checks/told.rs"]
mod told;

/// Asks as the scheduler does, which cuts a run off after a second.
async fn ask(check: &impl Check) -> Outcome {
    let cut_off = |_| Outcome::Fail(Failure::new(Reason::Timeout, "cut off"));
    tokio::time::timeout(Duration::from_secs(1), check.run())
        .await
        .unwrap_or_else(cut_off)
}

/// `pass`, or status and reason: `warn saturated`.
async fn told(check: &impl Check) -> String {
    match ask(check).await {
        Outcome::Pass => "pass".to_owned(),
        Outcome::Warn(failure) => format!("warn {:?}", failure.reason).to_lowercase(),
        Outcome::Fail(failure) => format!("fail {:?}", failure.reason).to_lowercase(),
    }
}
