//! The steps that bring a database to the shape that the code expects, each applied once and recorded in the database.
//! There is no way back down: a step that an older release cannot live with says so. Who applies them is the matter of
//! `sqlite` and `postgres`.

/// One step. Numbers start at 1 and have no gaps; a step that was released never changes.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Its number.
    pub version: u32,
    /// A few words, recorded in the database.
    pub name: &'static str,
    /// Statements that run in one transaction.
    pub sql: &'static str,
    /// The oldest schema version whose code may still use the database after this step: its own number when the step
    /// breaks what older releases do, the number before when it only adds. Canaries and rollbacks rely on it.
    pub usable_from: u32,
}
