//! Fewer points that look the same: of each column of pixels the first, the least, the greatest and the last. However many
//! samples there are, a line has at most four points for each column.

/// Stretches of points that hang together, in places of the picture.
///
/// A point without a value ends a stretch, and so does a gap of more than `apart` in x.
pub(crate) fn stretches(
    points: impl Iterator<Item = (f64, Option<f64>)>,
    apart: f64,
    place: impl Fn(f64, f64) -> (f64, f64),
) -> Vec<Vec<(f64, f64)>> {
    let mut all = Vec::new();
    let mut thinner = Thinner::default();
    let mut before = f64::NEG_INFINITY;
    let mut broken = false;
    for (x, y) in points {
        broken |= x - before > apart || y.is_none();
        let Some(y) = y else { continue };
        let point = place(x, y);
        // What is missing inside of one column cannot be seen.
        if broken && !thinner.stands_at(point) {
            thinner.end(&mut all);
        }
        thinner.push(point);
        (before, broken) = (x, false);
    }
    thinner.end(&mut all);
    all
}

#[derive(Default)]
struct Thinner {
    done: Vec<(f64, f64)>,
    column: Option<Column>,
}

/// What is kept of one column, each with its number, so that they stay in order.
struct Column {
    number: i64,
    seen: usize,
    first: (f64, f64),
    least: (usize, (f64, f64)),
    greatest: (usize, (f64, f64)),
    last: (f64, f64),
}

fn column(point: (f64, f64)) -> i64 {
    point.0.floor() as i64
}

impl Thinner {
    fn stands_at(&self, point: (f64, f64)) -> bool {
        self.column.as_ref().is_some_and(|now| now.number == column(point))
    }

    fn push(&mut self, point: (f64, f64)) {
        let number = column(point);
        match &mut self.column {
            Some(column) if column.number == number => {
                column.seen += 1;
                if point.1 < column.least.1.1 {
                    column.least = (column.seen, point);
                }
                if point.1 > column.greatest.1.1 {
                    column.greatest = (column.seen, point);
                }
                column.last = point;
            }
            _ => {
                self.flush();
                self.column = Some(Column {
                    number,
                    seen: 0,
                    first: point,
                    least: (0, point),
                    greatest: (0, point),
                    last: point,
                });
            }
        }
    }

    fn flush(&mut self) {
        let Some(column) = self.column.take() else {
            return;
        };
        let mut inner = [column.least, column.greatest];
        inner.sort_by_key(|(number, _)| *number);
        for point in [column.first, inner[0].1, inner[1].1, column.last] {
            if self.done.last() != Some(&point) {
                self.done.push(point);
            }
        }
    }

    fn end(&mut self, all: &mut Vec<Vec<(f64, f64)>>) {
        self.flush();
        if !self.done.is_empty() {
            all.push(std::mem::take(&mut self.done));
        }
    }
}
