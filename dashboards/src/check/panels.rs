//! Checks of panels: what they say, of which kind they are, how many there are, whether they ask anything.

use std::collections::{BTreeMap, BTreeSet};

use super::Look;
use super::table::{
    DUPLICATE_PANEL_TITLE, DUPLICATE_REF_ID, INSTANT_OVER_TIME, PANEL_DEPRECATED, PANEL_DESCRIPTION, PANEL_EMPTY,
    PANEL_HIDDEN, PANEL_TITLE, PANEL_UNIT, THRESHOLD_ORDER, THRESHOLD_RANGE, TOO_MANY_PANELS, TOO_MANY_QUERIES,
};
use crate::read::{Language, Node, Panel, Value};

/// Kinds that show values with a unit.
const WITH_VALUES: [&str; 10] = [
    "timeseries",
    "stat",
    "gauge",
    "bargauge",
    "barchart",
    "table",
    "piechart",
    "histogram",
    "trend",
    "heatmap",
];
/// Kinds that are there to show answers of a data source.
const ASKING: [&str; 15] = [
    "timeseries",
    "stat",
    "gauge",
    "bargauge",
    "barchart",
    "table",
    "piechart",
    "histogram",
    "heatmap",
    "state-timeline",
    "status-history",
    "logs",
    "graph",
    "singlestat",
    "trend",
];
/// What was, and what is in its place.
const DEPRECATED: [(&str, &str); 9] = [
    ("graph", "timeseries"),
    ("singlestat", "stat"),
    ("table-old", "table"),
    ("grafana-singlestat-panel", "stat"),
    ("grafana-piechart-panel", "piechart"),
    ("grafana-worldmap-panel", "geomap"),
    ("natel-discrete-panel", "state-timeline"),
    ("flant-statusmap-panel", "status-history"),
    ("pluginlist", "text"),
];
/// More of them in view at one time than one board needs.
const MANY_PANELS: usize = 60;
/// More than a Prometheus should be asked at one time.
const MANY_QUERIES: usize = 150;

pub(super) fn words(look: &mut Look<'_>) {
    let mut titles: BTreeMap<(usize, &str), &Panel<'_>> = BTreeMap::new();
    for panel in look.panels() {
        if panel.is_row() || panel.library || panel.kind == "text" {
            continue;
        }
        let head = Look::head(panel.node);
        let title = panel.title.and_then(Node::text).unwrap_or("").trim();
        if title.is_empty() {
            look.find_in(panel, &PANEL_TITLE, head.clone(), "This panel has no title.");
        } else if let Some(first) = titles.get(&(panel.container, title)) {
            let questions = |panel: &Panel<'_>| -> Vec<String> {
                panel
                    .targets
                    .iter()
                    .filter_map(|target| Some(target.expr?.text()?.to_owned()))
                    .collect()
            };
            if questions(first) != questions(panel) {
                look.find_in(
                    panel,
                    &DUPLICATE_PANEL_TITLE,
                    head.clone(),
                    format!("Another panel is called `{title}` too."),
                );
            }
        } else {
            titles.insert((panel.container, title), panel);
        }
        if panel
            .description
            .and_then(Node::text)
            .is_none_or(|text| text.trim().is_empty())
        {
            look.find_in(
                panel,
                &PANEL_DESCRIPTION,
                head.clone(),
                "This panel has no description.",
            );
        }
        let unit = panel.unit().is_some() || old_unit(panel.node);
        if WITH_VALUES.contains(&panel.kind) && !unit && !panel.has_overrides() && !panel.targets.is_empty() {
            look.find_in(panel, &PANEL_UNIT, head, "This panel says no unit.");
        }
    }
}

/// Up to schema version 27 the unit stands in the axes or in `format`, of a heatmap until today.
fn old_unit(node: &Node) -> bool {
    let first_axis = node
        .get("yaxes")
        .and_then(|axes| axes.items().first()?.text_of("format"));
    let heatmap = node
        .at(&["options", "yAxis", "unit"])
        .or_else(|| node.at(&["yAxis", "format"]));
    first_axis.is_some() || node.text_of("format").is_some() || heatmap.is_some()
}

pub(super) fn kinds(look: &mut Look<'_>) {
    for panel in look.panels() {
        if let Some((old, new)) = DEPRECATED.iter().find(|(old, _)| *old == panel.kind) {
            let span = panel
                .node
                .get("type")
                .map_or(Look::head(panel.node), |kind| kind.span.clone());
            look.find_in(
                panel,
                &PANEL_DEPRECATED,
                span,
                format!("`{old}` is gone; `{new}` is in its place."),
            );
        }
    }
}

pub(super) fn amounts(look: &mut Look<'_>) {
    // Folded rows ask nothing until they are opened; those of layouts cannot be told apart from open ones.
    let folded = |panel: &&Panel<'_>| panel.container == 0;
    let shown: Vec<&Panel<'_>> = look
        .panels()
        .iter()
        .filter(folded)
        .filter(|panel| !panel.is_row())
        .collect();
    let queries: usize = shown
        .iter()
        .map(|panel| panel.targets.iter().filter(|target| !target.hidden).count())
        .sum();
    let panels = shown.len();
    let head = Look::head(look.board.node);
    if panels > MANY_PANELS {
        look.find(
            &TOO_MANY_PANELS,
            head.clone(),
            format!("{panels} panels are open at one time."),
        );
    }
    if queries > MANY_QUERIES {
        look.find(
            &TOO_MANY_QUERIES,
            head,
            format!("{queries} questions are asked at one time."),
        );
    }
}

pub(super) fn targets(look: &mut Look<'_>) {
    for panel in look.panels() {
        let head = Look::head(panel.node);
        if ASKING.contains(&panel.kind) && !panel.library {
            if panel.targets.is_empty() {
                // A snapshot's or a mixed-in panel's data stands beside it.
                if panel.node.get("snapshotData").is_none() {
                    look.find_in(panel, &PANEL_EMPTY, head.clone(), "This panel has no queries.");
                }
            } else if panel.targets.iter().all(|target| target.hidden) {
                look.find_in(
                    panel,
                    &PANEL_HIDDEN,
                    head.clone(),
                    "All queries of this panel are switched off.",
                );
            }
        }
        let mut letters: BTreeSet<&str> = BTreeSet::new();
        for target in &panel.targets {
            if let Some((node, letter)) = target.ref_id.and_then(|node| Some((node, node.text()?)))
                && !letter.is_empty()
                && !letters.insert(letter)
            {
                let what = format!("Another query of this panel is `{letter}` too.");
                look.find_in(panel, &DUPLICATE_REF_ID, node.span.clone(), what);
            }
            if panel.kind == "timeseries" && target.instant && !target.hidden && target.language == Language::Prometheus
            {
                let span = target
                    .node
                    .get("instant")
                    .map_or(head.clone(), |node| node.span.clone());
                if !panel.transformed && target.format != "table" {
                    look.find_in(panel, &INSTANT_OVER_TIME, span, "This asks for the last moment alone.");
                }
            }
        }
    }
}

pub(super) fn thresholds(look: &mut Look<'_>) {
    for panel in look.panels() {
        let Some(defaults) = panel.fields.and_then(|fields| fields.get("defaults")) else {
            continue;
        };
        let absolute = defaults.at(&["thresholds", "mode"]).and_then(Node::text) != Some("percentage");
        let steps = defaults.at(&["thresholds", "steps"]).map_or(&[][..], Node::items);
        let values: Vec<(&Node, f64)> = steps
            .iter()
            .filter_map(|step| {
                let node = step.get("value")?;
                Some((node, node.number()?))
            })
            .collect();
        for pair in values.windows(2) {
            if pair[1].1 < pair[0].1 {
                let what = format!("{} comes after {}.", pair[1].1, pair[0].1);
                look.find_in(panel, &THRESHOLD_ORDER, pair[1].0.span.clone(), what);
            }
        }
        let max = defaults.get("max").and_then(Node::number);
        let unit = panel.unit().and_then(Node::text).unwrap_or("");
        let colours = matches!(defaults.at(&["color", "mode"]).map(|mode| &mode.value), Some(Value::Text(mode)) if &**mode == "thresholds");
        let drawn = defaults
            .at(&["custom", "thresholdsStyle", "mode"])
            .and_then(Node::text)
            .is_some_and(|mode| mode != "off");
        for (node, value) in values.iter().filter(|_| absolute && (colours || drawn)) {
            let above = match max {
                Some(max) if *value > max => Some(format!("{value} is above {max}, the highest that is shown.")),
                // The 80 that Grafana puts into every new panel.
                None if unit == "percentunit" && *value >= 10.0 => {
                    Some(format!("{value} is {value}00 % in this unit, where 1 is all."))
                }
                _ => None,
            };
            if let Some(what) = above {
                look.find_in(panel, &THRESHOLD_RANGE, node.span.clone(), what);
            }
        }
    }
}
