//! Kills and stops of the processes of a drill and of a canary.

use std::time::{Duration, Instant};

use crate::dice::{Dice, kills};
use crate::lane::{Kind, Lane};
use crate::sandbox::eventually;
use crate::stage::Stage;

/// How many services are drilled at the same time.
const LANES: u64 = 3;

#[expect(clippy::disallowed_methods, reason = "how long a kill takes is printed")]
fn kill_all(test: &str, kind: Kind) {
    let mut dice = Dice::new(test);
    let names = |lane: u64| [format!("s{lane}a"), format!("s{lane}b")].to_vec();
    let services: Vec<String> = (0..LANES).flat_map(names).collect();
    let stage = Stage::up(&services);
    let started = Instant::now();
    let mut unclaimed = Vec::new();
    let mut ended = 0;
    let lanes: Vec<Lane<'_>> = (0..LANES)
        .map(|lane| Lane::new(&stage, kind, names(lane), dice.split()))
        .collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = lanes
            .into_iter()
            .enumerate()
            .map(|(number, mut lane)| {
                let number = number as u64;
                let share = kills() / LANES + u64::from(number < kills() % LANES);
                scope.spawn(move || {
                    lane.work(share);
                    (lane.unclaimed, lane.ended)
                })
            })
            .collect();
        for thread in threads {
            let (runs, late) = thread.join().expect("a lane");
            unclaimed.extend(runs);
            ended += late;
        }
    });
    println!(
        "{test}: {ended} of {} had ended before the kill; {:.2} s for each",
        kills(),
        started.elapsed().as_secs_f64() / kills() as f64
    );
    let deadline = Instant::now() + Duration::from_secs(40);
    for run in unclaimed {
        while !stage.closed(&run) {
            assert!(Instant::now() < deadline, "run {run} is not over");
            stage.sandbox.run(&["recover"]).ended(0);
            crate::dice::pass(Duration::from_millis(100));
        }
    }
    eventually("a healthy platform", || {
        stage.sandbox.run(&["status", "--json"]).json()["healthy"] == true
    });
    stage.sandbox.run(&["recover"]).ended(0).says("nothing to do");
    stage.down();
}

#[test]
fn drill() {
    kill_all("drill", Kind::Drill);
}

#[test]
fn canary() {
    kill_all("canary", Kind::Canary);
}
