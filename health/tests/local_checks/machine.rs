//! Disk and memory: of this machine, and of copies of what other kernels and containers show.

use std::fs;
use std::path::Path;

use health::{DiskCheck, MemoryCheck, Outcome, Reason};

use crate::{ask, told};

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn a_disk_has_what_is_wanted_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let disk = |bytes| DiskCheck::new(folder.path(), bytes);
    assert_eq!(told(&disk(1)).await, "pass");
    assert_eq!(told(&disk(1).writable()).await, "pass");
    assert_eq!(told(&disk(u64::MAX)).await, "fail saturated");
    assert_eq!(told(&disk(1).warn_below(u64::MAX)).await, "warn saturated");
    let no_limit = rustix::fs::statvfs(folder.path()).unwrap().f_files == 0;
    let inodes = told(&disk(1).min_free_inodes(u64::MAX)).await;
    assert_eq!(inodes, if no_limit { "pass" } else { "fail saturated" });
    assert_eq!(
        told(&DiskCheck::new(folder.path().join("gone"), 1)).await,
        "fail refused"
    );
}

#[tokio::test]
async fn this_machines_memory_is_found() {
    assert!(matches!(
        ask(&MemoryCheck::new().warn_stalled(101.0)).await,
        Outcome::Pass | Outcome::Warn(_)
    ));
    let nothing_is_little_enough = MemoryCheck::new().fail_at(0.0);
    assert_eq!(told(&nothing_is_little_enough).await, "fail saturated");
}

/// A `/proc` and `/sys` with these files, on a machine of 1000 MiB of which 400 are free.
fn machine(files: &[(&str, String)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let meminfo = "MemTotal:        1024000 kB\nMemFree:           10000 kB\nMemAvailable:     409600 kB\n";
    write(root.path(), "proc/meminfo", meminfo);
    for (name, text) in files {
        write(root.path(), name, text);
    }
    root
}

fn write(root: &Path, name: &str, text: &str) {
    let file = root.join(name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

/// Percent of the limit that is in use, as the check sees it.
async fn percent(root: &Path) -> u32 {
    for percent in 1..=100 {
        let check = MemoryCheck::new()
            .below(root)
            .fail_at(f64::from(percent) / 100.0 + 0.005);
        match ask(&check).await {
            Outcome::Fail(failure) if failure.reason == Reason::Saturated => {}
            Outcome::Fail(failure) => panic!("{failure:?}"),
            _ => return percent,
        }
    }
    panic!("more than all of it");
}

const V2_MOUNT: &str = "30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

/// A group of cgroup v2: usage and droppable cache in MiB, and its limit.
fn v2(folder: &str, used: u64, cache: u64, limit: &str) -> Vec<(String, String)> {
    let (used, cache) = (used * MIB, cache * MIB);
    vec![
        (format!("{folder}/memory.current"), format!("{used}\n")),
        (format!("{folder}/memory.max"), format!("{limit}\n")),
        (
            format!("{folder}/memory.stat"),
            format!("anon 1\nfile 2\ninactive_file {cache}\nactive_file 7\n"),
        ),
    ]
}

fn machine_v2(path: &str, groups: Vec<Vec<(String, String)>>) -> tempfile::TempDir {
    let root = machine(&[
        ("proc/self/cgroup", format!("0::{path}\n")),
        ("proc/self/mountinfo", V2_MOUNT.to_owned()),
    ]);
    for (name, text) in groups.into_iter().flatten() {
        write(root.path(), &name, &text);
    }
    root
}

#[tokio::test]
async fn a_group_of_version_two_counts_its_working_set_against_its_limit() {
    let mib = |number: u64| (number * MIB).to_string();
    let group = "sys/fs/cgroup/pod/app";
    let own = machine_v2(
        "/pod/app",
        vec![v2(group, 90, 40, &mib(100)), v2("sys/fs/cgroup/pod", 90, 0, "max")],
    );
    assert_eq!(percent(own.path()).await, 50, "the page cache can go at once");
    let parents = machine_v2(
        "/pod/app",
        vec![v2(group, 90, 0, "max"), v2("sys/fs/cgroup/pod", 160, 0, &mib(200))],
    );
    assert_eq!(
        percent(parents.path()).await,
        80,
        "the pod's limit counts, and all that is in the pod"
    );
    let unlimited = machine_v2("/pod/app", vec![v2(group, 90, 0, "max")]);
    assert_eq!(percent(unlimited.path()).await, 60, "the machine's");
    let container = machine_v2("/", vec![v2("sys/fs/cgroup", 70, 0, &mib(100))]);
    assert_eq!(
        percent(container.path()).await,
        70,
        "a container sees its own group as the root"
    );
    let larger = machine_v2("/", vec![v2("sys/fs/cgroup", 70, 0, &mib(10_000))]);
    assert_eq!(percent(larger.path()).await, 60, "no limit is larger than the machine");
}

#[tokio::test]
async fn a_group_of_version_one_is_found_where_it_is_mounted() {
    let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                  32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                  35 31 0:32 PART /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                  41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    let group = |folder: &str, limit: u64| {
        [
            (format!("{folder}/memory.usage_in_bytes"), format!("{}\n", 90 * MIB)),
            (format!("{folder}/memory.limit_in_bytes"), format!("{limit}\n")),
            (
                format!("{folder}/memory.stat"),
                format!(
                    "cache 9\ninactive_file 1\ntotal_cache 8\ntotal_inactive_file {}\n",
                    15 * MIB
                ),
            ),
        ]
    };
    let cases = [
        // On the host, and in a container, which sees its own part of the hierarchy only.
        ("/", "sys/fs/cgroup/memory/docker/abc", 100 * MIB, 75),
        ("/docker/abc", "sys/fs/cgroup/memory", 100 * MIB, 75),
        // What the kernel shows where there is no limit.
        ("/docker/abc", "sys/fs/cgroup/memory", 9_223_372_036_854_771_712, 60),
    ];
    for (part, folder, limit, expected) in cases {
        let root = machine(&[
            (
                "proc/self/cgroup",
                "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/\n".to_owned(),
            ),
            ("proc/self/mountinfo", mounts.replace("PART", part)),
        ]);
        for (name, text) in group(folder, limit) {
            write(root.path(), &name, &text);
        }
        assert_eq!(percent(root.path()).await, expected, "{part} {folder} {limit}");
    }
}

#[tokio::test]
async fn pressure_warns_before_memory_is_full() {
    let pressure = |some: f64| {
        format!(
            "some avg10={some:.2} avg60=1.00 avg300=0.50 total=9\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=0\n"
        )
    };
    let root = machine_v2("/", vec![v2("sys/fs/cgroup", 50, 0, &(100 * MIB).to_string())]);
    let check = || MemoryCheck::new().below(root.path());
    assert_eq!(told(&check()).await, "pass", "a kernel without PSI");
    write(root.path(), "proc/pressure/memory", &pressure(35.5));
    assert_eq!(
        told(&check()).await,
        "warn saturated",
        "the machine's, where the group has none"
    );
    write(root.path(), "sys/fs/cgroup/memory.pressure", &pressure(19.9));
    assert_eq!(told(&check()).await, "pass", "the group's own");
    assert_eq!(told(&check().warn_stalled(10.0)).await, "warn saturated");
    assert_eq!(told(&check().warn_at(0.5)).await, "warn saturated");
    assert_eq!(told(&check().fail_at(0.5)).await, "fail saturated");
}

#[tokio::test]
async fn a_machine_that_shows_nothing_fails_instead_of_passing() {
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(told(&MemoryCheck::new().below(empty.path())).await, "fail refused");
    let no_mount = machine(&[
        ("proc/self/cgroup", "0::/\n".to_owned()),
        ("proc/self/mountinfo", String::new()),
    ]);
    assert_eq!(told(&MemoryCheck::new().below(no_mount.path())).await, "fail error");
}
