//! Kills of what changes a repository beyond adding a snapshot: forget, prune, copy, repair and new passwords. Between
//! two kills a snapshot is made; whatever was acknowledged and not given up restores byte for byte, in both repositories.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::dice::{Dice, kill_after, say};
use crate::place::Place;
use crate::sandbox::{Sandbox, content};
use crate::stores::{measured, spawn};

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Job {
    Forget,
    Prune,
    Copy,
    Repair,
    Rotate,
}

impl Job {
    const ALL: [Self; 5] = [Self::Forget, Self::Prune, Self::Copy, Self::Repair, Self::Rotate];

    fn words(self) -> &'static [&'static str] {
        match self {
            Self::Forget => &["repository", "forget", "--keep-last", "4", "--yes"],
            // Nobody else writes: without a grace there is more to delete.
            Self::Prune => &["repository", "prune", "--grace", "0s", "--max-unused", "0", "--yes"],
            Self::Copy => &["repository", "copy", "--to", "offsite"],
            Self::Repair => &["repository", "repair", "--from", "offsite", "--yes"],
            Self::Rotate => &[
                "repository",
                "key",
                "rotate",
                "--new-password-file",
                "next-password",
                "--yes",
            ],
        }
    }
}

/// A project with two repositories, and what has to come back.
struct Keeper<'a> {
    place: &'a Place,
    sandbox: Sandbox,
    dice: Dice,
    /// Snapshots that were acknowledged, with what they hold.
    acknowledged: BTreeMap<String, BTreeMap<PathBuf, Vec<u8>>>,
    /// The password of `repo`.
    password: String,
    /// How long a job takes that nobody kills.
    times: BTreeMap<Job, Duration>,
}

impl<'a> Keeper<'a> {
    fn new(place: &'a Place, test: &str) -> Self {
        let sandbox = place.sandbox();
        let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("the file");
        let offsite = place.keys_of("offsite");
        let offsite = format!("[repository.offsite]\n{offsite}\npassword = {{ file = \"offsite-password\" }}\n");
        sandbox.write("opsctl.toml", &format!("{text}{offsite}"));
        sandbox.secret("offsite-password", "battery staple");
        Self {
            place,
            sandbox,
            dice: Dice::new(test),
            acknowledged: BTreeMap::new(),
            password: "correct horse".to_owned(),
            times: BTreeMap::new(),
        }
    }

    /// Changes some of the files and saves them.
    fn back_up(&mut self) {
        let uploads = self.sandbox.path("data/uploads");
        for _ in 0..3 {
            let name = format!("{}.bin", self.dice.next() % 8);
            let bytes: Vec<u8> = (0..40_000).flat_map(|_| self.dice.next().to_le_bytes()).collect();
            fs::write(uploads.join(name), bytes).expect("our own file");
        }
        let saved = self.sandbox.run(&["backup", "files", "--json"]).ended(0).json();
        let id = saved["datastores"][0]["snapshot"]
            .as_str()
            .expect("a snapshot")
            .to_owned();
        self.acknowledged.insert(id, content(&uploads));
    }

    /// What a job needs to have something to do.
    fn prepare(&mut self, job: Job) {
        match job {
            Job::Repair => {
                self.sandbox.run(Job::Copy.words()).ended(0);
                self.place.damage(&self.sandbox, "repo", &mut self.dice);
            }
            Job::Rotate => {
                let next = format!("password {}", self.dice.next());
                self.sandbox.secret("next-password", &next);
            }
            Job::Forget | Job::Prune | Job::Copy => {}
        }
    }

    fn start(&self, job: Job) -> Command {
        self.sandbox.command(job.words())
    }

    /// Brings the project to where it can go on, as a person would.
    fn settle(&mut self, job: Job) {
        match job {
            // The same command does the rest.
            Job::Repair => drop(self.sandbox.run(job.words()).ended(0)),
            Job::Rotate => {
                // One of the two passwords opens it, whenever the kill came.
                let next = fs::read_to_string(self.sandbox.path("next-password")).expect("our own file");
                let listed = self.sandbox.run(&["repository", "key", "list"]);
                let old_works = listed.code == 0;
                if !old_works {
                    listed.ended(2);
                    self.sandbox.secret("password", &next);
                    self.sandbox.run(&["repository", "key", "list"]).ended(0);
                    self.password = next;
                }
            }
            Job::Forget | Job::Prune | Job::Copy => {}
        }
        if job == Job::Forget {
            let listed = self.listed("here");
            self.acknowledged.retain(|id, _| listed.contains(id));
            assert!(
                self.acknowledged.len() >= 4.min(listed.len()),
                "what the policy keeps stays"
            );
        }
    }

    fn listed(&self, repository: &str) -> Vec<String> {
        let listed = self
            .sandbox
            .run(&["snapshot", "list", "--repository", repository, "--json"])
            .ended(0)
            .json();
        let snapshots = listed["snapshots"].as_array().expect("a list");
        snapshots
            .iter()
            .map(|snapshot| snapshot["snapshot"].as_str().expect("an id").to_owned())
            .collect()
    }

    /// What was acknowledged is there, and restores.
    fn prove(&self, told: &str) {
        let listed = self.listed("here");
        for (number, (id, expected)) in self.acknowledged.iter().enumerate() {
            assert!(listed.contains(id), "{told}: snapshot {id} is gone");
            // The latest, and a part of the others.
            if number + 1 == self.acknowledged.len() || number % 3 == 0 {
                let into = "proved";
                self.sandbox
                    .run(&["restore", "files", "--snapshot", id, "--into", into])
                    .ended(0);
                assert!(
                    content(&self.sandbox.path(into).join("uploads")) == *expected,
                    "{told}: snapshot {id}"
                );
                fs::remove_dir_all(self.sandbox.path(into)).expect("our own folder");
            }
        }
    }
}

#[test]
fn repository() {
    repository_at(&Place::folders(), "repository");
}

#[test]
fn repository_in_a_bucket() {
    let test = "repository_in_a_bucket";
    if let Some(place) = Place::bucket(test) {
        repository_at(&place, test);
    }
}

fn repository_at(place: &Place, test: &str) {
    let mut keeper = Keeper::new(place, test);
    for _ in 0..6 {
        keeper.back_up();
    }
    for job in Job::ALL {
        keeper.prepare(job);
        let mut command = keeper.start(job);
        let took = measured(|| assert!(command.output().expect("opsctl starts").status.success(), "{job:?}"));
        keeper.times.insert(job, took);
        if job == Job::Rotate {
            keeper.password = fs::read_to_string(keeper.sandbox.path("next-password")).expect("our own file");
            keeper.sandbox.secret("password", &keeper.password.clone());
        }
        keeper.settle(job);
    }
    let mut ended = 0;
    for kill in 0..place.kills() {
        keeper.back_up();
        let job = keeper.dice.one(&Job::ALL);
        keeper.prepare(job);
        let instant = keeper.dice.between(Duration::ZERO, keeper.times[&job].mul_f64(1.1));
        let told = format!("kill {kill}, {job:?} after {} ms", instant.as_millis());
        ended += u64::from(kill_after(&mut spawn(keeper.start(job)), instant));
        keeper.settle(job);
        keeper.prove(&told);
        keeper.sandbox.run(&["repository", "check", "--read-data"]).ended(0);
    }
    say(format_args!(
        "{test}: {ended} of {} had ended before the kill",
        place.kills()
    ));
    keeper.sandbox.run(Job::Prune.words()).ended(0);
    keeper.sandbox.run(Job::Copy.words()).ended(0);
    place.judged_by_restic(&keeper.sandbox, "repo", &keeper.password, test);
    place.judged_by_restic(&keeper.sandbox, "offsite", "battery staple", test);
    let here = keeper.listed("here").len();
    assert!(keeper.listed("offsite").len() >= here, "everything is there twice");
}
