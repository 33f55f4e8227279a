//! What is backed up: made from nothing but numbers, the same in every run.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::Result;

const MIB: usize = 1 << 20;
/// So many small files lie in one folder.
const FILES_OF_A_FOLDER: usize = 1000;

/// Bytes without any pattern.
pub(super) fn random(file: &Path, mib: usize) -> Result<()> {
    let mut out = BufWriter::with_capacity(MIB, fs::File::create(file)?);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = vec![0_u8; MIB];
    for _ in 0..mib {
        for word in block.chunks_exact_mut(8) {
            word.copy_from_slice(&splitmix(&mut state).to_le_bytes());
        }
        out.write_all(&block)?;
    }
    Ok(out.flush()?)
}

/// Rows as PostgreSQL's COPY writes them: tab-separated numbers, times, words and amounts.
pub(super) fn copy_text(file: &Path, mib: usize) -> Result<()> {
    const WORDS: &[&str] = &[
        "pending",
        "paid",
        "delivered",
        "cancelled",
        "Berlin",
        "Lisbon",
        "Oslo",
        "book",
        "lamp",
        "chair",
        "\\N",
    ];
    let mut out = BufWriter::with_capacity(MIB, fs::File::create(file)?);
    let mut state = 7_u64;
    let mut written = 0;
    let mut id = 0_u64;
    while written < mib * MIB {
        let noise = splitmix(&mut state);
        let word = |shift: u32| WORDS[(noise >> shift) as usize % WORDS.len()];
        let row = format!(
            "{id}\t{:016x}\t2026-{:02}-{:02} {:02}:{:02}:{:02}.{:06}+00\t{}\t{}\t{}.{:02}\t{} {} {}\n",
            splitmix(&mut state),
            noise % 12 + 1,
            noise / 16 % 28 + 1,
            noise / 512 % 24,
            noise / 8192 % 60,
            noise / 65536 % 60,
            noise % 1_000_000,
            word(3),
            word(11),
            noise % 5000,
            noise / 7 % 100,
            word(19),
            word(27),
            word(35),
        );
        out.write_all(row.as_bytes())?;
        written += row.len();
        id += 1;
    }
    Ok(out.flush()?)
}

/// The generator of Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Small files: a line of 64 to about a thousand digits in each, all different.
pub(super) fn small_files(folder: &Path, count: usize) -> Result<()> {
    let mut state = 3_u64;
    let mut text = String::new();
    for file in 0..count {
        let within = folder.join(format!("{:04}", file / FILES_OF_A_FOLDER));
        if file % FILES_OF_A_FOLDER == 0 {
            fs::create_dir_all(&within)?;
        }
        text.clear();
        for _ in 0..4 + splitmix(&mut state) % 60 {
            write!(text, "{:016x}", splitmix(&mut state))?;
        }
        fs::write(within.join(format!("{:03}.txt", file % FILES_OF_A_FOLDER)), &text)?;
    }
    Ok(())
}
