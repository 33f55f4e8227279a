//! The primary is killed with its disk at any instant, while somebody commits a thousand numbered rows a second; then the
//! latest state is restored, and becomes the next primary. Exactly a prefix of the commits is there, and all that was
//! acknowledged by the moment that opsctl had promised just then.

use std::process::Child;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinHandle;

use crate::dice::{Dice, pass, say};
use crate::follower::{Follower, deadline};
use crate::scene::{Scene, at, opsctl, promised, restored, rows_in, start};

/// One cluster is lost so often, and each time goes on from what was restored; then another one is made.
const CHAIN: u64 = 10;

/// What the primary was doing when it was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instant {
    /// Nothing but the rows.
    Writing,
    /// Nothing at all.
    Idle,
    /// Many rows are in a transaction that nobody commits.
    Transaction,
    /// One segment of the log after another is ended.
    Switch,
    /// Checkpoints, after many pages were changed.
    Checkpoint,
    /// A base backup is taken.
    Backup,
    /// It has only just become the primary; perhaps nothing of its timeline is archived.
    AtOnce,
}

impl Instant {
    const EVERY: [Self; 7] = [
        Self::Writing,
        Self::Backup,
        Self::Switch,
        Self::Transaction,
        Self::Checkpoint,
        Self::Idle,
        Self::AtOnce,
    ];
}

/// What becomes of the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It goes on, and comes to the restored primary by itself.
    Stays,
    /// It was on the same machine.
    DiesToo,
    /// Somebody ends it before the restore.
    Ends,
}

impl Fate {
    const EVERY: [Self; 3] = [Self::Stays, Self::DiesToo, Self::Ends];
}

/// What is beside the writer of rows.
enum Beside {
    Nothing,
    Sql(JoinHandle<()>),
    Backup(Child),
}

impl Beside {
    async fn start(scene: &Scene, instant: Instant) -> Self {
        // Ends when the server does.
        let script: &[&str] = match instant {
            Instant::Transaction => &[
                "create table if not exists never (n int, text text)",
                "begin; insert into never select n, repeat('x', 100) from generate_series(1, 3000) n",
                "insert into never select n, repeat('y', 100) from generate_series(1, 200000) n",
                "select pg_sleep(600)",
            ],
            Instant::Switch => &[
                "create table if not exists switches (n int)",
                "do $$ begin for n in 1..1000 loop insert into switches values (n); commit; perform pg_switch_wal(); \
                 perform pg_sleep(0.03); end loop; end $$",
            ],
            Instant::Checkpoint => &[
                "create table if not exists pages as select n, repeat('x', 500) as text from generate_series(1, 5000) n",
                "update pages set n = n + 1; checkpoint",
                "update pages set n = n + 1; checkpoint",
                "update pages set n = n + 1; checkpoint",
                "update pages set n = n + 1; checkpoint",
                "update pages set n = n + 1; checkpoint",
            ],
            Instant::Backup => {
                return Self::Backup(start(&scene.sandbox, &["backup", "pg", "--json"]));
            }
            Instant::Writing | Instant::Idle | Instant::AtOnce => return Self::Nothing,
        };
        let client = scene.cluster.connect().await.expect("the server is there");
        Self::Sql(tokio::spawn(async move {
            for sql in script {
                if client.batch_execute(sql).await.is_err() {
                    return;
                }
            }
        }))
    }

    /// Its end, after that of the server. A backup may have come to its end before; or it waits for log that nobody has.
    async fn end(self) -> Option<i32> {
        match self {
            Self::Nothing => None,
            Self::Sql(task) => {
                task.await.expect("it ends with the server");
                None
            }
            Self::Backup(mut child) => tokio::task::block_in_place(|| {
                let pid = rustix::process::Pid::from_child(&child);
                let (late, mut told) = (deadline(), false);
                pass(Duration::from_millis(500));
                loop {
                    if let Some(status) = child.try_wait().expect("our own child") {
                        return Some(status.code().unwrap_or(-1));
                    }
                    if !told {
                        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                        told = true;
                    }
                    assert!(!late(), "the backup does not end");
                    pass(Duration::from_millis(20));
                }
            }),
        }
    }
}

/// What the rounds came to.
#[derive(Default)]
struct Figures {
    rounds: u64,
    lost: u64,
    most_lost: u64,
    least_rpo: Option<SignedDuration>,
    most_rpo: Option<SignedDuration>,
    bases: u64,
}

impl Figures {
    fn note(&mut self, lost: u64, rpo: SignedDuration) {
        self.rounds += 1;
        self.lost += lost;
        self.most_lost = self.most_lost.max(lost);
        self.least_rpo = Some(self.least_rpo.map_or(rpo, |least| least.min(rpo)));
        self.most_rpo = self.most_rpo.max(Some(rpo));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_lost_with_its_disk_costs_no_more_than_was_said() {
    let test = "a_primary_that_is_lost_with_its_disk_costs_no_more_than_was_said";
    let mut dice = Dice::new(test);
    let rounds = rounds();
    let mut figures = Figures::default();
    let mut scene: Option<Scene> = None;
    // Each in turn, however few rounds there are.
    let turn = dice.next();
    for round in 0..rounds {
        let chained = match scene.take() {
            Some(scene) if !round.is_multiple_of(CHAIN) => Some(scene),
            _ => Scene::start(test).await,
        };
        let Some(mut now) = chained else { return };
        let instant = Instant::EVERY[((turn + round) % Instant::EVERY.len() as u64) as usize];
        let fate = dice.one(&Fate::EVERY);
        let told = format!("round {round}, {instant:?}, the receiver {fate:?}");
        lose(&mut now, instant, fate, &mut dice, &mut figures, &told).await;
        if dice.next().is_multiple_of(3) {
            a_moment_before(&now, &mut dice, &told, test).await;
        }
        scene = Some(now);
    }
    let ms = |span: Option<SignedDuration>| span.map_or(0, |span| span.as_millis());
    say(format_args!(
        "{test}: {} rounds; {} rows lost, {} at most in one; the RPO was said to be {} to {} ms; {} base backups were made at \
         the instant",
        figures.rounds,
        figures.lost,
        figures.most_lost,
        ms(figures.least_rpo),
        ms(figures.most_rpo),
        figures.bases,
    ));
}

/// How many rounds of each kind there are.
pub fn rounds() -> u64 {
    let rounds = std::env::var("OPSCTL_ROUNDS").ok();
    rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or(5)
}

async fn lose(scene: &mut Scene, instant: Instant, fate: Fate, dice: &mut Dice, figures: &mut Figures, told: &str) {
    // What was there once is archived.
    let before = scene.ledger.attempted;
    let rows = scene.cluster.numbered(1000).await;
    let first = rows.reaches(scene.ledger.attempted + 20).await;
    if instant == Instant::AtOnce {
        let sandbox = &scene.sandbox;
        scene.follower.get_or_insert_with(|| Follower::start(sandbox));
    } else {
        // It is received from this primary.
        scene.until_promised(at(&first));
    }
    let by_itself = |scene: &Scene| scene.follower.as_ref().map_or(0, Follower::bases);
    let bases = snapshots(scene) - by_itself(scene);
    let beside = Beside::start(scene, instant).await;
    // Some backups come to their end, and some do not.
    let longest = if instant == Instant::Backup { 4000 } else { 1200 };
    let wait = dice.between(Duration::ZERO, Duration::from_millis(longest));
    tokio::task::block_in_place(|| pass(wait));
    if instant == Instant::Idle {
        rows.rest().await;
        let wait = dice.between(Duration::ZERO, Duration::from_millis(2500));
        tokio::task::block_in_place(|| pass(wait));
    }
    let by_itself = by_itself(scene);

    let follower = scene.follower.as_mut().expect("it follows");
    let promise = promised(&scene.sandbox)
        .max(follower.promised())
        .expect("a base backup is there");
    let (killed, heard) = (Timestamp::now(), follower.events().len());
    if fate == Fate::DiesToo {
        follower.kill();
    }
    scene.cluster.wipe();
    rows.fails().await;
    scene.ledger.add(rows.acknowledged(), rows.attempted());
    let taken = beside.end().await;
    match (fate, scene.follower.take()) {
        (Fate::Stays, Some(mut follower)) => {
            follower.has_given_up(heard);
            scene.follower = Some(follower);
        }
        (Fate::Ends, Some(follower)) => follower.stop(),
        _ => {}
    }

    let document = restored(&scene.sandbox, scene.cluster.data(), &[]);
    let reached: Timestamp = document["reached"]
        .as_str()
        .and_then(|time| time.parse().ok())
        .expect("a moment");
    assert!(reached >= promise, "{told}: {promise} was promised: {document}");
    scene.cluster.start_again().await;
    let found = scene.cluster.numbered_rows().await;
    let (last, owed) = (scene.ledger.last(), scene.ledger.acknowledged_by(promise));
    assert!(found <= scene.ledger.attempted, "{told}: row {found} was never sent");
    assert!(
        found >= owed,
        "{told}: row {owed} was acknowledged before {promise}, and {found} is the last"
    );
    assert!(found >= before, "{told}: {found} rows, and {before} were there before");
    let never = scene.cluster.run("select to_regclass('never')").await;
    if !never.is_empty() {
        let never = scene.cluster.run("select count(*) from never").await;
        assert_eq!(never, "0", "{told}: of a transaction that nobody committed");
    }
    if let Some(code) = taken {
        let more = snapshots(scene) - by_itself - bases;
        // One that was taken says so, and one that was not does not.
        assert_eq!(
            code == 0,
            more == 1,
            "{told}: the backup ended with {code}, and {more} snapshots more are there"
        );
        figures.bases += more;
    }
    let (lost, rpo) = (last.saturating_sub(found), killed.duration_since(promise));
    say(format_args!(
        "{told}: {lost} of {last} rows lost, RPO {} ms",
        rpo.as_millis()
    ));
    figures.note(lost, rpo);
    scene.ledger.cut(found);
}

fn snapshots(scene: &Scene) -> u64 {
    let list = opsctl(&scene.sandbox, &["snapshot", "list", "pg", "--json"])
        .ended(0)
        .json();
    list["snapshots"].as_array().expect("a list").len() as u64
}

/// Any moment of before is restored to just that, over whatever timelines lie between.
async fn a_moment_before(scene: &Scene, dice: &mut Dice, told: &str, test: &str) {
    // The first base backup was complete before the first row.
    let promise = promised(&scene.sandbox).expect("a promise");
    let rows = scene.ledger.rows().iter().map(at);
    let moments: Vec<Timestamp> = rows.filter(|at| *at < promise).collect();
    if moments.is_empty() {
        return;
    }
    let moment = moments[dice.next() as usize % moments.len()];
    let into = scene.sandbox.path("moment");
    restored(&scene.sandbox, &into, &["--at", &moment.to_string()]);
    let found = rows_in(&into, test).await;
    let (least, most) = (scene.ledger.acknowledged_by(moment), scene.ledger.begun_by(moment));
    assert!(
        (least..=most).contains(&found),
        "{told}: at {moment} there were {least} to {most} rows, and {found} came back"
    );
    say(format_args!("{told}: at {moment} there were {found} rows"));
    std::fs::remove_dir_all(into).expect("our own folder");
}
