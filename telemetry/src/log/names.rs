//! What the name of a field means for a line: worked out once for each name and thread, since a place in the code that
//! writes a line writes many.

use super::json;
use crate::redact::Redact;

/// Names that a thread remembers: as many as so many bits tell apart, and a few.
const BITS: u32 = 8;
const SLOTS: usize = 1 << BITS;
/// Places, from its own on, at which a name may be.
const NEAR: usize = 4;

/// The names that a thread met.
#[derive(Debug, Default)]
pub(crate) struct Names {
    slots: Vec<Option<Known>>,
    /// Which of those near goes next: were it always the same, two that are used would throw each other out for ever.
    turn: usize,
}

/// A name, and who asked: another telemetry of the process may keep other names secret.
#[derive(Debug)]
struct Known {
    field: &'static str,
    redact: u64,
    name: Name,
}

/// A field's name.
#[derive(Debug)]
pub(crate) struct Name {
    /// As the application wrote it.
    pub(crate) text: &'static str,
    /// `,"name":`
    pub(crate) key: Box<str>,
    /// Whether its value must not be written.
    pub(crate) is_secret: bool,
    /// Whether it is the text of an event.
    pub(crate) is_message: bool,
}

impl Names {
    /// What is known of a field's name.
    pub(crate) fn of(&mut self, field: &'static str, redact: &Redact) -> &Name {
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS + NEAR, || None);
        }
        // A constant is told from others by its place: what is there never changes.
        let place = (field.as_ptr().addr() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let first = (place >> (64 - BITS)) as usize;
        let free = |known: &Option<Known>| match known {
            None => true,
            Some(known) => std::ptr::eq(known.field, field) && known.redact == redact.id(),
        };
        let found = self.slots[first..first + NEAR].iter().position(free);
        let at = found.unwrap_or_else(|| {
            self.turn = (self.turn + 1) % NEAR;
            self.turn
        });
        let known = &mut self.slots[first + at];
        if found.is_none() {
            *known = None;
        }
        let new = || Known {
            field,
            redact: redact.id(),
            name: Name::new(field, redact),
        };
        &known.get_or_insert_with(new).name
    }
}

impl Name {
    fn new(field: &'static str, redact: &Redact) -> Self {
        let text = field.strip_prefix("r#").unwrap_or(field);
        let mut key = String::from(",\"");
        if is_reserved(text) {
            key.push_str("field.");
        }
        json::escape(&mut key, text);
        key.push_str("\":");
        Self {
            text,
            key: key.into(),
            is_secret: redact.is_secret(text),
            is_message: text == "message",
        }
    }
}

/// Keys that the line itself uses; a field of that name gets the prefix `field.`.
fn is_reserved(name: &str) -> bool {
    matches!(
        name,
        "timestamp"
            | "level"
            | "message"
            | "target"
            | "service"
            | "env"
            | "trace_id"
            | "span_id"
            | "trace_flags"
            | "correlation_id"
            | "truncated"
    ) || name.starts_with("field.")
}

#[cfg(test)]
mod tests {
    //! What is remembered is what would be worked out.

    use super::*;

    #[test]
    fn what_is_remembered_is_true_of_the_name_and_of_who_asks() {
        let mut names = Names::default();
        let usual = Redact::default();
        let strict = Redact::new(&["order".to_owned()]);
        // More than there are slots, each asked often, in turn with another redaction.
        let all: Vec<&'static str> = (0..3 * SLOTS).map(|at| &*format!("order{at}").leak()).collect();
        for _ in 0..3 {
            for name in &all {
                let known = names.of(name, &usual);
                assert_eq!((known.text, &*known.key), (*name, &*format!(",\"{name}\":")));
                assert!(!known.is_secret && !known.is_message);
                assert!(names.of(name, &strict).is_secret);
            }
        }
        assert!(names.of("message", &usual).is_message);
        assert_eq!(&*names.of("message", &usual).key, ",\"field.message\":");
        assert_eq!(names.of("r#type", &usual).text, "type");
        // A part of a constant begins where the whole does.
        let whole = "password_of";
        assert!(names.of(whole, &usual).is_secret);
        assert!(!names.of(&whole[..4], &usual).is_secret);
    }
}
