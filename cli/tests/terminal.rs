//! What a person at a terminal sees and types: the picker, `[y/N]`, the typed name of a protected environment, and a
//! narrow window. The terminal is a real one, made by `script` of util-linux.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use sandbox::{Sandbox, eventually, tiny_service};

/// A command on a terminal of its own.
struct Terminal {
    child: Child,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(sandbox: &Sandbox, columns: u16, typed: &str) -> Self {
        let line = format!(
            "stty cols {columns} rows 24 -echo; exec '{}' {typed}",
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
        let mut child = command.spawn().expect("script of util-linux");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut output = child.stdout.take().expect("a pipe");
        let copy = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                copy.lock().expect("nobody panics with it").extend(&bytes[..read]);
            }
        });
        Self { child, seen }
    }

    /// What was shown so far, without colours.
    fn shown(&self) -> String {
        let seen = self.seen.lock().expect("nobody panics with it");
        let text = String::from_utf8_lossy(&seen).into_owned();
        let mut plain = String::new();
        let mut rest = text.chars();
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

    fn sees(&self, text: &str) {
        eventually(&format!("{text:?} on the terminal"), || self.shown().contains(text));
    }

    fn types(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("a pipe");
        writeln!(input, "{line}")
            .and_then(|()| input.flush())
            .expect("it listens");
    }

    fn ends(mut self, code: i32) -> String {
        let mut ended = None;
        eventually("its end", || {
            ended = self.child.try_wait().expect("our own child");
            ended.is_some()
        });
        let shown = self.shown();
        assert_eq!(ended.and_then(|status| status.code()), Some(code), "{shown}");
        shown
    }
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
