//! What stands between `{{` and `}}`: words, and whether they may stand there.

use std::ops::Range;

use manifest::closest;

use super::{Block, Reader, Use};

/// Functions of Go's templates and of Prometheus'.
const FUNCTIONS: &[&str] = &[
    "and",
    "args",
    "call",
    "eq",
    "externalURL",
    "first",
    "ge",
    "graphLink",
    "gt",
    "html",
    "humanize",
    "humanize1024",
    "humanizeDuration",
    "humanizePercentage",
    "humanizeTimestamp",
    "index",
    "js",
    "label",
    "le",
    "len",
    "lt",
    "match",
    "ne",
    "not",
    "now",
    "or",
    "parseDuration",
    "pathPrefix",
    "print",
    "printf",
    "println",
    "query",
    "reReplaceAll",
    "safeHtml",
    "slice",
    "sortByLabel",
    "stripDomain",
    "stripPort",
    "strvalue",
    "tableLink",
    "title",
    "tmpl",
    "toDuration",
    "toLower",
    "toTime",
    "toUpper",
    "urlQueryEscape",
    "urlquery",
    "value",
];

/// Fields of what a template of a rule is given.
const FIELDS: &[&str] = &["Labels", "ExternalLabels", "ExternalURL", "Value"];

/// A word of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    kind: Kind,
    span: Range<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `printf`
    Word,
    /// `.Labels.job`
    Field,
    /// `$labels.job`
    Variable,
    /// `"…"`, `` `…` ``
    Text,
    /// `1.5`, `'x'`
    Number,
    /// `|`, `(`, `)`, `,`, `=`, `:=`
    Sign,
    /// Anything else.
    Odd,
}

impl Reader<'_> {
    /// Reads the action whose braces begin at `open` and `close`.
    pub(super) fn action(&mut self, open: usize, close: usize) {
        let whole = open..close + 2;
        let (mut start, mut end) = (open + 2, close);
        let text = self.text;
        let inner = &text[start..end];
        let is_trim = |text: &str| text.is_empty() || text.starts_with(char::is_whitespace);
        if let Some(rest) = inner.strip_prefix('-').filter(|rest| is_trim(rest)) {
            start = end - rest.len();
        }
        if text[start..end].ends_with(" -") || text[start..end].ends_with("\n-") {
            end -= 1;
        }
        if text[start..end].trim_start().starts_with("/*") {
            return;
        }
        let tokens = tokens(text, start..end);
        if let Some(odd) = tokens.iter().find(|token| token.kind == Kind::Odd) {
            let what = format!("`{}` is nothing that a template knows.", &text[odd.span.clone()]);
            self.fault(odd.span.clone(), what);
            return;
        }
        let Some(first) = tokens.first() else {
            self.fault(whole, "This action is empty.".to_owned());
            return;
        };
        let word = if first.kind == Kind::Word {
            &text[first.span.clone()]
        } else {
            ""
        };
        let rest = &tokens[1..];
        match word {
            "if" | "with" | "range" => {
                let keyword = match word {
                    "if" => "if",
                    "with" => "with",
                    _ => "range",
                };
                self.pipeline(rest, true, &whole);
                self.blocks.push(Block { keyword, span: whole });
            }
            "else" => self.otherwise(rest, &whole),
            "end" => {
                if self.blocks.pop().is_none() {
                    self.fault(whole, "This `end` closes nothing.".to_owned());
                }
            }
            "define" | "block" => {
                let keyword = if word == "define" { "define" } else { "block" };
                self.blocks.push(Block { keyword, span: whole });
            }
            "template" | "break" | "continue" => {}
            _ => self.pipeline(&tokens, false, &whole),
        }
    }

    fn otherwise(&mut self, rest: &[Token], whole: &Range<usize>) {
        if self.blocks.is_empty() {
            self.fault(whole.clone(), "This `else` belongs to nothing.".to_owned());
        }
        if let [first, rest @ ..] = rest
            && matches!(&self.text[first.span.clone()], "if" | "with")
        {
            self.pipeline(rest, true, whole);
        }
    }

    /// Words that come to a value. `asks` when the value is only looked at, as after `if`.
    fn pipeline(&mut self, tokens: &[Token], asks: bool, whole: &Range<usize>) {
        if tokens.is_empty() {
            self.fault(whole.clone(), "Something is missing here.".to_owned());
            return;
        }
        self.declare(tokens);
        let mut depth = 0_usize;
        for (index, token) in tokens.iter().enumerate() {
            let text = self.text;
            let written = &text[token.span.clone()];
            let piped = index > 0 && &text[tokens[index - 1].span.clone()] == "|";
            if piped && matches!(token.kind, Kind::Variable | Kind::Field) {
                let what = format!("`{written}` is no function, and only a function can follow `|`.");
                self.fault(token.span.clone(), what);
                continue;
            }
            match token.kind {
                Kind::Sign if written == "(" => depth += 1,
                Kind::Sign if written == ")" => match depth.checked_sub(1) {
                    Some(less) => depth = less,
                    None => {
                        self.fault(token.span.clone(), "This parenthesis closes nothing.".to_owned());
                    }
                },
                Kind::Word => self.word(token, tokens.get(index + 1)),
                Kind::Variable => self.variable(token, asks),
                Kind::Field => self.field(token, asks),
                _ => {}
            }
        }
        if depth > 0 {
            self.fault(whole.clone(), "A parenthesis is not closed.".to_owned());
        }
        self.formatted(tokens);
        self.shares(tokens);
        self.indexed(tokens, asks);
    }

    /// `$x := …`, `$k, $v := range …`.
    fn declare(&mut self, tokens: &[Token]) {
        let is_declaration = |token: &Token| &self.text[token.span.clone()] == ":=";
        let Some(at) = tokens.iter().position(is_declaration) else {
            return;
        };
        for token in tokens[..at].iter().filter(|token| token.kind == Kind::Variable) {
            let name = &self.text[token.span.start + 1..token.span.end];
            if !name.is_empty() {
                self.variables.insert(name.to_owned());
            }
        }
    }

    fn word(&mut self, token: &Token, next: Option<&Token>) {
        let text = self.text;
        let written = &text[token.span.clone()];
        if matches!(written, "true" | "false" | "nil") {
            return;
        }
        if !FUNCTIONS.contains(&written) {
            let near = self.near(written, FUNCTIONS);
            let what = format!("There is no function `{written}`.");
            let fault = self.fault(token.span.clone(), what);
            fault.meant = near.map(|near| (token.span.clone(), near));
            return;
        }
        if written == "query"
            && let Some(query) = next.filter(|next| next.kind == Kind::Text)
        {
            self.template.queries.push(Use {
                text: text[query.span.clone()].to_owned(),
                span: query.span.clone(),
            });
        }
    }

    /// What was probably meant; after many faults nobody means anything.
    fn near<N: AsRef<str>>(&self, wanted: &str, names: impl IntoIterator<Item = N>) -> Option<String> {
        const MEANT: usize = 50;
        (self.template.faults.len() < MEANT)
            .then(|| closest(wanted, names, 1).pop())
            .flatten()
    }

    fn variable(&mut self, token: &Token, asks: bool) {
        let written = &self.text[token.span.start + 1..token.span.end];
        let (name, field) = written.split_once('.').unwrap_or((written, ""));
        let name_span = token.span.start + 1..token.span.start + 1 + name.len();
        if !name.is_empty() && !self.variables.contains(name) {
            let near = self.near(name, &self.variables);
            let fault = self.fault(token.span.clone(), format!("There is no variable `${name}`."));
            fault.meant = near.map(|near| (name_span, near));
            return;
        }
        match name {
            "labels" => self.label(field, token, asks),
            "value" if !asks => self.template.values.push(token.span.clone()),
            // `$` is what the template is given, at any depth.
            "" if !field.is_empty() => self.of_root(field, token, asks),
            _ => {}
        }
    }

    fn field(&mut self, token: &Token, asks: bool) {
        // Inside of `range` and `with` the dot is something else.
        let moved = self.blocks.iter().any(|block| block.keyword != "if");
        let path = self.text[token.span.clone()].trim_start_matches('.');
        if !moved && !path.is_empty() {
            self.of_root(path, token, asks);
        }
    }

    fn of_root(&mut self, path: &str, token: &Token, asks: bool) {
        let (field, rest) = path.split_once('.').unwrap_or((path, ""));
        match field {
            "Labels" => self.label(rest, token, asks),
            "Value" if !asks => self.template.values.push(token.span.clone()),
            _ if FIELDS.contains(&field) => {}
            _ => {
                let near = self.near(field, FIELDS);
                let at = token.span.end - path.len();
                let fault = self.fault(token.span.clone(), format!("There is no field `.{field}`."));
                fault.meant = near.map(|near| (at..at + field.len(), near));
            }
        }
    }

    fn label(&mut self, path: &str, token: &Token, asks: bool) {
        if path.is_empty() {
            return;
        }
        if asks {
            self.template.asked.push(path.to_owned());
        } else {
            self.template.labels.push(Use {
                text: path.to_owned(),
                span: token.span.clone(),
            });
        }
    }

    /// `index $labels "name"`.
    fn indexed(&mut self, tokens: &[Token], asks: bool) {
        for three in tokens.windows(3) {
            let [index, map, key] = three else {
                continue;
            };
            let text = |token: &Token| &self.text[token.span.clone()];
            let is_labels = matches!(text(map), "$labels" | ".Labels" | "$.Labels");
            if text(index) == "index" && is_labels && key.kind == Kind::Text {
                let name = text(key).trim_matches(['"', '`']).to_owned();
                let span = key.span.clone();
                if asks {
                    self.template.asked.push(name);
                } else {
                    self.template.labels.push(Use { text: name, span });
                }
            }
        }
    }

    /// `$value | humanizePercentage`.
    fn shares(&mut self, tokens: &[Token]) {
        let text = self.text;
        let word = |token: &Token| &text[token.span.clone()];
        let is_value = |token: &Token| matches!(word(token), "$value" | ".Value" | "$.Value");
        for three in tokens.windows(3) {
            if is_value(&three[0]) && word(&three[1]) == "|" && word(&three[2]) == "humanizePercentage" {
                self.template.percentages.push(three[2].span.clone());
            }
        }
        for two in tokens.windows(2) {
            if word(&two[0]) == "humanizePercentage" && is_value(&two[1]) {
                self.template.percentages.push(two[0].span.clone());
            }
        }
    }

    /// `printf "%d" $value`: the value is a floating-point number, and `%d` prints an error for one.
    fn formatted(&mut self, tokens: &[Token]) {
        let text = self.text;
        for (index, token) in tokens.iter().enumerate() {
            if &text[token.span.clone()] != "printf" {
                continue;
            }
            let Some(format) = tokens.get(index + 1).filter(|format| format.kind == Kind::Text) else {
                continue;
            };
            let is_value = |token: Option<&Token>| {
                token.is_some_and(|token| matches!(&text[token.span.clone()], "$value" | ".Value"))
            };
            let piped = index >= 2 && &text[tokens[index - 1].span.clone()] == "|" && is_value(tokens.get(index - 2));
            let given = is_value(tokens.get(index + 2));
            let verbs = verbs(&text[format.span.clone()]);
            if let ([verb @ ('d' | 's' | 'x' | 'c' | 'q' | 'o')], true) = (verbs.as_slice(), piped || given) {
                let what = format!("`%{verb}` cannot print the value, which is a floating-point number: `%.0f` can.");
                self.fault(format.span.clone(), what);
            }
        }
    }
}

/// The letters of a format's verbs.
fn verbs(format: &str) -> Vec<char> {
    let mut found = Vec::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character == '%' {
            let verb = characters.find(|c| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-' | ' ' | '#' | '*'));
            found.extend(verb.filter(|verb| *verb != '%'));
        }
    }
    found
}

fn tokens(text: &str, range: Range<usize>) -> Vec<Token> {
    let mut out = Vec::new();
    let mut at = range.start;
    let bytes = text.as_bytes();
    let is_name = |character: char| character.is_alphanumeric() || character == '_';
    while at < range.end {
        let rest = &text[at..range.end];
        let byte = bytes[at];
        let names = |rest: &str| rest.find(|c: char| !is_name(c) && c != '.').unwrap_or(rest.len());
        let (kind, length) = match byte {
            b' ' | b'\t' | b'\n' | b'\r' => {
                at += 1;
                continue;
            }
            b'$' => (Kind::Variable, 1 + names(&rest[1..])),
            b'.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => (Kind::Number, names(rest)),
            b'.' => (Kind::Field, names(rest)),
            b'0'..=b'9' => (Kind::Number, names(rest)),
            b'-' | b'+' if rest[1..].starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
                (Kind::Number, 1 + names(&rest[1..]))
            }
            b'"' | b'\'' | b'`' => {
                let kind = if byte == b'\'' { Kind::Number } else { Kind::Text };
                (kind, quoted(rest, byte))
            }
            b'|' | b'(' | b')' | b',' | b'=' => (Kind::Sign, 1),
            b':' if rest.starts_with(":=") => (Kind::Sign, 2),
            _ => {
                let length = rest.find(|c: char| !is_name(c)).unwrap_or(rest.len());
                let first = rest.chars().next().map_or(1, char::len_utf8);
                if length == 0 {
                    (Kind::Odd, first)
                } else {
                    (Kind::Word, length)
                }
            }
        };
        let span = at..at + length.max(1);
        at = span.end;
        // `(query "up").Labels`, `(first).Value`: a field of what is in the parentheses.
        let after_parenthesis = out.last().is_some_and(|last: &Token| {
            last.kind == Kind::Sign && &text[last.span.clone()] == ")" && last.span.end == span.start
        });
        if kind == Kind::Field && after_parenthesis {
            continue;
        }
        out.push(Token { kind, span });
    }
    out
}

/// How long a text in quotes is.
fn quoted(rest: &str, quote: u8) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' && quote != b'`' { 2 } else { 1 };
    }
    let mut end = (at + 1).min(rest.len());
    while !rest.is_char_boundary(end) {
        end += 1;
    }
    end
}
