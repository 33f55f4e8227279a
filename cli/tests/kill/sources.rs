//! Kills of the backup of a command's output, and of restores that then go on where they stopped.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::dice::{Dice, kill_after, kills};
use crate::place::Place;
use crate::sandbox::{Sandbox, content, eventually};
use crate::stores::{measured, project, spawn};

/// Whether a process that wrote its number into this file is gone.
fn is_gone(sandbox: &Sandbox) -> bool {
    let pid = fs::read_to_string(sandbox.path("pid")).unwrap_or_default();
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    pid.trim().is_empty() || stat.map_or(true, |stat| stat.contains(") Z "))
}

/// A snapshot of a command's output is whole, or is not there; and the command does not outlive us.
#[test]
fn backup_of_a_command() {
    let mut dice = Dice::new("backup_of_a_command");
    let sandbox = project(&Place::folders(), &mut dice);
    let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("the file");
    // It would go on for ever if nobody ended it: it waits before it writes its end.
    let script = "echo $$ > pid; cat data/uploads/*.bin; cat fifo; cat data/uploads/*.bin; echo '-- complete'";
    let command = format!(
        "[datastore.dump]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\ntrailer = \"-- complete\"\n"
    );
    sandbox.write("opsctl.toml", &format!("{text}{command}"));
    sandbox.write("fifo", "a file at first\n");
    let whole = measured(|| drop(sandbox.run(&["backup", "dump"]).ended(0)));
    let mut ended = 0;
    for kill in 0..kills() {
        let changing = dice.next().to_le_bytes().repeat(100_000);
        fs::write(sandbox.path("data/uploads/changing.bin"), changing).expect("our own file");
        // Every other time the command hangs in the middle, and cannot notice that nobody reads it any more.
        fs::remove_file(sandbox.path("fifo")).expect("our own file");
        if kill % 2 == 0 {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            let fifo = sandbox.path("fifo");
            rustix::fs::mknodat(rustix::fs::CWD, fifo, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
        } else {
            sandbox.write("fifo", "in the middle\n");
        }
        let _ = fs::remove_file(sandbox.path("pid"));
        let instant = dice.between(Duration::ZERO, whole.mul_f64(1.2));
        ended += u64::from(kill_after(&mut spawn(sandbox.command(&["backup", "dump"])), instant));
        eventually("the end of the command", || is_gone(&sandbox));
    }
    println!("backup of a command: {ended} of {} had ended before the kill", kills());
    sandbox.run(&["repository", "check", "--read-data"]).ended(0);
    let list = sandbox.run(&["snapshot", "list", "dump", "--json"]).ended(0).json();
    let snapshots = list["snapshots"].as_array().expect("snapshots");
    assert!(snapshots.len() as u64 > ended && snapshots.len() as u64 <= 1 + kills());
    for snapshot in snapshots {
        let id = snapshot["snapshot"].as_str().expect("an id");
        let into = format!("out-{id}");
        let restore = ["restore", "dump", "--snapshot", id, "--into", &into];
        let restored = sandbox.run(&[&restore[..], &["--json"]].concat()).ended(0).json();
        assert_eq!(restored["checks"][0]["name"], "manifest");
        let dump = fs::read(sandbox.path(format!("out-{id}/dump.dump"))).expect("restored");
        assert!(dump.ends_with(b"-- complete\n"));
    }
    sandbox.judged_by_restic("backup_of_a_command");
}

/// What a killed restore had written is kept where it is right; the rest alone is fetched; the end is the same.
#[test]
fn restore_goes_on() {
    let mut dice = Dice::new("restore_goes_on");
    let sandbox = project(&Place::folders(), &mut dice);
    let uploads = sandbox.path("data/uploads");
    let large: Vec<u8> = (0..3 << 20).flat_map(|_| dice.next().to_le_bytes()).collect();
    fs::write(uploads.join("large.db"), &large).expect("our own file");
    let sparse = File::create(uploads.join("sparse")).expect("our own file");
    sparse.set_len(100 << 20).expect("our own file");
    sparse.write_all_at(b"in the middle", 50 << 20).expect("our own file");
    let original = content(&uploads);
    let total: u64 = original.values().map(|content| content.len() as u64).sum();
    sandbox.run(&["backup", "files"]).ended(0);
    let whole = measured(|| drop(sandbox.run(&["restore", "files", "--into", "whole"]).ended(0)));
    let (mut reused, mut fetched) = (0, 0);
    for kill in 0..kills() {
        let into = format!("out-{kill}");
        let command = ["restore", "files", "--into", &into, "--yes"];
        // Killed again and again, each time a little later.
        for part in [0.5, 0.8, 1.1] {
            let instant = dice.between(whole.mul_f64(part / 2.0), whole.mul_f64(part));
            kill_after(&mut spawn(sandbox.command(&command)), instant);
        }
        let last = sandbox.run(&[&command[..], &["--json"]].concat()).ended(0).json();
        let figure = |name: &str| last[name].as_u64().expect("a figure");
        assert_eq!(
            figure("reused_bytes") + figure("fetched_bytes"),
            total,
            "kill {kill}: {last}"
        );
        reused += figure("reused_bytes");
        fetched += figure("fetched_bytes");
        assert!(
            content(&sandbox.path(&into).join("uploads")) == original,
            "kill {kill}: and nothing else is left"
        );
        fs::remove_dir_all(sandbox.path(&into)).expect("our own folder");
    }
    println!("restore_goes_on: {reused} bytes were reused, {fetched} fetched");
    sandbox.run(&["repository", "check", "--read-data"]).ended(0);
    sandbox.judged_by_restic("restore_goes_on");
}
