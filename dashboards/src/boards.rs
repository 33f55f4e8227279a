//! Our boards, made from the landscape of an environment: its services, platform, objectives and addresses. One file each;
//! every metric of the catalogue is on one of them. What a board shows is a table of plots in its file; what all boards
//! have alike stands here and in `sheet`.

mod annotations;
mod backups;
mod canary;
mod cost;
mod objectives;
mod policies;
mod postgres;
mod requests;
mod sagas;
mod sheet;
mod telemetry;
mod variables;
mod workload;

use manifest::landscape::{Board, Landscape, Platform, string};

use crate::model::{
    Annotations, Dashboard, Link, LinkKind, Panel, SCHEMA_VERSION, Templating, TimePicker, TimeRange, Variable,
    chart::Chart, query::Target,
};
use sheet::Sheet;

/// What all our boards have as a tag.
pub const TAG: &str = "opsctl";

/// The uid of the board about telemetry itself, to which no alert leads.
pub const TELEMETRY: &str = "opsctl-telemetry";

/// All boards that the landscape has something for, in the order in which they are listed.
pub fn of(landscape: &Landscape) -> Vec<Dashboard> {
    let drafts = [
        requests::board(landscape),
        objectives::board(landscape),
        policies::board(landscape),
        sagas::board(landscape),
        canary::board(landscape),
        backups::board(landscape),
        postgres::board(landscape),
        workload::board(landscape),
        cost::board(landscape),
        telemetry::board(landscape),
    ];
    let drafts = drafts.into_iter().flatten();
    drafts.map(|draft| draft.finish(landscape)).collect()
}

/// A board before what all have alike is added.
struct Draft {
    uid: &'static str,
    title: &'static str,
    about: &'static str,
    /// The span at first.
    from: &'static str,
    variables: Vec<Variable>,
    sheet: Sheet,
}

impl Draft {
    fn finish(self, landscape: &Landscape) -> Dashboard {
        let mut panels = self.sheet.panels();
        let words = Words::of(landscape);
        for chart in charts(&mut panels) {
            for target in &mut chart.targets {
                match target {
                    Target::Prometheus(query) => query.expr = words.fill(&query.expr),
                    Target::Loki(query) => query.expr = words.fill(&query.expr),
                }
            }
        }
        let mut annotations = annotations::of(landscape);
        for annotation in &mut annotations {
            annotation.expr = annotation.expr.take().map(|expr| words.fill(&expr));
        }
        let mut list = vec![variables::prometheus()];
        if panels_ask_loki(&panels) {
            list.push(variables::loki());
        }
        list.extend(self.variables);
        Dashboard {
            annotations: Annotations { list: annotations },
            description: self.about.to_owned(),
            editable: false,
            fiscal_year_start_month: 0,
            graph_tooltip: 1,
            id: None,
            links: links(landscape),
            panels,
            refresh: "1m".to_owned(),
            schema_version: SCHEMA_VERSION,
            tags: vec![TAG.to_owned(), landscape.environment.clone()],
            templating: Templating { list },
            time: TimeRange {
                from: self.from.to_owned(),
                to: "now".to_owned(),
            },
            timepicker: TimePicker {},
            timezone: "browser".to_owned(),
            title: self.title.to_owned(),
            uid: self.uid.to_owned(),
            week_start: String::new(),
        }
    }
}

fn charts(panels: &mut [Panel]) -> impl Iterator<Item = &mut Chart> {
    panels.iter_mut().flat_map(|panel| match panel {
        Panel::Row(row) => row.panels.as_mut_slice(),
        Panel::Chart(chart) => std::slice::from_mut(&mut **chart),
    })
}

fn panels_ask_loki(panels: &[Panel]) -> bool {
    let asks = |chart: &Chart| chart.targets.iter().any(|target| matches!(target, Target::Loki(_)));
    panels.iter().any(|panel| match panel {
        Panel::Row(row) => row.panels.iter().any(asks),
        Panel::Chart(chart) => asks(chart),
    })
}

/// Words in capitals that stand for matchers in the questions of our boards.
struct Words {
    service: String,
    canary: String,
    stable: String,
    environment: String,
    namespace: String,
}

impl Words {
    fn of(landscape: &Landscape) -> Self {
        let namespace = one_of("namespace", &namespaces(landscape));
        // The pods of a Deployment, and of the one with its canary.
        let pods = |middle: &str| format!("{namespace}, pod=~\"$service{middle}-[a-z0-9]+-[a-z0-9]{{5}}\"");
        let of_pods = landscape.platform == Platform::Kubernetes;
        let job = "job=~\"$service\"".to_owned();
        Self {
            service: if of_pods { pods("(-canary)?") } else { job.clone() },
            canary: if of_pods { pods("-canary") } else { job.clone() },
            stable: if of_pods { pods("") } else { job },
            environment: format!("environment={}", string(&landscape.environment)),
            namespace,
        }
    }

    fn fill(&self, expr: &str) -> String {
        [
            ("SERVICE", &self.service),
            ("CANARY", &self.canary),
            ("STABLE", &self.stable),
            ("ENVIRONMENT", &self.environment),
            ("NAMESPACE", &self.namespace),
        ]
        .iter()
        .fold(expr.to_owned(), |expr, (word, matchers)| expr.replace(word, matchers))
    }
}

/// A matcher for some values of a label, which are regular expressions; for any where there are none.
fn one_of(label: &str, values: &[String]) -> String {
    let (operator, value) = match values {
        [] => ("=~", ".+".to_owned()),
        // What has nothing to escape is its own expression.
        [value] if !value.contains('\\') => ("=", value.clone()),
        _ => ("=~", values.join("|")),
    };
    format!("{label}{operator}{}", string(&value))
}

/// The namespaces of the services, each once.
fn namespaces(landscape: &Landscape) -> Vec<String> {
    let named = landscape
        .services
        .iter()
        .filter_map(|service| service.namespace.as_deref());
    let mut all: Vec<String> = named.map(manifest::landscape::regex_escape).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// What an alert's page is, when the name of the alert is a label of what was clicked on.
fn runbook_of_label(landscape: &Landscape) -> Option<String> {
    let base = landscape.links.runbooks.as_ref()?;
    Some(format!("{base}/${{__field.labels.alertname}}.md"))
}

/// To all other boards and, where they have an address, to the runbooks.
fn links(landscape: &Landscape) -> Vec<Link> {
    let boards = Link {
        as_dropdown: true,
        icon: "dashboard".to_owned(),
        include_vars: true,
        keep_time: true,
        tags: vec![TAG.to_owned()],
        target_blank: false,
        title: "Boards".to_owned(),
        tooltip: "The other boards of this environment, with the same span and choices".to_owned(),
        kind: LinkKind::Dashboards,
        url: String::new(),
    };
    let runbooks = landscape.links.runbooks.as_ref().map(|base| Link {
        as_dropdown: false,
        icon: "doc".to_owned(),
        include_vars: false,
        keep_time: false,
        tags: Vec::new(),
        target_blank: true,
        title: "Runbooks".to_owned(),
        tooltip: "What to do, alert by alert".to_owned(),
        kind: LinkKind::Link,
        url: base.clone(),
    });
    std::iter::once(boards).chain(runbooks).collect()
}

fn uid(board: Board) -> &'static str {
    board.uid()
}
