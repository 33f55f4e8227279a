//! What a person or a script is told when something went wrong: what, why, what to do, and the exit code.
//! The files below this one hold the exhaustive mapping of each crate's typed errors; nothing else in `opsctl`
//! turns an error into words or a number.

pub(crate) mod admin;
mod alerts;
pub(crate) mod backups;
mod config;
pub(crate) mod dashboards;
mod load;
pub(crate) mod platform;
mod postgres;
pub(crate) mod runs;

use std::error::Error as StdError;
use std::fmt::Write as _;

use serde::Serialize;

use crate::exit::Exit;
use crate::output::{Paint, Style, printable};

/// What every command returns: the code of a finished command, or the failure that the user is told.
pub(crate) type Outcome = Result<Exit, Failure>;

/// One failure in the words of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// A stable word for scripts, for example `unknown_service`.
    pub(crate) code: &'static str,
    /// What happened, one sentence without a full stop, objects in backticks.
    pub(crate) message: String,
    /// Several findings of equal rank, for example every error of a configuration file.
    pub(crate) details: Vec<String>,
    /// Why, outermost cause first.
    pub(crate) causes: Vec<String>,
    /// What to do: a command to paste, or one sentence.
    pub(crate) help: Option<String>,
}

impl Failure {
    /// A failure with a code and a sentence.
    pub(crate) fn new(exit: Exit, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            exit,
            code,
            message: message.into(),
            details: Vec::new(),
            causes: Vec::new(),
            help: None,
        }
    }

    /// A usage or configuration failure (exit 2).
    pub(crate) fn usage(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, code, message)
    }

    /// A refusal (exit 5).
    pub(crate) fn refused(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Exit::Refused, code, message)
    }

    /// A failure of reading or writing `path`, with the operating system's reason.
    pub(crate) fn io(what: impl Into<String>, error: &std::io::Error) -> Self {
        let full = error.kind() == std::io::ErrorKind::StorageFull;
        let failure = Self::new(Exit::Failed, if full { "disk_full" } else { "io" }, what).because(error);
        if full {
            failure.help("free some space, then run the same command again")
        } else {
            failure
        }
    }

    /// A fault of `opsctl` itself.
    pub(crate) fn bug(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, "bug", message)
            .help("this is a bug in opsctl: report it with the command and `opsctl --version`")
    }

    /// Adds what to do.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds one cause as text.
    pub(crate) fn cause(mut self, cause: impl Into<String>) -> Self {
        let cause = cause.into();
        if cause != self.message && self.causes.last() != Some(&cause) {
            self.causes.push(cause);
        }
        self
    }

    /// As [`Self::because`], if there is an error.
    pub(crate) fn maybe_because(self, error: Option<&(dyn StdError + 'static)>) -> Self {
        match error {
            Some(error) => self.because(error),
            None => self,
        }
    }

    /// Adds an error and everything behind it, one cause a line, nothing twice.
    pub(crate) fn because(mut self, error: &(dyn StdError + 'static)) -> Self {
        let mut next: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(error) = next {
            self = self.cause(error.to_string());
            next = error.source();
        }
        self
    }

    /// Adds findings of equal rank.
    pub(crate) fn details(mut self, details: impl IntoIterator<Item = String>) -> Self {
        self.details.extend(details);
        self
    }

    /// The lines for a person, on stderr. What was typed and what services and servers said stand in it, so that
    /// whatever could steer a terminal is escaped.
    pub(crate) fn text(&self, paint: Paint) -> String {
        let mut text = format!("{} {}\n", paint.apply(Style::Error, "error:"), printable(&self.message));
        for detail in &self.details {
            let _ = writeln!(text, "  {}", printable(detail));
        }
        for cause in &self.causes {
            let _ = writeln!(text, "  caused by: {}", printable(cause).replace('\n', "\n    "));
        }
        if let Some(help) = &self.help {
            let _ = writeln!(text, "{} {}", paint.apply(Style::Hint, "help:"), printable(help));
        }
        text
    }

    /// The document for a script, on stderr.
    pub(crate) fn document(&self) -> ErrorDocument<'_> {
        ErrorDocument {
            schema: "opsctl.error/v1",
            r#type: "error",
            code: self.code,
            message: &self.message,
            details: &self.details,
            causes: &self.causes,
            help: self.help.as_deref(),
            exit_code: self.exit.number(),
        }
    }
}

/// `opsctl.error/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorDocument<'a> {
    schema: &'static str,
    r#type: &'static str,
    code: &'static str,
    message: &'a str,
    details: &'a [String],
    causes: &'a [String],
    help: Option<&'a str>,
    exit_code: u8,
}

#[cfg(test)]
mod tests {
    use super::Failure;
    use crate::output::Paint;

    #[test]
    fn reads_as_what_why_and_what_to_do() {
        let failure = Failure::usage("unknown_service", "there is no service `shop`")
            .cause("`opsctl.toml` declares: orders")
            .cause("`opsctl.toml` declares: orders")
            .help("opsctl status");
        assert_eq!(
            failure.text(Paint::Plain),
            "error: there is no service `shop`\n  caused by: `opsctl.toml` declares: orders\nhelp: opsctl status\n"
        );
    }
}
