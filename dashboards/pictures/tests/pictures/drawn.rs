//! Each kind of chart, drawn: held against the rules, against files that people have looked at, and on a page to look at.

use std::path::Path;

use pictures::{Look, Page, Theme, Tone, svg};

use crate::gallery;
use crate::judge::{judge, words};

fn drawn(theme: Theme) -> Vec<(&'static str, pictures::Svg)> {
    let draw = |(name, chart, width, height): (&'static str, Box<dyn pictures::Chart>, f64, f64)| {
        (name, svg(chart.as_ref(), name, &Look::new(theme, name, width, height)))
    };
    gallery::all().into_iter().map(draw).collect()
}

#[test]
fn every_kind_keeps_the_rules_in_every_theme() {
    for theme in [Theme::Light, Theme::Dark, Theme::Viewer, Theme::Page] {
        for (name, picture) in drawn(theme) {
            judge(picture.as_str());
            assert!(
                picture.as_str().len() < 40_000,
                "{name} has {} bytes",
                picture.as_str().len()
            );
        }
    }
}

/// A picture that differs from its file is a failure; `UPDATE_PICTURES=1` writes the files anew, for people to look at.
#[test]
fn pictures_are_what_people_have_looked_at() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures/seen");
    let update = std::env::var_os("UPDATE_PICTURES").is_some();
    let mut differ = Vec::new();
    for (name, picture) in drawn(Theme::Viewer) {
        if !["errors", "numbers", "gauges", "bars", "states"].contains(&name) {
            continue;
        }
        let file = folder.join(format!("{name}.svg"));
        if update {
            std::fs::write(&file, picture.as_str()).unwrap();
        } else if std::fs::read_to_string(&file).unwrap_or_default() != picture.as_str() {
            differ.push(name);
        }
    }
    assert!(
        differ.is_empty(),
        "{differ:?} look different; UPDATE_PICTURES=1 draws them anew, then look at them"
    );
}

/// Several pictures on one page do not know each other's ids.
#[test]
fn a_page_takes_every_kind_and_no_id_is_there_twice() {
    let mut page = Page::new("Every kind").lead("What the crate draws.").section("Charts");
    for (name, picture) in drawn(Theme::Page) {
        page = page.picture(&picture, name);
    }
    let page = page.badge(pictures::Badge::new("drawn", Tone::Good)).render();
    let mut ids: Vec<&str> = page
        .split(" id=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
    std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("gallery.html"), page).unwrap();
}

#[test]
fn what_is_to_be_read_is_there() {
    let all = drawn(Theme::Light);
    let said = |name: &str| words(all.iter().find(|picture| picture.0 == name).unwrap().1.as_str()).join("|");
    for (name, expected) in [
        ("requests", "deploy 1.4.2"),
        ("requests", "req/s"),
        ("latency", "objective"),
        ("latency", "400\u{a0}ms"),
        ("memory", "MiB"),
        ("errors", "seconds"),
        ("table", "more rows"),
        ("heat", "+Inf"),
        ("states", "closed"),
        ("words", "runbook says what to do; see its page."),
        ("nothing", "no data"),
    ] {
        assert!(
            said(name).contains(expected),
            "{name} does not say {expected}: {}",
            said(name)
        );
    }
    assert!(!said("words").contains("script") && !said("words").contains("**"));
}

/// The same input gives the same bytes.
#[test]
fn pictures_are_the_same_each_time() {
    assert_eq!(drawn(Theme::Dark), drawn(Theme::Dark));
}
