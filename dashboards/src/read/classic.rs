//! The classic form, of every age: `rows` with panels that have a span, `panels` on a grid, panels inside of folded rows.

use super::Document;
use super::board::{Annotation, Board, Form, Grid, Link, Panel, Target};
use super::json::Node;
use super::source::{DataSource, Language};
use super::variable::Variable;

pub(super) fn board<'a>(
    document: &'a Document,
    node: &'a Node,
    form: Form,
    uid: Option<&'a Node>,
) -> Option<Board<'a>> {
    let is_board = ["panels", "rows", "templating", "schemaVersion"]
        .iter()
        .any(|field| node.get(field).is_some());
    if !is_board
        || node
            .get("panels")
            .or_else(|| node.get("rows"))
            .is_some_and(|list| !list.fields().is_empty())
    {
        return None;
    }
    let list = |path: &[&str]| node.at(path).map_or(&[][..], Node::items);
    let inputs: Vec<(&str, &str)> = list(&["__inputs"])
        .iter()
        .filter_map(|input| Some((input.text_of("name")?, input.text_of("pluginId").unwrap_or(""))))
        .collect();
    let variables: Vec<Variable<'a>> = list(&["templating", "list"])
        .iter()
        .filter(|variable| !variable.fields().is_empty())
        .map(Variable::classic)
        .collect();
    let mut board = Board {
        document,
        node,
        form,
        uid: uid.or_else(|| node.text_node("uid")),
        title: node.text_node("title"),
        description: node.text_node("description"),
        schema_version: node.get("schemaVersion"),
        time: (node.at(&["time", "from"]), node.at(&["time", "to"])),
        refresh: node.get("refresh"),
        timezone: node.text_node("timezone"),
        panels: Vec::new(),
        variables,
        annotations: Vec::new(),
        links: list(&["links"]).iter().filter_map(link).collect(),
        inputs,
    };
    let annotations = list(&["annotations", "list"])
        .iter()
        .map(|node| annotation(node, &board))
        .collect();
    board.annotations = annotations;
    let mut containers = 0;
    for panel in list(&["panels"]) {
        add(&mut board, panel, 0, &mut containers);
    }
    for row in list(&["rows"]).iter().filter(|row| !is_copy(row)) {
        containers += 1;
        let container = containers;
        let headline = Panel {
            kind: "row",
            ..panel(&board, row, 0)
        };
        board.panels.push(headline);
        for panel in row.get("panels").map_or(&[][..], Node::items) {
            add(&mut board, panel, container, &mut containers);
        }
    }
    Some(board)
}

fn add<'a>(board: &mut Board<'a>, node: &'a Node, container: usize, containers: &mut usize) {
    if node.fields().is_empty() || is_copy(node) {
        return;
    }
    let panel = panel(board, node, container);
    let is_row = panel.is_row();
    board.panels.push(panel);
    // Only rows have panels inside; the reader limits how deep that can go.
    if is_row {
        *containers += 1;
        let inside = *containers;
        for inner in node.get("panels").map_or(&[][..], Node::items) {
            add(board, inner, inside, containers);
        }
    }
}

/// Whether this is a copy of a repeated panel or row that was saved with the board. Grafana throws them away and makes
/// them anew.
fn is_copy(node: &Node) -> bool {
    ["repeatPanelId", "repeatRowId"]
        .iter()
        .any(|of| node.get(of).and_then(Node::number).is_some())
        || node.get("repeatedByRow").is_some_and(Node::is_true)
}

fn panel<'a>(board: &Board<'a>, node: &'a Node, container: usize) -> Panel<'a> {
    let datasource = node.get("datasource").and_then(DataSource::of);
    let list = |name: &str| node.get(name).map_or(&[][..], Node::items);
    let fields = node.get("fieldConfig");
    let of_values = fields
        .and_then(|fields| fields.at(&["defaults", "links"]))
        .map_or(&[][..], Node::items);
    Panel {
        node,
        kind: node.text_of("type").unwrap_or(""),
        id: node.get("id"),
        title: node.text_node("title"),
        description: node.text_node("description"),
        grid: node.get("gridPos").and_then(grid),
        container,
        targets: list("targets")
            .iter()
            .map(|target| self::target(board, target, datasource))
            .collect(),
        datasource,
        fields,
        links: list("links").iter().chain(of_values).filter_map(link).collect(),
        repeat: node.text_node("repeat").filter(|repeat| repeat.text() != Some("")),
        library: node.get("libraryPanel").is_some(),
        transformed: !list("transformations").is_empty(),
    }
}

/// A place, from an object with `x`, `y` and the two sizes under either of their names.
pub(super) fn grid(node: &Node) -> Option<Grid<'_>> {
    let number = |names: [&str; 2]| names.iter().find_map(|name| node.get(name)?.number());
    Some(Grid {
        node,
        x: number(["x", "x"])?,
        y: number(["y", "y"])?,
        w: number(["w", "width"])?,
        h: number(["h", "height"])?,
    })
}

fn target<'a>(board: &Board<'a>, node: &'a Node, of_panel: Option<DataSource<'a>>) -> Target<'a> {
    let datasource = node.get("datasource").and_then(DataSource::of);
    let asked = datasource.or(of_panel.filter(|source| !source.is_mixed()));
    Target {
        node,
        ref_id: node.text_node("refId"),
        expr: node.text_node("expr"),
        legend: node.text_node("legendFormat"),
        datasource,
        language: asked.map_or(Language::Unknown, |source| {
            source.language(&board.variables, &board.inputs)
        }),
        hidden: node.get("hide").is_some_and(Node::is_true),
        instant: node.get("instant").is_some_and(Node::is_true) && !node.get("range").is_some_and(Node::is_true),
        format: node.text_of("format").unwrap_or("time_series"),
    }
}

fn annotation<'a>(node: &'a Node, board: &Board<'a>) -> Annotation<'a> {
    let datasource = node.get("datasource").and_then(DataSource::of);
    Annotation {
        node,
        name: node.text_of("name"),
        expr: node.text_node("expr").filter(|expr| expr.text() != Some("")),
        datasource,
        language: datasource.map_or(Language::Unknown, |source| {
            source.language(&board.variables, &board.inputs)
        }),
    }
}

/// A link of a board, of a panel or of a value.
pub(super) fn link(node: &Node) -> Option<Link<'_>> {
    if node.fields().is_empty() {
        return None;
    }
    Some(Link {
        node,
        title: node.text_of("title"),
        by_tag: matches!(node.text_of("type"), Some("dashboards" | "dashboard")),
        url: node.text_node("url"),
        tags: node.get("tags"),
    })
}
