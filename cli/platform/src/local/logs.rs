//! Reading the logs of instances, also while they are written and rotated: followed from their end, or searched from the
//! oldest part on. Lines are passed on as they are.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::StateDir;
use super::state_dir::failed;
use super::supervisor::rotate;
use crate::Result;

/// One line of an instance's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogLine {
    /// The service.
    pub service: String,
    /// The instance.
    pub instance: String,
    /// The line without its end; bytes that are no UTF-8 are replaced.
    pub line: String,
}

/// Follows the logs of some services.
#[derive(Debug)]
pub struct LogTail {
    folder: PathBuf,
    services: Vec<String>,
    instance: Option<String>,
    /// How much of each log was read, by path; with the file's inode.
    read: BTreeMap<PathBuf, (u64, u64)>,
}

impl LogTail {
    /// The logs of `services` (empty: all), of one instance if `instance` names it.
    pub fn new(state: &StateDir, services: &[String], instance: Option<&str>) -> Self {
        Self {
            folder: state.path("logs"),
            services: services.to_vec(),
            instance: instance.map(str::to_owned),
            read: BTreeMap::new(),
        }
    }

    /// The last `count` lines of each log; what follows comes from [`LogTail::poll`].
    pub fn last(&mut self, count: usize) -> Result<Vec<LogLine>> {
        let mut all = Vec::new();
        for (service, instance, path) in self.logs()? {
            let lines = self.read_new(&path)?;
            let from = lines.len().saturating_sub(count);
            all.extend(lines[from..].iter().map(|line| line_of(&service, &instance, line)));
        }
        Ok(all)
    }

    /// Whole lines that were written since the last call, log by log, also of what was rotated
    /// away meanwhile, as long as that was done once. A log that became shorter is read from its beginning.
    pub fn poll(&mut self) -> Result<Vec<LogLine>> {
        self.last(usize::MAX)
    }

    fn logs(&self) -> Result<Vec<(String, String, PathBuf)>> {
        files(&self.folder, &self.services, self.instance.as_deref(), Written::Log)
    }

    fn read_new(&mut self, path: &Path) -> Result<Vec<String>> {
        let entry = self.read.entry(path.to_owned()).or_default();
        let read = || -> io::Result<(Vec<u8>, u64, u64)> {
            let mut file = File::open(path)?;
            loop {
                let meta = file.metadata()?;
                let begin = rotate::begin(&file)?;
                let same = meta.len() >= entry.0 && meta.ino() == entry.1;
                let from = if same { entry.0 } else { begin };
                let mut bytes = if from < begin {
                    rotated(path, from, begin)?
                } else {
                    Vec::new()
                };
                file.seek(SeekFrom::Start(from.max(begin)))?;
                // What the old part did not have any more is left out.
                let from = from.max(begin) - bytes.len() as u64;
                file.read_to_end(&mut bytes)?;
                // What was rotated while it was read may have been read as zeros.
                if rotate::begin(&file)? == begin {
                    return Ok((bytes, from, meta.ino()));
                }
            }
        };
        let (bytes, from, inode) = match read() {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("read", path)(error)),
        };
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        *entry = (from + whole as u64, inode);
        Ok(String::from_utf8_lossy(&bytes[..whole])
            .lines()
            .map(str::to_owned)
            .collect())
    }
}

/// What an instance writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// What it prints.
    Log,
    /// Its spans, where it was told to write them: `TRACES_FILE`.
    Spans,
}

/// Every whole line that is `wanted`, of `services` (empty: all), of one instance if `instance` names it, file by file
/// and in each from the oldest part that is kept to the youngest.
pub fn search(
    state: &StateDir,
    services: &[String],
    instance: Option<&str>,
    written: Written,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<LogLine>> {
    let mut found = Vec::new();
    for (service, instance, path) in files(&state.path("logs"), services, instance, written)? {
        let lines = search_one(&path, &wanted).map_err(failed("read", &path))?;
        found.extend(lines.iter().map(|line| line_of(&service, &instance, line)));
    }
    Ok(found)
}

/// One file with its old parts. A rotation meanwhile would have lines found twice or missed: then it is read again.
fn search_one(path: &Path, wanted: &impl Fn(&str) -> bool) -> io::Result<Vec<String>> {
    let youngest = rotate::numbered(path, 1);
    let state = || {
        let inode = fs::metadata(&youngest).map(|meta| meta.ino()).ok();
        (inode, File::open(path).and_then(|file| rotate::begin(&file)).ok())
    };
    loop {
        let before = state();
        let mut lines = Vec::new();
        let old = (1..=rotate::KEPT).rev().map(|number| rotate::numbered(path, number));
        for part in old.chain([path.to_owned()]) {
            match File::open(&part) {
                Ok(file) if part == youngest && still_in(&file, path)? => {}
                Ok(file) => search_part(file, wanted, &mut lines)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if state() == before {
            return Ok(lines);
        }
    }
}

/// Whether what an old part has is still in the log too: a rotation is copying, or a crash ended one between the copy and
/// the hole.
fn still_in(mut part: &File, log: &Path) -> io::Result<bool> {
    let Ok(mut log) = File::open(log) else { return Ok(false) };
    let begin = rotate::begin(&log)?;
    log.seek(SeekFrom::Start(begin))?;
    let (mut old, mut new) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let same = loop {
        let read = part.read(&mut old)?;
        if read == 0 {
            break true;
        }
        match log.read_exact(&mut new[..read]) {
            Ok(()) if old[..read] == new[..read] => {}
            Ok(()) => break false,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break false,
            Err(error) => return Err(error),
        }
    };
    part.seek(SeekFrom::Start(0))?;
    Ok(same)
}

fn search_part(mut file: File, wanted: &impl Fn(&str) -> bool, lines: &mut Vec<String>) -> io::Result<()> {
    let begin = rotate::begin(&file)?;
    file.seek(SeekFrom::Start(begin))?;
    let mut reader = BufReader::with_capacity(256 * 1024, file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        if line.last() == Some(&b'\n') {
            line.pop();
            let text = String::from_utf8_lossy(&line);
            if wanted(&text) {
                lines.push(text.into_owned());
            }
        }
        line.clear();
    }
    Ok(())
}

/// Service, instance and path of each file.
fn files(
    folder: &Path,
    services: &[String],
    instance: Option<&str>,
    written: Written,
) -> Result<Vec<(String, String, PathBuf)>> {
    let suffix = match written {
        Written::Log => ".log",
        Written::Spans => ".spans.jsonl",
    };
    let mut files = Vec::new();
    for service in names(folder)? {
        let folder = folder.join(&service);
        if !folder.is_dir() || !(services.is_empty() || services.contains(&service)) {
            continue;
        }
        for file in names(&folder)? {
            if let Some(of) = file.strip_suffix(suffix)
                && instance.is_none_or(|wanted| wanted == of)
            {
                files.push((service.clone(), of.to_owned(), folder.join(&file)));
            }
        }
    }
    Ok(files)
}

/// What stood in the log from `from` to its present beginning `to`, as far as the youngest old part has it.
fn rotated(log: &Path, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut part = match File::open(rotate::numbered(log, 1)) {
        Ok(part) => part,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let length = part.metadata()?.len();
    // The old part ends where the log begins.
    part.seek(SeekFrom::Start(length.saturating_sub(to - from)))?;
    let mut bytes = Vec::new();
    part.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("read", folder)(error)),
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

fn line_of(service: &str, instance: &str, line: &str) -> LogLine {
    LogLine {
        service: service.to_owned(),
        instance: instance.to_owned(),
        line: line.to_owned(),
    }
}
