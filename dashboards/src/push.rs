//! Bringing boards to a Grafana: first [`plan`], which reads and says what would change, then [`apply`], which changes that
//! and nothing else. The same boards pushed again change nothing. A board that somebody has made newer than ours, in a
//! newer model or since the plan was made, is left alone.
//!
//! Grafana is a small trait: [`http::Http`] speaks to a real one, [`memory::Memory`] is its twin in tests.

pub mod diff;
pub mod http;
pub mod memory;

use std::fmt;
use std::future::Future;

use endpoint::EndpointError;
use serde_json::Value;

pub use diff::Change;
pub use http::Http;

use crate::model::Dashboard;

/// A board that is to be brought there.
#[derive(Debug, Clone, PartialEq)]
pub struct Board {
    /// Its uid.
    pub uid: String,
    /// Its title.
    pub title: String,
    /// The classic model.
    pub spec: Value,
}

impl From<&Dashboard> for Board {
    fn from(board: &Dashboard) -> Self {
        Self {
            uid: board.uid.clone(),
            title: board.title.clone(),
            spec: crate::model::envelope::value(board),
        }
    }
}

/// A folder of boards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Its uid.
    pub uid: String,
    /// Its title.
    pub title: String,
}

/// A board as a Grafana has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The classic model; of another model what Grafana makes of it.
    pub spec: Value,
    /// Which revision this is: what is written must follow it.
    pub revision: Revision,
    /// The uid of its folder; none at the top.
    pub folder: Option<String>,
    /// The model in which it is kept, when that is not the classic one: `v2`.
    pub model: Option<String>,
    /// Who keeps it in step with something else, so that it cannot be written: a file, a repository.
    pub managed_by: Option<String>,
}

/// Which revision of a board something is; only the Grafana that said it understands it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision(pub(crate) String);

/// Why a Grafana did not do something. Tokens are never in it.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// It cannot be asked, does not want what it was sent, or is no Grafana.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Somebody else has written the board since it was read.
    #[error("the board `{uid}` was changed since the plan was made")]
    Changed {
        /// Its uid.
        uid: String,
    },
}

/// What is asked of a Grafana.
pub trait Grafana: Sync {
    /// The board of that uid, if there is one.
    fn board(&self, uid: &str) -> impl Future<Output = Result<Option<Stored>, PushError>> + Send;

    /// The title of the folder of that uid, if there is one.
    fn folder(&self, uid: &str) -> impl Future<Output = Result<Option<String>, PushError>> + Send;

    /// Makes a folder. One that is there meanwhile is as good.
    fn make_folder(&self, folder: &Folder) -> impl Future<Output = Result<(), PushError>> + Send;

    /// Writes a board into a folder: a new one, or the one that follows a revision.
    ///
    /// # Errors
    /// [`PushError::Changed`] when there is one although none is expected, or another than the one that is to be followed.
    fn write(
        &self,
        board: &Board,
        folder: &Folder,
        follows: Option<&Revision>,
    ) -> impl Future<Output = Result<(), PushError>> + Send;
}

/// What a push would do.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Where boards go.
    pub folder: Folder,
    /// Whether it has to be made.
    pub makes_folder: bool,
    /// Each board, in the order in which they were given.
    pub steps: Vec<Step>,
}

/// What happens to one board.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The board.
    pub board: Board,
    /// What happens to it.
    pub action: Action,
}

/// What happens to a board.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// It is not there.
    Create,
    /// It is there and differs.
    Update {
        /// What it follows.
        follows: Revision,
        /// The folder from which it moves, when it does; empty for the top.
        moves_from: Option<String>,
        /// What changes.
        changes: Vec<Change>,
    },
    /// It is there as it is.
    Unchanged,
    /// It is left alone.
    Refused(Refusal),
}

/// Why a board is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It is kept in a newer model, which ours would cut down.
    NewerModel {
        /// The model.
        model: String,
    },
    /// It has a newer schema version than ours.
    NewerSchema {
        /// What is there.
        stored: u64,
        /// What ours is.
        ours: u64,
    },
    /// It is kept in step with a file or a repository, which would undo the change.
    Managed {
        /// By what.
        by: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewerModel { model } => write!(f, "it is kept in the model {model}, which is newer"),
            Self::NewerSchema { stored, ours } => {
                write!(f, "its schema version is {stored}, newer than {ours}")
            }
            Self::Managed { by } => write!(f, "it is kept in step with {by}, which would undo the change"),
        }
    }
}

impl Plan {
    /// Whether applying it does nothing.
    pub fn is_empty(&self) -> bool {
        !self.makes_folder && !self.steps.iter().any(|step| step.action.writes())
    }

    /// The steps that are left alone.
    pub fn refused(&self) -> impl Iterator<Item = (&Board, &Refusal)> {
        self.steps.iter().filter_map(|step| match &step.action {
            Action::Refused(why) => Some((&step.board, why)),
            _ => None,
        })
    }
}

impl Action {
    /// Whether something is written.
    pub const fn writes(&self) -> bool {
        matches!(self, Self::Create | Self::Update { .. })
    }

    /// `create`, `update`, `unchanged`, `refused`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update { .. } => "update",
            Self::Unchanged => "unchanged",
            Self::Refused(_) => "refused",
        }
    }
}

/// Reads what is there and says what would happen. Changes nothing.
///
/// # Errors
/// When Grafana cannot be asked.
pub async fn plan(grafana: &impl Grafana, boards: Vec<Board>, folder: Folder) -> Result<Plan, PushError> {
    let makes_folder = grafana.folder(&folder.uid).await?.is_none();
    let mut steps = Vec::with_capacity(boards.len());
    for board in boards {
        let stored = grafana.board(&board.uid).await?;
        let action = decide(&board, &folder, stored);
        steps.push(Step { board, action });
    }
    Ok(Plan {
        folder,
        makes_folder,
        steps,
    })
}

/// What happens to a board, given what is there.
fn decide(board: &Board, folder: &Folder, stored: Option<Stored>) -> Action {
    let Some(stored) = stored else {
        return Action::Create;
    };
    let version = |spec: &Value| spec.get("schemaVersion").and_then(Value::as_u64).unwrap_or(0);
    if let Some(model) = stored.model {
        return Action::Refused(Refusal::NewerModel { model });
    }
    let moves_from = (stored.folder.as_deref() != Some(&folder.uid)).then(|| stored.folder.unwrap_or_default());
    let changes = diff::between(&stored.spec, &board.spec);
    if changes.is_empty() && moves_from.is_none() {
        return Action::Unchanged;
    }
    let (theirs, ours) = (version(&stored.spec), version(&board.spec));
    if theirs > ours {
        return Action::Refused(Refusal::NewerSchema { stored: theirs, ours });
    }
    if let Some(by) = stored.managed_by {
        return Action::Refused(Refusal::Managed { by });
    }
    Action::Update {
        follows: stored.revision,
        moves_from,
        changes,
    }
}

/// What became of one board.
#[derive(Debug)]
pub struct Outcome {
    /// Its uid.
    pub uid: String,
    /// Whether it was written; none when there was nothing to do.
    pub result: Option<Result<(), PushError>>,
}

/// Does what the plan says, board by board; one that fails does not keep the others from being written.
///
/// # Errors
/// When the folder cannot be made, before anything else was done.
pub async fn apply(grafana: &impl Grafana, plan: &Plan) -> Result<Vec<Outcome>, PushError> {
    if plan.makes_folder {
        grafana.make_folder(&plan.folder).await?;
    }
    let mut outcomes = Vec::with_capacity(plan.steps.len());
    for Step { board, action } in &plan.steps {
        let result = match action {
            Action::Create => Some(grafana.write(board, &plan.folder, None).await),
            Action::Update { follows, .. } => Some(grafana.write(board, &plan.folder, Some(follows)).await),
            Action::Unchanged | Action::Refused(_) => None,
        };
        outcomes.push(Outcome {
            uid: board.uid.clone(),
            result,
        });
    }
    Ok(outcomes)
}
