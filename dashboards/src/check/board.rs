//! Checks of the board itself: who it is, how old, over what time.

use lint::Fix;

use super::table::{
    BOARD_DESCRIPTION, BOARD_TITLE, BOARD_UID, BOARD_UID_INVALID, DUPLICATE_FIELD, REFRESH_TOO_FAST, SCHEMA_OLD,
    SCHEMA_ROWS, SCHEMA_VERSION, TIME_RANGE, TIME_RANGE_FIXED, TIMEZONE,
};
use super::{Look, fix};
use crate::model::SCHEMA_VERSION as NEWEST_WRITTEN;
use crate::read::{Form, Node, Value};

/// The newest classic version that there is.
const NEWEST: f64 = 43.0;
/// Since then data sources are objects, and hardly anything is migrated.
const RECENT: f64 = 36.0;
/// Up to then boards had rows.
const GRID: f64 = 16.0;
/// Faster than any usual scrape interval, in seconds.
const FASTEST: f64 = 10.0;

pub(super) fn repeated_fields(look: &mut Look<'_>) {
    let mut pending = vec![&look.board.document.root];
    while let Some(node) = pending.pop() {
        pending.extend(node.items());
        let fields = node.fields();
        pending.extend(fields.iter().map(|field| &field.value));
        let mut names: Vec<(&str, usize)> = fields
            .iter()
            .enumerate()
            .map(|(at, field)| (&*field.name, at))
            .collect();
        names.sort_unstable();
        for pair in names.windows(2) {
            if pair[0].0 == pair[1].0 {
                let span = fields[pair[0].1].span.clone();
                look.find(
                    &DUPLICATE_FIELD,
                    span,
                    format!("This object has the field `{}` again further down.", pair[0].0),
                );
            }
        }
    }
}

pub(super) fn identity(look: &mut Look<'_>) {
    let (board, start) = (look.board, look.board.node.span.start);
    if board
        .title
        .and_then(Node::text)
        .is_none_or(|title| title.trim().is_empty())
    {
        look.find(&BOARD_TITLE, start..start + 1, "This board has no title.");
    }
    let head = board.title.map_or(start..start + 1, |title| title.span.clone());
    if board
        .description
        .and_then(Node::text)
        .is_none_or(|text| text.trim().is_empty())
    {
        look.find(&BOARD_DESCRIPTION, head.clone(), "This board has no description.");
    }
    match board.uid.and_then(|node| Some((node, node.text()?))) {
        None | Some((_, "")) => {
            look.find(&BOARD_UID, head, "This board has no uid.");
        }
        Some((node, uid)) => {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            if uid.len() > 40 || !uid.chars().all(fits) {
                look.find(
                    &BOARD_UID_INVALID,
                    node.span.clone(),
                    format!("`{uid}` cannot be a uid."),
                );
            }
        }
    }
}

pub(super) fn age(look: &mut Look<'_>) {
    if look.board.form == Form::V2 {
        return;
    }
    let start = look.board.node.span.start;
    if let Some(rows) = look.board.node.get("rows").filter(|rows| !rows.items().is_empty()) {
        let span = rows.span.start..rows.span.start + 1;
        look.find(&SCHEMA_ROWS, span, "This board has `rows` in place of a grid.");
    }
    let Some(node) = look.board.schema_version else {
        look.find(&SCHEMA_VERSION, start..start + 1, "This board says no schema version.");
        return;
    };
    let Some(version) = node.number() else {
        let fix = node
            .text()
            .and_then(|text| text.parse::<u32>().ok())
            .map(|number| Fix::safe("write the version as a number", vec![fix::replace(node, number)]));
        look.find(&SCHEMA_VERSION, node.span.clone(), "The schema version is no number.")
            .fix = fix;
        return;
    };
    if version > NEWEST {
        look.find(
            &SCHEMA_VERSION,
            node.span.clone(),
            format!("Schema version {version} is newer than {NEWEST}, the newest known here."),
        );
    } else if version < RECENT {
        let since = if version < GRID {
            " It is from before the grid."
        } else {
            ""
        };
        look.find(
            &SCHEMA_OLD,
            node.span.clone(),
            format!("Schema version {version}; Grafana writes {NEWEST_WRITTEN} now.{since}"),
        );
    }
}

pub(super) fn time(look: &mut Look<'_>) {
    let board = look.board;
    let (from, to) = (
        board.time.0.map(|node| (node, moment(node))),
        board.time.1.map(|node| (node, moment(node))),
    );
    for (node, moment) in [from, to].into_iter().flatten() {
        match moment {
            Moment::Unknown => {
                look.find(&TIME_RANGE, node.span.clone(), "This is neither `now-6h` nor a date.");
            }
            Moment::Fixed => {
                look.find(
                    &TIME_RANGE_FIXED,
                    node.span.clone(),
                    "This board opens at a fixed moment.",
                );
            }
            Moment::Ago(_) => {}
        }
    }
    if let (Some((node, Moment::Ago(from))), Some((_, Moment::Ago(to)))) = (from, to)
        && from <= to
    {
        look.find(&TIME_RANGE, node.span.clone(), "The span ends before it begins.");
    }
    if let Some((node, text)) = board.refresh.and_then(|node| Some((node, node.text()?)))
        && let Some(every) = seconds(text).filter(|every| *every < FASTEST)
    {
        let fix = Fix::proposal("ask every 30 seconds", vec![fix::replace(node, "30s")]);
        look.find(
            &REFRESH_TOO_FAST,
            node.span.clone(),
            format!("This board asks again every {every} s."),
        )
        .fix = Some(fix);
    }
    if let Some((node, zone)) = board.timezone.and_then(|node| Some((node, node.text()?)))
        && !matches!(zone, "" | "browser" | "utc" | "default")
    {
        look.find(
            &TIMEZONE,
            node.span.clone(),
            format!("Times on this board are those of `{zone}`."),
        );
    }
}

/// A moment at which a span begins or ends.
#[derive(Clone, Copy)]
enum Moment {
    /// So many seconds before now; what is rounded down to a unit may be earlier.
    Ago(f64),
    /// A date.
    Fixed,
    /// Neither.
    Unknown,
}

fn moment(node: &Node) -> Moment {
    let text = match &node.value {
        Value::Text(text) => text.trim(),
        Value::Number(_) => return Moment::Fixed,
        _ => return Moment::Unknown,
    };
    if text.contains('$') {
        return Moment::Ago(f64::INFINITY);
    }
    let Some(rest) = text.strip_prefix("now") else {
        let is_date = text.len() >= 4 && text.as_bytes()[..4].iter().all(u8::is_ascii_digit);
        return if is_date { Moment::Fixed } else { Moment::Unknown };
    };
    let (mut ago, mut rounded) = (0.0, 0.0);
    for piece in split_before(rest, ['-', '+', '/']) {
        let (sign, piece) = piece.split_at(1);
        if sign == "/" {
            match seconds(&format!("1{}", piece.trim_start_matches('f'))) {
                Some(unit) => rounded = unit,
                None => return Moment::Unknown,
            }
        } else {
            match seconds(piece) {
                Some(shift) if sign == "-" => ago += shift,
                Some(shift) => ago -= shift,
                None => return Moment::Unknown,
            }
        }
    }
    // `now/d` to `now/d` is the whole day: the beginning is rounded down, the end up.
    if rounded > 0.0 {
        Moment::Ago(f64::NAN)
    } else {
        Moment::Ago(ago)
    }
}

fn split_before(text: &str, signs: [char; 3]) -> Vec<&str> {
    let mut starts: Vec<usize> = text.match_indices(signs).map(|(at, _)| at).collect();
    if starts.first() != Some(&0) && !text.is_empty() {
        starts.insert(0, 0);
    }
    starts.push(text.len());
    starts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

/// A duration of Grafana in seconds: `30s`, `1h`, `2M`.
pub(super) fn seconds(text: &str) -> Option<f64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let number: f64 = if split == 0 { 1.0 } else { text[..split].parse().ok()? };
    let unit = match &text[split..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        "w" => 604_800.0,
        "M" => 2_592_000.0,
        "Q" => 7_776_000.0,
        "y" => 31_536_000.0,
        _ => return None,
    };
    Some(number * unit)
}
