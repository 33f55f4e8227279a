//! What is derived from the catalogue of the reference services is kept, and is up to date. `UPDATE_RULES=1` writes it anew.

use std::fs;
use std::path::{Path, PathBuf};

use alerts::render::{File, Settings, render, runbook_page};

use crate::landscapes;

/// Holds files of a folder against what is derived now.
fn up_to_date(folder: &Path, files: &[File]) {
    if std::env::var_os("UPDATE_RULES").is_some() {
        fs::create_dir_all(folder).unwrap();
        for file in files {
            fs::write(folder.join(&file.path), &file.text).unwrap();
        }
    }
    let mut kept: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    kept.sort_unstable();
    let mut expected: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    expected.sort_unstable();
    assert_eq!(
        kept, expected,
        "other files than these are derived; UPDATE_RULES=1 writes them, old ones are deleted by hand"
    );
    for file in files {
        let kept = fs::read_to_string(folder.join(&file.path)).unwrap();
        assert!(
            kept == file.text,
            "{} is not what is derived now; UPDATE_RULES=1 writes it",
            file.path
        );
    }
}

fn folder() -> PathBuf {
    peers::workspace_root().join("alerts/tests/reference")
}

#[test]
fn the_rules_of_the_reference_services_are_up_to_date() {
    let rendered = render(&landscapes::reference(), &Settings::default()).unwrap();
    let mut rules = rendered.prometheus();
    rules.retain(|file| !file.path.contains('/'));
    up_to_date(&folder().join("prometheus"), &rules);
    up_to_date(&folder().join("alertmanager"), &[rendered.alertmanager()]);
}

#[test]
fn every_alert_has_its_runbook_page() {
    let rendered = render(&landscapes::reference(), &Settings::default()).unwrap();
    let folder = peers::workspace_root().join("docs/runbooks");
    let pages: Vec<File> = alerts::render::PAGES
        .iter()
        .map(|page| {
            let path = format!("{}.md", page.alert);
            let old = fs::read_to_string(folder.join(&path)).ok();
            let text = runbook_page(page, &rendered.rules, old.as_deref()).unwrap();
            File { path, text }
        })
        .collect();
    up_to_date(&folder, &pages);
}
