//! Rotation of logs by size. Services write to their file themselves, so that a dead supervisor costs no line; rotating
//! therefore copies the file and cuts it, and what is written in the instant between the two is lost.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A log is cut when it is larger, in bytes.
pub const LIMIT_BYTES: u64 = 16 * 1024 * 1024;
/// How many cut logs are kept, as `name.log.1` (the youngest) and on.
pub const KEPT: u32 = 3;

/// Cuts the log if it is larger than `limit` bytes. Whether it was.
pub fn rotate(log: &Path, limit: u64, kept: u32) -> io::Result<bool> {
    let size = match fs::metadata(log) {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if size <= limit {
        return Ok(false);
    }
    for number in (1..kept).rev() {
        match fs::rename(numbered(log, number), numbered(log, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let mut source = OpenOptions::new().read(true).write(true).open(log)?;
    let mut copy = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(numbered(log, 1))?;
    io::copy(&mut source, &mut copy)?;
    // What came while copying; the second pass is short, so that little can slip in before the cut.
    catch_up(&mut source, &mut copy)?;
    source.set_len(0)?;
    Ok(true)
}

fn catch_up(source: &mut File, copy: &mut File) -> io::Result<()> {
    let position = source.stream_position()?;
    source.seek(SeekFrom::Start(position))?;
    let mut rest = Vec::new();
    source.read_to_end(&mut rest)?;
    copy.write_all(&rest)
}

/// The name of a cut log.
pub fn numbered(log: &Path, number: u32) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_that_appends_goes_on_in_the_cut_file() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("a.log");
        let mut writer = OpenOptions::new().append(true).create(true).open(&log).unwrap();
        for round in 1..=4 {
            writeln!(writer, "round {round}").unwrap();
            assert!(rotate(&log, 3, 2).unwrap());
        }
        writeln!(writer, "x").unwrap();
        assert!(!rotate(&log, 3, 2).unwrap());
        assert_eq!(fs::read_to_string(&log).unwrap(), "x\n");
        assert_eq!(fs::read_to_string(numbered(&log, 1)).unwrap(), "round 4\n");
        assert_eq!(fs::read_to_string(numbered(&log, 2)).unwrap(), "round 3\n");
        assert!(!numbered(&log, 3).exists());
    }
}
