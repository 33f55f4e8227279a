//! Who we are, for locks and key files: machine, process, and whether a process of this machine still lives.

use rustix::process::{Pid, getpid, test_kill_process};

/// The machine's name.
pub(crate) fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The user's number and, as far as is known without asking a directory service, name.
pub(crate) fn user() -> (u32, u32) {
    (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
}

/// Our process number.
pub(crate) fn pid() -> u32 {
    getpid().as_raw_nonzero().get().unsigned_abs()
}

/// What tells a process from a later one with the same number: the boot it runs in and when it was started. `None` where
/// the process does not exist or `/proc` is not there.
pub(crate) fn process_birth(pid: u32) -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command in parentheses may hold anything; field 22 counts from behind it.
    let start = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?;
    Some(format!("{}/{start}", boot.trim()))
}

/// Whether a process with this number exists (a zombie does not count).
pub(crate) fn process_exists(pid: u32) -> bool {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return false;
    };
    if matches!(test_kill_process(raw), Err(rustix::io::Errno::SRCH)) {
        return false;
    }
    let zombie = std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
    });
    !zombie
}

/// The name of a user, from `/etc/passwd`.
pub(crate) fn user_name(uid: u32) -> Option<String> {
    account(&std::fs::read_to_string("/etc/passwd").ok()?, uid)
}

/// The name of a group, from `/etc/group`.
pub(crate) fn group_name(gid: u32) -> Option<String> {
    account(&std::fs::read_to_string("/etc/group").ok()?, gid)
}

/// Both files are `name:password:number:…`.
fn account(file: &str, number: u32) -> Option<String> {
    file.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(number)).then(|| name.to_owned())
    })
}
