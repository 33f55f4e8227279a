//! What goes wrong for a while: lines wait, and arrive once.

use std::time::Duration;

use peers::Server;
use telemetry::SinkCounts;

use crate::gate::{Fault, Gate};
use crate::real::{self, Tenant};
use crate::sender::{Sender, quick};

const LIMIT: Duration = Duration::from_secs(10);

/// How long something is wrong. The waits of the sink are scaled down alike; `cargo xtask soak` takes real times.
fn outage() -> Duration {
    let soak = std::env::var_os("OPSCTL_SOAK").is_some_and(|value| value == "1");
    Duration::from_secs(if soak { 60 } else { 5 })
}

/// Which client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Own,
    #[cfg(feature = "tracing-loki")]
    Other,
}

impl Client {
    fn start(self, gate: &Gate, tenant: &Tenant) -> Sender {
        match self {
            Self::Own => Sender::own(gate, tenant, quick()),
            #[cfg(feature = "tracing-loki")]
            Self::Other => Sender::other(gate, tenant),
        }
    }
}

/// A fault that begins while lines come and ends while lines come.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    None,
    DownAtStart,
    DownForAWhile,
    Slow,
    LostAnswers,
    Silent,
    TooMany,
    Failing,
    Redirected,
    Unauthorised,
}

/// Lines before, during and after `trouble`; what the client says and what Loki has.
async fn through(trouble: Trouble, client: Client, test: &str) -> Option<(u64, Option<SinkCounts>, u64)> {
    let tenant = real::tenant(test).await?;
    let mut gate = Gate::down(tenant.loki).await;
    if !matches!(trouble, Trouble::DownAtStart) {
        gate.start().await;
    }
    let mut sender = client.start(&gate, &tenant);
    sender.pace(Duration::from_millis(300)).await;
    match trouble {
        Trouble::None | Trouble::DownAtStart => {}
        Trouble::DownForAWhile => gate.stop().await,
        Trouble::Slow => gate.set(Fault::Late(Duration::from_millis(400))),
        Trouble::LostAnswers => gate.set(Fault::LostAnswer),
        Trouble::Silent => gate.set(Fault::Silent),
        Trouble::TooMany => gate.set(Fault::Status(429, Some("1"), "slow down")),
        Trouble::Failing => gate.set(Fault::Status(500, None, "broken")),
        Trouble::Redirected => gate.set(Fault::Status(302, None, "")),
        Trouble::Unauthorised => gate.set(Fault::Status(401, None, "who are you")),
    }
    sender.pace(outage()).await;
    match trouble {
        Trouble::DownAtStart | Trouble::DownForAWhile => gate.start().await,
        _ => gate.set(Fault::Pass),
    }
    sender.pace(Duration::from_millis(300)).await;
    let emitted = sender.emitted;
    let counts = sender.end(LIMIT).await;
    let stored = tenant.stored().await;
    println!("{trouble:?} {client:?}: emitted {emitted}, stored {stored}, {counts:?}");
    Some((emitted, counts, stored))
}

/// Ours loses nothing, and stores nothing twice.
async fn nothing_is_lost(trouble: Trouble, test: &str) {
    let Some((emitted, counts, stored)) = through(trouble, Client::Own, test).await else {
        return;
    };
    let counts = counts.unwrap();
    assert_eq!(
        (counts.delivered, counts.rejected, counts.dropped),
        (emitted, 0, 0),
        "{counts:?}"
    );
    assert_eq!(stored, emitted);
}

#[tokio::test]
async fn all_is_well() {
    nothing_is_lost(Trouble::None, "all_is_well").await;
}

#[tokio::test]
async fn down_at_the_start() {
    nothing_is_lost(Trouble::DownAtStart, "down_at_the_start").await;
}

#[tokio::test]
async fn down_for_a_while() {
    nothing_is_lost(Trouble::DownForAWhile, "down_for_a_while").await;
}

#[tokio::test]
async fn slow() {
    nothing_is_lost(Trouble::Slow, "slow").await;
}

/// Every push arrives and none is answered: what is pushed again is not stored again.
#[tokio::test]
async fn answers_that_are_lost() {
    nothing_is_lost(Trouble::LostAnswers, "answers_that_are_lost").await;
}

#[tokio::test]
async fn silent() {
    nothing_is_lost(Trouble::Silent, "silent").await;
}

#[tokio::test]
async fn too_many_requests() {
    nothing_is_lost(Trouble::TooMany, "too_many_requests").await;
}

#[tokio::test]
async fn failing() {
    nothing_is_lost(Trouble::Failing, "failing").await;
}

/// A redirect is not followed: it would lead a push to a page that answers 200.
#[tokio::test]
async fn redirected() {
    nothing_is_lost(Trouble::Redirected, "redirected").await;
}

#[tokio::test]
async fn unauthorised() {
    nothing_is_lost(Trouble::Unauthorised, "unauthorised").await;
}

/// Loki itself goes and comes back, with what it had stored.
#[tokio::test]
async fn restarted() {
    let Some(mut server) = Server::start(real::recipe(), "restarted").await else {
        return;
    };
    let tenant = Tenant {
        loki: server.address("http"),
        name: "restarted".to_owned(),
    };
    let gate = Gate::open(tenant.loki).await;
    let mut sender = Sender::own(&gate, &tenant, quick());
    sender.burst(1000);
    sender.flush(LIMIT).await;
    sender.burst(1000);
    server.stop().await;
    sender.pace(Duration::from_millis(500)).await;
    server.start_again().await.unwrap();
    sender.burst(1000);
    let emitted = sender.emitted;
    let counts = sender.end(LIMIT).await.unwrap();
    assert_eq!((counts.delivered, counts.dropped), (emitted, 0), "{counts:?}");
    assert_eq!(tenant.stored().await, emitted);
}

/// `Retry-After` is the least that is waited; what comes meanwhile goes with the next push.
#[tokio::test]
async fn retry_after_is_kept() {
    let Some(tenant) = real::tenant("retry_after_is_kept").await else {
        return;
    };
    let gate = Gate::open(tenant.loki).await;
    gate.set(Fault::Status(429, Some("2"), "later"));
    let mut sender = Sender::own(&gate, &tenant, quick());
    sender.pace(Duration::from_secs(1)).await;
    gate.set(Fault::Pass);
    sender.flush(LIMIT).await;
    let times = gate.times();
    assert!(
        times[1] - times[0] >= Duration::from_secs(2),
        "{:?}",
        times[1] - times[0]
    );
    assert!(times.len() <= 3, "what waited goes in one push: {}", times.len());
    let emitted = sender.emitted;
    assert_eq!(sender.end(LIMIT).await.unwrap().delivered, emitted);
    assert_eq!(tenant.stored().await, emitted);
}

/// The crate `tracing-loki` through the same: it does not tell what it lost, Loki does.
#[cfg(feature = "tracing-loki")]
mod other {
    use super::*;

    /// It loses lines or not, as its authors made it; it never has more than was logged, and it ends.
    async fn loses(trouble: Trouble, test: &str) -> Option<u64> {
        let (emitted, counts, stored) = through(trouble, Client::Other, test).await?;
        assert!(counts.is_none(), "it counts nothing");
        Some(emitted - stored)
    }

    #[tokio::test]
    async fn every_trouble() {
        let mut lost = Vec::new();
        for (trouble, test) in [
            (Trouble::None, "other_none"),
            (Trouble::DownForAWhile, "other_down_for_a_while"),
            (Trouble::Silent, "other_silent"),
            (Trouble::Failing, "other_failing"),
        ] {
            let Some(count) = loses(trouble, test).await else {
                return;
            };
            lost.push((trouble, count));
        }
        println!("tracing-loki lost: {lost:?}");
    }
}
