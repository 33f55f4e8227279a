//! What is told where PostgreSQL, or one of its programs, failed.

use backups::postgres::PostgresError;
use backups::postgres::scratch::ScratchError;

use crate::error::Failure;
use crate::exit::Exit;

/// Adds to `told`, made of an exit code and a word, what the error means and what to do.
pub(super) fn failure(error: &PostgresError, told: impl Fn(Exit, &'static str) -> Failure) -> Failure {
    let lines = |said: &str| said.lines().map(str::to_owned).collect::<Vec<_>>();
    match error {
        PostgresError::Address(_) => told(Exit::Usage, "config_invalid").help(
            "write it as postgres://user@host/database; nothing of it is shown, since a password may stand in it",
        ),
        PostgresError::NoPrograms { at_least, server, .. } => {
            let package = if *server { "postgresql" } else { "postgresql-client" };
            let version = if *at_least == 0 {
                String::new()
            } else {
                format!("-{at_least}")
            };
            told(Exit::Usage, "program_not_found").help(format!(
                "install them, such as with `apt install {package}{version}`, or say in `programs` of the datastore in which folder they are"
            ))
        }
        PostgresError::Start { .. } => {
            told(Exit::Usage, "program_not_found").help("`programs` of the datastore says in which folder it is")
        }
        PostgresError::Unreachable { said, .. } => told(Exit::Unreachable, "unreachable")
            .details(lines(said))
            .help("nothing was changed; run the same command again when the server answers"),
        PostgresError::Denied { said, .. } => told(Exit::Usage, "access_denied").details(lines(said)).help(
            "put the right address and password where `dsn` of the datastore says: `opsctl config show datastore`",
        ),
        PostgresError::NoDatabase { .. } => told(Exit::Usage, "unknown_database").help(
            "`dsn` says which database is connected to, `backup.databases` which are saved; both stand in opsctl.toml",
        ),
        PostgresError::Failed { said, .. } | PostgresError::Scratch { said, .. } => {
            told(Exit::Failed, "postgres_failed").details(lines(said))
        }
        PostgresError::Answer { .. } => told(Exit::Failed, "postgres_failed"),
        PostgresError::Dump { .. } => told(Exit::Failed, "damaged").help("try an older snapshot: opsctl snapshot list"),
        PostgresError::Exists { .. } => {
            told(Exit::Refused, "exists").help("choose another name; a database that is there is never written to")
        }
        PostgresError::MissingRoles { .. } => told(Exit::Usage, "missing_roles")
            .help("--globals makes them as they were; --no-owner leaves everything to whom `dsn` connects as"),
        PostgresError::NotInDump(_) => told(Exit::Usage, "unknown_path")
            .help("names are as PostgreSQL has them: case matters, and nothing stands in quotes"),
        PostgresError::WhichDatabase { .. } => told(Exit::Usage, "ambiguous").help("choose one with `--database NAME`"),
        PostgresError::NotInSnapshot { .. } => told(Exit::Usage, "unknown_database"),
        PostgresError::Server(server) => scratch(server, told),
        PostgresError::Left { name, .. } => told(Exit::Failed, "left_behind")
            .help(format!("remove it when the server answers: DROP DATABASE \"{name}\"")),
    }
}

/// The same of a server that we start over what was restored.
fn scratch(error: &ScratchError, told: impl Fn(Exit, &'static str) -> Failure) -> Failure {
    match error {
        ScratchError::NoUser => {
            told(Exit::Usage, "no_user").help("run opsctl as another user, or add one called `postgres`")
        }
        ScratchError::NoProgram { .. } | ScratchError::Run { .. } => {
            told(Exit::Usage, "program_not_found").help("`programs` of the datastore says in which folder it is")
        }
        ScratchError::Unreachable { .. } => told(Exit::Usage, "no_way_through")
            .help("choose another place (`--into FOLDER`, `--scratch FOLDER`), or let it through: chmod o+x"),
        ScratchError::Prepare { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            told(Exit::Failed, "disk_full").help("free some space, then run the same command again")
        }
        ScratchError::Ended { log, .. } => {
            told(Exit::Failed, "postgres_failed").details(log.lines().map(str::to_owned).collect::<Vec<_>>())
        }
        ScratchError::NotACluster(_) => {
            told(Exit::Failed, "damaged").help("try an older snapshot: opsctl snapshot list")
        }
        ScratchError::Prepare { .. } => told(Exit::Failed, "target_failed"),
        ScratchError::NoTarget
        | ScratchError::Connect { .. }
        | ScratchError::Ask { .. }
        | ScratchError::Answer { .. }
        | ScratchError::DoesNotStop
        | ScratchError::Cancelled => told(Exit::Failed, "postgres_failed"),
    }
}
