//! The questions of a board that go to a Prometheus, read once for all checks.

use lint::flow::{Flow, Flows};
use promql::{Dialect, ErrorKind, ParseError, Query};

use super::Context;
use crate::read::{Board, Language, Node, Panel, Query as VariableQuery, Target};

/// A question that was read.
pub(super) struct Question<'a> {
    /// The text in the file.
    pub(super) node: &'a Node,
    /// Where in that text the question begins: not at its start in the question of a variable.
    pub(super) offset: usize,
    /// The question.
    pub(super) query: Query,
    /// The labels of its answer. Those of its parts are not kept: in a long question they are many times as much.
    pub(super) flow: Flow,
    /// Who asks.
    pub(super) asker: Asker<'a>,
}

/// A question that Prometheus would refuse, or that is no question yet.
pub(super) struct Unread<'a> {
    pub(super) node: &'a Node,
    pub(super) offset: usize,
    pub(super) why: Why,
    pub(super) asker: Asker<'a>,
}

/// Why a question was not read.
pub(super) enum Why {
    /// Prometheus would refuse it.
    Refused(ParseError),
    /// Signs of a template are left in it.
    Unfinished(&'static str),
}

/// Who asks.
#[derive(Clone, Copy)]
pub(super) enum Asker<'a> {
    /// A panel, with one of its queries, and the variables for which it is repeated.
    Panel(&'a Panel<'a>, &'a Target<'a>, [Option<&'a str>; 2]),
    /// An annotation by name.
    Annotation(&'a str),
    /// A variable by name, whose answer is the values of a label.
    Variable(&'a str),
}

impl Asker<'_> {
    /// What it is called in findings.
    pub(super) fn name(self) -> String {
        match self {
            Self::Panel(panel, ..) => panel.name(),
            Self::Annotation(name) | Self::Variable(name) => name.to_owned(),
        }
    }

    /// Whether it is repeated for every value of a variable, so that the variable is one value in it.
    pub(super) fn repeats(self, variable: &str) -> bool {
        matches!(self, Self::Panel(_, _, repeats) if repeats.contains(&Some(variable)))
    }
}

/// What templates leave behind when nobody fills them in.
const SIGNS: [(&str, &str); 3] = [("%(", ")s"), ("<%", "%>"), ("{{ .", "}}")];

pub(super) fn all<'a>(board: &'a Board<'a>, context: Context<'_>) -> (Vec<Question<'a>>, Vec<Unread<'a>>) {
    let mut reader = Reader {
        context,
        read: Vec::new(),
        unread: Vec::new(),
    };
    let mut row = None;
    for panel in &board.panels {
        let repeat = panel.repeat.and_then(Node::text);
        if panel.is_row() {
            row = repeat;
        }
        for target in &panel.targets {
            if let Some(node) = target.expr {
                let asker = Asker::Panel(panel, target, [repeat, row]);
                reader.add(node, 0..usize::MAX, target.language, asker);
            }
        }
    }
    for annotation in &board.annotations {
        if let Some(node) = annotation.expr {
            let asker = Asker::Annotation(annotation.name.unwrap_or("an annotation"));
            reader.add(node, 0..usize::MAX, annotation.language, asker);
        }
    }
    for variable in &board.variables {
        let language = variable
            .datasource
            .map(|source| source.language(&board.variables, &board.inputs));
        let span = match variable.question() {
            Some(VariableQuery::LabelOf { series, .. }) => series.1,
            Some(VariableQuery::Result { expr }) => expr.1,
            _ => continue,
        };
        if let (Some(node), Some(language)) = (variable.query, language) {
            reader.add(
                node,
                span,
                language,
                Asker::Variable(variable.name().unwrap_or("a variable")),
            );
        }
    }
    (reader.read, reader.unread)
}

struct Reader<'a, 'c> {
    context: Context<'c>,
    read: Vec<Question<'a>>,
    unread: Vec<Unread<'a>>,
}

impl<'a> Reader<'a, '_> {
    /// Reads what goes to a Prometheus. Where the board does not say who is asked, what can be read is.
    fn add(&mut self, node: &'a Node, span: std::ops::Range<usize>, language: Language, asker: Asker<'a>) {
        let text = node.text().unwrap_or("");
        let Some(text) = text.get(span.start..span.end.min(text.len())) else {
            return;
        };
        if text.trim().is_empty() || matches!(language, Language::Loki | Language::Other) {
            return;
        }
        let (offset, sure) = (span.start, language == Language::Prometheus);
        let sign = SIGNS
            .iter()
            .find(|(open, close)| text.split_once(open).is_some_and(|(_, rest)| rest.contains(close)));
        let why = match (sign, Dialect::grafana().parse(text)) {
            (Some((open, _)), _) if sure => Why::Unfinished(open),
            // An operator, a modifier: a variable may be anything, also where no expression can stand.
            (_, Err(error)) if error.span.of(text).starts_with(['$', '[']) => return,
            (_, Err(error)) if sure && error.kind != ErrorKind::Limit => Why::Refused(error),
            (None, Ok(query)) => {
                let flows = Flows::new(&query, self.context.manifest, self.context.records);
                self.read.push(Question {
                    node,
                    offset,
                    flow: flows.of(&query.expr).clone(),
                    query,
                    asker,
                });
                return;
            }
            _ => return,
        };
        self.unread.push(Unread {
            node,
            offset,
            why,
            asker,
        });
    }
}
