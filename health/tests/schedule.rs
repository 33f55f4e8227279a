//! When checks run and what their answers make of the service, under a paused clock: start, hysteresis, timeouts, panics,
//! roles, starvation, refresh.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use health::{Failure, Health, OnDown, Outcome, Reason, Scope, Spec, State, Status};
use tokio::time::{Instant, sleep};

#[path = "support/dependency.rs"]
mod dependency;
use dependency::{Dependency, until};

/// The tests' own seconds.
const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

async fn hangs() {
    std::future::pending::<()>().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_is_ready_once_every_required_check_has_passed() {
    let (db, cache) = (Dependency::default(), Dependency::default());
    db.set_down(true);
    cache.set_down(true);
    let health = Health::builder()
        .critical("db", db.check())
        .degraded("cache", cache.check())
        .informative("report", cache.check())
        .build()
        .unwrap();
    assert_eq!(health.state(), State::Starting, "not before anything was asked");
    sleep(secs(60)).await;
    assert_eq!(health.state(), State::Starting);
    assert!(
        (45..=80).contains(&db.asked()),
        "every second while starting: {}",
        db.asked()
    );
    db.set_down(false);
    until(&health, State::Degraded).await;
    cache.set_down(false);
    until(&health, State::Ready).await;
    let before = db.asked();
    sleep(secs(100)).await;
    assert!((8..=13).contains(&(db.asked() - before)), "every ten seconds then");
}

#[tokio::test(start_paused = true)]
async fn what_is_required_at_start_can_be_said_apart_from_the_role() {
    let (cache, db) = (Dependency::default(), Dependency::default());
    cache.set_down(true);
    db.set_down(true);
    let health = Health::builder()
        .check(Spec::degraded("cache", cache.check()).required_at_start(true))
        .check(Spec::critical("db", db.check()).required_at_start(false))
        .build()
        .unwrap();
    sleep(secs(60)).await;
    assert_eq!(health.state(), State::Starting);
    cache.set_down(false);
    until(&health, State::Degraded).await;
    cache.set_down(true);
    sleep(secs(120)).await;
    assert_eq!(health.state(), State::Degraded, "it is required at the start alone");
}

#[tokio::test(start_paused = true)]
async fn a_service_does_not_start_on_a_check_that_has_failed_again() {
    let (first, second) = (Dependency::default(), Dependency::default());
    second.set_down(true);
    let health = Health::builder()
        .critical("first", first.check())
        .critical("second", second.check())
        .build()
        .unwrap();
    sleep(secs(30)).await;
    first.set_down(true);
    sleep(secs(60)).await;
    second.set_down(false);
    sleep(secs(60)).await;
    assert_eq!(health.state(), State::Starting);
    first.set_down(false);
    until(&health, State::Ready).await;
}

#[tokio::test(start_paused = true)]
async fn it_goes_down_after_three_failures_and_up_after_two_successes() {
    let disk = Dependency::default();
    let health = Health::builder()
        .check(Spec::critical("disk", disk.check()).scope(Scope::Local))
        .build()
        .unwrap();
    until(&health, State::Ready).await;
    disk.set_down(true);
    let before = disk.asked();
    until(&health, State::NotReady).await;
    assert_eq!(disk.asked() - before, 3);
    assert_eq!(health.snapshot().checks[0].reason, Some(Reason::Refused));
    disk.set_down(false);
    let before = disk.asked();
    until(&health, State::Ready).await;
    assert_eq!(disk.asked() - before, 2);
    assert_eq!(health.snapshot().checks[0].transitions, [2, 0, 1]);
    assert_eq!(health.snapshot().checks[0].reason, None);
}

#[tokio::test(start_paused = true)]
async fn what_all_instances_share_keeps_the_traffic_unless_told_otherwise() {
    for (spec, expected) in [(None, State::Degraded), (Some(OnDown::NotReady), State::NotReady)] {
        let db = Dependency::default();
        let mut check = Spec::critical("db", db.check());
        if let Some(on_down) = spec {
            check = check.on_down(on_down);
        }
        let health = Health::builder().check(check).build().unwrap();
        until(&health, State::Ready).await;
        db.set_down(true);
        until(&health, expected).await;
    }
}

/// Checks that hang, and how many of them ran at one time.
#[derive(Clone, Default)]
struct Crowd {
    running: Arc<AtomicU32>,
    most: Arc<AtomicU32>,
}

impl Crowd {
    fn check(&self) -> impl Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync + 'static {
        let crowd = self.clone();
        move || {
            let now = crowd.running.fetch_add(1, Ordering::SeqCst) + 1;
            crowd.most.fetch_max(now, Ordering::SeqCst);
            let leave = Leave(Arc::clone(&crowd.running));
            Box::pin(async move {
                let _leave = leave;
                hangs().await;
            })
        }
    }

    fn most(&self) -> u32 {
        self.most.load(Ordering::SeqCst)
    }
}

struct Leave(Arc<AtomicU32>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn checks_that_hang_or_panic_fail_and_never_overlap() {
    async fn panics() {
        panic!("on purpose");
    }
    let crowd = Crowd::default();
    let health = Health::builder()
        .degraded("hangs", crowd.check())
        .degraded("panics", panics)
        .build()
        .unwrap();
    sleep(secs(120)).await;
    let checks = health.snapshot().checks;
    let told = |place: usize| (checks[place].status, checks[place].reason);
    assert_eq!(told(0), (Status::Fail, Some(Reason::Timeout)));
    assert_eq!(told(1), (Status::Fail, Some(Reason::Panic)));
    assert!(
        checks[0].runs > 5 && checks[1].runs > 5,
        "both are asked again: {checks:?}"
    );
    assert_eq!(crowd.most(), 1);
}

#[tokio::test(start_paused = true)]
async fn checks_that_hang_do_not_starve_the_others_and_at_most_eight_run() {
    let (crowd, good) = (Crowd::default(), Dependency::default());
    let mut builder = Health::builder();
    for n in 0..40 {
        builder = builder.check(Spec::degraded(format!("bad{n}"), crowd.check()).timeout(secs(9)));
    }
    let health = builder.critical("good", good.check()).build().unwrap();
    // The first round may hang it up once: forty times nine seconds over six places.
    until(&health, State::Degraded).await;
    let before = good.asked();
    for _ in 0..300 {
        sleep(secs(1)).await;
        let check = health.snapshot().checks.pop().unwrap();
        assert_eq!((check.name.as_str(), check.status), ("good", Status::Pass), "{check:?}");
        assert!(check.age_seconds < 13.0, "{check:?}");
    }
    assert!(good.asked() - before >= 24, "{}", good.asked() - before);
    assert!((6..=8).contains(&crowd.most()), "{}", crowd.most());
}

#[tokio::test(start_paused = true)]
async fn a_warning_is_shown_and_does_not_fail() {
    let full = || async { Outcome::Warn(Failure::new(Reason::Saturated, "9 of 9 in use")) };
    let health = Health::builder().critical("pool", full).build().unwrap();
    until(&health, State::Degraded).await;
    let check = &health.snapshot().checks[0];
    assert_eq!((check.status, check.reason), (Status::Warn, Some(Reason::Saturated)));
    assert!(check.last_success.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_check_slows_down_while_it_is_told_to() {
    let (db, open) = (Dependency::default(), Arc::new(AtomicBool::new(true)));
    let breaker = Arc::clone(&open);
    let health = Health::builder()
        .check(Spec::critical("db", db.check()).slow_while(move || breaker.load(Ordering::SeqCst)))
        .build()
        .unwrap();
    until(&health, State::Ready).await;
    let before = db.asked();
    sleep(secs(300)).await;
    assert!(
        (7..=13).contains(&(db.asked() - before)),
        "every thirty seconds: {}",
        db.asked() - before
    );
    assert_eq!(health.state(), State::Ready, "slow is not stale");
    open.store(false, Ordering::SeqCst);
    sleep(secs(40)).await;
    let before = db.asked();
    sleep(secs(300)).await;
    assert!(
        (24..=38).contains(&(db.asked() - before)),
        "every ten seconds: {}",
        db.asked() - before
    );
}

#[tokio::test(start_paused = true)]
async fn instances_that_start_together_do_not_ask_together() {
    let times = Arc::new(std::sync::Mutex::new(Vec::new()));
    let began = Instant::now();
    let _instances: Vec<Health> = (0..100)
        .map(|_| {
            let (times, asked) = (Arc::clone(&times), AtomicU32::new(0));
            let check = move || {
                if asked.fetch_add(1, Ordering::SeqCst) == 1 {
                    times.lock().unwrap().push(began.elapsed().as_secs());
                }
                std::future::ready(())
            };
            Health::builder().critical("db", check).build().unwrap()
        })
        .collect();
    sleep(secs(20)).await;
    let times = times.lock().unwrap().clone();
    assert_eq!(times.len(), 100);
    for second in 0..20 {
        let together = times.iter().filter(|time| **time == second).count();
        assert!(together < 30, "{together} instances asked in second {second}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_asks_at_once_waits_a_little_and_cannot_wear_down() {
    let db = Dependency::default();
    let health = Health::builder().critical("db", db.check()).build().unwrap();
    until(&health, State::Ready).await;
    sleep(secs(5)).await;
    let before = db.asked();
    let began = Instant::now();
    for _ in 0..100 {
        health.refresh().await;
    }
    assert_eq!(db.asked() - before, 1, "once in a second");
    assert!(began.elapsed() < Duration::from_millis(50), "{:?}", began.elapsed());
    sleep(secs(1)).await;
    health.refresh().await;
    assert_eq!(db.asked() - before, 2);

    let health = Health::builder()
        .check(Spec::critical("slow", hangs).timeout(secs(9)))
        .build()
        .unwrap();
    sleep(secs(5)).await;
    let began = Instant::now();
    health.refresh().await;
    assert_eq!(began.elapsed(), secs(2), "it does not wait for a check that hangs");
}

#[tokio::test]
async fn a_check_that_blocks_runs_beside_the_runtime_and_never_twice() {
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let check = health::blocking(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        // Until the test lets it go.
        let _ = told.lock().unwrap().recv();
    });
    let health = Health::builder()
        .check(
            Spec::critical("disk", check)
                .interval(Duration::from_millis(30))
                .timeout(Duration::from_millis(10)),
        )
        .build()
        .unwrap();
    // The only thread of the runtime goes on.
    tokio::time::timeout(secs(10), async {
        while health.snapshot().checks[0].runs < 5 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 1, "it is not run again while it hangs");
    assert_eq!(health.snapshot().checks[0].reason, Some(Reason::Timeout));
    drop(tell);
    tokio::time::timeout(secs(10), health.wait_until(State::takes_traffic))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_check_takes_a_draining_service_back() {
    let db = Dependency::default();
    let health = Health::builder().critical("db", db.check()).build().unwrap();
    until(&health, State::Ready).await;
    health.drain();
    sleep(secs(60)).await;
    assert_eq!(health.state(), State::Draining);
    health.stop();
    health.drain();
    assert_eq!(health.state(), State::Stopped, "for good");
}

#[tokio::test(start_paused = true)]
async fn checks_end_with_the_last_handle() {
    let db = Dependency::default();
    let health = Health::builder().critical("db", db.check()).build().unwrap();
    let clone = health.clone();
    until(&health, State::Ready).await;
    drop(health);
    sleep(secs(60)).await;
    let asked = db.asked();
    assert!(asked > 3);
    drop(clone);
    sleep(secs(600)).await;
    assert_eq!(db.asked(), asked);
}

#[tokio::test(start_paused = true)]
async fn every_change_can_be_listened_to() {
    let db = Dependency::default();
    let health = Health::builder()
        .check(Spec::critical("db", db.check()).on_down(OnDown::NotReady))
        .build()
        .unwrap();
    let mut changes = health.subscribe();
    assert_eq!(*changes.borrow_and_update(), State::Starting);
    let listener = tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.last() != Some(&State::Stopped) {
            changes.changed().await.unwrap();
            seen.push(*changes.borrow_and_update());
        }
        seen
    });
    until(&health, State::Ready).await;
    db.set_down(true);
    until(&health, State::NotReady).await;
    db.set_down(false);
    until(&health, State::Ready).await;
    tokio::task::yield_now().await;
    health.drain();
    tokio::task::yield_now().await;
    health.stop();
    let expected = [
        State::Ready,
        State::NotReady,
        State::Ready,
        State::Draining,
        State::Stopped,
    ];
    assert_eq!(listener.await.unwrap(), expected);
}
