//! What a run that judges comes to, in three values. Not how it is reached: drills and canaries have their own evidence.

use serde::{Deserialize, Serialize};

/// A verdict. Missing data is neither a pass nor a fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Shown to be as it should: every expectation met, or not worse than allowed.
    Pass,
    /// Shown not to be.
    Fail,
    /// Not enough was seen to say.
    Inconclusive,
}

impl Verdict {
    /// The word that reports use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
        }
    }
}
