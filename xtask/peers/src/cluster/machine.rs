//! What a cluster changes on the machine beyond its own folder, and how that is put back: kernel settings, network links,
//! mounts, control groups, packet filter rules, and folders that programs make where nobody can tell them otherwise.
//!
//! What was there before is written down first and never touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::{
    mount::{UnmountFlags, unmount},
    process::{Pid, Signal, kill_process},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{network, tables};

/// Settings of the kernel that kubelet, kube-proxy and CNI plugins change.
const SETTINGS: &[&str] = &[
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/bridge/bridge-nf-call-iptables",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_tcp_be_liberal",
    "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
    "net/netfilter/nf_conntrack_tcp_timeout_established",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
];

/// Places outside of the cluster's folder where a program makes something that no setting moves.
const PLACES: &[&str] = &[
    "/run/containerd",
    "/run/xtables.lock",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
];

/// The control group that kubelet puts every pod in.
const GROUP: &str = "kubepods";
/// The file in the cluster's folder that says how the machine was.
const BEFORE: &str = "before.json";
/// How long processes and mounts may take to go.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// How often it is looked whether something has come to pass.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How the machine was before the cluster.
#[derive(Debug, Default)]
struct Before {
    settings: BTreeMap<String, String>,
    places: BTreeSet<String>,
    chains: BTreeSet<String>,
}

/// Writes down how the machine is, unless that was done already.
pub(super) fn remember(folder: &Path) -> io::Result<()> {
    let path = folder.join(BEFORE);
    if path.exists() {
        return Ok(());
    }
    let settings = SETTINGS.iter().filter_map(|name| {
        let value = fs::read_to_string(setting(name)).ok()?;
        Some((*name, value.trim().to_owned()))
    });
    let places: Vec<_> = PLACES.iter().filter(|place| Path::new(place).exists()).collect();
    let before = json!({
        "settings": settings.collect::<BTreeMap<_, _>>(),
        "places": places,
        "chains": tables::chains()?,
    });
    let half = folder.join("before.json.half");
    fs::write(&half, before.to_string())?;
    fs::rename(half, path)
}

fn read(folder: &Path) -> Option<Before> {
    let value: Value = serde_json::from_str(&fs::read_to_string(folder.join(BEFORE)).ok()?).ok()?;
    let texts = |value: &Value| -> BTreeSet<String> {
        let texts = value.as_array().into_iter().flatten();
        texts.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let settings = value["settings"].as_object().into_iter().flatten();
    Some(Before {
        settings: settings
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect(),
        places: texts(&value["places"]),
        chains: texts(&value["chains"]),
    })
}

/// Puts the machine back as it was, once no process of the cluster runs any more. Where it was not written down how it was,
/// nothing was done, unless someone removed the folder; then the links are known by their names.
pub(super) async fn restore(folder: &Path) -> io::Result<()> {
    let Some(before) = read(folder) else {
        return network::remove();
    };
    end_pods().await?;
    unmount_below(folder)?;
    unmount_below(Path::new("/run/containerd"))?;
    remove_groups().await?;
    network::remove()?;
    tables::remove(&before.chains)?;
    for (name, value) in &before.settings {
        let path = setting(name);
        if fs::read_to_string(&path).is_ok_and(|now| now.trim() != value) {
            fs::write(&path, value).map_err(|error| named(&path, error))?;
        }
    }
    for place in PLACES.iter().filter(|place| !before.places.contains(**place)) {
        remove(Path::new(place))?;
    }
    Ok(())
}

/// Removes a file, or a folder with all that is in it, if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let outcome = match fs::symlink_metadata(path) {
        Ok(kind) if kind.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.map_err(|error| named(path, error)),
    }
}

/// Sets a setting of the kernel.
pub(super) fn set(name: &str, value: &str) -> io::Result<()> {
    let path = setting(name);
    fs::write(&path, value).map_err(|error| named(&path, error))
}

fn setting(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

/// Whether a kubelet runs pods, or left their control groups.
pub(super) fn has_pods() -> bool {
    !groups().is_empty()
}

/// Kills every process of every pod, and waits until they are gone.
async fn end_pods() -> io::Result<()> {
    until("the processes of pods end", || {
        let mut none = true;
        for group in groups() {
            let pids = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            for pid in pids.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
                none = false;
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        none
    })
    .await
}

/// Unmounts what is mounted below `folder`, the last one first.
fn unmount_below(folder: &Path) -> io::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let points: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        // What the kernel writes as an escape.
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| point.starts_with(folder))
        .collect();
    for point in points.iter().rev() {
        // A mount may be there twice, or go with another one.
        let _ = unmount(point, UnmountFlags::DETACH);
    }
    Ok(())
}

/// The control groups of pods, the innermost first.
fn groups() -> Vec<PathBuf> {
    fn below(group: PathBuf, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(&group).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                below(entry.path(), found);
            }
        }
        found.push(group);
    }
    let mut found = Vec::new();
    for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        let group = controller.path().join(GROUP);
        if group.is_dir() {
            below(group, &mut found);
        }
    }
    found
}

async fn remove_groups() -> io::Result<()> {
    until("the control groups of pods go", || {
        // A group can be removed once its last process is reaped, which takes a moment.
        groups().iter().filter(|group| fs::remove_dir(group).is_err()).count() == 0
    })
    .await
}

/// Looks again and again until `condition` holds.
pub(super) async fn until(what: &str, mut condition: impl FnMut() -> bool) -> io::Result<()> {
    let deadline = Instant::now() + GONE_WITHIN;
    while !condition() {
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("never seen: {what}")));
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Runs a program of the system with `input`, and returns what it wrote.
pub(super) fn run(program: &str, arguments: &[&str], input: &str) -> io::Result<String> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| named(Path::new(program), error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may end without reading; its complaint says why.
        let _ = io::Write::write_all(&mut stdin, input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let shown = arguments.join(" ");
    Err(io::Error::other(format!("`{program} {shown}`: {}", complaint.trim())))
}

pub(super) fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
