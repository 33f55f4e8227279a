//! Where a server is: a URL or a list of settings as libpq reads them, taken apart so that the password goes its own way.
//! What a setting means is libpq's business. <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>

use std::fmt;

use zeroize::Zeroizing;

/// An address of a server. Neither `Debug` nor `Display` shows the password.
#[derive(Clone)]
pub struct Dsn {
    /// Names and values, without secrets; a later one of a name counts.
    settings: Vec<(String, String)>,
    password: Option<Zeroizing<String>>,
}

/// Why a text is no address. What stands in it is not told: it may be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DsnError {
    /// Neither a URL nor settings.
    #[error("it is neither a URL such as postgres://user@host/database nor a list such as host=db user=shop")]
    Unknown,
    /// `%` without two hexadecimal digits behind it, or such that make no text.
    #[error("a `%` in it is not followed by what it stands for")]
    Percent,
    /// A quote is opened and not closed.
    #[error("a quote in it is not closed")]
    Quote,
    /// A setting without `=`.
    #[error("a setting in it has no value")]
    NoValue,
    /// A zero byte, which no setting can hold.
    #[error("a zero byte stands in it")]
    Zero,
    /// The password of a private key can only be given so that everybody sees it.
    #[error("`sslpassword` in it could be seen by everybody on this machine")]
    KeyPassword,
}

impl Dsn {
    /// Reads an address.
    pub fn parse(text: &str) -> Result<Self, DsnError> {
        let text = text.trim();
        if text.contains('\0') {
            return Err(DsnError::Zero);
        }
        let url = ["postgres://", "postgresql://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme));
        let mut settings = match url {
            Some(rest) => of_url(rest)?,
            None => of_list(text)?,
        };
        if settings.iter().any(|(name, _)| name == "sslpassword") {
            return Err(DsnError::KeyPassword);
        }
        let mut password = None;
        settings.retain_mut(|(name, value)| {
            let is_password = name == "password";
            if is_password {
                password = Some(Zeroizing::new(std::mem::take(value)));
            }
            !is_password
        });
        Ok(Self { settings, password })
    }

    /// A server that is reached by a socket in this folder, as this user.
    pub(crate) fn of_socket(folder: &std::path::Path, user: &str) -> Self {
        let settings = [("host", folder.display().to_string()), ("user", user.to_owned())];
        Self {
            settings: settings.map(|(name, value)| (name.to_owned(), value)).into(),
            password: None,
        }
    }

    /// A setting, if it is given.
    pub fn setting(&self, name: &str) -> Option<&str> {
        let found = self.settings.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The database that it names.
    pub fn database(&self) -> Option<&str> {
        self.setting("dbname")
    }

    /// Whether a password stands in it.
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// The password.
    pub(crate) fn password(&self) -> Option<&Zeroizing<String>> {
        self.password.as_ref()
    }

    /// The same server, another database.
    #[must_use]
    pub fn with_database(&self, name: &str) -> Self {
        let mut other = self.clone();
        other.settings.retain(|(known, _)| known != "dbname");
        other.settings.push(("dbname".to_owned(), name.to_owned()));
        other
    }

    /// The same, with the password of another address if it has none itself.
    #[must_use]
    pub fn or_password_of(mut self, other: &Self) -> Self {
        if self.password.is_none() {
            self.password.clone_from(&other.password);
        }
        self
    }

    /// Everything but the password, as a list of settings.
    pub(crate) fn settings(&self) -> String {
        let written = self.settings.iter().map(|(name, value)| {
            let value = value.replace('\\', "\\\\").replace('\'', "\\'");
            format!("{name}='{value}'")
        });
        written.collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.setting("host").or_else(|| self.setting("hostaddr"));
        f.write_str(host.unwrap_or(if self.setting("service").is_some() {
            "the service"
        } else {
            "localhost"
        }))?;
        match self.setting("port") {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dsn({})", self.settings())
    }
}

/// `[user[:password]@][host[:port],…][/database][?name=value&…]`
fn of_url(rest: &str) -> Result<Vec<(String, String)>, DsnError> {
    let mut settings = Vec::new();
    let mut add = |name: &str, value: &str| -> Result<(), DsnError> {
        let name = decoded(name)?;
        if !is_name(&name) {
            return Err(DsnError::Unknown);
        }
        settings.push((name, decoded(value)?));
        Ok(())
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (user, hosts),
        None => ("", authority),
    };
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
            Some((name, behind)) => (name, behind.strip_prefix(':').unwrap_or("")),
            None => host.rsplit_once(':').unwrap_or((host, "")),
        };
        names.push(name);
        ports.push(port);
    }
    for (name, value) in [
        ("user", user),
        ("password", password),
        ("host", &names.join(",")),
        ("dbname", database),
    ] {
        if !value.is_empty() {
            add(name, value)?;
        }
    }
    if ports.iter().any(|port| !port.is_empty()) {
        add("port", &ports.join(","))?;
    }
    for setting in query.split('&').filter(|setting| !setting.is_empty()) {
        let (name, value) = setting.split_once('=').ok_or(DsnError::NoValue)?;
        // As libpq takes JDBC's word.
        let (name, value) = if (name, value) == ("ssl", "true") {
            ("sslmode", "require")
        } else {
            (name, value)
        };
        add(name, value)?;
    }
    Ok(settings)
}

fn decoded(text: &str) -> Result<String, DsnError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => bytes.push(u8::try_from(high * 16 + low).map_err(|_| DsnError::Percent)?),
            _ => return Err(DsnError::Percent),
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| DsnError::Percent)?;
    if text.contains('\0') {
        Err(DsnError::Zero)
    } else {
        Ok(text)
    }
}

/// `name = value name='a \'quoted\' value'`
fn of_list(text: &str) -> Result<Vec<(String, String)>, DsnError> {
    let mut settings = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, behind) = rest.split_once('=').ok_or(DsnError::Unknown)?;
        let name = name.trim_end();
        if !is_name(name) {
            return Err(DsnError::Unknown);
        }
        let (value, behind) = value_of(behind.trim_start())?;
        settings.push((name.to_owned(), value));
        rest = behind.trim_start();
    }
    if settings.is_empty() {
        Err(DsnError::Unknown)
    } else {
        Ok(settings)
    }
}

fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !text.is_empty() && text.chars().all(fits)
}

/// The value at the beginning, and what follows it.
fn value_of(text: &str) -> Result<(String, &str), DsnError> {
    let (quoted, inside) = match text.strip_prefix('\'') {
        Some(inside) => (true, inside),
        None => (false, text),
    };
    let mut value = String::new();
    let mut characters = inside.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.push(characters.next().ok_or(DsnError::NoValue)?.1),
            '\'' if quoted => return Ok((value, &inside[at + 1..])),
            space if !quoted && space.is_ascii_whitespace() => return Ok((value, &inside[at..])),
            other => value.push(other),
        }
    }
    if quoted { Err(DsnError::Quote) } else { Ok((value, "")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> (String, Option<String>) {
        let dsn = Dsn::parse(text).expect("an address");
        (dsn.settings(), dsn.password().map(|password| password.to_string()))
    }

    #[test]
    fn addresses_are_taken_apart_and_the_password_goes_its_own_way() {
        for (text, settings, password) in [
            (
                "postgres://shop:p%40ss:w@db:5433/orders?sslmode=verify-full&application_name=x",
                "user='shop' host='db' dbname='orders' port='5433' sslmode='verify-full' application_name='x'",
                Some("p@ss:w"),
            ),
            ("postgresql://", "", None),
            (
                "postgres:///orders?host=/run/pg",
                "dbname='orders' host='/run/pg'",
                None,
            ),
            (
                "postgres://[::1]:5432,db2/x",
                "host='::1,db2' dbname='x' port='5432,'",
                None,
            ),
            (
                "postgres://%2Frun%2Fpg/x?password=hunter2",
                "host='/run/pg' dbname='x'",
                Some("hunter2"),
            ),
            ("host = db user=shop password='it''s' dbname=it\\'s", "", None),
            (
                r"host = db  user= shop password='it\'s' dbname='o \\ o'",
                r"host='db' user='shop' dbname='o \\ o'",
                Some("it's"),
            ),
        ] {
            if settings.is_empty() && text.contains("''") {
                assert!(Dsn::parse(text).is_err(), "{text}");
                continue;
            }
            assert_eq!(read(text), (settings.to_owned(), password.map(str::to_owned)), "{text}");
        }
        for (text, error) in [
            ("", DsnError::Unknown),
            ("db.example", DsnError::Unknown),
            ("mysql://db", DsnError::Unknown),
            ("host='db", DsnError::Quote),
            ("postgres://u@h/%4", DsnError::Percent),
            ("postgres://u@h/%00", DsnError::Zero),
            ("postgres://h/?x", DsnError::NoValue),
            ("host=h sslpassword=x", DsnError::KeyPassword),
        ] {
            assert_eq!(Dsn::parse(text).expect_err(text), error, "{text}");
        }
    }

    #[test]
    fn nothing_that_is_shown_holds_the_password() {
        let dsn = Dsn::parse("postgres://shop:hunter2@db:5433/orders").expect("an address");
        let other = dsn.with_database("it's \\ here");
        assert_eq!(other.database(), Some("it's \\ here"));
        for shown in [format!("{dsn}"), format!("{dsn:?}"), dsn.settings(), other.settings()] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert_eq!(dsn.to_string(), "db:5433");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(values in proptest::collection::vec("[^\0]{1,12}", 1..4)) {
            let settings: Vec<(String, String)> =
                values.into_iter().enumerate().map(|(at, value)| (format!("s{at}"), value)).collect();
            let dsn = Dsn { settings: settings.clone(), password: None };
            prop_assert_eq!(Dsn::parse(&dsn.settings()).expect("an address").settings, settings);
        }
    }
}
