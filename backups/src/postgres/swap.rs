//! A database of a live server takes the place of another by its name. Databases are told apart by their OIDs, so that
//! nothing is ever done to one that merely has the name of another; each step is one transaction, and waits for the end of
//! a former one whose client was killed. What is done in which order, and how it is undone, is decided elsewhere.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value as Json;

use super::load::contents;
use super::programs;
use super::{Client, Dsn, PostgresError, literal, quoted};
use crate::Error;

/// The database that is connected to meanwhile: the lock below is one of its own.
pub const MAINTENANCE: &str = "postgres";
/// What every step takes first. A server goes on with the statement of a client that was killed; whoever looks afterwards
/// what came of it waits for that.
const LOCK: i64 = 0x6f70_7363_746c;
/// How long that, and every other lock, is waited for.
const PATIENCE: &str = "30s";
/// Settings that are lists of names, whose commas are not to be quoted: those of `variable_is_guc_list_quote` in
/// PostgreSQL's `dumputils.c`.
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// Statements, after those that make them wait for what is still under way.
pub(super) fn guarded(statements: impl IntoIterator<Item = String>) -> Vec<String> {
    let before = [
        "SET standard_conforming_strings = on".to_owned(),
        format!("SET lock_timeout = '{PATIENCE}'"),
        format!("SELECT pg_advisory_lock({LOCK})"),
    ];
    before.into_iter().chain(statements).collect()
}

/// A server whose databases are exchanged.
#[derive(Debug, Clone)]
pub struct Server {
    pub(crate) client: Client,
}

/// What we may do there.
#[derive(Debug, Clone, Deserialize)]
pub struct Rights {
    /// As whom we are connected.
    pub user: String,
    /// Make and rename databases.
    pub may_create: bool,
}

/// A database as it stands: whatever is of it and not in it.
#[derive(Debug, Clone, Deserialize)]
pub struct Standing {
    /// Tells it from every other, whatever they are called.
    pub oid: u32,
    /// The role that owns it.
    pub owner: String,
    /// Whether we may do what its owner may.
    pub is_ours: bool,
    /// How many connections there may be; -1: any number.
    limit: i64,
    template: bool,
    tablespace: String,
    comment: Option<String>,
    /// `None`: what PostgreSQL gives by itself.
    grants: Option<Vec<Grant>>,
    settings: Vec<Settings>,
}

#[derive(Debug, Clone, Deserialize)]
struct Grant {
    /// `None`: everybody.
    to: Option<String>,
    right: String,
    passes_on: bool,
}

#[derive(Debug, Clone, Deserialize)]
struct Settings {
    /// `None`: of all roles.
    role: Option<String>,
    /// `name=value`.
    values: Vec<String>,
}

/// The names between which two databases are exchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// What services ask for.
    pub name: String,
    /// What the new one is called before, and again after an undo.
    pub staged: String,
    /// What the old one is called as long as the new one has its name.
    pub kept: String,
}

/// Somebody who is connected.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Session {
    /// The server's process.
    pub pid: i64,
    /// The role.
    pub user: Option<String>,
    /// What it calls itself.
    pub application: Option<String>,
    /// Where it is.
    pub client: Option<String>,
}

impl std::fmt::Display for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let application = self.application.as_deref().filter(|name| !name.is_empty());
        write!(
            f,
            "{} as {} from {} (server process {})",
            application.unwrap_or("a client without a name"),
            self.user.as_deref().unwrap_or("somebody"),
            self.client.as_deref().unwrap_or("this machine"),
            self.pid
        )
    }
}

impl Standing {
    /// Moves `name` to where this one lies. It is no part of a transaction.
    pub(super) fn place_for(&self, name: &str) -> Vec<String> {
        if self.tablespace == "pg_default" {
            return Vec::new();
        }
        vec![format!(
            "ALTER DATABASE {} SET TABLESPACE {}",
            quoted(name),
            quoted(&self.tablespace)
        )]
    }

    /// The statements that give `name`, which is new, what this one has: all or none of them.
    pub(super) fn statements_for(&self, name: &str) -> Vec<String> {
        let database = quoted(name);
        let owner = quoted(&self.owner);
        let mut statements = vec![
            "BEGIN".to_owned(),
            format!("ALTER DATABASE {database} OWNER TO {owner}"),
            format!("ALTER DATABASE {database} CONNECTION LIMIT {}", self.limit),
        ];
        if self.template {
            statements.push(format!("ALTER DATABASE {database} IS_TEMPLATE true"));
        }
        if let Some(grants) = &self.grants {
            for role in ["PUBLIC", &owner] {
                statements.push(format!("REVOKE ALL ON DATABASE {database} FROM {role}"));
            }
            for grant in grants.iter().filter(|grant| is_right(&grant.right)) {
                let role = grant.to.as_deref().map_or_else(|| "PUBLIC".to_owned(), quoted);
                let on = if grant.passes_on { " WITH GRANT OPTION" } else { "" };
                statements.push(format!("GRANT {} ON DATABASE {database} TO {role}{on}", grant.right));
            }
        }
        for of in &self.settings {
            let whose = match &of.role {
                Some(role) => format!("ALTER ROLE {} IN DATABASE {database}", quoted(role)),
                None => format!("ALTER DATABASE {database}"),
            };
            let values = of.values.iter().filter_map(|setting| setting.split_once('='));
            statements
                .extend(values.map(|(name, value)| format!("{whose} SET {} TO {}", quoted(name), set_to(name, value))));
        }
        let comment = self.comment.as_deref().map_or_else(|| "NULL".to_owned(), literal);
        statements.push(format!("COMMENT ON DATABASE {database} IS {comment}"));
        statements.push("COMMIT".to_owned());
        statements
    }
}

/// The rights that there are on databases; what else a server may call one does not get into a statement.
fn is_right(word: &str) -> bool {
    matches!(word, "CREATE" | "CONNECT" | "TEMPORARY")
}

/// A value as it stands behind `SET name TO`.
fn set_to(name: &str, value: &str) -> String {
    if !LISTS.contains(&name.to_ascii_lowercase().as_str()) {
        return literal(value);
    }
    let items: Vec<String> = items(value).iter().map(|item| literal(item)).collect();
    if items.is_empty() {
        "''".to_owned()
    } else {
        items.join(", ")
    }
}

/// The names of a list, as the catalogue keeps it: `"$user", public`.
fn items(list: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut item = String::new();
    let (mut quoted, mut any) = (false, false);
    let mut characters = list.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                item.push('"');
            }
            '"' => (quoted, any) = (!quoted, true),
            ',' if !quoted => {
                items.push(std::mem::take(&mut item));
                any = true;
            }
            space if !quoted && space.is_whitespace() => {}
            other => {
                item.push(other);
                any = true;
            }
        }
    }
    if any {
        items.push(item);
    }
    items
}

/// A JSON object of everything that a [`Standing`] is.
const STANDING: &str = "json_build_object('oid', d.oid::bigint, 'owner', pg_get_userbyid(d.datdba), \
    'is_ours', pg_has_role(current_user, d.datdba, 'USAGE'), 'limit', d.datconnlimit, 'template', d.datistemplate, \
    'tablespace', (SELECT spcname FROM pg_tablespace t WHERE t.oid = d.dattablespace), \
    'comment', shobj_description(d.oid, 'pg_database'), \
    'grants', CASE WHEN d.datacl IS NOT NULL THEN (SELECT coalesce(json_agg(json_build_object(\
    'to', CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END, 'right', a.privilege_type, \
    'passes_on', a.is_grantable)), '[]') FROM aclexplode(d.datacl) a) END, \
    'settings', (SELECT coalesce(json_agg(json_build_object(\
    'role', CASE WHEN s.setrole <> 0 THEN pg_get_userbyid(s.setrole) END, 'values', s.setconfig)), '[]') \
    FROM pg_db_role_setting s WHERE s.setdatabase = d.oid))";

impl Server {
    /// A server, by an address whose database does not matter. Sends nothing.
    pub async fn open(programs: Option<&Path>, server: &Dsn) -> Result<Self, PostgresError> {
        let installation = programs::find(programs, &["psql"], 0, u32::MAX).await?;
        Ok(Self {
            client: Client::new(installation, server.with_database(MAINTENANCE)),
        })
    }

    /// The server, without password.
    pub fn address(&self) -> String {
        self.client.dsn.to_string()
    }

    /// What we may do.
    pub async fn rights(&self) -> Result<Rights, PostgresError> {
        let query = "SELECT json_build_object('user', current_user, 'may_create', rolsuper OR rolcreatedb) \
            FROM pg_roles WHERE rolname = current_user";
        self.client.ask(query).await
    }

    /// The database that has a name, if one does.
    pub async fn standing(&self, name: &str) -> Result<Option<Standing>, PostgresError> {
        let query = format!(
            "SELECT coalesce((SELECT {STANDING} FROM pg_database d WHERE datname = {}), 'null')",
            literal(name)
        );
        self.client.ask(&query).await
    }

    /// Its OID alone, after the end of what is under way.
    pub async fn oid(&self, name: &str) -> Result<Option<u32>, PostgresError> {
        let query = format!(
            "SELECT coalesce((SELECT to_json(oid::bigint) FROM pg_database WHERE datname = {}), 'null')",
            literal(name)
        );
        self.ask(query).await
    }

    /// Whether a database takes connections; `None`: there is no such database.
    pub async fn is_open(&self, oid: u32) -> Result<Option<bool>, PostgresError> {
        let query =
            format!("SELECT coalesce((SELECT to_json(datallowconn) FROM pg_database WHERE oid = {oid}), 'null')");
        self.ask(query).await
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, query: String) -> Result<T, PostgresError> {
        self.client.ask(&guarded([query]).join(";\n")).await
    }

    /// Removes a database if it is there, with whoever is connected to it.
    pub async fn drop_database(&self, name: &str) -> Result<(), PostgresError> {
        let version = "SELECT current_setting('server_version_num')::int";
        let version: u32 = self.client.ask(version).await?;
        let drop = format!("DROP DATABASE IF EXISTS {}", quoted(name));
        if version >= 130_000 {
            return self.client.execute(&guarded([format!("{drop} WITH (FORCE)")])).await;
        }
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}",
            literal(name)
        );
        self.client.execute(&guarded([end, drop])).await
    }

    /// Has a database take connections, or refuse them; then those that are there end, too.
    pub async fn set_open(&self, oid: u32, open: bool) -> Result<(), PostgresError> {
        let mut statements = vec![block(&format!(
            "DECLARE called name; BEGIN SELECT datname INTO STRICT called FROM pg_database WHERE oid = {oid}; \
             EXECUTE format('ALTER DATABASE %I ALLOW_CONNECTIONS {open}', called); END"
        ))];
        statements.extend((!open).then(|| end_sessions(oid)));
        self.client.execute(&guarded(statements)).await
    }

    /// Those who are connected to a database.
    pub async fn sessions(&self, oid: u32) -> Result<Vec<Session>, PostgresError> {
        // Of whom we may not know more than that there is one, every word but the number is absent.
        let query = format!(
            "SELECT coalesce(json_agg(json_build_object('pid', pid, 'user', usename, 'application', application_name, \
             'client', coalesce(client_hostname, host(client_addr))) ORDER BY pid), '[]') FROM pg_stat_activity \
             WHERE datid = {oid} AND pid <> pg_backend_pid() \
             AND coalesce(backend_type, 'client backend') IN ('client backend', 'walsender')"
        );
        self.client.ask(&query).await
    }

    /// Takes the name from `from` and gives it to `to`, in one transaction: an OID each, or none. Whoever is connected to
    /// `from` is sent away, and kept away.
    ///
    /// Errors: also when the name is not that of `from`; then nothing was changed.
    pub async fn exchange(&self, names: &Names, from: Option<u32>, to: Option<u32>) -> Result<(), PostgresError> {
        let oid = |oid: Option<u32>| oid.map_or_else(|| "NULL".to_owned(), |oid| format!("{oid}::oid"));
        let (name, staged, kept) = (literal(&names.name), literal(&names.staged), literal(&names.kept));
        let (from, to) = (oid(from), oid(to));
        let close = format!(
            "BEGIN IF EXISTS (SELECT FROM pg_database WHERE oid = {from} AND datname = {name} AND datallowconn) THEN \
             EXECUTE format('ALTER DATABASE %I ALLOW_CONNECTIONS false', {name}); END IF; END"
        );
        let end = format!(
            "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN pg_database d ON d.oid = a.datid \
             WHERE d.oid = {from} AND d.datname = {name}"
        );
        let rename = format!(
            "DECLARE holder oid := {from}; heir oid := {to}; called name; BEGIN \
             IF (SELECT oid FROM pg_database WHERE datname = {name}) IS DISTINCT FROM holder THEN \
             RAISE EXCEPTION 'the database % is another one meanwhile', {name}; END IF; \
             IF heir IS NOT NULL THEN SELECT datname INTO called FROM pg_database WHERE oid = heir; \
             IF NOT FOUND THEN RAISE EXCEPTION 'the database with the OID % is gone', heir; END IF; END IF; \
             IF holder IS NOT NULL THEN EXECUTE format('ALTER DATABASE %I RENAME TO %I', {name}, \
             CASE WHEN called = {staged} THEN {kept} ELSE {staged} END); END IF; \
             IF heir IS NOT NULL THEN EXECUTE format('ALTER DATABASE %I RENAME TO %I', called, {name}); END IF; END"
        );
        self.client
            .execute(&guarded([block(&close), end, block(&rename)]))
            .await
    }

    /// The tables of a dump that a database lacks.
    pub async fn missing_tables(&self, database: &str, dump: &Path) -> Result<Vec<String>, Error> {
        let contents = contents(dump).await?;
        let there: std::collections::BTreeSet<(String, String)> = self
            .client
            .in_database(database)
            .ask(
                "SELECT coalesce(json_agg(json_build_array(n.nspname, c.relname)), '[]') FROM pg_class c \
                 JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'f')",
            )
            .await?;
        let promised = contents.entries.iter().filter(|entry| entry.kind == "TABLE");
        Ok(promised
            .filter_map(|entry| {
                let schema = entry.schema.clone().unwrap_or_default();
                let missing = !there.contains(&(schema.clone(), entry.tag.clone()));
                missing.then(|| format!("{schema}.{}", entry.tag))
            })
            .collect())
    }

    /// The first column of the first row of a query that changes nothing: how many rows there are, and the value.
    pub(crate) async fn first_value(
        &self,
        database: &str,
        query: &str,
        limit: Duration,
    ) -> Result<Answer, PostgresError> {
        let query = query.trim_end().trim_end_matches(';');
        let body = format!(
            "DECLARE answer record; found_rows bigint; BEGIN EXECUTE {} INTO answer; GET DIAGNOSTICS found_rows = ROW_COUNT; \
             PERFORM set_config('opsctl.answer', (SELECT json_build_object('rows', found_rows, 'value', \
             (SELECT value FROM json_each(row_to_json(answer)) LIMIT 1)))::text, true); END",
            literal(query)
        );
        let script = [
            "SET standard_conforming_strings = on".to_owned(),
            format!("SET statement_timeout = {}", limit.as_millis().max(1)),
            "SET TimeZone = 'UTC'".to_owned(),
            "BEGIN READ ONLY".to_owned(),
            block(&body),
            "SELECT current_setting('opsctl.answer')".to_owned(),
        ];
        self.client.in_database(database).ask(&script.join(";\n")).await
    }
}

/// What a query answered.
#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    pub(crate) rows: u64,
    #[serde(default)]
    pub(crate) value: Json,
}

/// A block of statements as one.
fn block(body: &str) -> String {
    format!("DO {}", literal(body))
}

fn end_sessions(oid: u32) -> String {
    format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datid = {oid} AND pid <> pg_backend_pid()")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing() -> Standing {
        serde_json::from_value(serde_json::json!({
            "oid": 16_384, "owner": "o'dd \"one\"", "is_ours": true, "limit": 7, "template": false,
            "tablespace": "pg_default", "comment": "it's",
            "grants": [
                { "to": null, "right": "CONNECT", "passes_on": false },
                { "to": "re\"ader", "right": "CREATE", "passes_on": true },
                { "to": "x", "right": "ALL; DROP DATABASE y", "passes_on": false },
            ],
            "settings": [
                { "role": null, "values": ["search_path=\"$user\", \"a,b\", public", "work_mem=4MB"] },
                { "role": "app", "values": ["application_name=a=b"] },
            ],
        }))
        .expect("what a server answers")
    }

    #[test]
    fn what_is_of_a_database_is_said_of_another() {
        let statements = standing().statements_for("n\"ew");
        assert_eq!(
            statements,
            [
                "BEGIN",
                r#"ALTER DATABASE "n""ew" OWNER TO "o'dd ""one""""#,
                r#"ALTER DATABASE "n""ew" CONNECTION LIMIT 7"#,
                r#"REVOKE ALL ON DATABASE "n""ew" FROM PUBLIC"#,
                r#"REVOKE ALL ON DATABASE "n""ew" FROM "o'dd ""one""""#,
                r#"GRANT CONNECT ON DATABASE "n""ew" TO PUBLIC"#,
                r#"GRANT CREATE ON DATABASE "n""ew" TO "re""ader" WITH GRANT OPTION"#,
                r#"ALTER DATABASE "n""ew" SET "search_path" TO '$user', 'a,b', 'public'"#,
                r#"ALTER DATABASE "n""ew" SET "work_mem" TO '4MB'"#,
                r#"ALTER ROLE "app" IN DATABASE "n""ew" SET "application_name" TO 'a=b'"#,
                r#"COMMENT ON DATABASE "n""ew" IS 'it''s'"#,
                "COMMIT",
            ]
        );
        assert!(standing().place_for("new").is_empty());
    }

    #[test]
    fn lists_are_taken_apart_as_they_were_put_together() {
        for (list, expected) in [
            ("", &[][..]),
            ("\"\"", &[""]),
            ("public", &["public"]),
            ("sales, public", &["sales", "public"]),
            ("\"$user\",\"a \"\"b\"\", c\"", &["$user", "a \"b\", c"]),
        ] {
            assert_eq!(items(list), expected, "{list}");
        }
        assert_eq!(set_to("search_path", ""), "''");
        assert_eq!(set_to("search_path", "\"\""), "''");
    }
}
