//! The second model of Grafana's newer API: panels in `elements`, places in `layout`. Its alpha and beta versions are read
//! as well, which have a plugin's name elsewhere.

use super::Document;
use super::board::{Annotation, Board, Form, Panel, Target};
use super::classic::{grid, link};
use super::json::Node;
use super::source::{DataSource, Language};
use super::variable::Variable;

pub(super) fn board<'a>(document: &'a Document, node: &'a Node, uid: Option<&'a Node>) -> Board<'a> {
    let list = |name: &str| node.get(name).map_or(&[][..], Node::items);
    let settings = |name: &str| node.at(&["timeSettings", name]);
    let mut board = Board {
        document,
        node,
        form: Form::V2,
        uid,
        title: node.text_node("title"),
        description: node.text_node("description"),
        schema_version: None,
        time: (settings("from"), settings("to")),
        refresh: settings("autoRefresh"),
        timezone: settings("timezone"),
        panels: Vec::new(),
        variables: list("variables").iter().filter_map(Variable::resource).collect(),
        annotations: Vec::new(),
        links: list("links").iter().filter_map(link).collect(),
        inputs: Vec::new(),
    };
    board.annotations = list("annotations")
        .iter()
        .filter_map(|node| annotation(node, &board))
        .collect();
    let elements = node.get("elements").map_or(&[][..], Node::fields);
    let panels = elements
        .iter()
        .filter_map(|element| Some((&*element.name, panel(&board, &element.value)?)));
    let mut panels: Vec<(&str, Panel<'a>)> = panels.collect();
    let mut containers = 0;
    if let Some(layout) = node.get("layout") {
        place(layout, None, &mut panels, &mut containers);
    }
    board.panels = panels.into_iter().map(|(_, panel)| panel).collect();
    board
}

/// Walks through layouts in layouts; every grid is a container of its own. The reader limits how deep that can go.
fn place<'a>(layout: &'a Node, repeat: Option<&'a Node>, panels: &mut [(&str, Panel<'a>)], containers: &mut usize) {
    let Some(spec) = layout.get("spec") else {
        return;
    };
    *containers += 1;
    let container = *containers;
    for item in spec.get("items").map_or(&[][..], Node::items) {
        let Some(spec) = item.get("spec") else {
            continue;
        };
        let name = spec.at(&["element", "name"]).and_then(Node::text);
        for (_, panel) in panels.iter_mut().filter(|(element, _)| Some(*element) == name) {
            panel.grid = grid(spec);
            panel.container = container;
            panel.repeat = spec.at(&["repeat", "value"]).or(repeat);
        }
    }
    for inner in ["rows", "tabs"]
        .iter()
        .filter_map(|name| spec.get(name))
        .flat_map(Node::items)
    {
        if let Some(layout) = inner.at(&["spec", "layout"]) {
            let repeat = inner.at(&["spec", "repeat", "value"]).or(repeat);
            place(layout, repeat, panels, containers);
        }
    }
}

/// Whom a query asks: its plugin in `group`, before that in `kind`; its uid in `datasource.name`, before that beside the
/// query.
pub(super) fn source_of_query(query: &Node) -> Option<DataSource<'_>> {
    let plugin = query
        .text_of("group")
        .or_else(|| query.text_of("kind").filter(|kind| *kind != "DataQuery"))?;
    Some(DataSource {
        node: query.get("datasource").unwrap_or(query),
        plugin: Some(plugin).filter(|plugin| !plugin.is_empty()),
        name: query.at(&["datasource", "name"]).and_then(Node::text),
        bare: false,
    })
}

fn panel<'a>(board: &Board<'a>, element: &'a Node) -> Option<Panel<'a>> {
    let spec = element.get("spec")?;
    let drawn = spec.get("vizConfig");
    let group = spec.at(&["data", "spec"]);
    let list = |node: Option<&'a Node>, name: &str| node.and_then(|node| node.get(name)).map_or(&[][..], Node::items);
    let kind = drawn.and_then(|drawn| drawn.text_of("group").or_else(|| drawn.text_of("kind")));
    let fields = drawn.and_then(|drawn| drawn.at(&["spec", "fieldConfig"]));
    let of_values = fields
        .and_then(|fields| fields.at(&["defaults", "links"]))
        .map_or(&[][..], Node::items);
    Some(Panel {
        node: element,
        kind: kind.unwrap_or(""),
        id: spec.get("id"),
        title: spec.text_node("title"),
        description: spec.text_node("description"),
        grid: None,
        container: 0,
        targets: list(group, "queries")
            .iter()
            .filter_map(|query| target(board, query))
            .collect(),
        datasource: None,
        fields,
        links: list(Some(spec), "links")
            .iter()
            .chain(of_values)
            .filter_map(link)
            .collect(),
        repeat: None,
        library: element.text_of("kind") == Some("LibraryPanel"),
        transformed: !list(group, "transformations").is_empty(),
    })
}

fn target<'a>(board: &Board<'a>, node: &'a Node) -> Option<Target<'a>> {
    let spec = node.get("spec")?;
    let query = spec.get("query")?;
    let inner = query.get("spec").unwrap_or(query);
    let beside = spec.get("datasource").and_then(DataSource::of);
    let datasource = beside.or_else(|| source_of_query(query));
    Some(Target {
        node,
        ref_id: spec.text_node("refId"),
        expr: inner.text_node("expr"),
        legend: inner.text_node("legendFormat"),
        datasource,
        language: datasource.map_or(Language::Unknown, |source| {
            source.language(&board.variables, &board.inputs)
        }),
        hidden: spec.get("hidden").is_some_and(Node::is_true),
        instant: inner.get("instant").is_some_and(Node::is_true) && !inner.get("range").is_some_and(Node::is_true),
        format: inner.text_of("format").unwrap_or("time_series"),
    })
}

fn annotation<'a>(node: &'a Node, board: &Board<'a>) -> Option<Annotation<'a>> {
    let spec = node.get("spec")?;
    let query = spec.get("query");
    let datasource = spec
        .get("datasource")
        .and_then(DataSource::of)
        .or_else(|| query.and_then(source_of_query));
    Some(Annotation {
        node,
        name: spec.text_of("name"),
        expr: query.and_then(|query| query.get("spec")?.text_node("expr")),
        datasource,
        language: datasource.map_or(Language::Unknown, |source| {
            source.language(&board.variables, &board.inputs)
        }),
    })
}
