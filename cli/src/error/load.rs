//! What is told when load could not be sent.

use opsctl_load::LoadError;

use crate::error::Failure;
use crate::exit::Exit;

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let told = |exit, code| Self::new(exit, code, "could not send load").because(&error);
        match &error {
            LoadError::InvalidRate { .. } => told(Exit::Usage, "usage").help("a rate is for example 200/s or 1000/min"),
            LoadError::InvalidTarget { .. } | LoadError::InvalidRequest(_) | LoadError::InvalidPlan(_) => {
                told(Exit::Usage, "usage")
            }
            LoadError::Resolve { .. } => told(Exit::Unreachable, "unreachable"),
            LoadError::Start(_) => told(Exit::Failed, "io"),
            LoadError::Stopped => told(Exit::Failed, "bug"),
        }
    }
}
