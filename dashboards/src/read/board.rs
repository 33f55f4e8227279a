//! A board with what checks ask about, in one form whatever its file has.

use super::json::Node;
use super::source::{DataSource, Language};
use super::variable::Variable;
use super::{Document, classic, resource};

/// A board.
#[derive(Debug)]
pub struct Board<'a> {
    /// The file.
    pub document: &'a Document,
    /// The object that is the board: the whole file, or a part of an envelope.
    pub node: &'a Node,
    /// Which form it has.
    pub form: Form,
    /// Its uid with its place.
    pub uid: Option<&'a Node>,
    /// Its title.
    pub title: Option<&'a Node>,
    /// What it says it is for.
    pub description: Option<&'a Node>,
    /// `schemaVersion`, of the classic form.
    pub schema_version: Option<&'a Node>,
    /// The span at first, from and to.
    pub time: (Option<&'a Node>, Option<&'a Node>),
    /// How often it asks again.
    pub refresh: Option<&'a Node>,
    /// Its time zone.
    pub timezone: Option<&'a Node>,
    /// Rows and panels, those inside of rows too, in the order of the file.
    pub panels: Vec<Panel<'a>>,
    /// Its variables.
    pub variables: Vec<Variable<'a>>,
    /// What is drawn over all panels.
    pub annotations: Vec<Annotation<'a>>,
    /// Links at its head.
    pub links: Vec<Link<'a>>,
    /// What an export asks for when it is imported: name and plugin.
    pub inputs: Vec<(&'a str, &'a str)>,
}

/// The forms in which boards are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Bare, or in the answer of the older API.
    Classic,
    /// Classic in the envelope of the newer API.
    V1,
    /// Panels and layout apart.
    V2,
}

/// A row or a panel.
#[derive(Debug, Clone)]
pub struct Panel<'a> {
    /// All of it.
    pub node: &'a Node,
    /// The plugin, `row` for a headline; empty for one from the library.
    pub kind: &'a str,
    /// Its number.
    pub id: Option<&'a Node>,
    /// Its title.
    pub title: Option<&'a Node>,
    /// Its description.
    pub description: Option<&'a Node>,
    /// Where it stands.
    pub grid: Option<Grid<'a>>,
    /// Which of the board's grids it stands in: folded rows and layouts have their own.
    pub container: usize,
    /// What it asks.
    pub targets: Vec<Target<'a>>,
    /// Who is asked, unless a query says otherwise.
    pub datasource: Option<DataSource<'a>>,
    /// `fieldConfig` of it.
    pub fields: Option<&'a Node>,
    /// Links from it and from its values.
    pub links: Vec<Link<'a>>,
    /// The variable for whose values it is repeated.
    pub repeat: Option<&'a Node>,
    /// Whether it stands in the library and its own definition elsewhere.
    pub library: bool,
    /// Whether it has transformations, which may rename, drop and compute.
    pub transformed: bool,
}

/// A place on a grid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid<'a> {
    /// Where it is said.
    pub node: &'a Node,
    /// From the left.
    pub x: f64,
    /// From the top.
    pub y: f64,
    /// Width.
    pub w: f64,
    /// Height.
    pub h: f64,
}

/// A query.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// All of it.
    pub node: &'a Node,
    /// `A`, `B`, …
    pub ref_id: Option<&'a Node>,
    /// The expression.
    pub expr: Option<&'a Node>,
    /// Names of its lines.
    pub legend: Option<&'a Node>,
    /// Whom it asks, where it says so.
    pub datasource: Option<DataSource<'a>>,
    /// In which language.
    pub language: Language,
    /// Whether it is switched off.
    pub hidden: bool,
    /// Whether it asks for the last moment alone.
    pub instant: bool,
    /// `time_series`, `table`, `heatmap`.
    pub format: &'a str,
}

/// A query whose results are drawn over all panels.
#[derive(Debug, Clone, Copy)]
pub struct Annotation<'a> {
    /// All of it.
    pub node: &'a Node,
    /// Its name.
    pub name: Option<&'a str>,
    /// What is asked, when it is a question of PromQL or `LogQL`.
    pub expr: Option<&'a Node>,
    /// Who is asked.
    pub datasource: Option<DataSource<'a>>,
    /// In which language.
    pub language: Language,
}

/// A link.
#[derive(Debug, Clone, Copy)]
pub struct Link<'a> {
    /// All of it.
    pub node: &'a Node,
    /// Its title.
    pub title: Option<&'a str>,
    /// `dashboards` for boards by tag, else an address.
    pub by_tag: bool,
    /// The address.
    pub url: Option<&'a Node>,
    /// The tags.
    pub tags: Option<&'a Node>,
}

/// The board of a file, in whichever form.
pub(super) fn of(document: &Document) -> Option<Board<'_>> {
    let root = &document.root;
    let is_resource = root
        .text_of("apiVersion")
        .is_some_and(|version| version.starts_with("dashboard.grafana.app/"));
    if is_resource {
        let spec = root.get("spec")?;
        let uid = root.at(&["metadata", "name"]);
        return if spec.get("elements").is_some() || spec.get("layout").is_some() {
            Some(resource::board(document, spec, uid))
        } else {
            classic::board(document, spec, Form::V1, uid)
        };
    }
    if root.get("elements").is_some() && root.get("layout").is_some() {
        return Some(resource::board(document, root, None));
    }
    // The answer of the older API, and what it is sent.
    let node = root
        .get("dashboard")
        .filter(|inner| !inner.fields().is_empty() && root.get("panels").is_none());
    classic::board(document, node.unwrap_or(root), Form::Classic, None)
}

impl<'a> Board<'a> {
    /// A variable by name.
    pub fn variable(&self, name: &str) -> Option<&Variable<'a>> {
        self.variables.iter().find(|variable| variable.name() == Some(name))
    }

    /// Its title, or the name of its file.
    pub fn name(&self) -> &str {
        let title = self.title.and_then(Node::text);
        title
            .filter(|title| !title.is_empty())
            .unwrap_or_else(|| self.document.file.name())
    }
}

impl<'a> Panel<'a> {
    /// What it is called in findings.
    pub fn name(&self) -> String {
        match (self.title.and_then(Node::text), self.id.and_then(Node::number)) {
            (Some(title), _) if !title.trim().is_empty() => title.to_owned(),
            (_, Some(id)) => format!("panel {id}"),
            _ => "a panel without title".to_owned(),
        }
    }

    /// Whether it is a headline.
    pub fn is_row(&self) -> bool {
        self.kind == "row"
    }

    /// Whether anything is asked for it. What does not may have a data source all the same, left from what it was.
    pub fn asks(&self) -> bool {
        const SILENT: &[&str] = &[
            "row",
            "text",
            "dashlist",
            "news",
            "welcome",
            "gettingstarted",
            "alertlist",
        ];
        !SILENT.contains(&self.kind)
    }

    /// The unit of its values, where one holds for all.
    pub fn unit(&self) -> Option<&'a Node> {
        let node = match self.kind {
            // Until Grafana 7: the left axis, the figure.
            "graph" => self
                .node
                .get("yaxes")
                .and_then(|axes| axes.items().first()?.get("format")),
            "singlestat" => self.node.get("format"),
            _ => self.fields.and_then(|fields| fields.at(&["defaults", "unit"])),
        };
        node.filter(|unit| unit.text().is_some_and(|text| !text.is_empty()))
    }

    /// Whether some of its values look different from the rest.
    pub fn has_overrides(&self) -> bool {
        let of_fields = self.fields.and_then(|fields| fields.get("overrides"));
        let of_graph = self.node.get("seriesOverrides");
        [of_fields, of_graph]
            .into_iter()
            .flatten()
            .any(|list| !list.items().is_empty())
    }
}
