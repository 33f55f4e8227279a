//! Checks of links: of the board, of panels, of values.

use super::table::{LINK_EMPTY, LINK_UNKNOWN_BOARD, LINK_VARIABLE};
use super::{Look, variables};
use crate::read::{Link, Node};

pub(super) fn all(look: &mut Look<'_>) {
    let board = look.board;
    for link in &board.links {
        one(look, link, "");
    }
    for panel in look.panels() {
        for link in &panel.links {
            one(look, link, &panel.name());
        }
    }
}

fn one(look: &mut Look<'_>, link: &Link<'_>, subject: &str) {
    let board = look.board;
    let title = link.title.unwrap_or("");
    // Up to Grafana 6 the address of a panel's link was made of a board's name.
    let old = ["dashboard", "dashUri", "params"]
        .iter()
        .any(|field| link.node.get(field).is_some());
    let Some((node, url)) = link
        .url
        .and_then(|node| Some((node, node.text()?)))
        .filter(|(_, url)| !url.trim().is_empty())
    else {
        if !link.by_tag && !old && link.node.get("oneClick").is_none() {
            let finding = look.find(&LINK_EMPTY, Look::head(link.node), format!("`{title}` has no address."));
            subject.clone_into(&mut finding.subject);
        }
        return;
    };
    for variable in promql::variables(url) {
        if board.variable(variable.name).is_none() && !variables::is_given(board, variable.name) {
            let span = board.document.inside(node, variable.span.range());
            let what = format!("The board has no variable `{}`.", variable.name);
            look.find(&LINK_VARIABLE, span, what).subject = subject.into();
        }
    }
    let uid = url
        .split_once("/d/")
        .map(|(_, rest)| rest.split(['/', '?', '&', '#']).next().unwrap_or(""));
    let Some(uid) = uid.filter(|uid| !uid.is_empty() && !uid.contains('$')) else {
        return;
    };
    // Of a single board nothing is known of the others.
    if look.uids.len() > 1 && !look.uids.contains(&uid) {
        let at = node.text().and_then(|text| text.find(uid)).unwrap_or_default();
        let span = board.document.inside(node, at..at + uid.len());
        look.find(
            &LINK_UNKNOWN_BOARD,
            span,
            format!("No board that is looked at has the uid `{uid}`."),
        )
        .subject = subject.into();
    }
}

/// The uid of a board, for messages.
pub(super) fn uid(node: Option<&Node>) -> Option<&str> {
    node?.text().filter(|uid| !uid.is_empty())
}
