//! Every kind of server keeps the same promises: two run at one time, it serves, a restart keeps what it was told, a
//! paused one hangs, and nothing of it is left afterwards.

mod contracts;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use peers::{Peer, Recipe, Server, servers};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// Set in a test that is started to be killed.
const HOLD: &str = "OPSCTL_TEST_HOLDS_SERVERS";
/// What such a test writes before the folder of a server that it holds.
const HELD: &str = "held ";

/// What the suite does with one kind of server.
trait Contract {
    /// Leaves something with the server.
    async fn tell(&self, server: &Server) -> io::Result<()>;
    /// Whether the server still has it.
    async fn remembers(&self, server: &Server) -> io::Result<bool>;
}

async fn keeps_its_promises<R: Recipe>(recipe: impl Fn() -> R, contract: impl Contract, test: &str) {
    let (first, second) = tokio::join!(Server::start(recipe(), test), Server::start(recipe(), test));
    let (Some(mut first), Some(second)) = (first, second) else {
        return;
    };
    for ((name, one), (_, other)) in first.urls().iter().zip(second.urls()) {
        assert_ne!(*one, other, "both have the port {name}");
    }
    let what = "the first server is told something";
    eventually(what, &first, async || contract.tell(&first).await.is_ok()).await;
    eventually("it has it", &first, async || {
        contract.remembers(&first).await.is_ok_and(|yes| yes)
    })
    .await;
    assert!(
        !contract.remembers(&second).await.unwrap_or(false),
        "the second has what the first was told"
    );
    let gone = second.folder().to_owned();
    drop(second);
    nothing_is_left(&gone).await;

    first.pause();
    let answer = timeout(Duration::from_millis(300), contract.remembers(&first)).await;
    assert!(!matches!(answer, Ok(Ok(true))), "a paused server answered");
    assert!(first.is_running(), "a paused server runs");
    first.resume();
    eventually("it goes on", &first, async || {
        contract.remembers(&first).await.is_ok_and(|yes| yes)
    })
    .await;

    let urls = first.urls();
    first.stop().await;
    assert!(!first.is_running());
    assert!(
        !contract.remembers(&first).await.unwrap_or(false),
        "a stopped server answered"
    );
    first.start_again().await.expect("the server starts again");
    assert_eq!(first.urls(), urls, "the ports are the same after a restart");
    eventually("it still has it", &first, async || {
        contract.remembers(&first).await.is_ok_and(|yes| yes)
    })
    .await;

    let gone = first.folder().to_owned();
    drop(first);
    nothing_is_left(&gone).await;
}

/// Polls until `condition` holds; what the server wrote last is shown when it never does.
async fn eventually(what: &str, server: &Server, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !condition().await {
        assert!(
            Instant::now() < deadline,
            "never seen: {what}; its log ends:\n{}",
            server.log_tail()
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// The folder is gone, and no process has it in its command line or as its working directory.
async fn nothing_is_left(folder: &Path) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let users = users_of(folder);
        if users.is_empty() && !folder.exists() {
            return;
        }
        assert!(Instant::now() < deadline, "left of {}: {users:?}", folder.display());
        sleep(Duration::from_millis(50)).await;
    }
}

fn users_of(folder: &Path) -> Vec<String> {
    let mut users = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc is there").flatten() {
        let process: PathBuf = entry.path();
        let command = fs::read(process.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let there = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        if there || command.contains(&folder.display().to_string()) {
            users.push(format!("{}: {command}", entry.file_name().display()));
        }
    }
    users
}

/// A test that holds every kind of server, an Erlang port mapper and what PostgreSQL forks included, is killed.
#[tokio::test]
async fn nothing_outlives_a_killed_test() {
    const NAME: &str = "nothing_outlives_a_killed_test";
    if env::var_os(HOLD).is_some() {
        hold().await;
    }
    let mut victim = Command::new(env::current_exe().unwrap());
    victim.args(["--exact", NAME, "--nocapture"]).env(HOLD, "1");
    let mut victim = victim.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let mut folders = Vec::new();
    let installed = servers::NAMES
        .iter()
        .filter(|name| peers::peer(name, NAME).is_some())
        .count();
    while folders.len() < installed {
        let line = lines.next_line().await.unwrap().expect("the test holds every server");
        // The harness may have written its own words on the same line.
        folders.extend(line.split_once(HELD).map(|(_, folder)| PathBuf::from(folder)));
    }
    for folder in &folders {
        assert!(!users_of(folder).is_empty(), "nobody uses {}", folder.display());
    }
    victim.kill().await.unwrap();
    for folder in &folders {
        nothing_is_left(folder).await;
    }
}

/// Starts one server of every kind that is installed, and never ends.
#[expect(clippy::print_stdout, reason = "the test that kills this one reads it")]
async fn hold() -> ! {
    let mut starting = JoinSet::new();
    for name in servers::NAMES.iter().filter(|name| installed(name)) {
        starting.spawn(Server::launch_named(name));
    }
    let mut held = Vec::new();
    while let Some(server) = starting.join_next().await {
        let server = server.expect("no panic").expect("every server starts");
        println!("\n{HELD}{}", server.folder().display());
        held.push(server);
    }
    std::future::pending().await
}

fn installed(name: &str) -> bool {
    Peer::named(name).and_then(Peer::locate).is_some()
}
