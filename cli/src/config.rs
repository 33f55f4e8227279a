//! `opsctl.toml`: found, trusted, read, merged, typed. Everything that is wrong with it is told at once, each with
//! file, line and column. What the values are used for is the business of the commands.

mod bucket;
mod criteria;
mod document;
mod environment;
mod finding;
mod keep;
mod kubernetes;
mod locate;
mod model;
mod proof;
mod read;
mod schedule;
mod secret;
mod section;
mod sources;
mod suggest;
mod values;
mod watching;

use crate::context::Context;
use crate::error::Failure;

pub(crate) use finding::{Diagnostic, Shown};
pub(crate) use kubernetes::Cluster;
pub(crate) use locate::check_trust;
pub(crate) use model::{
    Backend, Bucket, BucketCredentials, Config, Datastore, DatastoreKind, Grafana, Key, Local, Loki, Notify,
    PlatformKind, Prometheus, Repository, Service,
};
pub(crate) use schedule::{Call, CallTo, Cleanup, Cutoff, CutoffKind, Job, Ping, Schedule, What, columns_of, filled};
pub(crate) use secret::{Secret, SecretSource};
pub(crate) use sources::{CommandKeys, Given, Method};
pub(crate) use suggest::suggestion;

/// The name of the file that is looked for.
pub(crate) const FILE_NAME: &str = "opsctl.toml";

/// Why there is no configuration.
#[derive(Debug)]
pub(crate) enum ConfigError {
    /// No `opsctl.toml` here or above.
    NotFound {
        /// Where the search began.
        from: String,
    },
    /// A file or folder that others own or may write.
    Untrusted {
        /// The file or folder.
        path: String,
        /// What is wrong with it.
        reason: String,
        /// How to cure it.
        cure: String,
    },
    /// A file could not be read.
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The files were read and hold errors, sorted by place.
    Invalid {
        /// The main file.
        file: String,
        /// Every error.
        diagnostics: Vec<Diagnostic>,
    },
}

/// Loads the configuration for the environment that flags and variables choose.
pub(crate) fn load(context: &Context) -> Result<Config, Failure> {
    Ok(try_load(context, None)?)
}

/// Loads the configuration for a named environment, whatever flags and variables say.
pub(crate) fn load_environment(context: &Context, name: &str) -> Result<Config, Failure> {
    Ok(try_load(context, Some(name))?)
}

fn try_load(context: &Context, environment: Option<&str>) -> Result<Config, ConfigError> {
    let file = locate::find(context)?;
    let document = document::read_all(context, &file)?;
    environment::resolve(context, &file, document, environment)
}

/// Loads the configuration if there is one; `None` without an `opsctl.toml`.
pub(crate) fn load_if_present(context: &Context) -> Result<Option<Config>, Failure> {
    match try_load(context, None) {
        Ok(config) => Ok(Some(config)),
        Err(ConfigError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
