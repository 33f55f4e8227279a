//! A table: as many rows as there is room for, numbers to the right.

use super::{Chart, NO_DATA, nothing};
use crate::area::Area;
use crate::canvas::{Anchor, Canvas, Stroke, Type};
use crate::text::width;
use crate::theme::Colour;

/// One cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// What stands in it.
    pub text: String,
    /// Whether it is a number.
    pub number: bool,
    /// The colour of its text.
    pub colour: Colour,
}

impl Cell {
    /// Words.
    pub fn words(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            number: false,
            colour: Colour::Ink,
        }
    }

    /// A number.
    pub fn number(text: String, colour: Colour) -> Self {
        Self {
            text,
            number: true,
            colour,
        }
    }
}

/// A table.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// The heads of the columns.
    pub head: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<Cell>>,
}

const SIZE: f64 = 12.0;
const ROW: f64 = 22.0;
/// More columns than these are not drawn.
const COLUMNS: usize = 12;
/// The widths of columns follow from the first rows.
const MEASURED: usize = 200;

impl Table {
    /// How wide each column is, the widest giving way first where there is too little room.
    fn widths(&self, room: f64) -> Vec<f64> {
        let columns = self.head.len().min(COLUMNS);
        let mut widths: Vec<f64> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().take(MEASURED).filter_map(|row| row.get(column));
                let widest = cells.map(|cell| width(&cell.text, SIZE)).fold(0.0, f64::max);
                widest.max(width(&self.head[column], SIZE) * 1.08) + 16.0
            })
            .collect();
        let too_much = |widths: &[f64]| widths.iter().sum::<f64>() - room;
        for _ in 0..columns {
            let excess = too_much(&widths);
            let Some(widest) = widths.iter().copied().max_by(f64::total_cmp) else {
                break;
            };
            if excess <= 0.0 {
                break;
            }
            let second = widths
                .iter()
                .copied()
                .filter(|other| *other < widest)
                .fold(40.0, f64::max);
            let many = widths.iter().filter(|other| **other >= widest).count() as f64;
            let each = (excess / many).min((widest - second).max(0.0));
            for width in widths.iter_mut().filter(|other| **other >= widest) {
                *width -= each;
            }
        }
        // What is still too much is taken from all alike.
        let part = (room / widths.iter().sum::<f64>().max(1.0)).min(1.0);
        let rest = (room - widths.iter().sum::<f64>() * part) / columns.max(1) as f64;
        widths.iter().map(|width| width * part + rest.max(0.0)).collect()
    }
}

impl Chart for Table {
    fn describe(&self) -> String {
        if self.rows.is_empty() {
            return NO_DATA.to_owned();
        }
        format!("{} rows of {}.", self.rows.len(), self.head.join(", "))
    }

    fn draw(&self, canvas: &mut Canvas, area: Area) {
        if self.rows.is_empty() || self.head.is_empty() {
            return nothing(canvas, area, NO_DATA);
        }
        let widths = self.widths(area.width);
        let line = Stroke::new(Colour::Line, 1.0);
        let numeric = |column: usize| {
            self.rows
                .iter()
                .take(MEASURED)
                .all(|row| row.get(column).is_none_or(|c| c.number))
        };
        let mut put = |row: usize, column: usize, left: f64, cell: &Cell, bold: bool| {
            let (from, room) = (left + 4.0, widths[column] - 12.0);
            let mut kind = Type::new(SIZE, cell.colour).room(room);
            let mut x = from;
            if cell.number {
                kind = kind.anchor(Anchor::End);
                x = from + room;
            }
            if bold {
                kind = kind.bold();
            }
            canvas.text((x, area.y + row as f64 * ROW + 15.0), kind, &cell.text);
        };
        let fitting = (area.height / ROW).floor().max(2.0) as usize - 1;
        let shown = if self.rows.len() > fitting {
            (fitting - 1).max(1)
        } else {
            self.rows.len()
        };
        let mut left = area.x;
        for (column, head) in self.head.iter().take(widths.len()).enumerate() {
            let head = Cell {
                text: head.clone(),
                number: numeric(column),
                colour: Colour::Soft,
            };
            put(0, column, left, &head, true);
            for (index, row) in self.rows.iter().take(shown).enumerate() {
                if let Some(cell) = row.get(column) {
                    put(index + 1, column, left, cell, false);
                }
            }
            left += widths[column];
        }
        for row in 0..=shown {
            let y = area.y + (row + 1) as f64 * ROW;
            canvas.line((area.x, y), (area.right(), y), line);
        }
        let mut besides = Vec::new();
        if self.rows.len() > shown {
            besides.push(format!("and {} more rows", self.rows.len() - shown));
        }
        if self.head.len() > widths.len() {
            besides.push(format!("{} more columns", self.head.len() - widths.len()));
        }
        let kind = Type::new(11.0, Colour::Soft).room(area.width);
        canvas.text((area.x + 4.0, area.bottom() - 4.0), kind, &besides.join(", "));
    }
}
