//! Routes of an Alertmanager's configuration: receivers and times that are not there, routes that no alert reaches. Who
//! an alert really goes to is asked of a real Alertmanager elsewhere.

mod matcher;

use std::collections::BTreeSet;
use std::ops::Range;

use lint::document::{LIMITS, Node, read as read_document};
use lint::{Finding, SourceFile};
use manifest::closest;

use matcher::Matcher;

lint::checks! {
    /// All checks of routes.
    pub CHECKS;
    RECEIVER_UNKNOWN, "receiver-unknown", Error,
        "A route names a receiver that is not there.",
        "Alertmanager refuses the whole file.";
    RECEIVER_UNUSED, "receiver-unused", Note,
        "A receiver that no route names.",
        "Nothing is ever sent to it.";
    TIMES_UNKNOWN, "times-unknown", Error,
        "A route names a time interval that is not there.",
        "Alertmanager refuses the whole file.";
    MATCHER_INVALID, "matcher-invalid", Error,
        "A matcher that cannot be read.",
        "Alertmanager refuses the whole file.";
    ROUTE_SHADOWED, "route-shadowed", Error,
        "A route that no alert reaches.",
        "A route before it takes every alert that it would match. Put it first, or let the other `continue`.";
    ROUTE_IMPOSSIBLE, "route-impossible", Error,
        "A route whose matchers contradict each other or those above it.",
        "No alert can match all of them.";
    ROOT_MATCHES, "root-matches", Error,
        "The root route has matchers.",
        "Alertmanager refuses the whole file: the root takes all alerts.";
}

/// The receivers of an Alertmanager's configuration; `None` when `file` is none.
pub fn receivers(file: &SourceFile) -> Option<Vec<String>> {
    if !file.text().contains("route") {
        return None;
    }
    let documents = read_document(file.text(), LIMITS).ok()?;
    let root = documents.documents.first()?;
    root.get("route").filter(|_| root.get("groups").is_none())?;
    let items = root.get("receivers").map(Node::items).unwrap_or_default();
    let names = items
        .iter()
        .filter_map(|item| item.get("name")?.text().map(str::to_owned));
    Some(names.collect())
}

/// What is wrong with the routes of `file`; `None` when it has none, and so is no such configuration.
pub fn read(file: &SourceFile) -> Option<Vec<Finding>> {
    // A cheap look first: files of rules are many and long.
    if !file.text().contains("route") {
        return None;
    }
    let documents = read_document(file.text(), LIMITS).ok()?;
    let root = documents.documents.first()?;
    let route = root.get("route").filter(|_| root.get("groups").is_none())?;
    let names = |list: &str| -> Vec<(String, Range<usize>)> {
        let items = root.get(list).map(Node::items).unwrap_or_default();
        items
            .iter()
            .filter_map(|item| item.get("name"))
            .filter_map(|name| Some((name.text()?.to_owned(), name.span.clone())))
            .collect()
    };
    let receivers = names("receivers");
    let mut reader = Reader {
        file,
        findings: Vec::new(),
        receivers: receivers.iter().map(|(name, _)| name.clone()).collect(),
        times: [names("time_intervals"), names("mute_time_intervals")]
            .concat()
            .into_iter()
            .map(|(name, _)| name)
            .collect(),
        used: BTreeSet::new(),
        meant: MEANT,
    };
    if let Some((key, _)) = MATCHING.iter().find_map(|field| entry(route, field)) {
        let what = "The root route takes all alerts and has no matchers.";
        reader
            .findings
            .push(Finding::new(&ROOT_MATCHES, file, key.span.clone(), what));
    }
    reader.route(route, &[]);
    for (name, span) in &receivers {
        if !reader.used.contains(name) {
            let what = format!("No route names `{name}`.");
            reader
                .findings
                .push(Finding::new(&RECEIVER_UNUSED, file, span.clone(), what));
        }
    }
    Some(reader.findings)
}

/// Fields in which matchers stand.
const MATCHING: [&str; 3] = ["matchers", "match", "match_re"];

/// So many matchers of a route are looked at, and so many routes before it; real ones have a few of both.
const MATCHERS: usize = 50;
const BEFORE: usize = 500;
/// For so many unknown names it is said what was probably meant.
const MEANT: usize = 50;

struct Reader<'a> {
    file: &'a SourceFile,
    findings: Vec<Finding>,
    receivers: BTreeSet<String>,
    times: BTreeSet<String>,
    used: BTreeSet<String>,
    /// How many more unknown names are compared with the known ones.
    meant: usize,
}

impl Reader<'_> {
    /// A route and those below it; `above` is what an alert has matched on its way. Documents are not deep.
    fn route(&mut self, node: &Node, above: &[Matcher]) {
        self.named(node);
        let mut before: Vec<(Vec<Matcher>, usize)> = Vec::new();
        for child in node.get("routes").map(Node::items).unwrap_or_default() {
            let matchers = self.matchers(child);
            let place = first(child);
            let whole = [above, &matchers].concat();
            if let Some((one, other)) = contradiction(&whole) {
                let what = format!("No alert has `{one}` and `{other}`.");
                self.findings
                    .push(Finding::new(&ROUTE_IMPOSSIBLE, self.file, place, what));
            } else if let Some((_, line)) = before.iter().find(|(earlier, _)| {
                earlier
                    .iter()
                    .all(|matcher| whole.iter().any(|mine| mine.implies(matcher)))
            }) {
                let what = format!("The route on line {line} takes every alert that this one matches.");
                self.findings
                    .push(Finding::new(&ROUTE_SHADOWED, self.file, place, what));
            }
            self.route(child, &whole);
            let goes_on = child.get("continue").and_then(Node::text) == Some("true");
            if !goes_on && before.len() < BEFORE {
                before.push((matchers, self.file.position(child.span.start).line));
            }
        }
    }

    /// The receiver and the times that a route names.
    fn named(&mut self, node: &Node) {
        if let Some(receiver) = node.get("receiver")
            && let Some(name) = receiver.text()
        {
            self.used.insert(name.to_owned());
            if !self.receivers.contains(name) {
                let what = unknown("receiver", name, &self.receivers, &mut self.meant);
                let finding = Finding::new(&RECEIVER_UNKNOWN, self.file, receiver.span.clone(), what);
                self.findings.push(finding);
            }
        }
        for field in ["mute_time_intervals", "active_time_intervals"] {
            for time in node.get(field).map(Node::items).unwrap_or_default() {
                let Some(name) = time.text().filter(|name| !self.times.contains(*name)) else {
                    continue;
                };
                let what = unknown("time interval", name, &self.times, &mut self.meant);
                let finding = Finding::new(&TIMES_UNKNOWN, self.file, time.span.clone(), what);
                self.findings.push(finding);
            }
        }
    }

    fn matchers(&mut self, node: &Node) -> Vec<Matcher> {
        let mut out = Vec::new();
        for (field, regex) in [("match", false), ("match_re", true)] {
            for (label, value) in node.get(field).map(Node::entries).unwrap_or_default() {
                if let (Some(label), Some(value)) = (label.text(), value.text()) {
                    out.push(Matcher::new(label, regex, value));
                }
            }
        }
        for item in node.get("matchers").map(Node::items).unwrap_or_default() {
            let Some(matchers) = item.text().and_then(matcher::read) else {
                let what = "This is no matcher; one is written `severity=\"page\"`.";
                let finding = Finding::new(&MATCHER_INVALID, self.file, item.span.clone(), what);
                self.findings.push(finding);
                continue;
            };
            out.extend(matchers);
        }
        out.truncate(MATCHERS);
        out
    }
}

fn unknown(kind: &str, name: &str, known: &BTreeSet<String>, meant: &mut usize) -> String {
    let near = meant.checked_sub(1).and_then(|left| {
        *meant = left;
        closest(name, known, 1).pop()
    });
    match near {
        Some(near) => format!("There is no {kind} `{name}`; there is `{near}`."),
        None => format!("There is no {kind} `{name}`."),
    }
}

fn contradiction(matchers: &[Matcher]) -> Option<(&Matcher, &Matcher)> {
    matchers
        .iter()
        .enumerate()
        .find_map(|(index, one)| Some((one, matchers[index + 1..].iter().find(|other| one.excludes(other))?)))
}

fn entry<'a>(node: &'a Node, field: &str) -> Option<&'a (Node, Node)> {
    node.entries().iter().find(|(key, _)| key.text() == Some(field))
}

/// The first line of a route: what to point at.
fn first(node: &Node) -> Range<usize> {
    let first = node.entries().first();
    first.map_or(node.span.clone(), |(key, value)| {
        key.span.start..value.span.end.max(key.span.end)
    })
}
