//! Tables for people: columns by two spaces, no lines, headings in capitals; one cell a line where the terminal is too
//! narrow for columns. Scripts take `--json`.

use super::{Paint, Style, printable};

/// Rows under a heading. Cells are plain text; a cell may carry one colour.
#[derive(Debug)]
pub(crate) struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<(String, Option<Style>)>>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(heading: &[&'static str]) -> Self {
        Self {
            heading: heading.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row of plain cells.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.styled(cells.into_iter().map(|cell| (cell, None)).collect());
    }

    /// Adds a row whose cells may be coloured.
    pub(crate) fn styled(&mut self, cells: Vec<(String, Option<Style>)>) {
        let cells = cells
            .into_iter()
            .map(|(cell, style)| (printable(&cell).replace('\n', "\\n"), style));
        self.rows.push(cells.collect());
    }

    /// The lines. With a `width` the last column is cut so that no line is longer; where that leaves it no room, every
    /// cell has a line of its own, whole.
    pub(crate) fn render(&self, paint: Paint, width: Option<usize>) -> String {
        let columns = self.heading.len();
        let mut widths: Vec<usize> = self.heading.iter().map(|cell| cell.chars().count()).collect();
        for row in &self.rows {
            for (column, (cell, _)) in row.iter().enumerate().take(columns) {
                widths[column] = widths[column].max(cell.chars().count());
            }
        }
        if let Some(width) = width {
            let before: usize = widths[..columns - 1].iter().map(|width| width + 2).sum();
            let room = width.saturating_sub(before);
            if widths[columns - 1] > room && room < ROOM {
                return self.stacked(paint);
            }
            widths[columns - 1] = widths[columns - 1].min(room);
        }
        let heading: Vec<_> = self
            .heading
            .iter()
            .map(|cell| (cell.to_uppercase(), Some(Style::Heading)))
            .collect();
        let mut text = String::new();
        for row in std::iter::once(&heading).chain(&self.rows) {
            let mut line = String::new();
            for (column, (cell, style)) in row.iter().enumerate().take(columns) {
                let cell = cut(cell, widths[column]);
                let pad = widths[column] - cell.chars().count();
                line.push_str(&style.map_or_else(|| cell.clone(), |style| paint.apply(style, &cell)));
                if column + 1 < columns {
                    line.extend(std::iter::repeat_n(' ', pad + 2));
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Each row as its first cell, and the others under it beside their headings. A row without a first cell goes on
    /// with the one before. Nothing is cut: what is still too wide is the terminal's to wrap.
    fn stacked(&self, paint: Paint) -> String {
        let label = self.heading.iter().skip(1).map(|cell| cell.chars().count()).max();
        let label = label.unwrap_or(0);
        let mut text = String::new();
        for row in &self.rows {
            for (column, (cell, style)) in row.iter().enumerate().filter(|(_, (cell, _))| !cell.is_empty()) {
                let cell = style.map_or_else(|| cell.clone(), |style| paint.apply(style, cell));
                if column == 0 {
                    text.push_str(&format!("{cell}\n"));
                } else {
                    let heading = format!("{:<label$}", self.heading[column].to_uppercase());
                    text.push_str(&format!("  {}  {cell}\n", paint.apply(Style::Heading, &heading)));
                }
            }
        }
        text
    }
}

/// The last column with fewer characters than this tells nothing.
const ROOM: usize = 12;

fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    let mut cut: String = cell.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::{Paint, Table};

    #[test]
    fn aligns_and_cuts_the_last_column() {
        let mut table = Table::new(&["service", "state"]);
        table.row(["orders".to_owned(), "2 of 2 ready, all of them".to_owned()]);
        assert_eq!(
            table.render(Paint::Plain, Some(22)),
            "SERVICE  STATE\norders   2 of 2 ready…\n"
        );
        assert_eq!(
            table.render(Paint::Plain, None),
            "SERVICE  STATE\norders   2 of 2 ready, all of them\n"
        );
    }

    #[test]
    fn a_narrow_terminal_gets_a_line_a_cell() {
        let mut table = Table::new(&["service", "address", "state"]);
        table.row(["orders", "127.0.0.1:21001", "2 of 2 ready, all of them"].map(str::to_owned));
        table.row(["", "", "since noon"].map(str::to_owned));
        let text = table.render(Paint::Plain, Some(30));
        assert_eq!(
            text,
            "orders\n  ADDRESS  127.0.0.1:21001\n  STATE    2 of 2 ready, all of them\n  STATE    since noon\n"
        );
    }

    #[test]
    fn a_hostile_name_does_not_steer_the_terminal() {
        let mut table = Table::new(&["path"]);
        table.row(["a\u{1b}[2Jb\u{7}é".to_owned()]);
        assert_eq!(table.render(Paint::Plain, None), "PATH\na\\u{1b}[2Jb\\u{7}é\n");
    }
}
