//! The network and the server of the repository fail in the middle: nothing is promised meanwhile, and afterwards all is
//! received that was written.

use std::time::Duration;

use jiff::Timestamp;
use peers::faults::{Answer, Fault};
use peers::servers::MinIo;
use peers::servers::postgres::Cluster;
use tokio::runtime::Runtime;

use crate::cloud::Cloud;
use crate::dice::{Dice, pass, say};
use crate::follower::Follower;
use crate::rounds::rounds;
use crate::scene::{FOLDER, Ledger, project, promised, recipe, restored, rows_in};
use crate::wire::{State, Wire};

/// Between opsctl and the primary: cut, and hanging for longer than the server bears silence.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_to_the_primary_that_fails_costs_nothing_but_time() {
    let test = "a_network_to_the_primary_that_fails_costs_nothing_but_time";
    let mut dice = Dice::new(test);
    let recipe = recipe().setting("wal_sender_timeout", "1s");
    let Some(cluster) = Cluster::start(recipe, test).await else {
        return;
    };
    let wire = Wire::to(cluster.server().address("postgres")).await;
    let sandbox = project(&format!("postgres://postgres@{}/postgres", wire.address), FOLDER);
    let mut follower = Follower::start(&sandbox);
    follower.until("a base backup", |follower| follower.has_told("base_backup"));
    let rows = cluster.numbered(1000).await;
    for round in 0..rounds().div_ceil(2) {
        let state = if round.is_multiple_of(2) {
            State::Cut
        } else {
            State::Hangs
        };
        wire.is_now(state);
        let cut = Timestamp::now();
        let wait = dice.between(Duration::from_millis(100), Duration::from_secs(3));
        tokio::task::block_in_place(|| pass(wait));
        assert!(
            promised(&sandbox).is_some_and(|moment| moment <= cut),
            "{state:?}: nobody can know of now"
        );
        wire.is_now(State::Whole);
        follower.until("the promise", |_| promised(&sandbox) > Some(cut + wait));
    }
    rows.rest().await;
    let stopped = Timestamp::now();
    follower.until("the promise", |_| promised(&sandbox) >= Some(stopped));
    follower.stop();
    let out = sandbox.path("out");
    restored(&sandbox, &out, &[]);
    assert_eq!(rows_in(&out, test).await, rows.last().expect("rows").number);
}

/// Between opsctl and a bucket, whose server is killed as well.
#[test]
fn a_bucket_that_fails_costs_nothing_but_time() {
    let test = "a_bucket_that_fails_costs_nothing_but_time";
    let mut dice = Dice::new(test);
    let Some(mut cloud) = Cloud::start(test) else { return };
    let runtime = Runtime::new().expect("a runtime");
    let Some(cluster) = runtime.block_on(Cluster::start(recipe(), test)) else {
        return;
    };
    let sandbox = project(&cluster.url(), &cloud.keys_of("saved"));
    sandbox.secret("access", MinIo::ACCESS_KEY);
    sandbox.secret("secret", MinIo::SECRET_KEY);
    let following = |follower: &mut Follower, since: Timestamp| {
        follower.until("the promise", |follower| follower.promised() >= Some(since));
    };
    let mut ledger = Ledger::default();
    runtime.block_on(async {
        let mut follower = Follower::start(&sandbox);
        follower.until("a base backup", |follower| follower.has_told("base_backup"));
        for round in 0..rounds().div_ceil(2) {
            let rows = cluster.numbered(1000).await;
            let wait = dice.between(Duration::ZERO, Duration::from_secs(2));
            tokio::task::block_in_place(|| {
                pass(wait);
                match round % 3 {
                    0 => cloud.kill_and_start_again(),
                    1 => {
                        // In the middle of what is sent.
                        cloud.network.strike(usize::MAX, Fault::RequestCut(1000), |request| {
                            request.method == "PUT" && request.path.contains("/wal/")
                        });
                        pass(wait);
                        cloud.network.heal();
                    }
                    _ => {
                        // It was done, and nobody hears of it.
                        cloud
                            .network
                            .strike(20, Fault::AnswerLost, |request| request.method == "PUT");
                        let body = "<Error><Code>XMinioStorageFull</Code><Message>no room</Message></Error>";
                        let full = Fault::Instead(Answer::new(507, "application/xml", body));
                        cloud.network.strike(20, full, |request| request.method == "PUT");
                        pass(wait);
                        cloud.network.heal();
                    }
                }
            });
            rows.rest().await;
            ledger.add(rows.acknowledged(), rows.attempted());
            following(&mut follower, Timestamp::now());
        }
        // Both at once, as on a day on which a building is lost; what was promised comes back.
        let rows = cluster.numbered(1000).await;
        rows.reaches(ledger.attempted + 500).await;
        let promise = follower.promised().expect("a promise");
        follower.kill();
        tokio::task::block_in_place(|| cloud.kill_and_start_again());
        rows.rest().await;
        ledger.add(rows.acknowledged(), rows.attempted());
        let out = sandbox.path("out");
        restored(&sandbox, &out, &[]);
        let (found, owed) = (rows_in(&out, test).await, ledger.acknowledged_by(promise));
        assert!(
            (owed..=ledger.attempted).contains(&found),
            "{owed} were owed, {found} came"
        );
        say(format_args!(
            "{test}: {found} of {} rows, {owed} were promised",
            ledger.attempted
        ));
    });
    drop(cluster);
}
