//! Checks of places and numbers: what lies on what, what lies outside, what has the number of another.

use std::collections::{BTreeMap, BTreeSet};

use super::Look;
use super::table::{DUPLICATE_PANEL_ID, PANEL_OFF_GRID, PANEL_OVERLAP};
use crate::read::{Grid, Panel};

const COLUMNS: f64 = 24.0;
/// More panels than fit beside and below a tall one, so that a file of nothing but panels takes no hours.
const NEAR: usize = 500;

pub(super) fn places(look: &mut Look<'_>) {
    let mut containers: BTreeMap<usize, Vec<(&Panel<'_>, Grid<'_>)>> = BTreeMap::new();
    for panel in look.panels() {
        let Some(grid) = panel.grid else { continue };
        // Rows always take one line of the whole width, whatever they say.
        if panel.is_row() {
            let grid = Grid {
                x: 0.0,
                w: COLUMNS,
                h: 1.0,
                ..grid
            };
            containers.entry(panel.container).or_default().push((panel, grid));
        } else if grid.x < 0.0 || grid.y < 0.0 || grid.w <= 0.0 || grid.h <= 0.0 || grid.x + grid.w > COLUMNS {
            let Grid { x, w, h, .. } = grid;
            let what = format!("From column {x}, {w} wide and {h} high, this does not fit into {COLUMNS} columns.");
            look.find_in(panel, &PANEL_OFF_GRID, grid.node.span.clone(), what);
        } else {
            containers.entry(panel.container).or_default().push((panel, grid));
        }
    }
    for list in containers.values_mut() {
        let mut said = BTreeSet::new();
        // By their tops: what begins below the end of one cannot lie on it.
        list.sort_by(|a, b| a.1.y.total_cmp(&b.1.y));
        for (at, (panel, grid)) in list.iter().enumerate() {
            let below = list[at + 1..]
                .iter()
                .take(NEAR)
                .take_while(|(_, other)| other.y < grid.y + grid.h);
            let mut meets = below.filter(|(_, other)| other.x < grid.x + grid.w && grid.x < other.x + other.w);
            if let Some((other, place)) = meets.next()
                && said.insert(place.node.span.start)
            {
                let (above, below) = (other.name(), panel.name());
                let what = if above == below {
                    format!(
                        "Two of the name `{above}` lie on each other: {} on {}.",
                        other.kind, panel.kind
                    )
                } else {
                    format!(
                        "`{above}` begins at line {}, where `{below}` goes from {} to {}.",
                        place.y,
                        grid.y,
                        grid.y + grid.h
                    )
                };
                look.find_in(other, &PANEL_OVERLAP, place.node.span.clone(), what);
            }
        }
    }
}

pub(super) fn numbers(look: &mut Look<'_>) {
    let mut seen: BTreeMap<u64, &Panel<'_>> = BTreeMap::new();
    for panel in look.panels() {
        let Some((node, id)) = panel.id.and_then(|node| Some((node, node.number()?))) else {
            continue;
        };
        if let Some(first) = seen.get(&id.to_bits()) {
            let what = format!("Number {id} is that of `{}` too.", first.name());
            look.find_in(panel, &DUPLICATE_PANEL_ID, node.span.clone(), what);
        } else {
            seen.insert(id.to_bits(), panel);
        }
    }
}
