//! Tests of runbook pages: what people wrote is never lost.

use proptest::prelude::*;

use super::*;
use crate::render::PAGES;

#[test]
fn a_new_page_says_what_to_do_first() {
    let text = page(&PAGES[0], &[], None).unwrap();
    assert!(text.starts_with("# AvailabilityBudgetBurn\n\n"), "{text}");
    assert!(text.contains("opsctl deploy status SERVICE"), "{text}");
    assert_eq!(
        page(&PAGES[0], &[], Some(&text)).unwrap(),
        text,
        "written again it is the same"
    );
}

#[test]
fn steps_are_kept_when_everything_around_them_changes() {
    let mine = page(&PAGES[0], &[], None)
        .unwrap()
        .replace(NOTHING_YET, "Ring *Ada*.\n\n```sh\nreboot\n```");
    let other = page(&PAGES[1], &[], Some(&mine)).unwrap();
    assert!(
        other.contains("-->\nRing *Ada*.\n\n```sh\nreboot\n```\n<!--"),
        "{other}"
    );
    assert!(other.starts_with("# BackupTooOld"));
    let windows = mine.replace('\n', "\r\n");
    assert_eq!(page(&PAGES[0], &[], Some(&windows)).unwrap(), mine);
}

#[test]
fn a_page_with_damaged_marks_is_left_alone() {
    let well = page(&PAGES[0], &[], None).unwrap();
    for damaged in [
        String::new(),
        "# By hand\n".to_owned(),
        well.replace(BEGIN, ""),
        well.replace(END, ""),
        well.replace(END, &format!("{END}\n{END}")),
        well.replace(BEGIN, "x").replace(END, BEGIN).replace('x', END),
    ] {
        assert_eq!(
            page(&PAGES[0], &[], Some(&damaged)),
            Err(RunbookError::Marks),
            "{damaged}"
        );
    }
}

proptest! {
    #[test]
    fn whatever_is_written_between_the_marks_stays(lines in prop::collection::vec("[^\r\n]{0,30}", 0..6)) {
        let steps: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        let old = format!("{BEGIN}\n{steps}{END}\n");
        let first = page(&PAGES[2], &[], Some(&old)).unwrap();
        let expected = format!("{BEGIN}\n{steps}{END}");
        prop_assert!(first.contains(&expected));
        prop_assert_eq!(page(&PAGES[2], &[], Some(&first)).unwrap(), first);
    }
}
