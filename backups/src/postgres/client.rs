//! The client programs, run against a server: what they are told and how, and what their failures mean. The password goes
//! by the environment, SQL by stdin, so that neither is seen in a list of processes.

use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::programs::Installation;
use super::{Dsn, PostgresError};
use crate::process::{self, Launch, Variable, redact};
use crate::source::command::CommandFailure;
use crate::source::stream_failure;

/// More than any answer of ours has.
const MOST: u64 = 64 << 20;
/// How long the server may take to let us in, unless the address says so, seconds.
const PATIENCE: &str = "10";

/// A server, and the programs that speak to it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) installation: Installation,
    pub(crate) dsn: Dsn,
    /// What is in our environment for clients does not count: this server is our own.
    pub(crate) is_ours: bool,
}

impl Client {
    /// A server somewhere.
    pub(crate) fn new(installation: Installation, dsn: Dsn) -> Self {
        Self {
            installation,
            dsn,
            is_ours: false,
        }
    }

    /// The same server, another database.
    pub(crate) fn in_database(&self, name: &str) -> Self {
        Self {
            dsn: self.dsn.with_database(name),
            ..self.clone()
        }
    }

    /// How a program of it is started. The address is `-d`'s value.
    pub(crate) fn launch(&self, program: &str, arguments: &[&str]) -> Launch {
        let mut variables: Vec<Variable> = self.password().into_iter().collect();
        let plain = |name: &str, value: &str| Variable {
            name: name.to_owned(),
            value: Zeroizing::new(value.to_owned()),
            is_secret: false,
        };
        // What programs say is told apart by its words.
        variables.extend([
            plain("LC_ALL", "C"),
            plain("LANGUAGE", ""),
            plain("PGAPPNAME", "opsctl"),
        ]);
        if self.is_ours
            || (self.dsn.setting("connect_timeout").is_none() && std::env::var_os("PGCONNECT_TIMEOUT").is_none())
        {
            variables.push(plain("PGCONNECT_TIMEOUT", PATIENCE));
        }
        let own = ["-w", "-d"].map(str::to_owned).into_iter().chain([self.dsn.settings()]);
        Launch {
            program: self.installation.program(program),
            arguments: own
                .chain(arguments.iter().map(|&argument| argument.to_owned()))
                .map(Into::into)
                .collect(),
            variables,
            without: self.is_ours.then_some("PG"),
            ..Launch::default()
        }
    }

    fn password(&self) -> Option<Variable> {
        let password = self.dsn.password()?;
        Some(Variable {
            name: "PGPASSWORD".to_owned(),
            value: password.clone(),
            is_secret: true,
        })
    }

    /// Runs statements one after another; the first that fails ends it. They must hold no command to `psql`.
    pub(crate) async fn execute(&self, statements: &[String]) -> Result<(), PostgresError> {
        let script = statements
            .iter()
            .flat_map(|statement| [statement.as_str(), ";\n"])
            .collect::<String>();
        self.psql(&script).await.map(drop)
    }

    /// Asks for one JSON value.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, query: &str) -> Result<T, PostgresError> {
        let answer = self.psql(&format!("{query};\n")).await?;
        serde_json::from_slice(&answer).map_err(|error| PostgresError::Answer {
            program: "psql".to_owned(),
            problem: error.to_string(),
        })
    }

    async fn psql(&self, script: &str) -> Result<Vec<u8>, PostgresError> {
        let arguments = ["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-"];
        let mut launch = self.launch("psql", &arguments);
        launch.variables.push(Variable {
            name: "PGCLIENTENCODING".to_owned(),
            value: Zeroizing::new("UTF8".to_owned()),
            is_secret: false,
        });
        launch.input = Some(Zeroizing::new(script.as_bytes().to_vec()));
        self.to_end("psql", launch).await
    }

    /// Runs a program to its end and returns what it printed.
    pub(crate) async fn to_end(&self, program: &str, launch: Launch) -> Result<Vec<u8>, PostgresError> {
        let ended = process::run(launch, MOST)
            .await
            .map_err(|source| PostgresError::Start {
                program: program.to_owned(),
                source,
            })?;
        if ended.status.success() {
            return Ok(ended.output);
        }
        Err(self.failed(program, stream_failure(ended.status), &ended.said))
    }

    /// What a program's failure means, by its words.
    pub(crate) fn failed(&self, program: &str, failure: CommandFailure, said: &[u8]) -> PostgresError {
        let variables: Vec<Variable> = self.password().into_iter().collect();
        let said = redact::hide(String::from_utf8_lossy(said).trim_end(), &variables);
        let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
        let address = self.dsn.to_string();
        if let Some(name) = no_database(&said) {
            return PostgresError::NoDatabase { address, name };
        }
        if says(&DENIED) {
            return PostgresError::Denied { address, said };
        }
        if says(&UNREACHABLE) {
            return PostgresError::Unreachable { address, said };
        }
        PostgresError::Failed {
            program: program.to_owned(),
            failure,
            said,
        }
    }
}

const DENIED: [&str; 7] = [
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "pg_hba.conf rejects",
    "is not permitted to log in",
    "permission denied for database",
    "certificate verify failed",
];

const UNREACHABLE: [&str; 10] = [
    "Connection refused",
    "could not translate host name",
    "timeout expired",
    "No route to host",
    "Network is unreachable",
    "server closed the connection unexpectedly",
    "the database system is",
    "too many clients already",
    "Is the server running",
    "terminating connection due to",
];

/// `FATAL:  database "x" does not exist`: what the server says when it is asked to connect us.
fn no_database(said: &str) -> Option<String> {
    let rest = said.split_once("FATAL:  database \"")?.1;
    Some(rest.split_once("\" does not exist")?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_wrong_is_known_by_its_words() {
        let installation = Installation::unknown();
        let client = Client::new(
            installation,
            Dsn::parse("postgres://shop:hunter2@db/orders").expect("an address"),
        );
        let failed = |said: &str| client.failed("psql", CommandFailure::Status(2), said.as_bytes());
        assert!(matches!(
            failed(
                "psql: error: connection to server at \"db\" (1.2.3.4), port 5432 failed: FATAL:  password authentication failed for user \"shop\""
            ),
            PostgresError::Denied { .. }
        ));
        assert!(matches!(
            failed("connection to server failed: FATAL:  database \"or\"ders\" does not exist"),
            PostgresError::NoDatabase { name, .. } if name == "or\"ders"
        ));
        assert!(matches!(
            failed("connection to server at \"db\" failed: Connection refused\n\tIs the server running on that host?"),
            PostgresError::Unreachable { .. }
        ));
        let other = failed("ERROR: relation hunter2 does not exist\n");
        assert!(
            matches!(&other, PostgresError::Failed { said, .. } if said == "ERROR: relation … does not exist"),
            "{other:?}"
        );
        assert!(!format!("{client:?}").contains("hunter2"));
        let launch = client.launch("pg_dump", &["-Fc"]);
        assert!(
            launch
                .arguments
                .iter()
                .all(|argument| !argument.to_string_lossy().contains("hunter2"))
        );
    }
}
