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
    Other,
}

impl Client {
    fn start(self, gate: &Gate, tenant: &Tenant) -> Sender {
        match self {
            Self::Own => Sender::own(gate, tenant, quick()),
            Self::Other => Sender::other(gate, tenant),
        }
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Nothing,
    /// Many lines at once, and nothing is wrong.
    Burst,
    DownAtStart,
    DownForAWhile,
    Slow,
    AnswersLost,
    Silent,
    /// 400 for each push that holds a certain line.
    BadLine,
    TooManyRequests,
    Failing,
    Redirected,
    Unauthorised,
}

const ALL: [Trouble; 12] = [
    Trouble::Nothing,
    Trouble::Burst,
    Trouble::DownAtStart,
    Trouble::DownForAWhile,
    Trouble::Slow,
    Trouble::AnswersLost,
    Trouble::Silent,
    Trouble::BadLine,
    Trouble::TooManyRequests,
    Trouble::Failing,
    Trouble::Redirected,
    Trouble::Unauthorised,
];

/// Lines of a burst.
const BURST: u64 = 20_000;

/// What came of it.
#[derive(Debug)]
struct Outcome {
    trouble: Trouble,
    emitted: u64,
    /// By the client's own word.
    counts: Option<SinkCounts>,
    /// By Loki's.
    stored: u64,
}

/// Lines before, during and after some trouble.
async fn through(trouble: Trouble, client: Client, tenant: Tenant) -> Outcome {
    let mut gate = Gate::down(tenant.loki).await;
    if trouble != Trouble::DownAtStart {
        gate.start().await;
    }
    let mut sender = client.start(&gate, &tenant);
    sender.pace(Duration::from_millis(300)).await;
    match trouble {
        Trouble::Nothing | Trouble::DownAtStart => {}
        Trouble::Burst => sender.burst(BURST),
        Trouble::DownForAWhile => gate.stop().await,
        Trouble::Slow => gate.set(Fault::Late(Duration::from_millis(400))),
        Trouble::AnswersLost => gate.set(Fault::LostAnswer),
        Trouble::Silent => gate.set(Fault::Silent),
        Trouble::BadLine => {
            gate.set(Fault::RefuseWhole("poison"));
            sender.log(1, || tracing::info!("poison"));
        }
        Trouble::TooManyRequests => gate.set(Fault::Status(429, Some("1"), "slow down")),
        Trouble::Failing => gate.set(Fault::Status(500, None, "broken")),
        Trouble::Redirected => gate.set(Fault::Status(302, None, "")),
        Trouble::Unauthorised => gate.set(Fault::Status(401, None, "who are you")),
    }
    sender.pace(outage()).await;
    match trouble {
        Trouble::DownAtStart | Trouble::DownForAWhile => gate.start().await,
        Trouble::BadLine => {}
        _ => gate.set(Fault::Pass),
    }
    sender.pace(Duration::from_millis(300)).await;
    let emitted = sender.emitted;
    let counts = sender.end(LIMIT).await;
    let stored = tenant.stored().await;
    Outcome {
        trouble,
        emitted,
        counts,
        stored,
    }
}

/// All troubles at one time, each with a tenant of its own.
#[expect(clippy::print_stdout, reason = "the table of the guide")]
async fn through_all(client: Client, test: &str) -> Option<Vec<Outcome>> {
    let tenant = real::tenant(test).await?;
    let mut running = tokio::task::JoinSet::new();
    for trouble in ALL {
        let tenant = Tenant {
            name: format!("{test}-{trouble:?}"),
            ..tenant.clone()
        };
        running.spawn(through(trouble, client, tenant));
    }
    let mut outcomes = running.join_all().await;
    outcomes.sort_by_key(|outcome| outcome.trouble as u8);
    println!("{test}: lines logged, lines that Loki has");
    for outcome in &outcomes {
        println!(
            "{:<16} {:>6} {:>6}",
            format!("{:?}", outcome.trouble),
            outcome.emitted,
            outcome.stored
        );
    }
    Some(outcomes)
}

/// Ours loses nothing but what Loki refuses for good, stores nothing twice, and knows it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_whatever_goes_wrong() {
    let Some(outcomes) = through_all(Client::Own, "nothing_is_lost").await else {
        return;
    };
    for outcome in outcomes {
        let counts = outcome.counts.unwrap();
        let refused = u64::from(outcome.trouble == Trouble::BadLine);
        assert_eq!(
            counts.delivered,
            outcome.emitted - refused,
            "{:?}: {counts:?}",
            outcome.trouble
        );
        assert_eq!(
            (counts.rejected, counts.dropped),
            (refused, 0),
            "{:?}: {counts:?}",
            outcome.trouble
        );
        assert_eq!(outcome.stored, counts.delivered, "{:?}", outcome.trouble);
    }
}

/// The crate `tracing-loki` through the same: it does not tell what it lost, Loki does.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_other_client_loses_is_counted_at_loki() {
    let Some(outcomes) = through_all(Client::Other, "the_other_client").await else {
        return;
    };
    for outcome in outcomes {
        assert!(outcome.counts.is_none(), "it counts nothing");
        assert!(outcome.stored <= outcome.emitted, "{outcome:?}");
        if outcome.trouble == Trouble::Burst {
            // Its channel holds 512 lines, and its task cannot run while they come.
            assert!(
                outcome.emitted - outcome.stored > BURST / 2,
                "the reason to have our own is gone: {outcome:?}"
            );
        }
    }
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
