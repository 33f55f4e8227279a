//! Where panels stand: Grafana's grid of 24 columns, in which everything moves up as far as it can. Pure.

use pictures::Area;

/// Columns of the grid.
pub(super) const COLUMNS: usize = 24;
/// Room between panels.
pub(super) const GAP: f64 = 8.0;
/// Height of a row of the grid, with its gap.
const CELL: f64 = 38.0;

/// Places as `x, y, width, height` of the grid become places without overlaps and holes, in the same order; and how many
/// rows of the grid they take.
pub(super) fn compact(grids: &[[u16; 4]]) -> (Vec<[u16; 4]>, u16) {
    let mut order: Vec<usize> = (0..grids.len()).collect();
    order.sort_by_key(|index| (grids[*index][1], grids[*index][0], *index));
    let mut ground = [0_u16; COLUMNS];
    let mut placed = grids.to_vec();
    for index in order {
        let [x, _, width, high] = grids[index];
        let from = usize::from(x).min(COLUMNS - 1);
        let to = (from + usize::from(width.max(1))).min(COLUMNS);
        let y = ground[from..to].iter().copied().max().unwrap_or(0);
        let bottom = y.saturating_add(high.max(1));
        ground[from..to].fill(bottom);
        placed[index] = [from as u16, y, (to - from) as u16, bottom - y];
    }
    (placed, ground.into_iter().max().unwrap_or(0))
}

/// Where each of several copies of a panel stands: beside each other, so many in a row, or below each other.
pub(super) fn copies([x, y, width, high]: [u16; 4], count: usize, downwards: bool, most_per_row: u16) -> Vec<[u16; 4]> {
    if downwards {
        return (0..count)
            .map(|index| [x, y.saturating_add(high.saturating_mul(index as u16)), width, high])
            .collect();
    }
    let per_row = usize::from(most_per_row).min(count).clamp(1, COLUMNS);
    let wide = (COLUMNS / per_row) as u16;
    (0..count)
        .map(|index| {
            let (row, column) = ((index / per_row) as u16, (index % per_row) as u16);
            [column * wide, y.saturating_add(high.saturating_mul(row)), wide, high]
        })
        .collect()
}

/// The place of a panel in a picture, from the place where its grid begins.
pub(super) fn area([x, y, width, high]: [u16; 4], (left, top): (f64, f64), room: f64) -> Area {
    let column = (room + GAP) / COLUMNS as f64;
    Area::new(
        left + f64::from(x) * column,
        top + f64::from(y) * CELL,
        f64::from(width) * column - GAP,
        f64::from(high) * CELL - GAP,
    )
}

/// The height of so many rows of the grid.
pub(super) fn height(rows: u16) -> f64 {
    f64::from(rows) * CELL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_move_up_and_never_overlap() {
        let (placed, rows) = compact(&[[0, 5, 12, 8], [12, 5, 12, 4], [0, 5, 24, 2], [30, 900, 90, 3]]);
        assert_eq!(placed, [[0, 0, 12, 8], [12, 10, 12, 4], [0, 8, 24, 2], [23, 14, 1, 3]]);
        assert_eq!(rows, 17);
    }

    #[test]
    fn copies_share_the_width() {
        assert_eq!(
            copies([0, 3, 24, 5], 3, false, 2),
            [[0, 3, 12, 5], [12, 3, 12, 5], [0, 8, 12, 5]]
        );
        assert_eq!(copies([6, 0, 6, 4], 2, true, 4), [[6, 0, 6, 4], [6, 4, 6, 4]]);
    }
}
