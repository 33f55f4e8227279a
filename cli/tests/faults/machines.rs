//! Two machines that write into one repository while one of them also forgets and prunes. They have names of their own, as
//! machines have; without the right to give them the tests are skipped.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cloud::Cloud;
use crate::sandbox::{Ran, Sandbox, content};
use crate::truth::{judged_by_restic, noise, snapshots, wrapped};

/// How often each machine saves.
const ROUNDS: u64 = 4;

/// A machine: a name, and a project with its own configuration and state.
pub struct Machine {
    pub sandbox: Sandbox,
    name: &'static str,
}

impl Machine {
    /// A machine whose datastore has its name; `test` is said to be skipped where machines get no names.
    pub fn new(name: &'static str, sandbox: Sandbox, test: &str) -> Option<Self> {
        let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("our own file");
        sandbox.write(
            "opsctl.toml",
            &text.replace("[datastore.files]", &format!("[datastore.{name}]")),
        );
        let machine = Self { sandbox, name };
        let named = machine.named(&Command::new("true")).status();
        if !named.is_ok_and(|status| status.success()) {
            peers::skip(test, "a process cannot have a host name of its own here");
            return None;
        }
        Some(machine)
    }

    /// `opsctl` on this machine.
    pub fn command(&self, args: &[&str]) -> Command {
        self.named(&self.sandbox.command(args))
    }

    fn named(&self, inner: &Command) -> Command {
        let mut outer = Command::new("unshare");
        outer.args(["--uts", "sh", "-c", "hostname \"$0\" && exec \"$@\"", self.name]);
        wrapped(outer, inner)
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().expect("opsctl starts"))
    }

    /// Saves until it was done often enough; what was acknowledged, with what it holds, oldest first. Others may be in the way.
    fn write(&self, seed: u64) -> Vec<(String, BTreeMap<PathBuf, Vec<u8>>)> {
        let uploads = self.sandbox.path("data/uploads");
        let mut acknowledged = Vec::new();
        while (acknowledged.len() as u64) < ROUNDS {
            let round = acknowledged.len() as u64;
            // What both have, and what comes back after nothing needed it.
            fs::write(uploads.join("shared"), noise(round % 2, 300_000)).expect("our own file");
            fs::write(uploads.join("own"), noise(seed + round, 200_000)).expect("our own file");
            let ran = self.run(&["backup", self.name, "--json"]);
            match ran.code {
                0 => {
                    let id = ran.json()["datastores"][0]["snapshot"]
                        .as_str()
                        .expect("an id")
                        .to_owned();
                    acknowledged.push((id, content(&uploads)));
                }
                // Somebody prunes.
                8 => {
                    ran.says("is locked");
                }
                _ => drop(ran.ended(0)),
            }
        }
        acknowledged
    }
}

fn write_beside_a_prune(first: &Machine, second: &Machine) {
    let writing = AtomicUsize::new(2);
    first.run(&["repository", "init"]).ended(0);
    let (one, two) = std::thread::scope(|scope| {
        let write = |machine: &Machine, seed| {
            let acknowledged = machine.write(seed);
            writing.fetch_sub(1, Ordering::Relaxed);
            acknowledged
        };
        let one = scope.spawn(move || write(first, 100));
        let two = scope.spawn(move || write(second, 200));
        let mut pruned = 0;
        while writing.load(Ordering::Relaxed) > 0 || pruned == 0 {
            for words in [
                &["repository", "forget", "--keep-last", "2", "--yes"][..],
                &["repository", "prune", "--grace", "1s", "--max-unused", "0", "--yes"],
            ] {
                let ran = second.run(words);
                match ran.code {
                    0 => pruned += usize::from(words[1] == "prune"),
                    8 => drop(ran.says("is locked")),
                    _ => drop(ran.ended(0)),
                }
            }
        }
        (one.join().expect("it wrote"), two.join().expect("it wrote"))
    });
    for (machine, acknowledged) in [(first, one), (second, two)] {
        let listed = snapshots(machine.run(&["snapshot", "list", machine.name, "--json"]));
        for (id, expected) in acknowledged.iter().rev().take(2) {
            assert!(listed.contains(id), "{}: snapshot {id} is gone", machine.name);
            machine
                .run(&["restore", machine.name, "--snapshot", id, "--into", "back"])
                .ended(0);
            assert!(content(&machine.sandbox.path("back/uploads")) == *expected, "{id}");
            fs::remove_dir_all(machine.sandbox.path("back")).expect("our own folder");
        }
        // A snapshot exists only if it restores.
        for id in &listed {
            let known = acknowledged.iter().any(|(known, _)| known == id);
            assert!(known, "{}: nobody was told of snapshot {id}", machine.name);
        }
        machine.run(&["repository", "check", "--read-data"]).ended(0);
    }
}

#[test]
fn two_machines_write_into_a_folder_that_one_of_them_prunes() {
    let test = "two_machines_write_into_a_folder_that_one_of_them_prunes";
    let shared = tempfile::tempdir().expect("a folder");
    let repo = shared.path().join("repo");
    let machine = |name| {
        let sandbox = Sandbox::with_stores();
        let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("our own file");
        sandbox.write(
            "opsctl.toml",
            &text.replace("file:repo", &format!("file:{}", repo.display())),
        );
        Machine::new(name, sandbox, test)
    };
    let (Some(first), Some(second)) = (machine("north"), machine("south")) else {
        return;
    };
    write_beside_a_prune(&first, &second);
    assert_eq!(content(&repo.join("locks")).len(), 0);
    judged_by_restic(&repo.display().to_string(), &[], test);
}

#[test]
fn two_machines_write_into_a_bucket_that_one_of_them_prunes() {
    let test = "two_machines_write_into_a_bucket_that_one_of_them_prunes";
    let Some(cloud) = Cloud::start(test) else { return };
    let machine = |name| Machine::new(name, cloud.sandbox("shared"), test);
    let (Some(first), Some(second)) = (machine("north"), machine("south")) else {
        return;
    };
    write_beside_a_prune(&first, &second);
    assert_eq!(cloud.objects("shared", "locks/"), [""; 0]);
    cloud.judged_by_restic("shared", test);
}
