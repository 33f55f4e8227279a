//! A short, seeded slice of fuzzing for every run of the tests, on any toolchain: sound input that is mutated without
//! guidance. What takes minutes and follows coverage is `cargo xtask fuzz`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use super::{Target, target, targets};
use crate::repo::fuzzing::plain_files;
use crate::store::{LocalStore, Store};

/// Inputs for each target.
const EACH: usize = 600;
/// No input is longer.
const LONGEST: usize = 64 << 10;

/// What tends to be one too many, in both orders of bytes and as text.
const ODD: &[&[u8]] = &[
    &[0xff; 4],
    &[0xff; 8],
    &[0xff, 0xff, 0xff, 0x7f],
    &[0, 0, 0, 0x80],
    &[0, 0, 1, 0],
    b"0",
    b"-1",
    b"4294967295",
    b"4294967296",
    b"18446744073709551616",
    b"1e400",
    b"null",
    b"[]",
    b"{}",
    b"[[[[[[[[",
    b"\"\"",
    b"..",
    b"/",
    b"**/",
    b"\\x00",
    b"\\ud800",
    b"9999-12-31T23:59:59.999999999Z",
    b"\n",
];

/// One change: a bit, a cut, an odd value, a span again, a splice with another input.
fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut StdRng) {
    let at = random.random_range(0..=input.len());
    match random.random_range(0..7) {
        0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
        1 if at < input.len() => input[at] = random.random(),
        2 => input.truncate(at),
        3 => {
            let odd = ODD[random.random_range(0..ODD.len())];
            let end = (at + random.random_range(0..=odd.len())).min(input.len());
            input.splice(at..end, odd.iter().copied());
        }
        4 => {
            let end = (at + random.random_range(0..40)).min(input.len());
            let again = input[at..end].repeat(random.random_range(1..4));
            input.splice(at..at, again);
        }
        5 => {
            let end = (at + random.random_range(0..40)).min(input.len());
            input.drain(at..end);
        }
        _ => {
            let from = random.random_range(0..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
    }
    input.truncate(LONGEST);
}

/// Holds a property against seeds and mutations of them; on failure says how to have it again.
fn try_out(target: &Target, seeds: &[Vec<u8>], seed: u64) {
    let hold = |input: &[u8], which: &dyn Fn() -> String| {
        let held = catch_unwind(AssertUnwindSafe(|| (target.property)(input)));
        assert!(
            held.is_ok(),
            "{} does not hold for {}: {:?}",
            target.name,
            which(),
            String::from_utf8_lossy(&input[..input.len().min(2000)])
        );
    };
    for sound in seeds {
        hold(sound, &|| "a seed".to_owned());
    }
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..EACH {
        let mut input = seeds[random.random_range(0..seeds.len())].clone();
        let other = &seeds[random.random_range(0..seeds.len())];
        for _ in 0..random.random_range(1..5) {
            mutate(&mut input, other, &mut random);
        }
        hold(&input, &|| format!("input {round} of OPSCTL_SEED={seed}"));
    }
    let mut noise = vec![0; 256];
    random.fill_bytes(&mut noise);
    hold(&noise, &|| "noise".to_owned());
}

fn seed() -> u64 {
    let told = std::env::var("OPSCTL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = told.unwrap_or_else(rand::random);
    println!("OPSCTL_SEED={seed}");
    seed
}

#[test]
fn every_reader_of_foreign_bytes_holds_under_mutation() {
    let seed = seed();
    for target in targets() {
        try_out(target, &(target.seeds)(), seed);
    }
}

/// What restic wrote is read as it is, and mutated: format 1, other fields, another order.
#[test]
fn what_restic_wrote_holds_under_mutation() {
    let test = "what_restic_wrote_holds_under_mutation";
    let Some(tarballs) = peers::shared_data("restic-repositories", test) else {
        return;
    };
    let seed = seed();
    for name in ["small-repo", "repo-mixed", "repo-duplicates"] {
        let folder = tempfile::tempdir().unwrap();
        let unpacked = std::process::Command::new("tar")
            .arg("xzf")
            .arg(tarballs.join(format!("{name}.tar.gz")))
            .arg("-C")
            .arg(folder.path())
            .status();
        assert!(unpacked.unwrap().success());
        let repository = std::fs::read_dir(folder.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let store: Arc<dyn Store> = Arc::new(LocalStore::new(repository));
        for (reader, seeds) in plain_files(store, "geheim") {
            assert!(!seeds.is_empty(), "{name} holds something for {reader}");
            try_out(target(reader), &seeds, seed);
        }
    }
}

/// Each property is a fuzz target, and no fuzz target is without one.
#[test]
fn every_property_is_a_fuzz_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    let mut names: Vec<_> = targets().map(|target| target.name.to_owned()).collect();
    names.sort();
    assert_eq!(files, names);
}
