//! Checks of boards beside each other: what only one of them may have.

use std::collections::BTreeMap;

use lint::Finding;

use super::links::uid;
use super::table::{DUPLICATE_TITLE, DUPLICATE_UID, V1_OVER_V2};
use crate::read::{Board, Form};

pub(super) fn across(boards: &[Board<'_>], findings: &mut Vec<Finding>) {
    let mut by_uid: BTreeMap<&str, &Board<'_>> = BTreeMap::new();
    let mut by_title: BTreeMap<(&str, &str), &Board<'_>> = BTreeMap::new();
    for board in boards {
        let file = &board.document.file;
        if let (Some(node), Some(uid)) = (board.uid, uid(board.uid)) {
            if let Some(first) = by_uid.get(uid) {
                let other = first.document.file.name();
                let is_v2 = |board: &Board<'_>| board.form == Form::V2;
                let finding = if is_v2(first) == is_v2(board) {
                    Finding::new(
                        &DUPLICATE_UID,
                        file,
                        node.span.clone(),
                        format!("{other} has the uid `{uid}` too."),
                    )
                } else {
                    let what = format!("{other} has `{uid}` in the other model.");
                    Finding::new(&V1_OVER_V2, file, node.span.clone(), what)
                };
                findings.push(finding.about(board.name()));
                continue;
            }
            by_uid.insert(uid, board);
        }
        let Some((node, title)) = board.title.and_then(|node| Some((node, node.text()?))) else {
            continue;
        };
        let folder = file.name().rsplit_once('/').map_or("", |(folder, _)| folder);
        if let Some(first) = by_title.get(&(folder, title)) {
            let what = format!("{} is called `{title}` too.", first.document.file.name());
            findings.push(Finding::new(&DUPLICATE_TITLE, file, node.span.clone(), what).about(title));
        } else {
            by_title.insert((folder, title), board);
        }
    }
}
