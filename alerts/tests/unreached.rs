//! Routes of an Alertmanager: what is never reached, what is not there. amtool accepts all files but those that it is
//! said to refuse.

use std::collections::BTreeSet;
use std::process::Command;

use alerts::check::{Options, check};
use lint::SourceFile;
use manifest::Manifest;

/// The check, routes in which it finds something, routes near them in which it finds nothing, whether Alertmanager
/// refuses the first.
const CASES: &[(&str, &str, &str, bool)] = &[
    ("receiver-unknown", "  - receiver: pgae", "  - receiver: page", true),
    (
        "receiver-unused",
        "",
        "  - receiver: page\n    matchers: [a=\"b\"]\n  - receiver: spare",
        false,
    ),
    (
        "times-unknown",
        "  - mute_time_intervals: [night]",
        "  - mute_time_intervals: [nights]",
        true,
    ),
    (
        "matcher-invalid",
        "  - matchers: ['severity']",
        "  - matchers: ['severity=\"page\"', 'a!~b']",
        true,
    ),
    (
        "route-shadowed",
        "  - matchers: ['severity=~\"page|ticket\"']\n  - matchers: ['severity=\"page\"', 'team=\"a\"']",
        "  - matchers: ['severity=\"page\"', 'team=\"a\"']\n  - matchers: ['severity=~\"page|ticket\"']\n    continue: true\n  - matchers: ['severity=\"ticket\"']",
        false,
    ),
    (
        "route-impossible",
        "  - matchers: ['team=\"a\"']\n    routes:\n    - matchers: ['team=\"b\"']",
        "  - matchers: ['team=~\"a|b\"']\n    routes:\n    - matchers: ['team=\"b\"']",
        false,
    ),
    (
        "root-matches",
        "  matchers: ['a=\"b\"']",
        "  - matchers: ['a=\"b\"']",
        true,
    ),
];

fn file(routes: &str) -> String {
    let routes = match routes {
        "" => String::new(),
        of_root if of_root.starts_with("  matchers") => of_root.to_owned(),
        list => format!("  routes:\n{list}"),
    };
    format!(
        "route:\n  receiver: all\n{routes}\nreceivers:\n- name: all\n- name: page\n- name: spare\ntime_intervals:\n- name: nights\n  time_intervals:\n  - times: [{{start_time: '00:00', end_time: '06:00'}}]\n"
    )
}

fn names(text: &str) -> BTreeSet<&'static str> {
    let options = Options::new(Manifest::new(), "2026-11-23".parse().expect("a day"));
    let report = check(vec![SourceFile::new("alertmanager.yml", text)], &options);
    report.findings.iter().map(|finding| finding.check.name).collect()
}

#[test]
fn routes_are_checked() {
    for (name, found, near, _) in CASES {
        assert!(names(&file(found)).contains(name), "{name}: {}", file(found));
        assert!(!names(&file(near)).contains(name), "{name}: {}", file(near));
    }
    let covered: BTreeSet<&str> = CASES.iter().map(|(name, ..)| *name).collect();
    let all: BTreeSet<&str> = alerts::check::routes::CHECKS.iter().map(|check| check.name).collect();
    assert_eq!(covered, all);
}

#[test]
fn amtool_refuses_what_it_is_said_to_refuse() {
    let Some(amtool) = peers::peer("amtool", "amtool_refuses_what_it_is_said_to_refuse") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    for (name, found, near, refused) in CASES {
        for (routes, refused) in [(found, *refused), (near, false)] {
            let path = folder.path().join("alertmanager.yml");
            std::fs::write(&path, file(routes)).expect("a file");
            let output = Command::new(&amtool)
                .arg("check-config")
                .arg(&path)
                .output()
                .expect("amtool runs");
            assert_eq!(
                !output.status.success(),
                refused,
                "{name}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}
