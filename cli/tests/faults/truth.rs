//! What must be true after a fault: what lies in folders, which snapshots there are, and what restic says of it all.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::fs;
use std::process::{Command, Stdio};

use crate::sandbox::{Ran, Sandbox};

/// The password of [`Sandbox::with_stores`].
pub const PASSWORD: &str = "correct horse";

/// Bytes that do not compress and differ with the seed (splitmix64).
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x5851_f42d_4c95_7f2d);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect();
    bytes.truncate(length);
    bytes
}

/// What `snapshot list --json` names.
#[track_caller]
pub fn snapshots(ran: Ran) -> Vec<String> {
    let listed = ran.ended(0).json();
    let id = |snapshot: &serde_json::Value| snapshot["snapshot"].as_str().expect("an id").to_owned();
    listed["snapshots"]
        .as_array()
        .expect("snapshots")
        .iter()
        .map(id)
        .collect()
}

/// The snapshot that `backup TARGET --json` made.
#[track_caller]
pub fn saved(ran: Ran) -> String {
    let saved = ran.ended(0).json();
    saved["datastores"][0]["snapshot"]
        .as_str()
        .expect("a snapshot")
        .to_owned()
}

/// A failure as a script reads it: its code, with a cause and something to do.
#[track_caller]
pub fn code_of(ran: &Ran) -> String {
    let document = ran.stderr.lines().rev().find(|line| line.starts_with('{'));
    let document: serde_json::Value = serde_json::from_str(document.unwrap_or_default())
        .unwrap_or_else(|error| panic!("{error}: no document in\n{}", ran.stderr));
    assert!(
        document["causes"].as_array().is_some_and(|causes| !causes.is_empty()),
        "why is not said: {document}"
    );
    assert!(document["help"].is_string(), "what to do is not said: {document}");
    document["code"].as_str().expect("a code").to_owned()
}

/// Lets restic check every byte, without a lock: also of a repository that nothing can be written to.
pub fn judged_by_restic(repository: &str, variables: &[(&str, &str)], test: &str) {
    let Some(restic) = peers::peer("restic", test) else {
        return;
    };
    let checked = Command::new(restic)
        .args(["--no-cache", "--no-lock", "check", "--read-data", "-r", repository])
        .env("RESTIC_PASSWORD", PASSWORD)
        .envs(variables.iter().copied())
        .output()
        .expect("restic starts");
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "restic on {repository}: {said}");
}

/// A command that another one runs: its words after those of the other, in its folder, with its variables.
pub fn wrapped(mut outer: Command, inner: &Command) -> Command {
    outer
        .arg(inner.get_program())
        .args(inner.get_args())
        .stdin(Stdio::null());
    if let Some(folder) = inner.get_current_dir() {
        outer.current_dir(folder);
    }
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

/// A command that does not outlive us, however we end.
pub fn mortal(inner: &Command) -> Command {
    let mut outer = Command::new("setpriv");
    outer.args(["--pdeathsig", "KILL"]);
    wrapped(outer, inner)
}

/// Adds to the configuration.
pub fn declare(sandbox: &Sandbox, more: &str) {
    let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("our own file");
    sandbox.write("opsctl.toml", &format!("{text}{more}"));
}
