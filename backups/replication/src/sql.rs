//! A connection for SQL: what replication mode does not answer. The simple query protocol, values as text.

use crate::address::Address;
use crate::connection::within;
use crate::error::Error;
use crate::lsn::Malformed;
use crate::slot::{Slot, SlotName, SlotState};
use crate::startup::{self, Mode};
use crate::version::ServerVersion;
use crate::wire::Wire;

/// A connection to a database.
#[derive(Debug)]
pub struct Sql {
    wire: Wire,
    version: ServerVersion,
}

impl Sql {
    /// Connects to the address's database; to the one that is called as the user if it names none.
    ///
    /// # Errors
    /// As [`Connection::open`](crate::Connection::open).
    pub async fn open(address: &Address, application: &str) -> Result<Self, Error> {
        let (wire, _) = startup::open(address, application, Mode::Sql).await?;
        let version = wire
            .version
            .ok_or_else(|| wire.protocol("it does not say its version"))?;
        Ok(Self { wire, version })
    }

    /// The server's version.
    pub const fn server_version(&self) -> ServerVersion {
        self.version
    }

    /// Asks one statement and returns its rows, each column as text, `None` for null. At most 100,000 rows and 64 MiB; no
    /// limit of time but the caller's. Values in it must be quoted: see [`literal`](Self::literal).
    ///
    /// # Errors
    /// [`Error`].
    pub async fn query(&mut self, statement: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        if statement.contains('\0') {
            return Err(self.wire.answer(Malformed::new("a statement without a zero byte", "")));
        }
        let rows = self.wire.query("a statement", statement).await?;
        let text = |row: &crate::frame::Row| (0..row.len()).map(|column| self.wire.text(row, column)).collect();
        rows.iter().map(text).collect()
    }

    /// A text as a literal of SQL, whatever `standard_conforming_strings` is.
    pub fn literal(text: &str) -> String {
        let escaped = text.replace('\\', r"\\").replace('\'', "''");
        let prefix = if text.contains('\\') { " E" } else { "" };
        format!("{prefix}'{escaped}'")
    }

    /// What the server says of a physical slot; `None` if there is none of this name.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn slot(&mut self, name: &SlotName) -> Result<Option<SlotState>, Error> {
        let health = if self.version.major() >= 13 {
            "wal_status, safe_wal_size"
        } else {
            "NULL, NULL"
        };
        let statement = format!(
            "SELECT restart_lsn, active, {health} FROM pg_catalog.pg_replication_slots \
             WHERE slot_name = '{name}' AND slot_type = 'physical'"
        );
        let at = self.wire.at.clone();
        within(at, async {
            let rows = self.wire.query("the question for a slot", &statement).await?;
            let Some(row) = rows.first() else {
                return Ok(None);
            };
            let safe_wal_size = match self.wire.text(row, 3)? {
                None => None,
                Some(text) => {
                    let size = text.parse().map_err(|_| Malformed::new("a number of bytes", &text));
                    Some(size.map_err(|source| self.wire.answer(source))?)
                }
            };
            Ok(Some(SlotState {
                slot: Slot {
                    restart: self.wire.optional(row, 0)?,
                    timeline: None,
                },
                active: self.wire.text(row, 1)?.as_deref() == Some("t"),
                wal_status: self.wire.text(row, 2)?,
                safe_wal_size,
            }))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_ends_where_it_should() {
        assert_eq!(Sql::literal("it's"), "'it''s'");
        assert_eq!(Sql::literal(r"\'; x"), r" E'\\''; x'");
    }
}
