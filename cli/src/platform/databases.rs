//! Databases of PostgreSQL servers as fields of the platform, so that putting a restored one in the place of another is a
//! change like any other. What a field has is what the server says, and databases are told apart by their OIDs: an undo
//! works from anywhere, and never touches one that somebody else gave the name.
//!
//! The object is `datastore/<name>`. `/staged/<database>`: whether there is a database that is not finished yet; undone, it
//! is removed. `/open/<OID>`: whether a database takes connections. `/names/<name>/<staged>/<kept>`: the OID of the
//! database that has a name; the new one is called `staged` when it has not, and the old one `kept`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use backups::postgres::swap::{Names, Server};
use backups::postgres::{Dsn, PostgresError};
use opsctl_platform::{Field, PlatformError, Result};
use serde_json::Value;

use crate::config::{Config, DatastoreKind, SecretSource};

/// How the servers of an environment are reached.
#[derive(Debug, Clone, Default)]
pub(crate) struct Servers(BTreeMap<String, Known>);

#[derive(Debug, Clone)]
struct Known {
    dsn: SecretSource,
    programs: Option<PathBuf>,
}

/// What of a server is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Whether there is a database that is not finished.
    Staged(String),
    /// Whether a database takes connections.
    Open(u32),
    /// Which database has a name.
    Name(Names),
}

impl Part {
    /// The field of a datastore.
    pub(crate) fn field(&self, store: &str) -> Field {
        let escape = |part: &str| part.replace('~', "~0").replace('/', "~1");
        let pointer = match self {
            Self::Staged(database) => format!("/staged/{}", escape(database)),
            Self::Open(oid) => format!("/open/{oid}"),
            Self::Name(Names { name, staged, kept }) => {
                format!("/names/{}/{}/{}", escape(name), escape(staged), escape(kept))
            }
        };
        Field::new(format!("datastore/{store}"), pointer)
    }

    /// The datastore and the part of it that a field is, if it is one.
    pub(super) fn of(field: &Field) -> Option<(&str, Self)> {
        let store = field.object.strip_prefix("datastore/")?;
        let parts = field.parts();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let part = match parts.as_slice() {
            ["staged", database] => Self::Staged((*database).to_owned()),
            ["open", oid] => Self::Open(oid.parse().ok()?),
            ["names", name, staged, kept] => Self::Name(Names {
                name: (*name).to_owned(),
                staged: (*staged).to_owned(),
                kept: (*kept).to_owned(),
            }),
            _ => return None,
        };
        Some((store, part))
    }
}

impl Servers {
    /// Those of a configuration.
    pub(crate) fn of(config: &Config) -> Self {
        let stores = config.datastores.values();
        let servers = stores.filter(|store| store.kind == DatastoreKind::Postgres);
        Self(
            servers
                .filter_map(|store| {
                    let known = Known {
                        dsn: store.dsn.clone()?,
                        programs: store.postgres.as_ref().and_then(|keys| keys.programs.clone()),
                    };
                    Some((store.name.clone(), known))
                })
                .collect(),
        )
    }

    /// The server of a datastore, by the address that holds now.
    async fn server(&self, store: &str) -> Result<Server> {
        let refused = |why: String| PlatformError::Refused {
            what: format!("a change of datastore `{store}`"),
            why,
        };
        let known = self.0.get(store);
        let known = known.ok_or_else(|| refused("opsctl.toml does not say where it is".to_owned()))?;
        let text = known.dsn.fetch_again(&format!("the `dsn` of datastore `{store}`"));
        let text = text.map_err(|failure| refused(failure.message))?;
        let dsn = Dsn::parse(text.expose()).map_err(|error| refused(error.to_string()))?;
        let server = Server::open(known.programs.as_deref(), &dsn).await;
        server.map_err(|error| failed(store, error))
    }

    /// What a field has.
    pub(super) async fn get(&self, store: &str, part: &Part) -> Result<Option<Value>> {
        let server = self.server(store).await?;
        let value = match part {
            Part::Staged(database) => {
                let there = server.oid(database).await;
                there.map(|oid| oid.map(|_| true.into()))
            }
            Part::Open(oid) => server.is_open(*oid).await.map(|open| open.map(Value::from)),
            Part::Name(names) => server.oid(&names.name).await.map(|oid| oid.map(Value::from)),
        };
        value.map_err(|error| failed(store, error))
    }

    /// Makes it `new`, which is not what it has.
    pub(super) async fn set(
        &self,
        field: &Field,
        store: &str,
        part: &Part,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Result<()> {
        let invalid = |reason: &str| PlatformError::InvalidValue {
            field: field.clone(),
            reason: reason.to_owned(),
        };
        let server = self.server(store).await?;
        let oid = |value: Option<&Value>| {
            let number = value.map(|value| value.as_u64().and_then(|number| u32::try_from(number).ok()));
            match number {
                Some(None) => Err(invalid("it is the number of a database")),
                Some(oid) => Ok(oid),
                None => Ok(None),
            }
        };
        let changed = match (part, new) {
            (Part::Staged(database), None) => server.drop_database(database).await,
            // Whoever fills it makes it.
            (Part::Staged(_), Some(_)) => Ok(()),
            (Part::Open(oid), Some(Value::Bool(open))) => server.set_open(*oid, *open).await,
            (Part::Open(_), _) => return Err(invalid("it is true or false")),
            (Part::Name(names), new) => {
                let (from, to) = (oid(old)?, oid(new)?);
                server.exchange(names, from, to).await
            }
        };
        changed.map_err(|error| failed(store, error))
    }
}

fn failed(store: &str, error: PostgresError) -> PlatformError {
    match error {
        PostgresError::Unreachable { .. } | PostgresError::Denied { .. } => PlatformError::Unreachable {
            what: format!("the server of datastore `{store}`"),
            source: Box::new(error),
        },
        PostgresError::Failed { said, .. } => PlatformError::Refused {
            what: format!("a change of datastore `{store}`"),
            why: said,
        },
        error => PlatformError::Refused {
            what: format!("a change of datastore `{store}`"),
            why: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_the_part_that_it_was_made_of() {
        for part in [
            Part::Staged("opsctl_restoring_0123456789abcdef".to_owned()),
            Part::Open(16_384),
            Part::Name(Names {
                name: "a/b~c \"d\"".to_owned(),
                staged: "opsctl_restoring_0123456789abcdef".to_owned(),
                kept: "a/b~c.before-1".to_owned(),
            }),
        ] {
            assert_eq!(Part::of(&part.field("pg-main")), Some(("pg-main", part)));
        }
        for pointer in ["/content", "/open/x", "/names/x", "/staged"] {
            assert_eq!(Part::of(&Field::new("datastore/pg", pointer)), None, "{pointer}");
        }
        assert_eq!(Part::of(&Field::new("service/pg", "/open/1")), None);
    }
}
