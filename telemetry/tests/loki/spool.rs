//! Lines on disk: they outlive a program that ends or is killed, a Loki that is away and a disk that is full.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use telemetry::loki::LokiSettings;
use telemetry::{DropReason, RejectReason, SinkCounts};
use tokio::time::Instant;

use crate::gate::{Fault, Gate};
use crate::real::{self, Tenant};
use crate::sender::{Sender, is_urgent, quick};

const LIMIT: Duration = Duration::from_secs(10);

fn spooled(folder: &Path) -> LokiSettings {
    let mut settings = quick();
    settings.spool.dir = Some(folder.join("spool"));
    settings
}

/// Waits until the account is as wanted.
async fn until(sender: &Sender, wanted: impl Fn(&SinkCounts) -> bool) {
    let end = Instant::now() + LIMIT;
    loop {
        let counts = sender.counts().unwrap();
        if wanted(&counts) {
            return;
        }
        assert!(Instant::now() < end, "{counts:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The numbers of the lines that Loki has, in its order of time.
async fn numbers(tenant: &Tenant) -> Vec<u64> {
    let number = |(_, line): &(_, String)| serde_json::from_str::<serde_json::Value>(line).unwrap()["number"].as_u64();
    tenant.lines().await.iter().filter_map(number).collect()
}

#[tokio::test]
async fn lines_outlive_the_program() {
    let Some(tenant) = real::tenant("lines_outlive_the_program").await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut gate = Gate::down(tenant.loki).await;
    let mut sender = Sender::own(&gate, &tenant, spooled(folder.path()));
    sender.burst(1000);
    let counts = sender.end(LIMIT).await.unwrap();
    assert_eq!(
        (counts.spooled, counts.dropped, counts.delivered),
        (1000, 0, 0),
        "{counts:?}"
    );
    gate.start().await;
    let mut sender = Sender::own(&gate, &tenant, spooled(folder.path()));
    sender.emitted = 1000;
    sender.burst(1000);
    sender.emitted = 1000;
    let counts = sender.end(LIMIT).await.unwrap();
    assert_eq!(
        (counts.recovered, counts.delivered, counts.spooled),
        (1000, 2000, 0),
        "{counts:?}"
    );
    assert_eq!(numbers(&tenant).await, (0..2000).collect::<Vec<_>>());
    let left: Vec<_> = std::fs::read_dir(folder.path().join("spool")).unwrap().collect();
    assert_eq!(left.len(), 2, "the lock and the place alone: {left:?}");
}

#[tokio::test]
async fn an_outage_costs_nothing() {
    let Some(tenant) = real::tenant("an_outage_costs_nothing").await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut gate = Gate::open(tenant.loki).await;
    let mut settings = spooled(folder.path());
    // Far more comes than memory would hold.
    settings.queue_bytes = 256 * 1024;
    let mut sender = Sender::own(&gate, &tenant, settings);
    sender.burst(500);
    until(&sender, |counts| counts.delivered == 500).await;
    gate.stop().await;
    for _ in 0..20 {
        sender.burst(500);
        until(&sender, |counts| counts.pending() == 0).await;
    }
    gate.start().await;
    gate.set(Fault::LostAnswer);
    sender.pace(Duration::from_secs(1)).await;
    gate.set(Fault::Pass);
    let emitted = sender.emitted;
    until(&sender, |counts| counts.delivered == emitted).await;
    let counts = sender.end(LIMIT).await.unwrap();
    assert_eq!((counts.delivered, counts.dropped), (emitted, 0), "{counts:?}");
    assert_eq!(tenant.stored().await, emitted);
}

#[tokio::test]
async fn a_full_spool_gives_up_what_matters_least() {
    let Some(tenant) = real::tenant("a_full_spool_gives_up").await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut gate = Gate::down(tenant.loki).await;
    let mut settings = spooled(folder.path());
    settings.spool.max_bytes = 1 << 20;
    let mut sender = Sender::own(&gate, &tenant, settings.clone());
    for _ in 0..10 {
        sender.burst(1600);
        until(&sender, |counts| counts.pending() == 0).await;
    }
    let (emitted, important) = (sender.emitted, sender.emitted / 8);
    let counts = sender.end(LIMIT).await.unwrap();
    assert_eq!(
        counts.dropped,
        counts.dropped_because(DropReason::SpoolFull),
        "{counts:?}"
    );
    assert_eq!(counts.spooled + counts.dropped, emitted);
    assert!(counts.dropped > 0);
    gate.start().await;
    let counts = Sender::own(&gate, &tenant, settings).end(LIMIT).await.unwrap();
    assert_eq!((counts.recovered, counts.dropped), (counts.delivered, 0), "{counts:?}");
    assert_eq!(tenant.stored().await, counts.delivered);
    assert_eq!(
        tenant.stored_in("{level=~\"error|warn\"}").await,
        important,
        "none of these went"
    );
}

#[tokio::test]
async fn two_programs_cannot_share_a_spool() {
    let Some(tenant) = real::tenant("two_programs_cannot_share").await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let gate = Gate::open(tenant.loki).await;
    let first = Sender::own(&gate, &tenant, spooled(folder.path()));
    let url = telemetry::loki::Url::parse(&gate.url()).unwrap();
    let error = telemetry::loki::builder()
        .settings(spooled(folder.path()))
        .build_controller_url(url)
        .unwrap_err();
    let mut text = String::new();
    let mut source: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = source {
        text = format!("{text}{error}\n");
        source = error.source();
    }
    assert!(text.contains("in use by another process"), "{text}");
    first.end(LIMIT).await;
}

/// A record of version 1, written by hand: the form is a promise to those who have files of it.
fn record(at: Duration, level: u8, line: &str) -> Vec<u8> {
    let mut content = (at.as_nanos() as i64).to_le_bytes().to_vec();
    content.push(level);
    content.extend_from_slice(line.as_bytes());
    let length = (content.len() as u32).to_le_bytes();
    let checksum = crc32fast::hash(&[&length[..], &content].concat());
    [&length[..], &checksum.to_le_bytes(), &content].concat()
}

/// Lines from long ago keep their time. Where their stream is too far ahead they get one of their own, and what Loki
/// takes nowhere is refused as too old.
#[tokio::test]
async fn old_lines_keep_their_time() {
    let Some(tenant) = real::tenant("old_lines_keep_their_time").await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let gate = Gate::open(tenant.loki).await;
    let mut sender = Sender::own(&gate, &tenant, quick());
    sender.log(1, || tracing::info!(number = 1000, "new"));
    sender.end(LIMIT).await;

    let now = std::time::UNIX_EPOCH.elapsed().unwrap();
    let spool = folder.path().join("spool");
    std::fs::create_dir(&spool).unwrap();
    std::fs::set_permissions(&spool, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(spool.join("0000000000000001-i.spool"))
        .unwrap();
    file.write_all(b"OPSPOOL1").unwrap();
    let hour = Duration::from_secs(3600);
    for number in 0..3_u32 {
        let at = now.saturating_sub(24 * 8 * hour) + Duration::from_secs(number.into());
        file.write_all(&record(at, 2, "{\"message\":\"much too old\"}"))
            .unwrap();
    }
    for number in 0..20_u32 {
        let at = now.saturating_sub(2 * hour) + Duration::from_secs(number.into());
        // INFO is too far ahead, of DEBUG there is nothing yet.
        let level = if number % 2 == 0 { 2 } else { 1 };
        file.write_all(&record(at, level, &format!("{{\"number\":{number}}}")))
            .unwrap();
    }
    drop(file);
    let sender = Sender::own(&gate, &tenant, spooled(folder.path()));
    let counts = sender.end(LIMIT).await.unwrap();
    assert_eq!(
        (counts.recovered, counts.delivered, counts.rejected),
        (23, 20, 3),
        "{counts:?}"
    );
    assert_eq!(counts.rejected_because(RejectReason::TooOld), 3);
    assert_eq!(tenant.stored().await, 21);
    assert_eq!(tenant.stored_in("{level=\"info\", replay=\"true\"}").await, 10);
    assert_eq!(tenant.stored_in("{level=\"debug\", replay=\"\"}").await, 10);
    let mut expected: Vec<u64> = (0..20).collect();
    expected.push(1000);
    assert_eq!(numbers(&tenant).await, expected, "by their own times");
}

/// Says to [`a_program_of_its_own`] where to send, as whom, with which spool, and what to do.
const CHILD: &str = "LOKI_TEST_PROGRAM";

/// Not a test of its own: a program that logs, and is killed or has no room on its disk.
#[test]
fn a_program_of_its_own() {
    let Ok(words) = std::env::var(CHILD) else { return };
    let [url, tenant, folder, task] = words.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{words}")
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut settings = spooled(Path::new(folder));
        settings.queue_bytes = 512 * 1024;
        let mut sender = Sender::own_at(url, tenant, settings);
        match task {
            "until-killed" => loop {
                sender.burst(10);
                let counts = sender.counts().unwrap();
                println!("safe: {}", counts.spooled + counts.delivered);
                // A disk that is slower than this loop must not cost lines before they reach it.
                if counts.pending() > 2000 {
                    until(&sender, |counts| counts.pending() < 1000).await;
                }
            },
            "full-disk" => {
                for _ in 0..10 {
                    sender.burst(500);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                println!("emitted");
                let mut line = String::new();
                std::io::stdin().read_line(&mut line).unwrap();
                until(&sender, |counts| counts.pending() == 0 && counts.spooled == 0).await;
                sender.burst(100);
                until(&sender, |counts| counts.pending() == 0 && counts.spooled == 0).await;
                let counts = sender.end(LIMIT).await.unwrap();
                println!("counts: {}", serde_json::to_string(&counts).unwrap());
            }
            other => panic!("{other}"),
        }
    });
}

/// A child that is gone at the end, also of a test that fails.
struct Program(Child);

impl Program {
    fn start(gate: &Gate, tenant: &Tenant, folder: &Path, task: &str, shell: &str) -> Self {
        let words = format!("{} {} {} {task}", gate.url(), tenant.name, folder.display());
        let child = Command::new("sh")
            .arg("-c")
            .arg(format!("{shell} exec \"$0\" \"$@\""))
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "spool::a_program_of_its_own", "--nocapture"])
            .env(CHILD, words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// SIGKILL at any moment: what was on disk by the account's word is sent by the next process, in order and without holes.
#[tokio::test]
async fn lines_outlive_a_program_that_is_killed() {
    let Some(tenant) = real::tenant("lines_outlive_a_program_that_is_killed").await else {
        return;
    };
    let soak = std::env::var_os("OPSCTL_SOAK").is_some_and(|value| value == "1");
    for round in 0..if soak { 40 } else { 3 } {
        let tenant = Tenant {
            name: format!("{}-{round}", tenant.name),
            ..tenant.clone()
        };
        let folder = tempfile::tempdir().unwrap();
        let mut gate = Gate::down(tenant.loki).await;
        let mut program = Program::start(&gate, &tenant, folder.path(), "until-killed", "");
        let stdout = BufReader::new(program.0.stdout.take().unwrap());
        let wanted = 300 * (round + 1) % 3000;
        let safe = tokio::task::spawn_blocking(move || {
            let mut safe = 0;
            for line in stdout.lines() {
                let Ok(line) = line else { break };
                let Some((_, count)) = line.split_once("safe: ") else {
                    continue;
                };
                safe = count.parse().unwrap();
                if safe >= wanted {
                    program.0.kill().unwrap();
                }
            }
            safe
        })
        .await
        .unwrap();
        gate.start().await;
        let sender = Sender::own_at(&gate.url(), &tenant.name, spooled(folder.path()));
        let counts = sender.end(LIMIT).await.unwrap();
        let torn = counts.dropped_because(DropReason::SpoolFailed);
        assert!(torn <= 2 && counts.dropped == torn, "{counts:?}");
        assert!(counts.recovered >= safe && safe >= wanted, "{counts:?} of {safe}");
        assert_eq!(counts.recovered, counts.delivered + torn, "{counts:?}");
        assert_eq!(tenant.stored().await, counts.delivered);
        let found = numbers(&tenant).await;
        // The lane of warnings and errors is written apart: the kill may fall between the two.
        for urgent in [true, false] {
            let of_lane = |number: &u64| is_urgent(*number) == urgent;
            let lane: Vec<u64> = found.iter().copied().filter(of_lane).collect();
            let whole: Vec<u64> = (0..).filter(of_lane).take(lane.len()).collect();
            assert!(
                torn > 0 || found.len() >= 5000 || lane == whole,
                "in order and without holes: {lane:?}"
            );
        }
    }
}

/// The disk takes no more: lines wait in memory as they do without a spool, and go to the disk again when there is room.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_no_end() {
    let Some(tenant) = real::tenant("a_full_disk_is_no_end").await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut gate = Gate::down(tenant.loki).await;
    // No file may have more than 64 KiB; the signal that would tell of it is not taken.
    let shell = "trap '' 25; ulimit -f 128;";
    let mut program = Program::start(&gate, &tenant, folder.path(), "full-disk", shell);
    let mut stdout = BufReader::new(program.0.stdout.take().unwrap());
    let mut wait_for = |word: &'static str| {
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            assert_ne!(
                stdout.read_line(&mut line).unwrap(),
                0,
                "the program ended before it said `{word}`"
            );
        }
        line
    };
    tokio::task::block_in_place(|| wait_for("emitted"));
    gate.start().await;
    program.0.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    let line = tokio::task::block_in_place(|| wait_for("counts: "));
    let counts: serde_json::Value = serde_json::from_str(line.split_once("counts: ").unwrap().1).unwrap();
    let number = |key: &str| counts[key].as_u64().unwrap();
    assert!(number("emitted") >= 5100, "with those that tell of lost ones: {counts}");
    assert_eq!(number("delivered") + number("dropped"), number("emitted"), "{counts}");
    assert_eq!(
        counts["dropped_by"]["queue_full"].as_u64().unwrap_or(0),
        number("dropped"),
        "{counts}"
    );
    assert!(
        number("dropped") > 0 && number("delivered") > 1000,
        "the disk and the queue were full: {counts}"
    );
    assert_eq!(tenant.stored().await, number("delivered"));
}
