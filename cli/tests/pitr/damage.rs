//! What is archived is damaged: every restore over it fails, names it, and leaves nothing that a server starts on. None
//! ends well with fewer rows than its target demands.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use backups::pitr::Datastore;
use backups::pitr::postgres::SystemId;
use backups::pitr::postgres::archive::{Archive, File};
use backups::pitr::postgres::contents::Held;
use backups::store::LocalStore;
use jiff::Timestamp;

use crate::dice::Dice;
use crate::sandbox::{Ran, Sandbox};
use crate::scene::{Scene, archived, at, files, opsctl, restored, rows_in};

/// What a target is, with the words for it.
type Target = (&'static str, Vec<String>);

/// A repository that is damaged, and put right again.
pub struct Patient<'a> {
    sandbox: &'a Sandbox,
    healthy: PathBuf,
    pub archive: Archive,
    pub system: SystemId,
    pub held: Held,
}

impl<'a> Patient<'a> {
    pub async fn new(sandbox: &'a Sandbox) -> Self {
        let healthy = sandbox.path("healthy");
        copy(&sandbox.path("repo"), &healthy);
        let store = Arc::new(LocalStore::new(sandbox.path("repo")));
        let repository = backups::Repository::open(store, "correct horse")
            .await
            .expect("a repository");
        let archive = Archive::new(&repository, Datastore::new("local.pg").expect("a name"));
        let (system, held) = archive
            .list()
            .await
            .expect("it is sound")
            .systems
            .pop_first()
            .expect("a cluster");
        Self {
            sandbox,
            healthy,
            archive,
            system,
            held,
        }
    }

    fn heal(&self) {
        fs::remove_dir_all(self.sandbox.path("repo")).expect("our own folder");
        copy(&self.healthy, &self.sandbox.path("repo"));
        let _ = fs::remove_dir_all(self.sandbox.path("out"));
    }

    fn restore(&self, target: &[String]) -> Ran {
        let target: Vec<&str> = target.iter().map(String::as_str).collect();
        let words = [&["restore", "pg", "--into", "./out", "--json"], &target[..]].concat();
        opsctl(self.sandbox, &words)
    }

    /// It fails with this code, names this (`a|b`: one of them), and leaves nothing that starts.
    #[track_caller]
    fn refused(&self, what: &str, target: &[String], code: i32, names: &[&str]) {
        let ran = self.restore(target);
        assert_eq!(ran.code, code, "{what}, {target:?}:\n{}\n{}", ran.stdout, ran.stderr);
        for name in names {
            assert!(
                name.split('|').any(|name| ran.stderr.contains(name)),
                "{what}, {target:?}: {name} is not named:\n{}",
                ran.stderr
            );
        }
        let out = self.sandbox.path("out");
        let starts = out.join("global/pg_control").exists() && !out.join("recovery.signal").exists();
        assert!(!starts, "{what}, {target:?}: a server would start on what was left");
        self.heal();
    }

    /// The name of a file of the log.
    fn name(&self, file: &File) -> String {
        file.name(self.held.segment_size)
    }

    /// The object of a file.
    fn object(&self, file: &File) -> PathBuf {
        archived(self.sandbox)[&self.name(file)].clone()
    }

    pub async fn content(&self, file: &File) -> Vec<u8> {
        let content = self.archive.get(self.system, file, self.held.segment_size).await;
        content.expect("it is sound").to_vec()
    }

    /// Another content under the same name, sealed as any other.
    async fn replace(&self, file: &File, content: Vec<u8>) {
        let (system, size) = (self.system, self.held.segment_size);
        self.archive.remove(system, file, size).await.expect("it goes");
        self.archive
            .put(system, *file, size, content.into())
            .await
            .expect("it is there");
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.expect("cp starts").success());
}

/// Rewrites a file that is read-only.
fn rewrite(path: &std::path::Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("our own file");
    change(&mut bytes);
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("our own file");
    fs::write(path, bytes).expect("our own file");
}

/// Several segments with rows in each, all of them promised; the follower is ended. Returns the moment of the last row.
async fn write_segments(scene: &mut Scene) -> Timestamp {
    let rows = scene.cluster.numbered(1000).await;
    for segment in 1..=6 {
        rows.reaches(scene.ledger.attempted + segment * 40).await;
        scene.cluster.switch_wal().await;
    }
    let last = rows.reaches(rows.attempted() + 40).await;
    rows.rest().await;
    scene.ledger.add(rows.acknowledged(), rows.attempted());
    scene.until_promised(Timestamp::now());
    if let Some(follower) = scene.follower.take() {
        follower.stop();
    }
    at(&last)
}

/// What is done to the bytes of a file.
type Mangle = Box<dyn Fn(&mut Vec<u8>)>;

#[tokio::test(flavor = "multi_thread")]
async fn damaged_log_is_named_and_never_the_end() {
    let test = "damaged_log_is_named_and_never_the_end";
    let Some(mut scene) = Scene::start(test).await else {
        return;
    };
    let moment = write_segments(&mut scene).await;
    let patient = Patient::new(&scene.sandbox).await;
    let size = patient.held.segment_size;
    let whole: Vec<File> = patient.held.segments.iter().copied().map(File::Segment).collect();
    let victim = whole[whole.len() - 3];
    let neighbour = whole[whole.len() - 2];
    let (segment, until) = patient
        .held
        .partials
        .iter()
        .next_back()
        .expect("the beginning of the last");
    let last = File::Partial {
        segment: *segment,
        until: *until,
    };
    let targets: [Target; 3] = [
        ("time", vec!["--at".to_owned(), moment.to_string()]),
        ("latest", Vec::new()),
        (
            "position",
            vec![
                "--lsn".to_owned(),
                segment
                    .start(size)
                    .plus(until.since(segment.start(size)) / 2)
                    .to_string(),
            ],
        ),
    ];
    let soak = std::env::var_os("OPSCTL_ROUNDS").is_some();
    let mut turn = Dice::new(test).next() as usize;
    // Each with one target, in a soak with every one.
    let mut targets = || {
        turn += 1;
        if soak {
            targets.to_vec()
        } else {
            vec![targets[turn % 3].clone()]
        }
    };

    // What lies in the store.
    type Change = (&'static str, i32, fn(&mut Vec<u8>));
    let changes: [Change; 4] = [
        ("truncated", 1, |bytes| bytes.truncate(bytes.len() / 2)),
        ("empty", 1, Vec::clear),
        ("flipped", 1, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }),
        ("longer", 1, |bytes| bytes.push(0)),
    ];
    for file in [victim, last] {
        for (what, code, change) in changes {
            for (_, target) in targets() {
                rewrite(&patient.object(&file), change);
                patient.refused(what, &target, code, &[&patient.name(&file)]);
            }
        }
    }
    for (_, target) in targets() {
        fs::remove_file(patient.object(&victim)).expect("our own file");
        patient.refused("removed", &target, 1, &[&patient.name(&victim)]);
    }
    for (_, target) in targets() {
        let theirs = fs::read(patient.object(&neighbour)).expect("our own file");
        rewrite(&patient.object(&victim), |bytes| *bytes = theirs);
        patient.refused("another one's object", &target, 1, &[&patient.name(&victim)]);
    }

    // What is sealed as it should be, and no log, or not this one.
    let other = patient.content(&neighbour).await;
    let changes: [(&str, Mangle); 6] = [
        ("a record", Box::new(|bytes| bytes[300] ^= 0x10)),
        ("zeros", Box::new(|bytes| bytes[200..].fill(0))),
        ("foreign cluster", Box::new(|bytes| bytes[24] ^= 1)),
        ("wrong timeline", Box::new(|bytes| bytes[4] = 7)),
        ("wrong position", Box::new(|bytes| bytes[10] ^= 1)),
        ("another one's content", Box::new(move |bytes| bytes.clone_from(&other))),
    ];
    for (what, change) in &changes {
        for (_, target) in targets() {
            let mut content = patient.content(&victim).await;
            change(&mut content);
            patient.replace(&victim, content).await;
            patient.refused(what, &target, 1, &[&patient.name(&victim)]);
        }
    }
    // And the last one, of which a part is there.
    for (what, change) in &changes[..5] {
        for (_, target) in targets() {
            let mut content = patient.content(&last).await;
            change(&mut content);
            patient.replace(&last, content).await;
            patient.refused(what, &target, 1, &[&segment.file_name(size)]);
        }
    }

    // What is damaged does not get there by the server's own hand.
    fs::create_dir(patient.sandbox.path("pg_wal")).expect("our own folder");
    let path = patient.sandbox.path("pg_wal").join(patient.name(&victim));
    let content = patient.content(&victim).await;
    let push = ["wal", "push", "pg", &path.display().to_string()];
    fs::write(&path, &content).expect("our own file");
    opsctl(patient.sandbox, &push).ended(0);
    for (what, change) in &changes {
        let mut content = content.clone();
        change(&mut content);
        fs::write(&path, content).expect("our own file");
        let ran = opsctl(patient.sandbox, &push);
        let code = if *what == "foreign cluster" { 2 } else { 1 };
        assert_eq!(ran.code, code, "{what}: {}", ran.stderr);
        assert!(ran.stderr.contains(&patient.name(&victim)), "{what}: {}", ran.stderr);
    }

    // Nothing was wrong with the targets.
    for (_, target) in targets() {
        patient.restore(&target).ended(0);
        let found = rows_in(&patient.sandbox.path("out"), test).await;
        assert!(found > scene.ledger.last() - 60, "{found} of {}", scene.ledger.last());
        patient.heal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_of_a_base_backup_is_named_and_leaves_no_cluster() {
    let test = "damage_of_a_base_backup_is_named_and_leaves_no_cluster";
    let Some(mut scene) = Scene::start(test).await else {
        return;
    };
    write_segments(&mut scene).await;
    let patient = Patient::new(&scene.sandbox).await;
    let largest = |folder: &str| {
        let packs = files(&scene.sandbox.path(folder)).into_iter();
        packs
            .max_by_key(|pack| fs::metadata(pack).map_or(0, |file| file.len()))
            .expect("a pack")
    };
    // The largest holds content, not folders.
    fs::remove_file(largest("repo/data")).expect("our own file");
    patient.refused("removed", &[], 1, &["pack file|data blob|were not restored"]);
    rewrite(&largest("repo/data"), |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    patient.refused("flipped", &[], 1, &["pack file|data blob|were not restored"]);
    rewrite(&largest("repo/data"), |bytes| bytes.truncate(bytes.len() / 2));
    patient.refused("truncated", &[], 1, &["pack file|data blob|were not restored"]);
    rewrite(&largest("repo/index"), |bytes| bytes[40] ^= 1);
    patient.refused("index", &[], 1, &["index"]);
    rewrite(&largest("repo/snapshots"), |bytes| bytes[40] ^= 1);
    let ran = patient.restore(&[]);
    assert_ne!(ran.code, 0, "a snapshot that cannot be read: {}", ran.stderr);
    assert!(!scene.sandbox.path("out").exists());
    patient.heal();
    patient.restore(&[]).ended(0);
    assert_eq!(rows_in(&scene.sandbox.path("out"), test).await, scene.ledger.last());
}

/// After a restore the log goes on with another timeline: which one is wanted is never guessed.
#[tokio::test(flavor = "multi_thread")]
async fn what_leads_to_no_timeline_is_said() {
    let test = "what_leads_to_no_timeline_is_said";
    let Some(mut scene) = Scene::start(test).await else {
        return;
    };
    write_segments(&mut scene).await;
    let first = scene.ledger.last();
    scene.cluster.wipe();
    restored(&scene.sandbox, scene.cluster.data(), &[]);
    scene.cluster.start_again().await;
    write_segments(&mut scene).await;
    let patient = Patient::new(&scene.sandbox).await;
    let exactly = |timeline: &str| ["--timeline".to_owned(), timeline.to_owned()];
    patient.refused("unknown", &exactly("7"), 2, &["timeline 7"]);
    let history = archived(&scene.sandbox)["00000002.history"].clone();
    fs::remove_file(&history).expect("our own file");
    patient.refused("no history", &[], 1, &["the history of timeline 2"]);
    patient.refused(
        "no such timeline",
        &["--timeline".to_owned(), "7".to_owned()],
        2,
        &["nothing of timeline 7"],
    );
    rewrite(&history, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    patient.refused("damaged history", &[], 1, &["00000002.history"]);
    // The segment in which the first timeline was left lies on both: the object of one is not that of the other.
    let on = |timeline: u32| {
        patient
            .held
            .segments
            .iter()
            .filter(move |segment| segment.timeline.0 == timeline)
    };
    let victim = File::Segment(*on(2).next().expect("a segment of timeline 2"));
    let old = File::Segment(*on(1).next_back().expect("a segment of timeline 1"));
    fs::copy(patient.object(&old), scene.sandbox.path("old")).expect("our own file");
    rewrite(&patient.object(&victim), |bytes| {
        *bytes = fs::read(scene.sandbox.path("old")).expect("our own file");
    });
    patient.refused("the other timeline's", &[], 1, &[&patient.name(&victim)]);

    restored(&scene.sandbox, &scene.sandbox.path("out"), &["--timeline", "1"]);
    assert_eq!(rows_in(&scene.sandbox.path("out"), test).await, first);
    patient.heal();
    restored(&scene.sandbox, &scene.sandbox.path("out"), &[]);
    assert_eq!(rows_in(&scene.sandbox.path("out"), test).await, scene.ledger.last());
}
