//! What a person at a terminal sees and types: the picker, `[y/N]`, the typed name of a protected environment, a table that
//! changes in place, and a narrow window. The terminal is a real one, made by `script` of util-linux.

#[path = "support/answers.rs"]
mod answers;
#[path = "support/follower.rs"]
mod follower;
#[path = "support/sandbox.rs"]
mod sandbox;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use answers::{Answers, http};
use peers::servers::postgres::{Cluster, Postgres};
use sandbox::{Sandbox, eventually, tiny_service};

/// Says in the sandbox which terminal it is.
const TTY: &str = ".terminal";

/// A command on a terminal of its own.
struct Terminal {
    child: Child,
    seen: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    fn start(sandbox: &Sandbox, columns: u16, typed: &str) -> Self {
        Self::with(sandbox, columns, typed, &[])
    }

    fn with(sandbox: &Sandbox, columns: u16, typed: &str, variables: &[(&str, &str)]) -> Self {
        let line = format!(
            "tty >{TTY}; stty cols {columns} rows 24 -echo; exec '{}' {typed}",
            env!("CARGO_BIN_EXE_opsctl")
        );
        // The variables of a command without a terminal, but for what makes it one.
        let plain = sandbox.command(&[]);
        let mut command = Command::new("script");
        command
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .current_dir(sandbox.path(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("TERM", "xterm").env("SHELL", "/bin/sh");
        command.envs(variables.iter().copied());
        let mut child = command.spawn().expect("script of util-linux");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut output = child.stdout.take().expect("a pipe");
        let copy = Arc::clone(&seen);
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                copy.lock().expect("nobody panics with it").extend(&bytes[..read]);
            }
        });
        Self { child, seen, reader }
    }

    /// What was sent so far, as it is.
    fn sent(&self) -> String {
        let seen = self.seen.lock().expect("nobody panics with it");
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// What was shown so far, without colours.
    fn shown(&self) -> String {
        plain(&self.sent())
    }

    fn sees(&self, text: &str) {
        eventually(&format!("{text:?} on the terminal"), || self.shown().contains(text));
    }

    /// Changes the size of the terminal, as a person does with the window's edge.
    fn resize(sandbox: &Sandbox, columns: u16, rows: u16) {
        let terminal = fs::read_to_string(sandbox.path(TTY)).expect("the terminal's name");
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let status = Command::new("stty")
            .args(["-F", terminal.trim(), "cols", &columns, "rows", &rows])
            .status();
        assert!(status.expect("stty of coreutils").success());
    }

    fn types(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("a pipe");
        writeln!(input, "{line}")
            .and_then(|()| input.flush())
            .expect("it listens");
    }

    fn presses(&mut self, key: &str) {
        let input = self.child.stdin.as_mut().expect("a pipe");
        write!(input, "{key}").and_then(|()| input.flush()).expect("it listens");
    }

    fn ends(mut self, code: i32) -> String {
        let mut ended = None;
        eventually("its end", || {
            ended = self.child.try_wait().expect("our own child");
            ended.is_some()
        });
        eventually("the end of what it sent", || self.reader.is_finished());
        let shown = self.shown();
        assert_eq!(ended.and_then(|status| status.code()), Some(code), "{shown}");
        shown
    }
}

/// What was sent, without colours.
fn plain(sent: &str) -> String {
    let mut plain = String::new();
    let mut rest = sent.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            // CSI … letter
            for c in rest.by_ref() {
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        } else if c != '\r' {
            plain.push(c);
        }
    }
    plain
}

fn with_services(protected: bool) -> Sandbox {
    let sandbox = Sandbox::with_stores();
    let tiny = tiny_service().display().to_string();
    let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("the file");
    let mut text = if protected {
        text.replace("[env.local]", "[env.local]\nprotected = true")
    } else {
        text
    };
    for name in ["shop", "a-service-with-a-rather-long-name"] {
        let _ = write!(
            text,
            "[service.{name}]\nhealth = {{ http = \"/healthz\" }}\nprobe = {{ http = \"/\", rate = \"20/s\" }}\n\
             [service.{name}.local]\ncommand = [{tiny:?}]\nreplicas = 2\n"
        );
    }
    sandbox.write("opsctl.toml", &text);
    sandbox
}

#[test]
fn a_picker_asks_which_one() {
    let sandbox = Sandbox::with_stores();
    sandbox.run(&["backup"]).ended(0);
    for (answer, folder) in [("1", "shop.db"), ("files", "uploads/a.txt")] {
        let mut terminal = Terminal::start(&sandbox, 100, &format!("restore --into picked-{answer}"));
        terminal.sees("which datastore? [1-2]");
        assert!(terminal.shown().contains("1  db"), "{}", terminal.shown());
        terminal.types(answer);
        terminal.ends(0);
        assert!(sandbox.path(format!("picked-{answer}")).join(folder).exists());
    }
    let mut terminal = Terminal::start(&sandbox, 100, "restore --into picked-none");
    terminal.sees("which datastore? [1-2]");
    terminal.types("7");
    terminal.ends(2);
    assert!(!sandbox.path("picked-none").exists());
}

#[test]
fn what_replaces_data_is_asked_for() {
    let sandbox = Sandbox::with_stores();
    sandbox.run(&["backup"]).ended(0);
    let file = sandbox.path("data/shop.db");
    let grow = rusqlite::Connection::open(&file).expect("the database");
    grow.execute_batch("INSERT INTO orders (item) VALUES ('later')")
        .expect("a row");
    drop(grow);
    for answer in ["", "n", "maybe"] {
        let mut terminal = Terminal::start(&sandbox, 100, "restore db --replace");
        terminal.sees("[y/N]");
        terminal.types(answer);
        let shown = terminal.ends(5);
        assert!(shown.contains("the answer was no"), "{shown}");
        assert_eq!(Sandbox::rows(&file).len(), 3);
    }
    let mut terminal = Terminal::start(&sandbox, 100, "restore db --replace");
    terminal.sees("[y/N]");
    terminal.types("y");
    terminal.ends(0);
    assert_eq!(Sandbox::rows(&file), ["book", "pen"]);
}

#[test]
fn a_protected_environment_wants_the_name_typed() {
    let sandbox = with_services(true);
    sandbox.run(&["up"]).ended(0);
    let mut terminal = Terminal::start(&sandbox, 100, "drill pod-kill shop --for 1s");
    terminal.sees("Type `shop` to go on:");
    terminal.types("y");
    let shown = terminal.ends(5);
    assert!(shown.contains("the name was not typed"), "{shown}");
    let runs = sandbox.run(&["run", "list", "--json"]).json();
    assert_eq!(runs["runs"], serde_json::json!([]), "nothing was started");

    let mut terminal = Terminal::start(&sandbox, 100, "drill pod-kill shop --for 1s");
    terminal.sees("Type `shop` to go on:");
    terminal.types("shop");
    let shown = terminal.ends(0);
    assert!(shown.contains("kills shop-"), "{shown}");
}

/// Nothing is lost, cut or a panic: a terminal of forty columns wraps what is wider.
#[test]
fn a_narrow_terminal_shows_what_is_asked_for() {
    let sandbox = with_services(false);
    sandbox.run(&["up"]).ended(0);
    for columns in [40, 1] {
        let shown = Terminal::start(&sandbox, columns, "status").ends(0);
        assert_eq!(shown.matches("2/2").count(), 2, "{shown}");
        assert_eq!(shown.matches(" ready").count(), 2, "{shown}");
        assert!(shown.contains("a-service-with-a-rather-long-name"), "{shown}");
        for typed in ["--help", "status --help", "deploy canary --help", "run list"] {
            let shown = Terminal::start(&sandbox, columns, typed).ends(0);
            assert!(typed == "run list" || shown.contains("Usage:"), "{shown}");
        }
    }
    let shown = Terminal::start(&sandbox, 40, "status").ends(0);
    let long: Vec<&str> = shown
        .lines()
        .filter(|line| line.trim_end().chars().count() > 40)
        .collect();
    assert!(long.is_empty(), "{long:#?}");
    for typed in [
        "--help",
        "status --help",
        "deploy canary --help",
        "drill pod-kill --help",
    ] {
        let shown = Terminal::start(&sandbox, 80, typed).ends(0);
        let long: Vec<&str> = shown.lines().filter(|line| line.chars().count() > 100).collect();
        assert!(long.is_empty(), "`opsctl {typed}`: {long:#?}");
    }
}

const CTRL_C: &str = "\u{3}";

#[test]
fn a_watch_changes_in_place_and_gives_the_terminal_back() {
    let status = Arc::new(AtomicU16::new(200));
    let said = Arc::clone(&status);
    let server = Answers::start(move |_| Some(http(&format!("{} x", said.load(Ordering::SeqCst)), "", "")));
    let sandbox = Sandbox::new();
    let typed = format!("health watch {} --interval 50ms", server.url("/x"));
    for (variables, coloured) in [(&[][..], true), (&[("NO_COLOR", "1")][..], false)] {
        status.store(200, Ordering::SeqCst);
        let mut terminal = Terminal::with(&sandbox, 100, &typed, variables);
        terminal.sees("healthy");
        terminal.sees("0 of 1 down  Ctrl-C ends");
        status.store(503, Ordering::SeqCst);
        terminal.sees("unhealthy");
        terminal.sees("1 of 1 down  Ctrl-C ends");
        let sent = terminal.sent();
        assert!(
            sent.contains("\u{1b}[?1049h\u{1b}[?25l"),
            "the second screen, without a cursor: {sent:?}"
        );
        assert!(!sent.contains("\u{1b}[?25h"), "{sent:?}");
        assert_eq!(sent.contains("\u{1b}[32mhealthy"), coloured, "{sent:?}");
        terminal.presses(CTRL_C);
        let seen = Arc::clone(&terminal.seen);
        terminal.ends(130);
        let sent = String::from_utf8_lossy(&seen.lock().expect("nobody panics with it")).into_owned();
        let (_, after) = sent
            .rsplit_once("\u{1b}[?25h\u{1b}[?1049l")
            .expect("the first screen, with a cursor");
        assert!(
            after.contains("unhealthy") && after.contains("503"),
            "the last table stays: {after:?}"
        );
    }
}

#[test]
fn a_watch_follows_the_size_of_its_terminal() {
    let server = Answers::start(|_| Some(http("200 x", "", "")));
    let sandbox = Sandbox::new();
    let targets: Vec<String> = (0..6)
        .map(|number| server.url(&format!("/a-path-that-is-rather-long/{number}")))
        .collect();
    let terminal = Terminal::start(&sandbox, 120, &format!("health watch {}", targets.join(" ")));
    let drawn = |what: &str, holds: &dyn Fn(&[String]) -> bool| {
        eventually(what, || {
            // The last table that is there from its head to its foot.
            let sent = terminal.sent();
            let mut tables = sent.rsplit("\u{1b}[H").filter(|table| table.contains("Ctrl-C"));
            let lines: Vec<String> = plain(tables.next().unwrap_or_default())
                .lines()
                .map(|line| line.trim_end().to_owned())
                .collect();
            holds(&lines)
        });
    };
    let widest = |lines: &[String]| lines.iter().map(|line| line.chars().count()).max();
    let wide = |lines: &[String]| lines.iter().filter(|line| line.contains("  healthy")).count() == 6;
    drawn("six lines", &|lines| wide(lines) && widest(lines) > Some(60));
    Terminal::resize(&sandbox, 60, 24);
    drawn("a narrow table", &|lines| widest(lines) <= Some(60) && lines.len() > 8);
    Terminal::resize(&sandbox, 120, 6);
    drawn("what fits into six rows", &|lines| {
        lines.len() <= 6 && lines.iter().any(|line| line.contains("more lines"))
    });
    Terminal::resize(&sandbox, 120, 24);
    drawn("six lines again", &|lines| wide(lines) && widest(lines) > Some(60));
    let mut terminal = terminal;
    terminal.presses(CTRL_C);
    terminal.ends(130);
}

#[test]
fn a_trace_fits_its_terminal() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "opsctl.toml",
        "version = 1\n[env.local]\n[service.shop]\nlocal = { command = [\"x\"] }\n",
    );
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let id = |n: u64| format!("{:016x}", 0xa000 + n);
    let spans: Vec<serde_json::Value> = (0..40)
        .map(|n| {
            serde_json::json!({
                "traceId": trace, "spanId": id(n), "name": "a step with a rather long name",
                "parentSpanId": if n == 0 { String::new() } else { id(n - 1) },
                "kind": 2, "startTimeUnixNano": (n * 1000).to_string(), "endTimeUnixNano": (9_000_000 + n * 1000).to_string(),
                "status": { "code": 2, "message": "it failed for a reason that takes a whole line to tell" },
            })
        })
        .collect();
    let export = serde_json::json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": spans }] }] });
    sandbox.write(".opsctl/logs/shop/shop-1.spans.jsonl", &format!("{export}\n"));
    fs::set_permissions(sandbox.path(".opsctl"), fs::Permissions::from_mode(0o700)).expect("our own folder");
    for columns in [20, 40, 60, 80, 200] {
        let shown = Terminal::start(&sandbox, columns, &format!("trace {trace}")).ends(0);
        let tree = shown.lines().skip_while(|line| !line.starts_with("SPAN"));
        let long: Vec<&str> = tree
            .filter(|line| line.trim_end().chars().count() > usize::from(columns))
            .collect();
        assert!(long.is_empty(), "{columns}: {long:#?}");
        assert_eq!(shown.contains('█'), columns >= 80, "{columns}: {shown}");
        assert!(shown.matches("9.0 ms").count() >= 40, "{columns}: {shown}");
        assert!(
            shown.contains("(39) "),
            "the depth is told where it cannot be drawn: {shown}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn following_is_a_line_that_says_what_would_be_lost_now() {
    let test = "following_is_a_line_that_says_what_would_be_lost_now";
    let recipe = Postgres::default().setting("max_slot_wal_keep_size", "1GB");
    let Some(cluster) = Cluster::start(recipe, test).await else {
        return;
    };
    let sandbox = follower::project(&cluster.url(), "objectives = { rpo = \"1s\" }");
    tokio::task::block_in_place(|| {
        let mut terminal = Terminal::start(&sandbox, 160, "backup pg --follow");
        terminal.sees("took a base backup of pg: snapshot ");
        terminal.sees(" behind, ");
        terminal.sees(" would be lost now");
        terminal.presses("\u{3}");
        let shown = terminal.ends(0);
        assert!(shown.contains("pg is no longer followed"), "{shown}");
        let told = |text: &str| shown.lines().filter(|line| line.contains(text)).count();
        assert_eq!(told("took a base backup"), 1, "{shown}");
    });
}
