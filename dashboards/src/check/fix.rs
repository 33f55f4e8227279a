//! Fixes as changes of bytes of a JSON file: a text replaced, a field added in the manner of those beside it.

use lint::Edit;
use serde_json::Value;

use crate::read::{Document, Node};

/// Replaces a value.
pub(super) fn replace(node: &Node, value: impl Into<Value>) -> Edit {
    Edit {
        span: node.span.clone(),
        text: value.into().to_string(),
    }
}

/// Adds a field at the beginning of an object, indented like the first one there.
pub(super) fn add_field(document: &Document, object: &Node, name: &str, value: impl Into<Value>) -> Option<Edit> {
    let first = object.fields().first()?;
    let at = object.span.start + 1;
    let between = document.file.text().get(at..first.span.start)?;
    let text = format!("{between}{}: {},", Value::from(name), value.into());
    Some(Edit { span: at..at, text })
}

/// Replaces a part of a text; `range` counts bytes of the text without its escapes.
pub(super) fn inside(document: &Document, text: &Node, range: std::ops::Range<usize>, by: &str) -> Edit {
    let quoted = Value::from(by).to_string();
    let text_of = quoted[1..quoted.len() - 1].to_owned();
    Edit {
        span: document.inside(text, range),
        text: text_of,
    }
}
