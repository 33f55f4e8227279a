//! Rotation of logs by size, without losing a line. Services write to their file themselves, so that a dead supervisor
//! costs nothing, and keep it open, so that it cannot be replaced: the oldest part is copied, and its room given back to
//! the file system by a hole (fallocate(2), `FALLOC_FL_PUNCH_HOLE`). What is appended meanwhile is not touched, and no
//! byte changes its place. A log that was rotated therefore begins with a hole, which reads as zeros and takes no room.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, SeekFrom as SeekTo, fallocate, seek};
use rustix::io::Errno;

/// A log is rotated when it holds more, in bytes.
pub const LIMIT_BYTES: u64 = 16 * 1024 * 1024;
/// How many old parts are kept, as `name.log.1` (the youngest) and on.
pub const KEPT: u32 = 3;

/// Moves the whole lines of the log into `name.log.1` if it holds more than `limit` bytes. Whether it did.
///
/// A crash between the copy and the hole leaves lines twice, never none. Where the file system knows no holes the log is
/// cut instead, and what is written in that instant is lost.
pub fn rotate(log: &Path, limit: u64, kept: u32) -> io::Result<bool> {
    let mut source = match OpenOptions::new().read(true).write(true).open(log) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let from = begin(&source)?;
    let size = source.metadata()?.len();
    if size.saturating_sub(from) <= limit {
        return Ok(false);
    }
    let to = last_line_end(&source, from, size)?;
    for number in (1..kept).rev() {
        match fs::rename(numbered(log, number), numbered(log, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let mut copy = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(numbered(log, 1))?;
    source.seek(SeekFrom::Start(from))?;
    io::copy(&mut (&source).take(to - from), &mut copy)?;
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fallocate(&source, hole, 0, to) {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            source.seek(SeekFrom::Start(to))?;
            io::copy(&mut source, &mut copy)?;
            source.set_len(0)?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(true)
}

/// Where a log begins, in bytes: behind the hole that rotations left. Moves the file's position.
pub fn begin(log: &File) -> io::Result<u64> {
    // Before the look: what is appended after it is no hole.
    let length = log.metadata()?.len();
    let mut position = match seek(log, SeekTo::Data(0)) {
        Ok(position) => position,
        // Nothing but a hole, or nothing at all.
        Err(Errno::NXIO) => return Ok(length),
        Err(Errno::INVAL) => 0,
        Err(error) => return Err(error.into()),
    };
    // The rest of a hole's last block is zeros.
    let mut block = vec![0; 64 * 1024];
    loop {
        let read = log.read_at(&mut block, position)?;
        let zeros = block[..read].iter().take_while(|byte| **byte == 0).count();
        position += zeros as u64;
        if zeros < block.len() {
            return Ok(position);
        }
    }
}

/// The end of the last whole line between two places; the second place when no line ends there.
fn last_line_end(log: &File, from: u64, to: u64) -> io::Result<u64> {
    let mut block = vec![0; 64 * 1024];
    let mut end = to;
    while end > from {
        let start = end.saturating_sub(block.len() as u64).max(from);
        let part = &mut block[..usize::try_from(end - start).unwrap_or(usize::MAX)];
        log.read_exact_at(part, start)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(to)
}

/// The name of an old part.
pub fn numbered(log: &Path, number: u32) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::MetadataExt as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::local::StateDir;
    use crate::local::logs::LogTail;

    fn holds(path: &Path) -> String {
        let mut file = File::open(path).unwrap();
        let begin = begin(&file).unwrap();
        file.seek(SeekFrom::Start(begin)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_writer_that_appends_goes_on_in_the_rotated_file() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("a.log");
        let mut writer = OpenOptions::new().append(true).create(true).open(&log).unwrap();
        for round in 1..=4 {
            writeln!(writer, "round {round}").unwrap();
            write!(writer, "half ").unwrap();
            assert!(rotate(&log, 3, 2).unwrap());
            assert_eq!(holds(&log), "half ");
        }
        writeln!(writer, "x").unwrap();
        assert!(!rotate(&log, 10, 2).unwrap());
        assert_eq!(holds(&log), "half x\n");
        assert_eq!(holds(&numbered(&log, 1)), "half round 4\n");
        assert_eq!(holds(&numbered(&log, 2)), "half round 3\n");
        assert!(!numbered(&log, 3).exists());
    }

    #[test]
    fn no_line_is_lost_or_doubled_while_one_writes_and_one_follows() {
        const ROTATIONS: u32 = 20;
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path().join(".opsctl")).unwrap();
        let log = state.log("orders", "orders-1");
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        let mut writer = OpenOptions::new().append(true).create(true).open(&log).unwrap();
        let done = AtomicBool::new(false);
        let mut tail = LogTail::new(&state, &[], None);
        let mut followed = tail.poll().unwrap();
        let lines = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut lines = 0;
                while !done.load(Ordering::Acquire) {
                    writeln!(writer, "{lines} {}", "x".repeat(lines % 90)).unwrap();
                    lines += 1;
                }
                lines
            });
            let mut rotations = 0;
            while rotations < ROTATIONS {
                rotations += u32::from(rotate(&log, 20_000, ROTATIONS + 1).unwrap());
                followed.extend(tail.poll().unwrap());
            }
            done.store(true, Ordering::Release);
            writer.join().unwrap()
        });
        followed.extend(tail.poll().unwrap());
        let numbers = |text: &str| -> Vec<usize> {
            let numbers = text.lines().map(|line| line.split_once(' ').unwrap().0);
            numbers.map(|number| number.parse().unwrap()).collect()
        };
        let all: Vec<usize> = (0..lines).collect();
        let parts = (1..=ROTATIONS).rev().map(|number| numbered(&log, number));
        let written: String = parts.chain([log.clone()]).map(|part| holds(&part)).collect();
        assert!(
            numbers(&written) == all,
            "{} of {lines} written",
            written.lines().count()
        );
        let followed: Vec<String> = followed.into_iter().map(|line| line.line).collect();
        assert!(
            numbers(&followed.join("\n")) == all,
            "{} of {lines} followed",
            followed.len()
        );
        // And the room is given back.
        rotate(&log, 0, 2).unwrap();
        let meta = fs::metadata(&log).unwrap();
        let room = meta.blocks() * 512;
        assert!(room < meta.len() / 2 && room < 200_000, "{room} of {}", meta.len());
    }
}
