//! A heat map: how much of what was measured fell into which bucket, over time. The darker (on light) the more; a bar
//! below says how much that is.

use super::plot::{self, Axis, ROW, SMALL};
use super::{Chart, NO_DATA, nothing};
use crate::area::Area;
use crate::canvas::{Anchor, Canvas, Type};
use crate::scale::{self, Scale};
use crate::text::width;
use crate::theme::{Colour, HEAT};
use crate::unit::Unit;

/// A heat map.
#[derive(Debug, Clone)]
pub struct Heat {
    /// Buckets from the least: name, and at which time how much.
    pub rows: Vec<(String, Vec<(f64, f64)>)>,
    /// What the cells count.
    pub unit: Unit,
    /// The ends of time; absent: those of the cells.
    pub span: Option<(f64, f64)>,
}

/// No cell is narrower, whatever the step of the data is.
const NARROW: f64 = 4.0;
/// No cell is lower.
const LOW: f64 = 6.0;

/// A cell: in which row and column, and how much.
struct Grid {
    columns: usize,
    rows: usize,
    cells: Vec<f64>,
}

impl Heat {
    /// The cells as they are drawn: several of the data's in one where they would be too small. Of those the greatest.
    fn grid(&self, x: &Scale, area: Area) -> Grid {
        let mut times: Vec<f64> = self
            .rows
            .iter()
            .flat_map(|row| row.1.iter().map(|cell| cell.0))
            .collect();
        times.retain(|time| time.is_finite());
        times.sort_by(f64::total_cmp);
        times.dedup();
        let columns = times.len().clamp(1, (area.width / NARROW).max(1.0) as usize);
        let rows = self.rows.len().clamp(1, (area.height / LOW).max(1.0) as usize);
        let mut cells = vec![f64::NAN; columns * rows];
        for (index, (_, row)) in self.rows.iter().enumerate() {
            let row_index = index * rows / self.rows.len();
            for (time, value) in row.iter().filter(|cell| cell.0.is_finite() && cell.1.is_finite()) {
                let part = (x.at(*time) - area.x) / area.width;
                let column = ((part * columns as f64) as usize).min(columns - 1);
                let cell = &mut cells[row_index * columns + column];
                *cell = cell.max(*value);
            }
        }
        Grid { columns, rows, cells }
    }
}

impl Chart for Heat {
    fn describe(&self) -> String {
        let sum = |row: &Vec<(f64, f64)>| {
            row.iter()
                .map(|cell| cell.1)
                .filter(|value| value.is_finite())
                .sum::<f64>()
        };
        let fullest = self
            .rows
            .iter()
            .map(|row| (sum(&row.1), &row.0))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        match fullest {
            Some((most, name)) if most > 0.0 => format!("{} buckets; most fell into {name}.", self.rows.len()),
            _ => NO_DATA.to_owned(),
        }
    }

    fn draw(&self, canvas: &mut Canvas, area: Area) {
        let values = || self.rows.iter().flat_map(|row| row.1.iter().map(|cell| cell.1));
        let times = || self.rows.iter().flat_map(|row| row.1.iter().map(|cell| cell.0));
        let (Some((_, most)), Some(span)) = (scale::range(values()), self.span.or_else(|| scale::range(times())))
        else {
            return nothing(canvas, area, NO_DATA);
        };
        let span = scale::spread(span);
        let names: Vec<(f64, String)> = self.rows.iter().map(|row| (0.0, row.0.clone())).collect();
        let left = plot::gutter(&names, area.width * 0.4);
        let inner = area.inset(left, 6.0, 8.0, ROW * 2.0 + 14.0);
        if inner.width < 8.0 || inner.height < 8.0 {
            return nothing(canvas, area, "too small");
        }
        let x = Scale::new(span, (inner.x, inner.right()));
        let grid = self.grid(&x, inner);
        let (wide, high) = (inner.width / grid.columns as f64, inner.height / grid.rows as f64);
        let most = most.max(1e-300);
        let step = |value: f64| ((value / most).sqrt() * (HEAT as f64 - 1e-9)) as usize;
        // Cells of a colour beside each other are one shape: the same picture in a tenth of the text.
        for colour in 0..HEAT {
            let mut shapes = Vec::new();
            for row in 0..grid.rows {
                let top = inner.bottom() - (row + 1) as f64 * high;
                let is = |column: usize| {
                    let value = grid.cells[row * grid.columns + column];
                    value > 0.0 && step(value).min(HEAT - 1) == colour
                };
                let mut column = 0;
                while column < grid.columns {
                    let from = column;
                    while column < grid.columns && is(column) {
                        column += 1;
                    }
                    if column > from {
                        let (a, b) = (inner.x + from as f64 * wide, inner.x + column as f64 * wide);
                        shapes.push(vec![(a, top), (b, top), (b, top + high - 0.5), (a, top + high - 0.5)]);
                    }
                    column += 1;
                }
            }
            canvas.shapes(&shapes, Colour::Heat(colour), 1.0, "");
        }
        let mut free = f64::INFINITY;
        for (index, (name, _)) in self.rows.iter().enumerate() {
            let y = inner.bottom() - (index as f64 + 0.5) / self.rows.len() as f64 * inner.height;
            if y + SMALL <= free {
                let kind = Type::new(SMALL, Colour::Soft).anchor(Anchor::End).room(left - 6.0);
                canvas.text((inner.x - 6.0, y + 4.0), kind, name);
                free = y;
            }
        }
        plot::below(canvas, inner, &x, span, &Axis::Clock);
        let y = area.bottom() - 12.0;
        let text = Type::new(SMALL, Colour::Soft);
        canvas.text((inner.x, y + 9.0), text, "0");
        for colour in 0..HEAT {
            let place = Area::new(inner.x + 12.0 + colour as f64 * 16.0, y, 16.0, 10.0);
            canvas.rect(place, Colour::Heat(colour), 0.0, "");
        }
        let words = self.unit.format(most, None);
        let at = inner.x + 18.0 + HEAT as f64 * 16.0;
        canvas.text((at, y + 9.0), text.room(width(&words, SMALL)), &words);
    }
}
