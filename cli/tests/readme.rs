//! Every shell command of the README runs, in its order, against the real programs; and the guides' example of an
//! `opsctl.toml` is one. The README's Rust is compiled by the doctest of `services/chassis`.

#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/services.rs"]
mod services;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sandbox::Sandbox;
use serde_json::Value;

/// Where the README leaves the shop of its tour.
const SHOP: &str = "/tmp/shop";
const TOUR: &str = "opsctl tour --keep --dir /tmp/shop";
/// The section whose commands run in a folder of one's own, not in the checkout.
const OWN: &str = "In your own project";

fn root() -> &'static Path {
    peers::workspace_root()
}

/// One command of a page.
#[derive(Debug)]
struct Line {
    section: String,
    command: String,
    /// `exit code N` in its comment, else 0.
    code: u8,
}

/// The commands of the `sh` blocks of a page.
fn commands(page: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let (mut section, mut inside) = (String::new(), false);
    for line in page.lines() {
        if line.starts_with("```") {
            inside = line == "```sh";
        } else if inside && !line.trim().is_empty() && !line.starts_with('#') {
            let (command, comment) = line.split_once(" #").unwrap_or((line, ""));
            let code = comment.split_once("exit code ").map_or(0, |(_, rest)| {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                digits.parse().expect("a number after `exit code`")
            });
            lines.push(Line {
                section: section.clone(),
                command: command.trim().to_owned(),
                code,
            });
        } else if !inside && let Some(heading) = line.strip_prefix("## ") {
            heading.clone_into(&mut section);
        }
    }
    lines
}

/// A folder in which services may be up; takes them down, also when the test fails.
struct Shop(PathBuf);

impl Drop for Shop {
    fn drop(&mut self) {
        if self.0.join("opsctl.toml").exists() {
            let _ = Command::new(env!("CARGO_BIN_EXE_opsctl"))
                .args(["down", "-qq"])
                .current_dir(&self.0)
                .stdin(Stdio::null())
                .status();
        }
    }
}

/// `cargo …` of the README names what exists; continuous integration runs these itself.
fn check_cargo(command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words.as_slice() {
        ["cargo", "run", "--release", "--bin", "opsctl", "--", words @ ..] => {
            let ran = Sandbox::new().run(&[words, &["--help"]].concat());
            assert_eq!(ran.code, 0, "`{command}`: {}", ran.stderr);
        }
        ["cargo", "xtask", task, flags @ ..] => {
            let tasks = fs::read_to_string(root().join("xtask/src/main.rs")).expect("the tasks");
            assert!(
                tasks.contains(&format!("Self::{task}")) || tasks.contains(&format!("{task}::run(")),
                "`{command}`"
            );
            let source = fs::read_to_string(root().join(format!("xtask/src/{task}.rs"))).expect("the task");
            for flag in flags {
                let field = format!("    {}: bool", flag.trim_start_matches("--").replace('-', "_"));
                assert!(source.contains(&field), "`{command}` has no `{flag}`");
            }
        }
        _ => panic!("the README shows `{command}`, which nothing here checks"),
    }
}

#[test]
fn every_command_of_the_readme_does_what_it_says() {
    let programs = services::programs();
    let page = fs::read_to_string(root().join("README.md")).expect("the README");
    let lines = commands(&page);
    assert!(lines.len() >= 12, "{lines:?}");
    let sandbox = Sandbox::new();
    let shop = Shop(sandbox.path("shop"));
    let place = shop.0.display().to_string();
    let own = sandbox.path("own");
    fs::create_dir(&own).expect("a folder");

    let mut script = String::from("set -euo pipefail\n");
    let mut section = "";
    let mut tours = 0;
    for line in &lines {
        if line.command.starts_with("cargo ") {
            check_cargo(&line.command);
            continue;
        }
        if line.section != section {
            section = &line.section;
            let start = if section == OWN { own.as_path() } else { root() };
            let _ = writeln!(script, "cd '{}'", start.display());
        }
        let mut command = line.command.replace(SHOP, &place);
        if line.command == TOUR {
            tours += 1;
            // What the tests built is what runs, which is slower than what is shipped; its figures are read below.
            let _ = write!(command, " --no-build --rate 80/s --json > '{place}.json'");
        }
        // A load that was late itself because the machine is busy says so.
        let also = if line.command.starts_with("opsctl load run") {
            9
        } else {
            line.code
        };
        let _ = writeln!(
            script,
            "echo '$ {0}' >&2; code=0; {command} || code=$?\n\
             if [ $code -ne {1} ] && [ $code -ne {also} ]; then echo \"this ended with $code, not with {1}\" >&2; exit 1; fi",
            line.command, line.code
        );
    }
    assert_eq!(tours, 1, "the README plays `{TOUR}` once");

    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("timeout")
        .args(["--kill-after=20", "400", "bash", "-c", &script])
        .env("PATH", format!("{}:{path}", programs.display()))
        .env_remove("OPSCTL_ENV")
        .env_remove("OPSCTL_CONFIG")
        .stdin(Stdio::null())
        .output()
        .expect("bash starts");
    // What went wrong in the tour says more than its exit code.
    if let Ok(tour) = fs::read_to_string(sandbox.path("shop.json"))
        && !tour.is_empty()
    {
        check_tour(&serde_json::from_str(&tour).expect("one JSON document"));
    }
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(sandbox.path("shop.json").exists(), "the tour was played");

    let status = Command::new(env!("CARGO_BIN_EXE_opsctl"))
        .args(["status", "--json"])
        .current_dir(&shop.0)
        .output()
        .expect("opsctl starts");
    let status: Value = serde_json::from_slice(&status.stdout).expect("one JSON document");
    assert_eq!(
        status["services"],
        serde_json::json!([]),
        "the README takes everything down"
    );
}

/// The tour showed every act, nothing failed, and what it tells was measured.
fn check_tour(tour: &Value) {
    assert_eq!(tour["schema"], "opsctl.tour/v1");
    assert_eq!(tour["failed"], false, "{:#}", tour["acts"]);
    assert!(tour["up_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
    let acts = tour["acts"].as_array().expect("acts");
    let names: Vec<&str> = acts.iter().filter_map(|act| act["name"].as_str()).collect();
    assert_eq!(
        names,
        [
            "orders",
            "backup",
            "pod-kill",
            "disaster, restore",
            "good canary",
            "bad canary",
            "reckoning"
        ]
    );
    for act in acts {
        let name = &act["name"];
        assert_eq!(act["failed"], Value::Null, "{name}");
        for figure in ["from_seconds", "to_seconds", "requests", "errors", "p95_seconds"] {
            assert!(act[figure].is_number(), "{name}: {figure} is {}", act[figure]);
        }
        // The reckoning looks back; it lasts no time of its own.
        if *name != "reckoning" {
            assert!(act["requests"].as_u64().is_some_and(|requests| requests > 0), "{name}");
            assert!(
                act["p95_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0),
                "{name}"
            );
        }
        for measure in act["measured"].as_array().expect("what was measured") {
            assert!(
                measure["value"].as_str().is_some_and(|value| !value.is_empty()),
                "{measure}"
            );
        }
    }
    let report = tour["report"].as_str().expect("the path of the page");
    let page = fs::read_to_string(report).expect("the page");
    assert!(page.contains("<svg"), "the page has pictures");
}

/// Every `toml` block of the guide on the catalogue is a whole file that holds.
#[test]
fn the_catalogue_of_the_guide_is_one() {
    let page = fs::read_to_string(root().join("docs/guides/catalogue.md")).expect("the guide");
    let mut blocks = 0;
    for block in page.split("```toml\n").skip(1) {
        let text = block.split("```").next().expect("a block ends");
        let sandbox = Sandbox::new();
        sandbox.write("opsctl.toml", text);
        sandbox.run(&["config", "check"]).ended(0);
        blocks += 1;
    }
    assert!(blocks > 0, "the guide shows an opsctl.toml");
}

/// Guides name only commands and flags that exist, and every command stands in one.
#[test]
fn guides_and_commands_know_each_other() {
    let tree = Sandbox::new().run(&["internal", "reference"]).ended(0).stdout;
    let known: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.strip_prefix("## opsctl "))
        .collect();
    let mut pages = String::new();
    let folder = fs::read_dir(root().join("docs/guides")).expect("the guides");
    for entry in folder {
        let path = entry.expect("a guide").path();
        // A guide's pictures are in a folder beside it.
        if path.is_file() {
            pages += &fs::read_to_string(path).expect("a guide");
        }
    }
    for line in commands(&pages) {
        let Some(words) = line.command.strip_prefix("opsctl ") else {
            continue;
        };
        let found = known
            .iter()
            .filter(|command| words == **command || words.starts_with(&format!("{command} ")))
            .max_by_key(|command| command.len())
            .unwrap_or_else(|| panic!("a guide shows `{}`", line.command));
        let section = tree.split(&format!("## opsctl {found}\n")).nth(1).expect("its section");
        let section = section.split("\n## ").next().unwrap_or(section);
        let global = tree.split("\n## ").nth(1).expect("the global options");
        for flag in words
            .split_whitespace()
            .filter(|word| word.starts_with("--") && *word != "--")
        {
            let flag = flag.split('=').next().unwrap_or(flag);
            let named = |text: &str| text.contains(&format!("{flag} ")) || text.contains(&format!("{flag}`"));
            assert!(named(section) || named(global), "`{}` has no `{flag}`", line.command);
        }
    }
    for command in known {
        assert!(
            pages.contains(&format!("opsctl {command}")),
            "no guide has a line on `opsctl {command}`"
        );
    }
}
