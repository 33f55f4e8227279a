//! What of a machine a cluster changes, to be compared before and after.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

/// How the machine is at one time: everything that a cluster could leave, by kind.
#[derive(Debug, PartialEq, Eq)]
pub struct Machine {
    kinds: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Machine {
    /// How it is now. `cache` is where the cluster keeps what is its own.
    pub fn now(cache: &Path) -> Self {
        let kinds = [
            ("processes", processes(cache)),
            ("mounts", lines("/proc/self/mountinfo", |line| line.split(' ').nth(4))),
            ("network namespaces", namespaces()),
            ("links", names("/sys/class/net")),
            ("rules", rules()),
            ("routes", lines("/proc/net/route", |line| Some(line))),
            ("control groups", groups_of_clusters()),
            ("kernel settings", settings()),
            ("the cluster's folder", own_folder(cache)),
            ("folders of the system", folders()),
            ("shared memory", shared_memory()),
        ];
        Self { kinds: kinds.into() }
    }

    /// Nothing came and nothing went since `before`.
    pub fn is_as(&self, before: &Self) {
        for (kind, now) in &self.kinds {
            let before = &before.kinds[kind];
            let left: Vec<_> = now.difference(before).collect();
            let gone: Vec<_> = before.difference(now).collect();
            assert!(
                left.is_empty() && gone.is_empty(),
                "{kind}: left {left:#?}, gone {gone:#?}"
            );
        }
    }

    /// What is compared is what a cluster changes: else [`is_as`](Self::is_as) would prove nothing.
    pub fn is_different_from(&self, before: &Self, kinds: &[&str]) {
        for &kind in kinds {
            assert_ne!(self.kinds[kind], before.kinds[kind], "a cluster has no {kind}");
        }
    }
}

fn lines(path: &str, part: impl Fn(&str) -> Option<&str>) -> BTreeSet<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| part(line).map(str::to_owned)).collect()
}

fn names(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().display().to_string()).collect()
}

/// What the cluster keeps. The empty file that is locked stays: who waits for it must not wait for one that is gone.
fn own_folder(cache: &Path) -> BTreeSet<String> {
    let mut names = names(&cache.join("opsctl").display().to_string());
    names.remove("cluster.lock");
    names
}

/// Processes that have the cluster's folder in their environment or command line, and those in pods.
fn processes(cache: &Path) -> BTreeSet<String> {
    let folder = cache.join("opsctl").display().to_string();
    let own = std::process::id().to_string();
    let ours = |pid: &String| {
        let of = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let text = [of("cmdline"), of("environ"), of("cgroup")].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        // What has ended and was not waited for yet by the system's first process holds nothing.
        let ended = String::from_utf8_lossy(&of("stat"))
            .rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with('Z'));
        *pid != own && !ended && (text.contains(&folder) || text.contains("kubepods"))
    };
    let pids = names("/proc").into_iter().filter(|name| name.parse::<u32>().is_ok());
    pids.filter(ours).collect()
}

fn namespaces() -> BTreeSet<String> {
    let pids = names("/proc").into_iter().filter(|name| name.parse::<u32>().is_ok());
    let of = |pid: String| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    pids.filter_map(of).map(|name| name.display().to_string()).collect()
}

/// Chains and rules; an empty table with its own empty chains is none.
fn rules() -> BTreeSet<String> {
    let mut rules = BTreeSet::new();
    for program in ["iptables-save", "ip6tables-save"] {
        let output = Command::new(program).output().expect("iptables is there");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let telling = text.lines().filter(|line| {
            let built_in = line.starts_with(':') && line.contains(" ACCEPT ");
            !line.starts_with('#') && !line.starts_with('*') && *line != "COMMIT" && !built_in
        });
        rules.extend(telling.map(|line| format!("{program}: {line}")));
    }
    rules
}

/// Only those that are called after a cluster, its programs or us: whatever else runs on the machine makes some and
/// removes them as it likes.
fn groups_of_clusters() -> BTreeSet<String> {
    const WORDS: [&str; 5] = ["kube", "containerd", "runc", "opsctl", "cri-"];
    let mut groups = groups(Path::new("/sys/fs/cgroup"));
    groups.retain(|group| WORDS.iter().any(|word| group.contains(word)));
    groups
}

fn groups(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.insert(entry.path().display().to_string());
            found.extend(groups(&entry.path()));
        }
    }
    found
}

/// What can be set in the kernel for networks, memory and panics, but for what is counted or belongs to a link.
fn settings() -> BTreeSet<String> {
    fn below(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                below(&path, found);
            } else if let Ok(value) = fs::read_to_string(&path) {
                found.insert(format!("{}={}", path.display(), value.trim()));
            }
        }
    }
    let mut found = BTreeSet::new();
    for folder in [
        "net/ipv4",
        "net/ipv6/conf/all",
        "net/bridge",
        "net/netfilter",
        "kernel/keys",
        "vm",
    ] {
        below(&Path::new("/proc/sys").join(folder), &mut found);
    }
    for file in ["kernel/panic", "kernel/panic_on_oops"] {
        found.extend(
            lines(&format!("/proc/sys/{file}"), |line| Some(line))
                .into_iter()
                .map(|value| format!("{file}={value}")),
        );
    }
    // The kernel counts and measures there by itself.
    let moving = [
        "nf_conntrack_count",
        "route/",
        "stat_refresh",
        "lowmem_reserve",
        "tcp_fastopen_key",
        "min_free",
    ];
    found.retain(|setting| !moving.iter().any(|name| setting.contains(name)));
    found
}

fn folders() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in [
        "/run",
        "/var/lib",
        "/var/log",
        "/etc",
        "/opt",
        "/usr/libexec",
        "/var/tmp",
        "/run/netns",
        "/mnt",
    ] {
        found.extend(names(folder).into_iter().map(|name| format!("{folder}/{name}")));
    }
    found
}

/// Only what is called after a cluster: other tests have databases too.
fn shared_memory() -> BTreeSet<String> {
    names("/dev/shm")
        .into_iter()
        .filter(|name| name.contains("cluster"))
        .collect()
}
