//! Templates of labels and annotations, read as Go's `text/template` and Prometheus read them: which labels they use,
//! and what would fail when they are expanded. They are not expanded here.

mod action;

use std::collections::BTreeSet;
use std::ops::Range;

/// What a template uses, and what is wrong with it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// Labels that it prints, `$labels.x`.
    pub labels: Vec<Use>,
    /// Labels whose presence it asks for before (`if $labels.x`).
    pub asked: Vec<String>,
    /// Places where it uses the value.
    pub values: Vec<Range<usize>>,
    /// Places where it shows the value as a share, a hundred times what it is.
    pub percentages: Vec<Range<usize>>,
    /// Queries that it makes, as they are written.
    pub queries: Vec<Use>,
    /// What is wrong with it.
    pub faults: Vec<Fault>,
}

/// Something used, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// What.
    pub text: String,
    /// The bytes of the template.
    pub span: Range<usize>,
}

/// Something wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What, one sentence.
    pub what: String,
    /// The bytes of the template.
    pub span: Range<usize>,
    /// What was probably meant, with the bytes that it stands for.
    pub meant: Option<(Range<usize>, String)>,
}

/// A block that `end` closes.
struct Block {
    keyword: &'static str,
    span: Range<usize>,
}

/// What is known at a place of a template.
struct Reader<'a> {
    text: &'a str,
    template: Template,
    blocks: Vec<Block>,
    variables: BTreeSet<String>,
}

/// Reads a template.
pub fn read(text: &str) -> Template {
    let mut reader = Reader {
        text,
        template: Template::default(),
        blocks: Vec::new(),
        variables: ["labels", "externalLabels", "externalURL", "value"]
            .map(str::to_owned)
            .into(),
    };
    let mut at = 0;
    while let Some(open) = text[at..].find("{{").map(|found| at + found) {
        let Some(end) = close(text, open + 2) else {
            reader.fault(open..text.len(), "This action has no `}}`.".to_owned());
            return reader.template;
        };
        reader.action(open, end);
        at = end + 2;
    }
    if let Some(block) = reader.blocks.pop() {
        reader.fault(block.span, format!("This `{}` has no `end`.", block.keyword));
    }
    reader.template
}

/// Where the `}}` of an action stands whose content begins at `from`: not inside of quotes or a comment.
fn close(text: &str, from: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let trimmed = text[from..].trim_start_matches('-').trim_start();
    if trimmed.starts_with("/*") {
        let end = from + text[from..].find("*/")? + 2;
        return text[end..].find("}}").map(|found| end + found);
    }
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b'}' if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            quote @ (b'"' | b'\'' | b'`') => {
                at += 1;
                while bytes.get(at).is_some_and(|byte| *byte != quote) {
                    at += if bytes[at] == b'\\' && quote != b'`' { 2 } else { 1 };
                }
                if at >= bytes.len() {
                    return None;
                }
                at += 1;
            }
            _ => at += 1,
        }
    }
    None
}

impl Reader<'_> {
    fn fault(&mut self, span: Range<usize>, what: String) -> &mut Fault {
        let index = self.template.faults.len();
        let meant = None;
        self.template.faults.push(Fault { what, span, meant });
        &mut self.template.faults[index]
    }
}
