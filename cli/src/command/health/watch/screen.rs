//! The table of `opsctl health watch`, drawn in place on the terminal's second screen, so that what stood there before is
//! there again afterwards. Nothing here asks or decides.

use std::collections::BTreeMap;

use super::{Key, Watched};
use crate::context::{Context, terminal_size};
use crate::error::Failure;
use crate::output::{Style, Table, latency, seconds};

const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";
/// To the top left; then line by line with what is behind each erased, and below the last one all.
const HOME: &str = "\u{1b}[H";
const REST_OF_LINE: &str = "\u{1b}[K";
const BELOW: &str = "\u{1b}[J";

/// The second screen, until it is dropped.
pub(super) struct Screen<'a> {
    context: &'a Context,
}

impl<'a> Screen<'a> {
    /// Switches to it and hides the cursor.
    pub(super) fn open(context: &'a Context) -> Self {
        let _ = context.out.data(ENTER);
        Self { context }
    }

    /// Draws what fits; never more than the terminal has rows.
    pub(super) fn draw(&self, all: &BTreeMap<Key, Watched>) -> Result<(), Failure> {
        let (columns, rows) = terminal_size(std::io::stdout());
        let table = self.table(all, columns);
        let total = table.lines().count();
        let room = rows.saturating_sub(2).max(1);
        let mut text = HOME.to_owned();
        let mut line = |line: &str| {
            text.push_str(line);
            text.push_str(REST_OF_LINE);
            text.push_str("\r\n");
        };
        let shown = if total > room { room - 1 } else { total };
        for row in table.lines().take(shown) {
            line(row);
        }
        if shown < total {
            line(&format!("… {} more lines", total - shown));
        }
        let now = self.context.now().strftime("%TZ").to_string();
        // What does not fit may be what matters.
        let down = all.values().filter(|watched| watched.is_down()).count();
        let foot: String = format!("{now}  {down} of {} down  Ctrl-C ends", all.len())
            .chars()
            .take(columns.saturating_sub(1))
            .collect();
        text.push_str(&self.context.out.stdout.apply(Style::Faint, &foot));
        text.push_str(REST_OF_LINE);
        text.push_str(BELOW);
        self.context.out.data(&text)
    }

    /// Leaves it, and writes the last table where the terminal was before.
    pub(super) fn close(self, all: &BTreeMap<Key, Watched>) -> Result<(), Failure> {
        let table = self.table(all, terminal_size(std::io::stdout()).0);
        let context = self.context;
        drop(self);
        context.out.data(&table)
    }

    fn table(&self, all: &BTreeMap<Key, Watched>, width: usize) -> String {
        let now = self.context.now();
        let mut table = Table::new(&["target", "asked", "state", "since", "before", "latency", "answer"]);
        for ((name, protocol), watched) in all {
            let Some(answer) = &watched.answer else {
                let mut cells = vec![(name.clone(), Some(Style::Hint)), ((*protocol).to_owned(), None)];
                cells.push(("asked".to_owned(), Some(Style::Faint)));
                cells.resize(7, (String::new(), None));
                table.styled(cells);
                continue;
            };
            let since = now.duration_since(watched.since).as_secs().max(0);
            let since = match since {
                0..60 => format!("{since} s"),
                _ => seconds(since as f64),
            };
            let took = answer
                .latency
                .map_or("-".to_owned(), |took| latency(took.as_secs_f64()));
            table.styled(vec![
                (name.clone(), Some(Style::Hint)),
                ((*protocol).to_owned(), None),
                (answer.state.word().to_owned(), Some(answer.state.style())),
                (since, None),
                (watched.before.map_or("-", super::State::word).to_owned(), None),
                (took, None),
                (answer.detail.clone(), None),
            ]);
        }
        table.render(self.context.out.stdout, Some(width))
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        let _ = self.context.out.data(LEAVE);
    }
}
