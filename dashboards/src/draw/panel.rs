//! Panels as charts: which of the answers is drawn how. It asks nobody and places nothing.

mod grid;
mod single;
mod time;

use pictures::{Chart, Words};

use super::ask::{self, Answers, Question};
use super::board::{Panel, Target, text};
use super::data::{Series, Span};
use super::field::{Field, Fields, Named};
use super::legend;
use super::variables::Variables;

/// What a panel is drawn from.
pub(super) struct Scene<'a> {
    pub panel: &'a Panel,
    pub variables: &'a Variables,
    pub answers: &'a Answers,
    pub span: Span,
    /// When something happened, for all panels.
    pub marks: &'a [pictures::Mark],
}

/// A series with its name and how it is shown.
pub(super) struct Shown<'a> {
    pub name: String,
    pub field: Field,
    pub target: &'a Target,
    pub series: &'a Series,
}

/// How a kind of panel is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lines,
    Numbers,
    Gauges,
    Bars,
    Shares,
    Table,
    Heat,
    States,
    Text,
}

/// Grafana's plugins as kinds; what is not here is not drawn.
const KINDS: [(&str, Kind); 15] = [
    ("timeseries", Kind::Lines),
    ("graph", Kind::Lines),
    ("trend", Kind::Lines),
    ("stat", Kind::Numbers),
    ("singlestat", Kind::Numbers),
    ("gauge", Kind::Gauges),
    ("bargauge", Kind::Bars),
    ("barchart", Kind::Bars),
    ("piechart", Kind::Shares),
    ("table", Kind::Table),
    ("table-old", Kind::Table),
    ("heatmap", Kind::Heat),
    ("state-timeline", Kind::States),
    ("status-history", Kind::States),
    ("text", Kind::Text),
];

impl Kind {
    fn of(panel: &Panel) -> Option<Self> {
        let row = KINDS.iter().find(|(plugin, _)| *plugin == panel.kind);
        row.map(|(_, kind)| *kind)
    }

    /// Whether a target is asked for one moment alone.
    fn instant(self, target: &Target) -> bool {
        match self {
            Self::Table => target.instant || target.format == "table",
            Self::Lines | Self::Heat | Self::States => false,
            _ => target.instant,
        }
    }
}

/// The targets of a panel that a Prometheus can answer.
fn targets(panel: &Panel) -> impl Iterator<Item = &Target> {
    let ours = |target: &&Target| {
        let plugin = target.plugin.as_deref();
        !target.expr.trim().is_empty() && plugin.is_none_or(|plugin| matches!(plugin, "prometheus" | "datasource"))
    };
    panel.targets.iter().filter(ours)
}

/// What a panel asks.
pub(super) fn questions(panel: &Panel, variables: &Variables, span: Span) -> Vec<Question> {
    let Some(kind) = Kind::of(panel).filter(|kind| *kind != Kind::Text) else {
        return Vec::new();
    };
    targets(panel)
        .flat_map(|target| {
            let first = ask::question(target, kind.instant(target), variables, span);
            let kept = target.exemplars && kind == Kind::Lines;
            let second = kept.then(|| Question::Exemplars(ask::expr(target, variables, span)));
            [Some(first), second]
        })
        .flatten()
        .collect()
}

/// A chart, and a few words on what it does not show.
pub(super) fn draw(scene: &Scene<'_>) -> (Box<dyn Chart>, String) {
    let Some(kind) = Kind::of(scene.panel) else {
        let words = match scene.panel.kind.as_str() {
            "" => "This panel stands in Grafana's library.".to_owned(),
            kind => format!("Panels of kind {kind} are not drawn."),
        };
        return (Box::new(Words::plain(&words)), String::new());
    };
    if kind == Kind::Text {
        return (Box::new(words(scene)), String::new());
    }
    let asked = targets(scene.panel).count();
    if asked == 0 && !scene.panel.targets.is_empty() {
        let plugin = scene.panel.targets.iter().find_map(|target| target.plugin.as_deref());
        let plugin = plugin.unwrap_or("another data source");
        let words = format!("This panel asks {plugin}; only Prometheus is asked here.");
        return (Box::new(Words::plain(&words)), String::new());
    }
    let fields = Fields::of(&scene.panel.json);
    let mut notes = Vec::new();
    let named = scene.named(kind, &fields, &mut notes);
    if named.is_empty() && !notes.is_empty() {
        // The words of a failure are all that there is to see.
        return (
            Box::new(Words::plain(&format!("no data\n\n{}", notes.join("\n")))),
            String::new(),
        );
    }
    if asked < scene.panel.targets.len() {
        notes.push("questions to others than Prometheus are left away".to_owned());
    }
    notes.extend(transformations(scene.panel, kind));
    let chart: Box<dyn Chart> = match kind {
        Kind::Lines => Box::new(time::lines(scene, &named, fields.whole())),
        Kind::States => Box::new(time::states(scene, &named)),
        Kind::Heat => Box::new(time::heat(scene, &named, fields.whole())),
        Kind::Numbers => Box::new(single::numbers(scene, &named, fields.whole())),
        Kind::Gauges => Box::new(single::gauges(scene, &named)),
        Kind::Bars => Box::new(single::bars(scene, &named)),
        Kind::Shares => Box::new(single::shares(scene, &named)),
        Kind::Table => Box::new(grid::table(scene, &named, &fields)),
        Kind::Text => Box::new(words(scene)),
    };
    (chart, notes.join("; "))
}

impl<'a> Scene<'a> {
    /// All series of the panel with their names; what could not be asked becomes a note.
    fn named(&self, kind: Kind, fields: &Fields, notes: &mut Vec<String>) -> Vec<Shown<'a>> {
        let mut all = Vec::new();
        for target in targets(self.panel) {
            let question = ask::question(target, kind.instant(target), self.variables, self.span);
            let series = match self.answers.series(&question) {
                Ok(series) => series,
                Err(error) => {
                    let note = format!("{}: {error}", target.name);
                    notes.push(note.chars().take(300).collect());
                    continue;
                }
            };
            let template = self.variables.tell(&target.legend);
            let names = legend::names(series, &template, &ask::expr(target, self.variables, self.span));
            for (name, series) in names.into_iter().zip(series) {
                let named = Named {
                    name: &name,
                    target: &target.name,
                };
                let field = fields.field(named);
                if field.hidden && kind != Kind::Table {
                    continue;
                }
                let name = match &field.name {
                    Some(own) => displayed(own, &name, series, self.variables),
                    None => name,
                };
                all.push(Shown {
                    name,
                    field,
                    target,
                    series,
                });
            }
        }
        all
    }
}

/// A `displayName` with Grafana's references to fields in it.
fn displayed(own: &str, name: &str, series: &Series, variables: &Variables) -> String {
    let mut text = variables.tell(own);
    for whole in ["${__series.name}", "${__field.displayName}", "${__field.name}"] {
        text = text.replace(whole, name);
    }
    while let Some((before, after)) = text.split_once("${__field.labels.") {
        let Some((label, rest)) = after.split_once('}') else {
            break;
        };
        let value = series.labels.get(label).map_or("", String::as_str);
        // What a label says is not read again.
        text = format!("{before}{}{rest}", value.replace("${", "$ {"));
    }
    text
}

/// What is left away of what a panel does to its data.
fn transformations(panel: &Panel, kind: Kind) -> Option<String> {
    let done = |id: &str| kind == Kind::Table && matches!(id, "organize" | "merge" | "joinByField" | "seriesToColumns");
    let left: Vec<String> = super::board::list(&panel.json, "transformations")
        .iter()
        .filter(|one| one["disabled"] != true)
        .map(|one| text(one, "id"))
        .filter(|id| !done(id))
        .take(5)
        .collect();
    (!left.is_empty()).then(|| format!("without the transformations {}", left.join(", ")))
}

fn words(scene: &Scene<'_>) -> Words {
    let json = &scene.panel.json;
    let options = if json["options"]["content"].is_string() {
        &json["options"]
    } else {
        json
    };
    let content = scene.variables.tell(&text(options, "content"));
    Words::markdown(&content)
}
