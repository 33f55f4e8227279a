//! Where a process's memory controller is, and what its files say. cgroup v2:
//! <https://docs.kernel.org/admin-guide/cgroup-v2.html>, v1: <https://docs.kernel.org/admin-guide/cgroup-v1/memory.html>,
//! PSI: <https://docs.kernel.org/accounting/psi.html>.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The control group that limits the process's memory.
#[derive(Debug)]
pub(super) struct Group {
    files: &'static Files,
    /// The group's own folder.
    folder: PathBuf,
    /// Where the hierarchy is mounted: the group's parents end there.
    mount: PathBuf,
    proc: PathBuf,
}

/// Names of one version's files.
#[derive(Debug)]
struct Files {
    used: &'static str,
    limit: &'static str,
    /// Key in `memory.stat` of the page cache that can be dropped at once.
    droppable: &'static str,
}

const V2: Files = Files {
    used: "memory.current",
    limit: "memory.max",
    droppable: "inactive_file",
};
const V1: Files = Files {
    used: "memory.usage_in_bytes",
    limit: "memory.limit_in_bytes",
    droppable: "total_inactive_file",
};

/// Bytes in use and their limit.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) used: u64,
    pub(super) limit: u64,
}

impl Group {
    /// The group of this process, in the `/proc` and `/sys` below `root`.
    pub(super) fn of_process(root: &Path) -> io::Result<Self> {
        let proc = root.join("proc");
        let groups = fs::read_to_string(proc.join("self/cgroup"))?;
        let mounts = fs::read_to_string(proc.join("self/mountinfo"))?;
        // A machine with both versions mounted has the memory controller in one of them: v1 where a line names it.
        let v1 = groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|name| name == "memory").then_some(path)
        });
        let v2 = || groups.lines().find_map(|line| line.strip_prefix("0::"));
        let (files, path, mount) = match v1 {
            Some(path) => (&V1, path, mount_of(&mounts, "cgroup", Some("memory"))),
            None => (&V2, v2().unwrap_or("/"), mount_of(&mounts, "cgroup2", None)),
        };
        let Some((inside, point)) = mount else {
            return Err(io::Error::other("no control group with memory is mounted"));
        };
        let mount = below(root, &point);
        // In a container the mount shows a part of the hierarchy: the path counts from that part's root.
        let path = path.strip_prefix(inside.trim_end_matches('/')).unwrap_or("");
        let folder = below(&mount, path);
        let folder = if folder.join(files.used).exists() {
            folder
        } else {
            mount.clone()
        };
        Ok(Self {
            files,
            folder,
            mount,
            proc,
        })
    }

    /// The working set against the lowest limit above it.
    pub(super) fn memory(&self) -> io::Result<Memory> {
        let machine = self.machine()?;
        let mut limit = machine.limit;
        let mut limited = self.folder.clone();
        for folder in self
            .folder
            .ancestors()
            .take_while(|folder| folder.starts_with(&self.mount))
        {
            // No such file in the root group of v2, "max" where there is no limit, and a huge number in v1.
            if let Some(bytes) = number(&folder.join(self.files.limit)).filter(|bytes| *bytes < limit) {
                limit = bytes;
                folder.clone_into(&mut limited);
            }
        }
        if limit == machine.limit {
            return Ok(machine);
        }
        let used = fs::read_to_string(limited.join(self.files.used))?;
        let used: u64 = used.trim().parse().map_err(io::Error::other)?;
        let stat = fs::read_to_string(limited.join("memory.stat"))?;
        let droppable = value(&stat, self.files.droppable).unwrap_or(0);
        Ok(Memory {
            used: used.saturating_sub(droppable),
            limit,
        })
    }

    /// The machine's memory, as `/proc/meminfo` says.
    fn machine(&self) -> io::Result<Memory> {
        let info = fs::read_to_string(self.proc.join("meminfo"))?;
        let bytes = |key| {
            let missing = || io::Error::new(io::ErrorKind::InvalidData, "a key of meminfo is missing");
            value(&info, key).map(|kib| kib * 1024).ok_or_else(missing)
        };
        let (limit, available) = (bytes("MemTotal:")?, bytes("MemAvailable:")?);
        Ok(Memory {
            used: limit.saturating_sub(available),
            limit,
        })
    }

    /// Percent of the last ten seconds in which some task waited for memory; `None` on a kernel that does not count it.
    pub(super) fn stalled(&self) -> Option<f64> {
        let of_group = self.folder.join("memory.pressure");
        let text = fs::read_to_string(of_group)
            .or_else(|_| fs::read_to_string(self.proc.join("pressure/memory")))
            .ok()?;
        let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
        some.split(' ')
            .find_map(|word| word.strip_prefix("avg10="))?
            .parse()
            .ok()
    }
}

/// The part of the hierarchy that a mount shows, and where, from `/proc/self/mountinfo`
/// (`36 35 98:0 /part /point rw - type source options`).
fn mount_of(mounts: &str, kind: &str, controller: Option<&str>) -> Option<(String, String)> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let (found, options) = (right.next()?, right.nth(1)?);
        if found != kind || controller.is_some_and(|wanted| !options.split(',').any(|option| option == wanted)) {
            return None;
        }
        let mut left = left.split(' ').skip(3);
        Some((left.next()?.to_owned(), left.next()?.to_owned()))
    })
}

/// An absolute path below a root.
fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The number behind a key, in a text of lines `key number …`.
fn value(text: &str, key: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix([' ', '\t']))?;
    line.split_whitespace().next()?.parse().ok()
}
