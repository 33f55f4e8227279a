//! Searching what instances wrote: in every part of every file, once, also while they are rotated.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use opsctl_platform::local::StateDir;
use opsctl_platform::local::logs::{Written, search};
use opsctl_platform::local::supervisor::rotate;

fn state() -> (tempfile::TempDir, StateDir) {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path().join(".opsctl")).unwrap();
    (folder, state)
}

fn append(path: &std::path::Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn whole_lines_of_every_part_are_found_in_their_order() {
    let (_folder, state) = state();
    let log = state.log("orders", "orders-1");
    for round in ["first", "second", "third"] {
        append(&log, &format!("{round} x\n{round} y\n"));
        assert!(rotate::rotate(&log, 0, rotate::KEPT).unwrap());
    }
    append(&log, "last x\nhalf x");
    append(&state.log("payments", "payments-1"), "other x\n");
    append(&state.spans("orders", "orders-1"), "span x\n");
    let found = |services: &[&str], instance, written| -> Vec<String> {
        let services: Vec<String> = services.iter().map(|name| (*name).to_owned()).collect();
        let lines = search(&state, &services, instance, written, |line| line.contains('x')).unwrap();
        lines
            .into_iter()
            .map(|line| format!("{} {}", line.instance, line.line))
            .collect()
    };
    let orders = [
        "orders-1 first x",
        "orders-1 second x",
        "orders-1 third x",
        "orders-1 last x",
    ];
    assert_eq!(found(&["orders"], None, Written::Log), orders);
    assert_eq!(found(&[], Some("payments-1"), Written::Log), ["payments-1 other x"]);
    assert_eq!(found(&[], None, Written::Log).len(), 5);
    assert_eq!(found(&[], None, Written::Spans), ["orders-1 span x"]);
    assert_eq!(found(&["nobody"], None, Written::Log), Vec::<String>::new());
}

#[test]
fn nothing_is_found_twice_or_missed_while_a_log_is_rotated() {
    let (_folder, state) = state();
    let log = state.log("orders", "orders-1");
    append(&log, "");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0_u64;
            while !done.load(Ordering::Acquire) {
                let lines = (number..number + 50).fold(String::new(), |lines, n| lines + &format!("{n}\n"));
                append(&log, &lines);
                number += 50;
                rotate::rotate(&log, 20_000, rotate::KEPT).unwrap();
            }
        });
        let mut oldest = 0;
        while oldest < 20_000 {
            let found = search(&state, &[], None, Written::Log, |_| true).unwrap();
            let numbers: Vec<u64> = found.iter().map(|line| line.line.parse().unwrap()).collect();
            let Some(first) = numbers.first().copied() else {
                continue;
            };
            let unbroken: Vec<u64> = (first..first + numbers.len() as u64).collect();
            assert!(numbers == unbroken, "from {first}: {} lines", numbers.len());
            assert!(first >= oldest);
            oldest = first;
        }
        done.store(true, Ordering::Release);
    });
}
