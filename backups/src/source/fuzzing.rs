//! What holds for the readers of patterns, and for what is hidden of a command's words.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Patterns;
use crate::fuzzing::{Target, halves};
use crate::process::Variable;
use crate::process::redact::hide;

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "patterns",
        seeds: || {
            let seeds = [
                "*.tmp\na/b.tmp",
                "**/cache/**\na/cache/b",
                "/build/[!a-z]?\\*\nbuild/Ax*",
                "**/a/**/a/**/b\na/a/a/a/a/b",
            ];
            seeds.map(|seed| seed.as_bytes().to_vec()).to_vec()
        },
        property: patterns,
    },
    Target {
        name: "redaction",
        seeds: || {
            let seeds = [
                "hunter2\npg_dump postgres://user:hunter2@db/shop failed",
                "s3cr3t\npassword='s3cr3t' token=s3cr3t&x=1",
            ];
            seeds.map(|seed| seed.as_bytes().to_vec()).to_vec()
        },
        property: redaction,
    },
];

/// A pattern, and a path to hold against it.
fn patterns(input: &[u8]) {
    let (pattern, path) = halves(input);
    let path = Path::new(OsStr::from_bytes(path));
    if let Ok(pattern) = std::str::from_utf8(pattern) {
        let (exact, lax) = (
            Patterns::new([pattern]),
            Patterns::default().and_ignoring_case([pattern]),
        );
        assert_eq!(exact.is_ok(), lax.is_ok());
        if let (Ok(exact), Ok(lax)) = (exact, lax) {
            let fits = |patterns: &Patterns, is_directory| patterns.matches(path, is_directory);
            assert!(
                !fits(&exact, false) || fits(&exact, true),
                "what fits a file fits a directory"
            );
            assert_eq!(exact.patterns(), [pattern]);
            let _ = (fits(&lax, false), fits(&lax, true));
        }
    }
    // A path with every character taken as it is fits itself.
    if let Some(text) = path.to_str().filter(|text| !text.contains("//")) {
        let literal: String = text.chars().flat_map(literally).collect();
        if let Ok(itself) = Patterns::new([format!("/{}", literal.trim_matches('/'))]) {
            let inside = Path::new(text.trim_matches('/'));
            assert!(itself.matches(inside, true), "{literal:?} {}", inside.display());
        }
    }
}

fn literally(character: char) -> impl Iterator<Item = char> {
    let escape = matches!(character, '*' | '?' | '[' | ']' | '\\').then_some('\\');
    escape.into_iter().chain([character])
}

/// A secret, and a text that may hold it.
fn redaction(input: &[u8]) {
    let (secret, said) = halves(input);
    let (secret, said) = (
        String::from_utf8_lossy(secret).into_owned(),
        String::from_utf8_lossy(said),
    );
    let variable = Variable {
        name: "PASSWORD".to_owned(),
        value: secret.clone().into(),
        is_secret: true,
    };
    let shown = hide(&said, &[variable]);
    let secret = secret.trim();
    // What stands for a secret may be a part of it.
    if !secret.is_empty() && !secret.contains('…') && !"…:@".contains(secret) {
        assert!(!shown.contains(secret), "{shown:?} holds {secret:?}");
    }
}
