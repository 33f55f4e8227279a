//! How an address is written: a URL or `key=value …`, both as libpq reads them (`fe-connect.c`), into the same settings.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use super::{Address, AddressError, Authority, ChannelBinding, FOLDERS, Host, PORT, SslMode, Tls, Wanted};

/// Longer texts are none.
const LONGEST: usize = 64 << 10;
/// More servers are no address.
const MOST_HOSTS: usize = 64;

/// What we act on.
const KEYS: [&str; 16] = [
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "passfile",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
    "user",
    // Only in URLs, for those who come from Java: `ssl=true`.
    "ssl",
];

/// Keys of libpq that say nothing that we would do otherwise, and the values for which that is so; none for any value.
const HARMLESS: [(&str, &[&str]); 19] = [
    ("application_name", &[]),
    ("client_encoding", &[]),
    ("fallback_application_name", &[]),
    ("gssdelegation", &["0"]),
    ("gssencmode", &["disable", "prefer"]),
    ("keepalives", &[]),
    ("keepalives_count", &[]),
    ("keepalives_idle", &[]),
    ("keepalives_interval", &[]),
    ("krbsrvname", &[]),
    ("load_balance_hosts", &["disable"]),
    ("replication", &[]),
    ("ssl_min_protocol_version", &["TLSv1", "TLSv1.1", "TLSv1.2"]),
    ("sslcertmode", &["allow"]),
    ("sslcompression", &["0"]),
    ("sslnegotiation", &["postgres"]),
    ("sslsni", &["1"]),
    ("tcp_user_timeout", &[]),
    ("gsslib", &[]),
];

/// Keys of libpq that would weaken something, or lead elsewhere, if they were passed over.
const REFUSED: [&str; 16] = [
    "max_protocol_version",
    "min_protocol_version",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "require_auth",
    "requirepeer",
    "requiressl",
    "scram_client_key",
    "scram_server_key",
    "service",
    "servicefile",
    "ssl_max_protocol_version",
    "sslcrl",
    "sslpassword",
];

/// Keys and their values. A repeated key counts the last time.
#[derive(Default)]
pub(super) struct Settings {
    values: BTreeMap<&'static str, Zeroizing<String>>,
    /// How many were set.
    seen: usize,
}

impl Settings {
    pub(super) fn parse(text: &str) -> Result<Self, AddressError> {
        if text.len() > LONGEST || text.contains('\0') {
            return Err(AddressError::Form("is too long, or holds a zero byte"));
        }
        let mut settings = Self::default();
        let scheme = |scheme: &str| text.strip_prefix(scheme);
        match scheme("postgresql://").or_else(|| scheme("postgres://")) {
            Some(rest) => settings.read_url(rest)?,
            None => settings.read_pairs(text)?,
        }
        Ok(settings)
    }

    fn set(&mut self, key_name: &str, value: Zeroizing<String>) -> Result<(), AddressError> {
        self.seen += 1;
        if let Some(key) = KEYS.into_iter().find(|known| *known == key_name) {
            self.values.insert(key, value);
            return Ok(());
        }
        let key = |key: &str, why| {
            let key = key.to_owned();
            Err(AddressError::Key { key, why })
        };
        if let Some((name, values)) = HARMLESS.iter().find(|(known, _)| *known == key_name) {
            if values.is_empty() || value.is_empty() || values.contains(&value.as_str()) {
                return Ok(());
            }
            return key(name, "asks for what this client does not do");
        }
        match REFUSED.iter().find(|known| **known == key_name) {
            Some(name) => key(name, "is a promise that this client does not keep"),
            // It is not shown: it may be the rest of a password with a space in it.
            None => Err(AddressError::Unknown { place: self.seen }),
        }
    }

    /// `[user[:password]@][host[:port],…][/database][?key=value&…]`.
    fn read_url(&mut self, rest: &str) -> Result<(), AddressError> {
        // Who we are comes first, as libpq looks for it: a password may hold what has a meaning further on.
        let rest = match rest.find(['@', '/']) {
            Some(at) if rest[at..].starts_with('@') => {
                let who = &rest[..at];
                let (user, password) = who.split_once(':').unwrap_or((who, ""));
                self.set_unless_empty("user", user)?;
                self.set_unless_empty("password", password)?;
                &rest[at + 1..]
            }
            _ => rest,
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (mut names, mut ports) = (Vec::new(), Vec::new());
        for host in hosts.split(',') {
            let (name, port) = match host.strip_prefix('[') {
                Some(rest) => {
                    let (name, port) = rest
                        .split_once(']')
                        .ok_or(AddressError::Form("has a `[` without `]`"))?;
                    match port.strip_prefix(':') {
                        None if !port.is_empty() => return Err(AddressError::Form("has more than a port after `]`")),
                        port => (name, port.unwrap_or_default()),
                    }
                }
                None => host.split_once(':').unwrap_or((host, "")),
            };
            names.push(decoded(name)?.to_string());
            ports.push(decoded(port)?.to_string());
        }
        self.set("host", Zeroizing::new(names.join(",")))?;
        self.set("port", Zeroizing::new(ports.join(",")))?;
        self.set_unless_empty("dbname", database)?;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .ok_or(AddressError::Form("has a parameter without `=`"))?;
            let (key, value) = (decoded(key)?, decoded(value)?);
            match (key.as_str(), value.as_str()) {
                ("ssl", "true") => self.set("sslmode", Zeroizing::new("require".to_owned()))?,
                ("ssl", _) => return Err(value_of("ssl", "`true`, or left out for sslmode")),
                (key, _) => self.set(key, value)?,
            }
        }
        Ok(())
    }

    fn set_unless_empty(&mut self, key: &'static str, value: &str) -> Result<(), AddressError> {
        if value.is_empty() {
            Ok(())
        } else {
            self.set(key, decoded(value)?)
        }
    }

    /// `key = value key='a value'`, with `\` before what stands for itself.
    fn read_pairs(&mut self, text: &str) -> Result<(), AddressError> {
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (key, after) = rest
                .split_once('=')
                .ok_or(AddressError::Form("has a word without `=`"))?;
            let key = key.trim_end();
            if key.is_empty() || !key.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_' | b'0'..=b'9')) {
                // It is not shown: it may be the rest of a password with a space in it.
                return Err(AddressError::Form(
                    "has what is no key before a `=`; values with spaces stand in quotes",
                ));
            }
            if key == "ssl" {
                return Err(value_of("ssl", "`sslmode`, outside of URLs"));
            }
            let (value, left) = value(after.trim_start())?;
            self.set(key, value)?;
            rest = left.trim_start();
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Option<&str> {
        let value = self.values.get(key).map(|value| value.as_str());
        value.filter(|value| !value.is_empty())
    }

    fn choice<T: Copy + Default>(
        &self,
        key: &'static str,
        choices: &[(&str, T)],
        what: &'static str,
    ) -> Result<T, AddressError> {
        let Some(value) = self.get(key) else {
            return Ok(T::default());
        };
        let found = choices.iter().find(|(name, _)| *name == value);
        found.map(|(_, choice)| *choice).ok_or_else(|| value_of(key, what))
    }

    pub(super) fn address(&self) -> Result<Address, AddressError> {
        let owned = |key: &str| self.get(key).map(str::to_owned);
        let path = |key: &str| self.get(key).map(PathBuf::from);
        Ok(Address {
            hosts: self.hosts()?,
            user: owned("user"),
            database: owned("dbname"),
            password: self.get("password").map(|password| Zeroizing::new(password.to_owned())),
            passfile: path("passfile"),
            options: owned("options"),
            connect_timeout: self.connect_timeout()?,
            wanted: self.choice(
                "target_session_attrs",
                &[
                    ("any", Wanted::Any),
                    ("primary", Wanted::Primary),
                    ("read-write", Wanted::Primary),
                    ("standby", Wanted::Standby),
                    ("read-only", Wanted::Standby),
                ],
                "any, primary, read-write, standby or read-only",
            )?,
            tls: self.tls()?,
        })
    }

    fn hosts(&self) -> Result<Vec<Host>, AddressError> {
        fn list(value: Option<&str>) -> Vec<&str> {
            value.map(|value| value.split(',').collect()).unwrap_or_default()
        }
        // Empty places in a list are the default; a list of nothing but those is no list.
        let host_list = self
            .get("host")
            .filter(|hosts| hosts.contains(|c| c != ',') || hosts.contains(','));
        let (names, addresses) = (list(host_list), list(self.get("hostaddr")));
        let ports = list(self.get("port"));
        let count = names.len().max(addresses.len());
        if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
            return Err(value_of("hostaddr", "as many as there are in `host`"));
        }
        if ports.len() > 1 && ports.len() != count.max(1) {
            return Err(value_of("port", "one, or as many as there are hosts"));
        }
        let port = |index: usize| match ports.get(if ports.len() == 1 { 0 } else { index }) {
            None | Some(&"") => Ok(PORT),
            Some(port) => {
                let port = port.parse().ok().filter(|port| *port != 0);
                port.ok_or_else(|| value_of("port", "a number from 1 to 65535"))
            }
        };
        let mut hosts = Vec::new();
        for index in 0..count.max(1) {
            let port = port(index)?;
            let name = names.get(index).copied().unwrap_or_default();
            let address = match addresses.get(index).copied().unwrap_or_default() {
                "" => None,
                text => {
                    let address: Result<IpAddr, _> = text.parse();
                    Some(address.map_err(|_| value_of("hostaddr", "an address of IPv4 or IPv6"))?)
                }
            };
            match (name, address) {
                ("", None) => hosts.extend(FOLDERS.map(|folder| Host::Unix {
                    folder: folder.into(),
                    port,
                })),
                ("", Some(address)) => {
                    let name = address.to_string();
                    let address = Some(address);
                    hosts.push(Host::Tcp { name, address, port });
                }
                (folder, None) if folder.starts_with('/') => {
                    let folder = folder.into();
                    hosts.push(Host::Unix { folder, port });
                }
                (name, _)
                    if name.starts_with('@')
                        || name.contains(['/', '[', ']'])
                        || name.contains(char::is_whitespace) =>
                {
                    return Err(value_of("host", "a name, an address, or the folder of a Unix socket"));
                }
                (name, address) => {
                    let name = name.to_owned();
                    hosts.push(Host::Tcp { name, address, port });
                }
            }
        }
        // After the empty ones became folders.
        if hosts.len() > MOST_HOSTS {
            return Err(value_of("host", "at most 64 hosts"));
        }
        Ok(hosts)
    }

    fn connect_timeout(&self) -> Result<Option<Duration>, AddressError> {
        let Some(text) = self.get("connect_timeout") else {
            return Ok(None);
        };
        let seconds = text
            .trim()
            .parse()
            .map_err(|_| value_of("connect_timeout", "a number of seconds"))?;
        Ok(Some(Duration::from_secs(u64::from(u32::max(seconds, 0)))))
    }

    fn tls(&self) -> Result<Tls, AddressError> {
        let modes = [
            ("disable", SslMode::Disable),
            // Without TLS first, with it only if refused: for us as good as asking for it first.
            ("allow", SslMode::Prefer),
            ("prefer", SslMode::Prefer),
            ("require", SslMode::Require),
            ("verify-ca", SslMode::VerifyCa),
            ("verify-full", SslMode::VerifyFull),
        ];
        let what = "disable, allow, prefer, require, verify-ca or verify-full";
        let mut mode = self.choice("sslmode", &modes, what)?;
        let authority = match self.get("sslrootcert") {
            Some("system") => {
                // As libpq has it: anybody gets a certificate from those authorities, so the name must be held against it.
                if self.get("sslmode").is_some() && mode != SslMode::VerifyFull {
                    return Err(value_of("sslmode", "verify-full where sslrootcert is system"));
                }
                mode = SslMode::VerifyFull;
                Authority::System
            }
            Some(file) => {
                // As libpq has it: who names an authority wants it to be asked.
                if mode == SslMode::Require {
                    mode = SslMode::VerifyCa;
                }
                Authority::File(file.into())
            }
            // What the system's authorities sign says nothing without the name.
            None if mode == SslMode::VerifyCa => {
                return Err(value_of(
                    "sslrootcert",
                    "the file of an authority where sslmode is verify-ca",
                ));
            }
            None => Authority::System,
        };
        let (certificate, key) = (
            self.get("sslcert").map(PathBuf::from),
            self.get("sslkey").map(PathBuf::from),
        );
        if certificate.is_some() != key.is_some() {
            return Err(value_of("sslkey", "named where sslcert is, and only there"));
        }
        let bindings = [
            ("disable", ChannelBinding::Disable),
            ("prefer", ChannelBinding::Prefer),
            ("require", ChannelBinding::Require),
        ];
        let binding = self.choice("channel_binding", &bindings, "disable, prefer or require")?;
        Ok(Tls {
            mode,
            authority,
            certificate,
            key,
            binding,
        })
    }
}

const fn value_of(key: &'static str, what: &'static str) -> AddressError {
    AddressError::Value { key, what }
}

/// A part of a URL without its `%`. A `%` before anything but two digits is refused, as libpq does.
fn decoded(text: &str) -> Result<Zeroizing<String>, AddressError> {
    let wrong = AddressError::Form("has a `%` that does not stand for a character");
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        let digits = after.as_bytes().get(..2);
        match digits {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) && digits != b"00" => rest = &after[2..],
            _ => return Err(wrong),
        }
    }
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| wrong)?;
    Ok(Zeroizing::new(decoded.into_owned()))
}

/// The value at the beginning of `text`, and what follows it.
fn value(text: &str) -> Result<(Zeroizing<String>, &str), AddressError> {
    let quoted = text.starts_with('\'');
    let mut value = Zeroizing::new(String::new());
    let mut chars = text.char_indices().skip(usize::from(quoted));
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            c if !quoted && c.is_ascii_whitespace() => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    if quoted {
        return Err(AddressError::Form("has a quote that does not end"));
    }
    Ok((value, ""))
}
