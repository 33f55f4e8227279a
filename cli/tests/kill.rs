//! SIGKILL at random instants of backup and restore: whatever was there before is still there, and nothing half done looks
//! whole. `OPSCTL_KILLS` says how often (12 by default), `OPSCTL_SEED` repeats a run.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use sandbox::Sandbox;

/// Splitmix64: small, seeded, good enough to choose instants.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// Starts a command and kills it after a random part of `whole`; true when it had ended by itself.
fn kill_at_random(mut command: Command, whole: Duration, dice: &mut Dice) -> bool {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("opsctl starts");
    let after = whole.mul_f64((dice.next() % 1200) as f64 / 1000.0);
    // A channel that nobody sends on is a timer.
    let (_keep, timer) = mpsc::channel::<()>();
    let _ = timer.recv_timeout(after);
    let ended = child.try_wait().expect("our own child").is_some();
    let _ = child.kill();
    let _ = child.wait();
    ended
}

fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                let name = path.strip_prefix(root).expect("inside").to_path_buf();
                found.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, folder, &mut found);
    found
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the seed of this run, and how long a whole run takes"
)]
fn a_kill_at_any_instant_loses_nothing() {
    let seed = number(
        "OPSCTL_SEED",
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |since| since.as_nanos() as u64),
    );
    let kills = number("OPSCTL_KILLS", 12);
    println!("OPSCTL_SEED={seed} OPSCTL_KILLS={kills}");
    let mut dice = Dice(seed);
    let restic = peers::peer("restic", "a_kill_at_any_instant_loses_nothing");

    let sandbox = Sandbox::with_stores();
    let uploads = sandbox.path("data/uploads");
    for file in 0..40 {
        let bytes: Vec<u8> = (0..100_000).map(|_| dice.next() as u8).collect();
        fs::write(uploads.join(format!("{file}.bin")), bytes).expect("our own file");
    }
    let started = std::time::Instant::now();
    sandbox.run(&["backup", "files"]).ended(0);
    let whole = started.elapsed();
    let mut ended = 0;
    for kill in 0..kills {
        fs::write(uploads.join("changing.bin"), dice.next().to_le_bytes().repeat(100_000)).expect("our own file");
        if kill % 2 == 0 {
            ended += u64::from(kill_at_random(
                sandbox.command(&["backup", "files", "--full"]),
                whole,
                &mut dice,
            ));
        } else {
            let into = format!("out-{kill}");
            ended += u64::from(kill_at_random(
                sandbox.command(&["restore", "files", "--into", &into, "--snapshot", "latest"]),
                whole,
                &mut dice,
            ));
            // The same command goes on where the killed one stopped.
            sandbox.run(&["restore", "files", "--into", &into, "--yes"]).ended(0);
        }
        if kill % 4 == 3 {
            sandbox.run(&["repository", "check", "--read-data"]).ended(0);
        }
    }
    println!("{ended} of {kills} had ended before the kill");

    // The next backup needs nobody's help, and what it saved is what is there.
    sandbox.run(&["backup", "files"]).ended(0);
    sandbox.run(&["restore", "files", "--into", "last"]).ended(0);
    assert!(
        content(&sandbox.path("last/uploads")) == content(&uploads),
        "seed {seed}"
    );
    if let Some(restic) = restic {
        let checked = Command::new(restic)
            .args(["--no-cache", "check", "--read-data", "-r"])
            .arg(sandbox.path("repo"))
            .env("RESTIC_PASSWORD", "correct horse")
            .output()
            .expect("restic starts");
        assert!(
            checked.status.success(),
            "seed {seed}: {}",
            String::from_utf8_lossy(&checked.stderr)
        );
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the seed of this run, and how long a whole run takes"
)]
fn a_killed_restore_in_place_is_whole_or_taken_back() {
    let seed = number(
        "OPSCTL_SEED",
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |since| since.as_nanos() as u64),
    );
    let kills = number("OPSCTL_KILLS", 12) / 2;
    println!("OPSCTL_SEED={seed} OPSCTL_KILLS={kills}");
    let mut dice = Dice(seed);
    let sandbox = Sandbox::with_stores();
    sandbox.run(&["backup", "db"]).ended(0);
    let live = sandbox.path("data/shop.db");
    let grow = || {
        let database = rusqlite::Connection::open(&live).expect("the database");
        database
            .execute_batch("INSERT INTO orders (item) VALUES ('later')")
            .expect("a row");
    };
    grow();
    let started = std::time::Instant::now();
    sandbox.run(&["restore", "db", "--replace", "--yes"]).ended(0);
    let whole = started.elapsed();
    for kill in 0..kills {
        grow();
        let before = Sandbox::rows(&live);
        kill_at_random(
            sandbox.command(&["restore", "db", "--replace", "--yes"]),
            whole,
            &mut dice,
        );
        // The watchdog takes it back; `recover` does the same at once. Both may be at it.
        sandbox::eventually("the undo", || {
            sandbox.run(&["recover"]).code == 0
                && sandbox.run(&["run", "list", "--active", "--json"]).json()["runs"] == serde_json::json!([])
        });
        let rows = Sandbox::rows(&live);
        assert!(
            rows == before || rows == ["book", "pen"],
            "seed {seed}, kill {kill}: {rows:?}"
        );
    }
}
