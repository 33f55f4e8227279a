//! What is printed for help, usage errors and topics, and how output behaves: streams, colours, closed pipes, JSON.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::fmt::Write as _;
use std::io::Read as _;
use std::process::Stdio;

use sandbox::Sandbox;

const COMMANDS: &[&str] = &[
    "",
    "backup",
    "restore",
    "snapshot",
    "snapshot list",
    "snapshot show",
    "snapshot ls",
    "snapshot diff",
    "snapshot dump",
    "recovery",
    "recovery status",
    "recovery report",
    "repository",
    "repository init",
    "repository check",
    "repository forget",
    "repository prune",
    "repository unlock",
    "repository key",
    "repository key list",
    "repository key add",
    "repository key remove",
    "repository key rotate",
    "wal",
    "wal push",
    "wal get",
    "drill",
    "drill pod-kill",
    "drill service-down",
    "drill latency",
    "drill db-down",
    "drill node-drain",
    "drill restore",
    "drill run",
    "drill list",
    "load",
    "load run",
    "deploy",
    "deploy canary",
    "deploy status",
    "deploy promote",
    "deploy abort",
    "deploy rollback",
    "status",
    "logs",
    "trace",
    "health",
    "health check",
    "health watch",
    "policy",
    "policy show",
    "policy force",
    "policy reset",
    "alert",
    "alert status",
    "alert silence",
    "alert silence create",
    "alert silence list",
    "alert silence expire",
    "alert check",
    "alert test",
    "alert render",
    "dashboard",
    "dashboard render",
    "dashboard check",
    "dashboard push",
    "run",
    "run list",
    "run show",
    "run attach",
    "recover",
    "init",
    "up",
    "down",
    "tour",
    "config",
    "config show",
    "config check",
    "rbac",
    "completions",
    "help",
];

fn words<'a>(command: &'a str, more: &'a [&'a str]) -> Vec<&'a str> {
    command.split_whitespace().chain(more.iter().copied()).collect()
}

#[test]
fn short_help_of_every_command_fits_a_terminal() {
    let sandbox = Sandbox::new();
    let mut all = String::new();
    for command in COMMANDS {
        let ran = sandbox.run(&words(command, &["-h"])).ended(0);
        assert_eq!(ran.stderr, "", "`opsctl {command} -h`");
        // The root has a line for each command.
        let most = if command.is_empty() { 32 } else { 30 };
        assert!(
            ran.stdout.lines().count() <= most,
            "`opsctl {command} -h` has {} lines",
            ran.stdout.lines().count()
        );
        for line in ran.stdout.lines() {
            assert!(line.chars().count() <= 80, "`opsctl {command} -h`: {line}");
        }
        let _ = writeln!(all, "$ opsctl {command} -h\n{}", ran.stdout);
    }
    insta::assert_snapshot!("short_help", all);
}

#[test]
fn long_help_tells_examples_and_exit_status() {
    let sandbox = Sandbox::new();
    for command in [
        "",
        "backup",
        "restore",
        "drill pod-kill",
        "deploy canary",
        "load run",
        "logs",
        "trace",
        "health check",
        "health watch",
        "policy show",
        "policy force",
        "policy reset",
        "dashboard render",
        "dashboard check",
        "dashboard push",
        "rbac",
        "up",
        "init",
    ] {
        let ran = sandbox.run(&words(command, &["--help"])).ended(0);
        assert!(ran.stdout.contains("Examples:"), "`opsctl {command} --help`");
        assert!(ran.stdout.contains("Exit status:"), "`opsctl {command} --help`");
    }
}

#[test]
fn paragraphs_of_long_help_break_where_the_line_is_full() {
    let sandbox = Sandbox::new();
    // The overview of the root is a list of lines.
    for command in &COMMANDS[1..] {
        for words in [words(command, &["--help"]), [&["help"], &*words(command, &[])].concat()] {
            let text = sandbox.run(&words).ended(0).stdout;
            let lines: Vec<&str> = text.lines().collect();
            for pair in lines.windows(2) {
                let prose = pair.iter().all(|line| !line.is_empty() && !line.starts_with(' '));
                let next = pair[1].split(' ').next().unwrap_or_default();
                let full = pair[0].chars().count() + 1 + next.chars().count() > 80;
                assert!(
                    !prose || full,
                    "`opsctl {}` breaks early:\n{}",
                    words.join(" "),
                    pair.join("\n")
                );
            }
        }
    }
}

#[test]
fn usage_errors() {
    let sandbox = Sandbox::new();
    let mut all = String::new();
    for typed in [
        "",
        "stauts",
        "backup --dryrun",
        "deploy canary",
        "deploy canary --weight 0",
        "deploy canary --weight 140",
        "deploy canary --weight -5",
        "deploy canary --steps 50:1m,10:1m",
        "help jsn",
        "load run ftp://x",
        "load run http://127.0.0.1:1 --rate fast",
        "repository check --part 9/7",
        "config show",
        "health check localhost:8080",
        "health check htp://localhost:8080",
        "health check grpc://localhost",
        "health check http://me:secret@localhost/",
        "health check http://localhost/a --group live",
        "health check --group a/b",
        "trace",
        "trace a/b",
        "logs --trace x -f",
        "policy force orders payments ajar",
        "policy force orders payments open --for 25h",
    ] {
        let ran = sandbox.run(&words(typed, &[])).ended(2);
        assert_eq!(ran.stdout, "", "`opsctl {typed}` writes errors to stderr");
        let _ = writeln!(all, "$ opsctl {typed}\n{}", sandbox.told(&ran));
    }
    insta::assert_snapshot!("usage_errors", all);
}

#[test]
fn topics() {
    let sandbox = Sandbox::new();
    for topic in ["exit-codes", "environment", "json", "config"] {
        let ran = sandbox.run(&["help", topic]).ended(0);
        insta::assert_snapshot!(format!("topic_{}", topic.replace('-', "_")), ran.stdout);
    }
}

#[test]
fn errors_are_one_document_under_json() {
    let sandbox = Sandbox::new();
    for (args, code) in [
        (["backup", "--json"], "config_not_found"),
        (["stauts", "--json"], "usage"),
    ] {
        let ran = sandbox.run(&args).ended(2);
        assert_eq!(ran.stdout, "");
        let error: serde_json::Value = serde_json::from_str(&ran.stderr).expect("one JSON document on stderr");
        assert_eq!(error["schema"], "opsctl.error/v1");
        assert_eq!(error["code"], code);
        assert_eq!(error["exit_code"], 2);
    }
}

#[test]
fn colours_only_where_they_are_wanted() {
    let sandbox = Sandbox::new();
    let escape = '\u{1b}';
    assert!(!sandbox.run(&["backup"]).stderr.contains(escape), "not a terminal");
    let coloured = |args: &[&str], variable: (&str, &str)| {
        let output = sandbox
            .command(args)
            .env(variable.0, variable.1)
            .output()
            .expect("opsctl starts");
        String::from_utf8_lossy(&output.stderr).contains(escape)
    };
    assert!(coloured(&["backup"], ("CLICOLOR_FORCE", "1")));
    assert!(!coloured(&["backup", "--color", "never"], ("CLICOLOR_FORCE", "1")));
    assert!(coloured(&["backup", "--color", "always"], ("TERM", "dumb")));
    let both = sandbox
        .command(&["backup"])
        .env("CLICOLOR_FORCE", "1")
        .env("NO_COLOR", "1")
        .output()
        .expect("opsctl starts");
    assert!(
        !String::from_utf8_lossy(&both.stderr).contains(escape),
        "NO_COLOR stands above CLICOLOR_FORCE"
    );
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let sandbox = Sandbox::new();
    let mut child = sandbox
        .command(&["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("opsctl starts");
    drop(child.stdout.take());
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .expect("a pipe")
        .read_to_string(&mut stderr)
        .expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    assert_eq!(stderr, "");
}

#[test]
fn completions_and_the_manual_page_come_from_the_tree() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell", "man"] {
        let ran = sandbox.run(&["completions", shell]).ended(0);
        assert!(ran.stdout.contains("pod-kill") || shell == "man", "{shell}");
        assert!(
            !ran.stdout.contains("watchdog") || shell != "man",
            "what is hidden is not in the manual"
        );
    }
}
