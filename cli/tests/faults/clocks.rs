//! A store whose clock is an hour ahead of ours, or behind: whatever it says of time is changed on the way.

use std::fs;
use std::process::Stdio;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use peers::faults::{Answer, Fault};

use crate::cloud::Cloud;
use crate::machines::Machine;
use crate::sandbox::{Ran, content, eventually};
use crate::truth::{code_of, declare, mortal, noise, saved, snapshots};

/// The times in an answer, moved.
fn moved(answer: Answer, by: SignedDuration) -> Answer {
    let mut answer = answer;
    for name in ["date", "last-modified"] {
        let told = answer
            .headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone());
        if let Some(time) = told.and_then(|told| jiff::fmt::rfc2822::parse(&told).ok()) {
            let time = time.timestamp() + by;
            answer = answer.header(name, &time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
        }
    }
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    if !text.contains("<LastModified>") {
        return answer;
    }
    let mut parts = text.split("<LastModified>");
    let mut body = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (time, rest) = part.split_once('<').expect("it ends");
        let time: Timestamp = time.parse().expect("a time");
        body.extend(["<LastModified>", &format!("{:.3}", time + by), "<", rest]);
    }
    answer.body = body.into_bytes();
    answer
}

#[test]
fn an_hour_between_the_clocks_costs_no_lock_and_no_snapshot() {
    let test = "an_hour_between_the_clocks_costs_no_lock_and_no_snapshot";
    let Some(cloud) = Cloud::start(test) else { return };
    for (shared, hours) in [("ahead", 1), ("behind", -1)] {
        let machine = |name| Machine::new(name, cloud.sandbox(shared), test);
        let (Some(first), Some(second)) = (machine("north"), machine("south")) else {
            return;
        };
        let by = SignedDuration::from_hours(hours);
        cloud.network.strike(
            usize::MAX,
            Fault::Edited(Arc::new(move |answer| moved(answer, by))),
            |_| true,
        );
        // A backup that stands in the middle, and holds its lock.
        declare(
            &first.sandbox,
            "[datastore.dump]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", \"echo begun; cat pipe\"]\n",
        );
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let pipe = first.sandbox.path("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
        let uploads = second.sandbox.path("data/uploads");
        let mut seen = Vec::new();
        for round in 0..3 {
            fs::write(uploads.join("own"), noise(round, 100_000)).expect("our own file");
            seen.push(saved(second.run(&["backup", "south", "--json"])));
        }
        let mut dump = mortal(&first.command(&["backup", "dump", "--json"]));
        let dump = dump
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("opsctl starts");
        eventually("the lock of the backup", || !cloud.objects(shared, "locks/").is_empty());
        let lock = cloud.objects(shared, "locks/");

        // The other machine takes it for alive, by whatever way.
        let prune = ["repository", "prune", "--grace", "0s", "--yes", "--json"];
        let ran = second.run(&prune).ended(8).says("north");
        assert_eq!(code_of(&ran), "repository_locked");
        let unlock = second.run(&["repository", "unlock", "--json"]).ended(0).json();
        assert_eq!(unlock["locks"][0]["state"], "alive", "{unlock}");
        assert_eq!(cloud.objects(shared, "locks/"), lock);
        fs::write(&pipe, "the end\n").expect("somebody reads");
        let dumped = saved(Ran::of(dump.wait_with_output().expect("our own child")));
        assert_eq!(cloud.objects(shared, "locks/"), [""; 0]);

        // What is deleted for its age waits until the clocks agree.
        let refused = second.run(&prune).ended(5);
        assert_eq!(code_of(&refused), "clock_skew");
        assert!(refused.stderr.contains("set the clock"), "{}", refused.stderr);
        // Snapshots are no older than the store says: half an hour keeps those of just now.
        let forget = [
            "repository",
            "forget",
            "--target",
            "south",
            "--keep-within",
            "30m",
            "--yes",
            "--json",
        ];
        let forgotten = second.run(&forget).ended(0).json();
        assert_eq!(forgotten["removed"], serde_json::json!([]), "{hours}: {forgotten:#}");
        let all = snapshots(second.run(&["snapshot", "list", "--json"]));
        assert!(seen.iter().chain([&dumped]).all(|id| all.contains(id)), "{all:?}");
        second.run(&["restore", "south", "--into", "back"]).ended(0);
        assert!(content(&second.sandbox.path("back/uploads")) == content(&uploads));
        cloud.judged_by_restic(shared, test);

        // They agree again.
        cloud.network.heal();
        second.run(&prune).ended(0);
        second.run(&["repository", "check", "--read-data"]).ended(0);
    }
}
