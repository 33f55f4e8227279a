//! Reading settings from the environment: empty is unset, and a wrong value is an error that names the variable.

use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

use super::units;
use crate::InitError;

/// The variables. Tests give their own.
pub(crate) struct Env<'a> {
    lookup: &'a dyn Fn(&str) -> Option<OsString>,
}

impl<'a> Env<'a> {
    pub(crate) fn new(lookup: &'a dyn Fn(&str) -> Option<OsString>) -> Self {
        Self { lookup }
    }

    /// The value, unless it is unset or empty.
    pub(crate) fn get(&self, name: &str) -> Result<Option<String>, InitError> {
        match (self.lookup)(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(value)) if value.trim().is_empty() => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(raw)) => Err(InitError::setting(name, &raw.to_string_lossy(), "UTF-8")),
        }
    }

    /// The value as `read` understands it; `expected` says what that is.
    pub(crate) fn read<T>(
        &self,
        name: &str,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, InitError> {
        let Some(value) = self.get(name)? else { return Ok(None) };
        match read(value.trim()) {
            Some(read) => Ok(Some(read)),
            None => Err(InitError::setting(name, &value, expected)),
        }
    }

    /// The value as `T` parses it.
    pub(crate) fn parse<T: FromStr>(&self, name: &str, expected: &'static str) -> Result<Option<T>, InitError> {
        self.read(name, expected, |text| text.parse().ok())
    }

    /// `true` or `false` in any case, as OpenTelemetry has it, or `1` or `0`.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, InitError> {
        self.read(name, "true or false", |text| match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        })
    }

    /// A duration in whole milliseconds, as OpenTelemetry's variables have it.
    pub(crate) fn duration_ms(&self, name: &str) -> Result<Option<Duration>, InitError> {
        let read = |text: &str| text.parse().ok().map(Duration::from_millis);
        self.read(name, "a whole number of milliseconds", read)
    }

    /// A number of bytes: `16MiB`, `1048576`.
    pub(crate) fn bytes(&self, name: &str) -> Result<Option<usize>, InitError> {
        self.read(name, units::BYTES, units::parse_bytes)
    }
}
