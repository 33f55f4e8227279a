//! The exit codes of `opsctl`: a closed list, the same for every command. It decides nothing; commands and
//! [`crate::error`] choose one of these, and `opsctl help exit-codes` prints them.

use std::process::ExitCode;

/// How a command ended. A script may rely on each number; an unknown non-zero number is a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// 0: done.
    Done,
    /// 1: it failed: full disk, damaged key file, a bug.
    Failed,
    /// 2: usage or configuration: unknown key, wrong password, port taken.
    Usage,
    /// 3: partial: some items were skipped or damaged, and they are listed.
    Partial,
    /// 4: it worked, and the answer is no: unhealthy, damage found, drill failed, canary rolled back.
    No,
    /// 5: refused: no consent, or a guard.
    Refused,
    /// 6: the undo is incomplete; `opsctl recover` goes on.
    UndoIncomplete,
    /// 7: unreachable or timed out.
    Unreachable,
    /// 8: locked by another run.
    Locked,
    /// 9: inconclusive: not enough or no valid data.
    Inconclusive,
    /// 130: interrupted (Ctrl-C), after undoing.
    Interrupted,
    /// 143: terminated, after undoing.
    Terminated,
    /// 250, of `wal get` alone: PostgreSQL must not go on. Over 125 it aborts, under it takes it for the end of the log.
    Stop,
}

impl Exit {
    /// Every code, in the order of the numbers.
    pub(crate) const ALL: [Self; 13] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::Partial,
        Self::No,
        Self::Refused,
        Self::UndoIncomplete,
        Self::Unreachable,
        Self::Locked,
        Self::Inconclusive,
        Self::Interrupted,
        Self::Terminated,
        Self::Stop,
    ];

    /// The number that the process returns.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Partial => 3,
            Self::No => 4,
            Self::Refused => 5,
            Self::UndoIncomplete => 6,
            Self::Unreachable => 7,
            Self::Locked => 8,
            Self::Inconclusive => 9,
            Self::Interrupted => 130,
            Self::Terminated => 143,
            Self::Stop => 250,
        }
    }

    /// One line for help screens.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed (full disk, damaged key file, a bug)",
            Self::Usage => "usage or configuration (unknown key, wrong password, port taken)",
            Self::Partial => "partial: some items were skipped or damaged, and are listed",
            Self::No => "the answer is no (unhealthy, damaged, drill failed, canary rolled back)",
            Self::Refused => "refused: no consent, or a guard",
            Self::UndoIncomplete => "undo incomplete, run `opsctl recover`",
            Self::Unreachable => "unreachable or timed out",
            Self::Locked => "locked by another run",
            Self::Inconclusive => "inconclusive: not enough or no valid data",
            Self::Interrupted => "interrupted, after undoing",
            Self::Terminated => "terminated, after undoing",
            Self::Stop => "of `wal get`: the log has a gap, and PostgreSQL must not go on",
        }
    }

    /// The code with this number, if it is one of ours.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| exit.number() == number)
    }

    /// The `Exit status` section of a command's `--help`: `0` and the codes that this command adds.
    pub(crate) fn section(codes: &[Self]) -> String {
        let mut text = String::from("Exit status:\n");
        for code in std::iter::once(&Self::Done).chain(codes) {
            text.push_str(&format!("  {:>3}  {}\n", code.number(), code.meaning()));
        }
        text.push_str("  All codes: opsctl help exit-codes");
        text
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn numbers_are_distinct_and_round_trip() {
        for exit in Exit::ALL {
            assert_eq!(Exit::from_number(exit.number()), Some(exit));
        }
        assert_eq!(Exit::from_number(10), None);
    }
}
