//! What a check of a server has to do, whatever the server: say what is wrong, within its time, find back by itself, leave
//! no connection behind, give no password away, and never make a probe wait.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use health::{Check, Failure, Health, Outcome, Reason, Spec, State};
use peers::{Recipe, Server};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt as _;

use crate::relay::Relay;

/// Time that the scheduler gives one run.
const TIMEOUT: Duration = Duration::from_secs(1);
/// What a loaded machine may add to that.
const SLACK: Duration = Duration::from_millis(500);
/// How long a client may take to notice and to connect again.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a relay adds on each way for a server that is slow.
const SLOW: Duration = Duration::from_millis(60);
/// Runs that must leave nothing behind.
const RUNS: u32 = 100;

/// The password of the servers that have one.
pub const PASSWORD: &str = "correct-horse";
/// Another one.
pub const WRONG: &str = "battery-staple";

pub type AnyCheck = Arc<dyn Check>;

/// A server, its client and the check over that client.
pub trait Dependency {
    /// The port of [`Dependency::recipe`] that clients use.
    const PORT: &'static str;
    /// Whether its clients find it behind another address.
    const RELAYS: bool = true;

    fn recipe() -> impl Recipe;

    /// Makes users and topics, once, after the first start.
    async fn prepare(_server: &Server) {}

    /// The check over a client of its own, made whether something listens at `address` or not.
    async fn check(address: SocketAddr) -> AnyCheck;

    /// The same with [`WRONG`] as the password, where the server has users.
    async fn check_with_wrong_password(_address: SocketAddr) -> Option<AnyCheck> {
        None
    }

    /// What only this kind of server can show, while it runs.
    async fn also(_server: &Server, _test: &str) {}
}

/// Runs a dependency's server through everything.
pub async fn holds<D: Dependency>(test: &str) {
    let Some(mut server) = Server::start(D::recipe(), test).await else {
        return;
    };
    D::prepare(&server).await;
    let address = server.address(D::PORT);
    let suite = Suite::new(test, D::check(address).await);
    suite.until("runs", None).await;

    let before = settled_connections(address).await;
    let began = Instant::now();
    for run in 0..RUNS {
        let (outcome, _) = suite.ask(&suite.check).await;
        assert_eq!(reason_of(&outcome), None, "{test}: run {run}: {outcome:?}");
    }
    suite.say(&format!("{:?} a run", began.elapsed() / RUNS));
    let after = settled_connections(address).await;
    // Some clients open a few of their own accord; a run that leaves one behind leaves a hundred.
    assert!(
        after < before + 5,
        "{test}: {before} connections, {after} after {RUNS} runs"
    );

    if D::RELAYS {
        let relay = Relay::start(address, SLOW).await;
        let slow = D::check(relay.address()).await;
        suite.until_of(&slow, "slow", None).await;
        let (outcome, took) = suite.ask(&slow).await;
        assert_eq!(reason_of(&outcome), None, "{test}: slow: {outcome:?}");
        assert!(
            took >= SLOW,
            "{test}: took {took:?} through a slow relay: it did not ask the server"
        );
    }
    if let Some(wrong) = D::check_with_wrong_password(address).await {
        suite.until_of(&wrong, "wrong password", Some(Reason::Auth)).await;
    }
    D::also(&server, test).await;

    server.pause();
    suite.until("hangs", Some(Reason::Timeout)).await;
    suite.outage().await;
    server.resume();
    suite.until("goes on", None).await;

    server.kill();
    suite.until("killed", Some(Reason::Refused)).await;
    let late = D::check(address).await;
    suite
        .until_of(&late, "down when its client was made", Some(Reason::Refused))
        .await;
    suite.outage().await;
    server.start_again().await.unwrap();
    suite.until("started again", None).await;
    suite
        .until_of(&late, "found by the client that was there first", None)
        .await;
    suite.end().await;
}

/// The reason that an outcome is not `Pass`.
pub fn reason_of(outcome: &Outcome) -> Option<Reason> {
    failure_of(outcome).map(|failure| failure.reason)
}

fn failure_of(outcome: &Outcome) -> Option<&Failure> {
    match outcome {
        Outcome::Pass => None,
        Outcome::Warn(failure) | Outcome::Fail(failure) => Some(failure),
    }
}

/// Runs a check as the scheduler does.
pub async fn ask(check: &AnyCheck) -> Outcome {
    let late = || Outcome::Fail(Failure::new(Reason::Timeout, "cut off"));
    timeout(TIMEOUT, check.run()).await.unwrap_or_else(|_| late())
}

/// Asks until the check gives this reason, or passes for `None`.
pub async fn until(check: &AnyCheck, test: &str, wanted: Option<Reason>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let outcome = ask(check).await;
        if reason_of(&outcome) == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{test}: {outcome:?} instead of {wanted:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// A check under test, and a service whose health it decides, probed all the time.
struct Suite<'a> {
    test: &'a str,
    check: AnyCheck,
    health: Health,
    probes: Arc<Mutex<Vec<Duration>>>,
    prober: JoinHandle<()>,
    began: Instant,
}

impl<'a> Suite<'a> {
    fn new(test: &'a str, check: AnyCheck) -> Self {
        let scheduled = {
            let check = Arc::clone(&check);
            move || {
                let check = Arc::clone(&check);
                async move { check.run().await }
            }
        };
        // Half of the time, so that the state follows soon; each way of failing is seen by asking directly.
        let spec = Spec::critical("dependency", scheduled)
            .interval(TIMEOUT / 2 + Duration::from_millis(50))
            .timeout(TIMEOUT / 2)
            .down_after(1)
            .up_after(1);
        let health = Health::builder().check(spec).build().unwrap();
        let probes = Arc::new(Mutex::new(Vec::new()));
        let prober = tokio::spawn(probe(health.http_router(), Arc::clone(&probes)));
        Self {
            test,
            check,
            health,
            probes,
            prober,
            began: Instant::now(),
        }
    }

    /// The check itself gives the reason, and then the service's health follows it.
    async fn until(&self, step: &str, wanted: Option<Reason>) {
        self.until_of(&self.check, step, wanted).await;
        let good = |state: State| state == State::Ready;
        let follows = self.health.wait_until(|state| good(state) == wanted.is_none());
        let followed = timeout(PATIENCE, follows).await;
        assert!(followed.is_ok(), "{}: {step}: {:?}", self.test, self.health.snapshot());
    }

    async fn until_of(&self, check: &AnyCheck, step: &str, wanted: Option<Reason>) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (outcome, took) = self.ask(check).await;
            if reason_of(&outcome) == wanted {
                self.say(&format!("{step}: {outcome:?}, took {took:?}"));
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{}: {step}: {outcome:?} instead of {wanted:?}",
                self.test
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks for as long as an outage lasts: a second, or a minute in a soak, when clients also give up connections by
    /// themselves.
    async fn outage(&self) {
        let soak = std::env::var_os("OPSCTL_SOAK").is_some_and(|value| value == "1");
        let over = Instant::now() + Duration::from_secs(if soak { 60 } else { 1 });
        while Instant::now() < over {
            let (outcome, _) = self.ask(&self.check).await;
            let out = matches!(reason_of(&outcome), Some(Reason::Timeout | Reason::Refused));
            assert!(out, "{}: {outcome:?} in an outage", self.test);
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks once; whatever the answer, it comes in time and gives no password away.
    async fn ask(&self, check: &AnyCheck) -> (Outcome, Duration) {
        let began = Instant::now();
        let outcome = ask(check).await;
        let took = began.elapsed();
        assert!(took < TIMEOUT + SLACK, "{}: took {took:?}", self.test);
        let detail = failure_of(&outcome).map_or("", |failure| failure.detail.as_str());
        let secret = [PASSWORD, WRONG].into_iter().find(|secret| detail.contains(secret));
        assert_eq!(secret, None, "{}: {detail}", self.test);
        (outcome, took)
    }

    fn say(&self, what: &str) {
        println!("{} {:>6.1} s  {what}", self.test, self.began.elapsed().as_secs_f64());
    }

    /// No probe waited for the dependency, whatever happened to it.
    async fn end(self) {
        self.prober.abort();
        let _ = self.prober.await;
        let mut probes = self.probes.lock().unwrap().clone();
        probes.sort_unstable();
        let (median, most) = (probes[probes.len() / 2], probes[probes.len() - 1]);
        println!(
            "{}: {} probes, median {median:?}, most {most:?}",
            self.test,
            probes.len()
        );
        assert!(median < Duration::from_millis(10), "{}: median {median:?}", self.test);
        assert!(
            most < TIMEOUT,
            "{}: a probe took {most:?}, as long as a check",
            self.test
        );
    }
}

/// Asks for readiness fifty times a second.
async fn probe(router: axum::Router, took: Arc<Mutex<Vec<Duration>>>) {
    loop {
        let began = Instant::now();
        let request = axum::http::Request::get("/readyz").body(Body::empty()).unwrap();
        let status = router.clone().oneshot(request).await.unwrap().status().as_u16();
        assert!(status == 200 || status == 503, "{status}");
        took.lock().unwrap().push(began.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
}

/// How many connections this machine holds to `address`, once the number has stood still for a moment.
async fn settled_connections(address: SocketAddr) -> usize {
    let deadline = Instant::now() + PATIENCE;
    let mut last = connections(address);
    let mut same = 0;
    while same < 10 {
        assert!(
            Instant::now() < deadline,
            "connections to {address} come and go: {last}"
        );
        sleep(Duration::from_millis(50)).await;
        let now = connections(address);
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    last
}

/// Rows of the kernel's table of connections whose remote end is `address`, but those that are over.
fn connections(address: SocketAddr) -> usize {
    const TIME_WAIT: &str = "06";
    let remote = format!("0100007F:{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() > 3 && row[2] == remote && row[3] != TIME_WAIT)
        .count()
}
