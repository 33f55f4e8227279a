//! Where words go: stdout is data, stderr is everything else. Colours, tables and progress live in the files below;
//! what is said is the business of the commands.

mod paint;
mod progress;
mod table;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

pub(crate) use paint::{Paint, Style};
pub(crate) use progress::{Amount, ProgressLine};
pub(crate) use table::Table;

use crate::error::Failure;
use crate::exit::Exit;

/// How this process speaks.
#[derive(Debug)]
pub(crate) struct Output {
    /// One JSON document (or NDJSON) on stdout instead of text.
    pub(crate) json: bool,
    /// 0: everything, 1: no notes, 2: errors only.
    pub(crate) quiet: u8,
    /// 0 and up: more detail on stderr.
    pub(crate) verbose: u8,
    /// Colours on stdout.
    pub(crate) stdout: Paint,
    /// Colours on stderr.
    pub(crate) stderr: Paint,
    /// Whether a progress line may be drawn and redrawn on stderr.
    pub(crate) live: bool,
    /// Whether progress is shown at all.
    pub(crate) progress: bool,
    /// Columns of the terminal; `None` when stdout is not one.
    pub(crate) width: Option<usize>,
    /// Set once the reader of stdout is gone.
    pub(crate) closed: AtomicBool,
}

impl Output {
    /// Writes text to stdout as it is.
    ///
    /// A reader that went away (`opsctl … | head`) is no error: from then on nothing is written and
    /// [`Self::is_closed`] tells endless commands to stop.
    pub(crate) fn data(&self, text: &str) -> Result<(), Failure> {
        self.raw(text.as_bytes())
    }

    /// Writes bytes to stdout as they are (`snapshot dump`).
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), Failure> {
        if self.is_closed() {
            return Ok(());
        }
        if self.width.is_some() {
            progress::erase(&mut io::stderr().lock());
        }
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => Err(Failure::io("could not write to stdout", &error)),
        }
    }

    /// Writes one line to stdout.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        self.data(&format!("{text}\n"))
    }

    /// Whether the reader of stdout went away.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Writes the one document of a `--json` command, indented on a terminal.
    pub(crate) fn document(&self, document: &impl Serialize) -> Result<(), Failure> {
        let text = if self.width.is_some() {
            serde_json::to_string_pretty(document)
        } else {
            serde_json::to_string(document)
        }
        .map_err(|error| Failure::bug("could not write a document as JSON").because(&error))?;
        self.line(&json_printable(text))
    }

    /// Writes one line of an NDJSON stream.
    pub(crate) fn event(&self, event: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(event)
            .map_err(|error| Failure::bug("could not write an event as JSON").because(&error))?;
        self.line(&json_printable(text))
    }

    /// The document under `--json`, else the text.
    pub(crate) fn answer(&self, document: &impl Serialize, text: impl FnOnce(Paint) -> String) -> Result<(), Failure> {
        if self.json {
            self.document(document)
        } else {
            self.data(&text(self.stdout))
        }
    }

    /// Says something on stderr that is worth knowing; silent under `--quiet` and `--json`.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        if self.quiet == 0 && !self.json {
            self.say(text.as_ref());
        }
    }

    /// A finished change, with a green mark.
    pub(crate) fn done(&self, text: impl AsRef<str>) {
        self.note(format!("{} {}", self.stderr.mark(Style::Done), text.as_ref()));
    }

    /// The likely next command.
    pub(crate) fn next(&self, command: impl AsRef<str>) {
        self.note(format!(
            "{} {}",
            self.stderr.apply(Style::Hint, "next:"),
            command.as_ref()
        ));
    }

    /// Detail for `-v`.
    pub(crate) fn detail(&self, text: impl AsRef<str>) {
        if self.verbose > 0 && !self.json {
            self.say(text.as_ref());
        }
    }

    /// A warning; silent only under `-qq`.
    pub(crate) fn warn(&self, text: impl AsRef<str>) {
        if self.quiet >= 2 {
            return;
        }
        if self.json {
            let document =
                serde_json::json!({"schema": "opsctl.warning/v1", "type": "warning", "message": text.as_ref()});
            self.say(&json_printable(document.to_string()));
        } else {
            self.say(&format!(
                "{} {}",
                self.stderr.apply(Style::Warning, "warning:"),
                printable(text.as_ref())
            ));
        }
    }

    /// Tells a failure, as text or as a document.
    pub(crate) fn failure(&self, failure: &Failure) -> Exit {
        if self.json {
            let document = serde_json::to_string(&failure.document()).unwrap_or_else(|error| error.to_string());
            self.say(&json_printable(document));
        } else {
            let text = failure.text(self.stderr);
            self.say(text.trim_end());
        }
        failure.exit
    }

    /// One line (or several) on stderr. A closed stderr is nobody's problem.
    #[expect(clippy::unused_self, reason = "every word goes through the one output")]
    pub(crate) fn say(&self, text: &str) {
        let mut stderr = io::stderr().lock();
        progress::erase(&mut stderr);
        let _ = writeln!(stderr, "{text}");
    }

    /// A question on stderr, without a line end.
    #[expect(clippy::unused_self, reason = "every word goes through the one output")]
    pub(crate) fn ask(&self, text: &str) {
        let mut stderr = io::stderr().lock();
        progress::erase(&mut stderr);
        let _ = write!(stderr, "{text} ").and_then(|()| stderr.flush());
    }

    /// Starts a progress line for `subject`; it erases itself when dropped.
    pub(crate) fn progress(&self, subject: impl Into<String>) -> ProgressLine {
        let shown = self.progress && self.quiet == 0 && !self.json;
        ProgressLine::start(subject.into(), shown, self.live)
    }
}

/// A size for people: `1.2 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A time span for people: `240 ms`, `3.2 s`, `4m 05s`, `2h 10m`, `3d 4h`.
pub(crate) fn seconds(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match seconds {
        s if s < 1.0 => format!("{:.0} ms", s * 1000.0),
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{}m {:02}s", whole / 60, whole % 60),
        s if s < 86_400.0 => format!("{}h {:02}m", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d {}h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// A short time to three digits: `0 µs`, `410 µs`, `12.4 ms`, then as [`seconds`].
pub(crate) fn latency(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1000.0),
        _ => self::seconds(seconds),
    }
}

/// `1 file`, `2 files`.
pub(crate) fn plural(count: u64, one: &str, many: &str) -> String {
    if count == 1 {
        format!("1 {one}")
    } else {
        format!("{count} {many}")
    }
}

/// JSON in which no character steers a terminal: JSON itself escapes those below U+0020 alone, and U+007F to U+009F stand
/// in its strings only, where an escape means the same.
fn json_printable(json: String) -> String {
    let steers = |character| matches!(character, '\u{7f}'..='\u{9f}');
    if !json.contains(steers) {
        return json;
    }
    let mut shown = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if steers(character) {
            shown.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Text from elsewhere (names of files, what services say) without characters that steer a terminal or turn the order of
/// what is read: they are shown escaped. Line feeds and tabs stay.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        // Line and paragraph separators, and the marks that change the direction of writing.
        let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if turns || (character.is_control() && !matches!(character, '\n' | '\t')) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The same on one line, so that no name looks like several.
pub(crate) fn one_line(text: &str) -> String {
    printable(text).replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::{bytes, latency, one_line, plural, printable, seconds};

    #[test]
    fn words_for_amounts() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1_288_490_188), "1.2 GiB");
        assert_eq!(seconds(0.24), "240 ms");
        assert_eq!(seconds(245.0), "4m 05s");
        assert_eq!(latency(0.000_41), "410 µs");
        assert_eq!(latency(0.012_37), "12.4 ms");
        assert_eq!(plural(1, "file", "files"), "1 file");
    }

    #[test]
    fn what_steers_a_terminal_or_turns_a_text_is_shown_escaped() {
        assert_eq!(printable("a\u{1b}[2Jb\rc"), "a\\u{1b}[2Jb\\rc");
        assert_eq!(printable("a\u{202e}b\u{9b}c"), "a\\u{202e}b\\u{9b}c");
        assert_eq!(printable("é\t漢\n"), "é\t漢\n");
        assert_eq!(one_line("a\nb\u{1b}"), "a\\nb\\u{1b}");
    }
}
