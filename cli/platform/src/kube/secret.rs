//! The database that a Secret leads to: a key of it holds an address, or the bare name of a database. Only the name is read
//! from it and set in it, so that nothing secret gets into a record, and a password that is changed meanwhile stays.
//!
//! The field is `secret/<namespace>/<name>` `/<key>`.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::KubePlatform;
use super::edit::{Change, Patch, Target};
use super::field::invalid;
use super::split::owners;
use crate::{Cas, Field, PlatformError, Result};

/// A key of a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    namespace: String,
    name: String,
    key: String,
}

impl Place {
    /// The one that a field is, if it is one.
    pub(super) fn of(field: &Field) -> Option<Self> {
        let (namespace, name) = field.object.strip_prefix("secret/")?.split_once('/')?;
        let [key] = <[String; 1]>::try_from(field.parts()).ok()?;
        Some(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            key,
        })
    }

    pub(super) fn target(&self) -> Target {
        Target::of::<Secret>(&self.namespace, &self.name)
    }

    fn pointer(&self) -> String {
        format!("/data/{}", crate::field::escape(&self.key))
    }

    /// The text that the key holds.
    fn text(&self, object: &DynamicObject) -> Option<String> {
        let value = object.data.pointer(&self.pointer())?;
        let bytes: ByteString = serde_json::from_value(value.clone()).ok()?;
        String::from_utf8(bytes.0).ok()
    }

    fn database(&self, object: &DynamicObject) -> Option<Value> {
        let text = self.text(object)?;
        let found = find(&text)?;
        Some(found.name.into())
    }

    fn refused(&self, why: &str) -> PlatformError {
        PlatformError::Refused {
            what: format!(
                "a change of key `{}` of the Secret `{}/{}`",
                self.key, self.namespace, self.name
            ),
            why: why.to_owned(),
        }
    }
}

/// The name of the database that a key leads to.
///
/// Errors: also when the Secret or the key is not there, or holds no address.
pub(super) async fn get(on: &KubePlatform, place: &Place) -> Result<Option<Value>> {
    let object = on.read(&place.target()).await?;
    let object = object.ok_or_else(|| PlatformError::Missing {
        what: format!("the Secret `{}/{}`", place.namespace, place.name),
    })?;
    if object.data.pointer(&place.pointer()).is_none() {
        return Err(PlatformError::Missing {
            what: format!("key `{}` of the Secret `{}/{}`", place.key, place.namespace, place.name),
        });
    }
    match place.database(&object) {
        Some(database) => Ok(Some(database)),
        None => Err(place.refused("it holds neither the address of a database nor the name of one")),
    }
}

/// Leads it to another database of the same server.
pub(super) async fn set(on: &KubePlatform, place: &Place, change: &Change<'_>) -> Result<Cas> {
    let new = change.new.and_then(Value::as_str);
    let new = new.ok_or_else(|| invalid(change.field, "it is the name of a database"))?;
    let write = |object: &DynamicObject, patch: &mut Patch<'_>| {
        check(place, object)?;
        let text = place.text(object).unwrap_or_default();
        let found = find(&text).ok_or_else(|| invalid(change.field, "it holds no address"))?;
        let text = format!(
            "{}{}{}",
            &text[..found.from],
            (found.written)(new),
            &text[found.until..]
        );
        patch.set(&place.pointer(), json!(ByteString(text.into_bytes())));
        Ok(())
    };
    on.edit(&place.target(), change, |object| place.database(object), write)
        .await
}

/// Refuses what would be set back, or cannot be changed at all.
fn check(place: &Place, object: &DynamicObject) -> Result<()> {
    if object.data.get("immutable") == Some(&Value::Bool(true)) {
        return Err(place.refused("the Secret is immutable"));
    }
    let owner = object.metadata.owner_references.iter().flatten().next();
    if let Some(owner) = owner {
        return Err(PlatformError::Owned {
            what: format!("a change of the Secret `{}/{}`", place.namespace, place.name),
            owner: format!("the {} `{}`", owner.kind, owner.name),
            how: "change the database where that one has the address from".to_owned(),
        });
    }
    owners::check(object, false, owners::Part::Data)
}

/// The database in a text: its name, where that stands, and how another one is written there.
struct Found {
    name: String,
    from: usize,
    until: usize,
    written: fn(&str) -> String,
}

fn find(text: &str) -> Option<Found> {
    if let Some(at) = text.find("://") {
        return in_url(text, at + 3);
    }
    if text.contains('=') {
        return in_list(text);
    }
    let name = text.trim();
    let from = text.len() - text.trim_start().len();
    let is_name = !name.is_empty() && name.len() <= 63 && !name.contains(|c: char| c.is_whitespace() || c == '/');
    is_name.then(|| Found {
        name: name.to_owned(),
        from,
        until: from + name.len(),
        written: str::to_owned,
    })
}

/// `postgres://user:password@host:5432/orders?sslmode=require`, also with the words of other drivers before it.
fn in_url(text: &str, authority: usize) -> Option<Found> {
    if !text[..authority].contains("postgres") {
        return None;
    }
    let rest = &text[authority..];
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let until = rest[..end].find(['?', '#']).unwrap_or(end);
    // A setting behind it would count instead.
    let mut settings = rest[until..end].split(['?', '&']);
    if settings.any(|setting| setting.starts_with("dbname=")) {
        return None;
    }
    let slash = rest[..until].find('/')?;
    let name = decoded(&rest[slash + 1..until])?;
    (!name.is_empty()).then_some(Found {
        name,
        from: authority + slash + 1,
        until: authority + until,
        written: encoded,
    })
}

/// `host=db dbname=orders password='it''s'`: the last `dbname` counts.
fn in_list(text: &str) -> Option<Found> {
    let mut found = None;
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        if at == text.len() {
            return found;
        }
        let name_end = at + text[at..].find('=')?;
        let name = text[at..name_end].trim_end();
        let mut from = name_end + 1;
        from += text[from..].len() - text[from..].trim_start().len();
        let quoted = text[from..].starts_with('\'');
        let mut value = String::new();
        let mut until = text.len();
        let mut characters = text[from..].char_indices().skip(usize::from(quoted));
        let mut closed = !quoted;
        while let Some((offset, character)) = characters.next() {
            match character {
                '\\' => value.push(characters.next()?.1),
                '\'' if quoted => {
                    (until, closed) = (from + offset + 1, true);
                    break;
                }
                space if !quoted && space.is_whitespace() => {
                    until = from + offset;
                    break;
                }
                other => value.push(other),
            }
        }
        if !closed {
            return None;
        }
        if name == "dbname" && !value.is_empty() {
            found = Some(Found {
                name: value,
                from,
                until,
                written: |name| format!("'{}'", name.replace('\\', "\\\\").replace('\'', "\\'")),
            });
        }
        at = until;
    }
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
            let value = digit()? * 16 + digit()?;
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn encoded(name: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str, name: &str) -> Option<(String, String)> {
        let found = find(text)?;
        let changed = format!(
            "{}{}{}",
            &text[..found.from],
            (found.written)(name),
            &text[found.until..]
        );
        Some((found.name, changed))
    }

    #[test]
    fn only_the_name_is_changed() {
        for (text, name, changed) in [
            (
                "postgres://shop:p%40ss@db:5432/orders?sslmode=require\n",
                "orders",
                "postgres://shop:p%40ss@db:5432/or%20d%2Fe.r-s?sslmode=require\n",
            ),
            (
                "jdbc:postgresql://db/o%72ders",
                "orders",
                "jdbc:postgresql://db/or%20d%2Fe.r-s",
            ),
            (
                "postgresql+asyncpg://a@b/c",
                "c",
                "postgresql+asyncpg://a@b/or%20d%2Fe.r-s",
            ),
            (
                "host=db dbname = orders password='it\\'s dbname=x'",
                "orders",
                "host=db dbname = 'or d/e.r-s' password='it\\'s dbname=x'",
            ),
            ("dbname=a dbname='b c'", "b c", "dbname=a dbname='or d/e.r-s'"),
            (" orders\n", "orders", " or d/e.r-s\n"),
        ] {
            let expected = Some((name.to_owned(), changed.to_owned()));
            assert_eq!(with(text, "or d/e.r-s"), expected, "{text}");
        }
        // What is written is read again.
        for text in ["postgres://a@b/c", "host=x dbname=y"] {
            let (_, changed) = with(text, "it's \\ a%b").expect("an address");
            assert_eq!(find(&changed).expect("an address").name, "it's \\ a%b");
        }
        for text in [
            "",
            "mysql://db/orders",
            "postgres://db",
            "postgres://db/",
            "postgres://db/x?dbname=y",
            "postgres://db/%zz",
            "host=db",
            "dbname='orders",
            "two words",
        ] {
            assert!(find(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_field_is_a_key_of_a_secret() {
        let field = Field::database_of("shop", "orders-database", "a/b.url");
        let place = Place::of(&field).expect("it is one");
        assert_eq!(place.pointer(), "/data/a~1b.url");
        assert_eq!(
            (place.namespace.as_str(), place.name.as_str()),
            ("shop", "orders-database")
        );
        assert_eq!(Place::of(&Field::hold("orders")), None);
    }
}
