//! Small disks: file systems in memory, mounted where nobody but one process and its children sees them. They are gone with
//! that process, which ends when the test does, however it ends.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::sandbox::{Ran, Sandbox};
use crate::truth::wrapped;

/// What lies on a disk to fill it.
const FILLING: &str = ".filling";

/// A view of the file system in which some folders of a sandbox are small disks.
pub struct Disks<'a> {
    sandbox: &'a Sandbox,
    holder: Child,
    /// The holder reads it until its end.
    _held: ChildStdin,
}

impl<'a> Disks<'a> {
    /// Mounts a disk of so many KiB at each of these folders, or says that `test` is skipped since that is not allowed here.
    pub fn mount(sandbox: &'a Sandbox, disks: &[(&str, u64)], test: &str) -> Option<Self> {
        let script = "set -e; while [ $# -gt 0 ]; do mount -t tmpfs -o \"size=$2k,mode=0700\" tmpfs \"$1\"; shift 2; done\n\
                      echo ready; exec cat";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
        for (folder, size) in disks {
            fs::create_dir_all(sandbox.path(folder)).expect("our own folder");
            command.arg(sandbox.path(folder)).arg(size.to_string());
        }
        let spawned = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut holder) = spawned else {
            peers::skip(test, "there is no `unshare` here");
            return None;
        };
        let mut said = String::new();
        let out = holder.stdout.take().expect("piped");
        let _ = BufReader::new(out).read_line(&mut said);
        let held = holder.stdin.take().expect("piped");
        let disks = Self {
            sandbox,
            holder,
            _held: held,
        };
        if said != "ready\n" {
            peers::skip(test, "small disks cannot be mounted here");
            return None;
        }
        Some(disks)
    }

    /// Where a path of the sandbox is for who does not see the disks.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        let inside = self.sandbox.path(relative);
        let inside = inside.strip_prefix("/").expect("an absolute path");
        Path::new("/proc")
            .join(self.holder.id().to_string())
            .join("root")
            .join(inside)
    }

    /// `opsctl` where the disks are.
    pub fn command(&self, args: &[&str]) -> Command {
        wrapped(self.enter(), &self.sandbox.command(args))
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()))
            .args(["sh", "-c", "cd \"$0\" && exec \"$@\""])
            .arg(self.sandbox.path(""))
            .stdin(Stdio::null());
        command
    }

    /// Runs `opsctl` to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().expect("opsctl starts"))
    }

    /// Fills a disk to its last byte, but for so many KiB.
    pub fn fill(&self, disk: &str, but: u64) {
        let path = self.path(disk).join(FILLING);
        let mut filling = File::create(&path).expect("an empty file needs no room");
        let block = [0x5a; 4096];
        loop {
            match filling.write(&block) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
        let length = filling.metadata().expect("our own file").len();
        assert!(length > but * 1024, "{length} bytes were free");
        filling.set_len(length - but * 1024).expect("our own file");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("our own file");
    }

    /// Takes away what filled a disk.
    pub fn empty(&self, disk: &str) {
        fs::remove_file(self.path(disk).join(FILLING)).expect("it was filled");
    }

    /// Makes a disk larger, in KiB.
    pub fn grow(&self, disk: &str, size: u64) {
        let mut remount = self.enter();
        remount
            .args(["mount", "-o", &format!("remount,size={size}k")])
            .arg(self.sandbox.path(disk));
        assert!(remount.status().expect("mount starts").success());
    }
}

impl Drop for Disks<'_> {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
