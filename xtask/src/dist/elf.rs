//! What a program asks of the machine that runs it: its interpreter and its shared libraries, as the headers of a 64-bit
//! little-endian ELF file name them. Nothing else of the format is read.

use anyhow::{Context, Result, bail, ensure};

/// What must be there before the program's first instruction.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The dynamic loader.
    pub interpreter: Option<String>,
    /// Shared libraries, in the file's order.
    pub libraries: Vec<String>,
}

const X86_64: u16 = 62;

// Kinds of segments, and of entries of the dynamic segment.
const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const INTERPRETER: u32 = 3;
const NEEDED: u64 = 1;
const STRINGS: u64 = 5;

/// Refuses a program that an empty root directory could not start.
///
/// # Errors
/// When `file` is no program for this target, or names an interpreter or a library.
pub fn require_static(file: &[u8]) -> Result<()> {
    let needs = needs(file)?;
    if needs == Needs::default() {
        return Ok(());
    }
    let all: Vec<String> = needs.interpreter.into_iter().chain(needs.libraries).collect();
    bail!("it is not static: it needs {}", all.join(", "))
}

/// Reads what a program needs.
///
/// # Errors
/// When `file` is not an ELF file of this target, or ends too early.
pub fn needs(file: &[u8]) -> Result<Needs> {
    ensure!(file.starts_with(b"\x7fELF"), "it is not an ELF file");
    ensure!(
        file.get(4..6) == Some(&[2, 1]) && number::<2>(file, 18)? == u64::from(X86_64),
        "it is not a program for x86_64"
    );
    let segments = segments(file)?;
    let mut needs = Needs::default();
    for segment in &segments {
        match segment.kind {
            INTERPRETER => needs.interpreter = Some(text(file, segment.offset)?),
            DYNAMIC => needs.libraries = libraries(file, segment, &segments)?,
            _ => {}
        }
    }
    Ok(needs)
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

fn segments(file: &[u8]) -> Result<Vec<Segment>> {
    let (start, size, count) = (number::<8>(file, 32)?, number::<2>(file, 54)?, number::<2>(file, 56)?);
    let segment = |index: u64| {
        let at = start.saturating_add(index * size);
        Ok(Segment {
            kind: number::<4>(file, at)? as u32,
            offset: number::<8>(file, at.saturating_add(8))?,
            address: number::<8>(file, at.saturating_add(16))?,
            size: number::<8>(file, at.saturating_add(32))?,
        })
    };
    (0..count).map(segment).collect()
}

/// A static program that may stand at any address has a dynamic segment too, for its own relocations; it names nothing.
fn libraries(file: &[u8], dynamic: &Segment, segments: &[Segment]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut strings = None;
    for index in 0..dynamic.size / 16 {
        let at = dynamic.offset.saturating_add(index * 16);
        match (number::<8>(file, at)?, number::<8>(file, at.saturating_add(8))?) {
            (NEEDED, name) => names.push(name),
            (STRINGS, address) => strings = Some(address),
            _ => {}
        }
    }
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let strings = strings.context("it names libraries but has no table of names")?;
    let table = segments
        .iter()
        .filter(|segment| segment.kind == LOAD)
        .find_map(|load| {
            let within = strings.checked_sub(load.address)?;
            (within < load.size).then(|| load.offset.saturating_add(within))
        })
        .context("its table of names lies outside of the file")?;
    names
        .into_iter()
        .map(|name| text(file, table.saturating_add(name)))
        .collect()
}

/// The number of `N` bytes at `at`.
fn number<const N: usize>(file: &[u8], at: u64) -> Result<u64> {
    let start = usize::try_from(at)?;
    let bytes = start.checked_add(N).and_then(|end| file.get(start..end));
    let bytes = bytes.context("it ends too early")?;
    Ok(bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// The text at `at`, which ends with a zero.
fn text(file: &[u8], at: u64) -> Result<String> {
    let rest = file.get(usize::try_from(at)?..).context("it ends too early")?;
    let text = rest.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_this_machine_names_its_loader_and_libraries() {
        let program = std::fs::read("/bin/sh").expect("a shell");
        let needs = needs(&program).expect("an ELF file");
        assert!(needs.interpreter.expect("a loader").contains("ld-linux"));
        assert!(needs.libraries.iter().any(|name| name.starts_with("libc.so")));
    }

    #[test]
    fn what_is_cut_off_anywhere_is_an_error_and_no_panic() {
        let program = std::fs::read("/bin/sh").expect("a shell");
        for length in (0..4096).chain([program.len() / 2]) {
            let _ = needs(&program[..length]);
        }
        assert!(needs(b"#!/bin/sh\n").is_err());
        assert!(needs(&program[..100]).is_err());
    }
}
