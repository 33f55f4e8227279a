//! Boards of Grafana's version 2, whose panels and layout are apart, as classic ones, as far as is drawn: so that all else
//! knows one form. Grids, rows, tabs and grids that place by themselves are read; each tab becomes a row.

use serde_json::{Map, Value, json};

use super::board::{list, text};

/// Layouts inside of layouts; Grafana makes two or three.
const DEEPEST: usize = 6;

/// A `spec` of version 2 as a classic board.
pub(super) fn classic(spec: &Value) -> Value {
    let mut panels = Vec::new();
    layout(&spec["layout"], &spec["elements"], 0, &mut panels);
    json!({
        "title": spec["title"],
        "description": spec["description"],
        "time": { "from": spec["timeSettings"]["from"], "to": spec["timeSettings"]["to"] },
        "templating": { "list": list(spec, "variables").iter().map(variable).collect::<Vec<_>>() },
        "annotations": { "list": list(spec, "annotations").iter().map(annotation).collect::<Vec<_>>() },
        "panels": panels,
    })
}

fn layout(layout: &Value, elements: &Value, depth: usize, panels: &mut Vec<Value>) {
    if depth > DEEPEST {
        return;
    }
    let spec = &layout["spec"];
    for part in list(spec, "rows").iter().chain(list(spec, "tabs")) {
        let part = &part["spec"];
        let mut inner = Vec::new();
        self::layout(&part["layout"], elements, depth + 1, &mut inner);
        let named = part["hideHeader"] != true && !text(part, "title").is_empty();
        if named {
            let folded = part["collapse"] == true;
            let mut row = json!({ "type": "row", "title": part["title"], "collapsed": folded });
            row["repeat"] = part["repeat"]["value"].clone();
            // Rows of a classic board hold their panels where they are folded or repeated.
            row["panels"] = inner.into();
            panels.push(row);
        } else {
            panels.append(&mut inner);
        }
    }
    let columns = spec["maxColumnCount"].as_u64().unwrap_or(3).clamp(1, 24);
    for (index, item) in list(spec, "items").iter().enumerate() {
        let item = &item["spec"];
        let name = text(&item["element"], "name");
        let element = &elements[name.as_str()];
        if element.is_null() {
            continue;
        }
        let mut panel = panel(&element["spec"]);
        panel["gridPos"] = if item["width"].is_number() {
            json!({ "x": item["x"], "y": item["y"], "w": item["width"], "h": item["height"] })
        } else {
            let (wide, index) = (24 / columns, index as u64);
            json!({ "x": index % columns * wide, "y": index / columns * 9, "w": wide, "h": 9 })
        };
        let repeat = &item["repeat"];
        panel["repeat"] = repeat["value"].clone();
        panel["repeatDirection"] = repeat["direction"].clone();
        panel["maxPerRow"] = repeat["maxPerRow"].clone();
        panels.push(panel);
    }
}

fn panel(spec: &Value) -> Value {
    let visual = &spec["vizConfig"];
    let plugin = plugin(visual, "VizConfig");
    let data = &spec["data"]["spec"];
    json!({
        "type": plugin,
        "title": spec["title"],
        "options": visual["spec"]["options"],
        "fieldConfig": visual["spec"]["fieldConfig"],
        "targets": list(data, "queries").iter().map(|query| target(&query["spec"])).collect::<Vec<_>>(),
        "transformations": list(data, "transformations").iter().map(transformation).collect::<Vec<_>>(),
    })
}

/// The plugin of something: `group` beside a fixed `kind`, or in its first version the `kind` itself.
fn plugin(of: &Value, fixed: &str) -> Value {
    let own = of["kind"].as_str().filter(|kind| *kind != fixed).map(Value::from);
    if of["group"].is_string() {
        of["group"].clone()
    } else {
        own.unwrap_or_default()
    }
}

fn target(spec: &Value) -> Value {
    let query = &spec["query"];
    let mut target: Map<String, Value> = query["spec"].as_object().cloned().unwrap_or_default();
    target.insert("refId".to_owned(), spec["refId"].clone());
    target.insert("hide".to_owned(), spec["hidden"].clone());
    let source = json!({ "type": plugin(query, "DataQuery"), "uid": query["datasource"]["name"] });
    target.insert("datasource".to_owned(), source);
    target.into()
}

fn transformation(of: &Value) -> Value {
    let id = if of["group"].is_string() {
        &of["group"]
    } else {
        &of["spec"]["id"]
    };
    json!({ "id": id, "options": of["spec"]["options"], "disabled": of["spec"]["disabled"] })
}

fn variable(of: &Value) -> Value {
    let kind = match of["kind"].as_str().unwrap_or_default() {
        "DatasourceVariable" => "datasource",
        "CustomVariable" => "custom",
        "IntervalVariable" => "interval",
        "TextVariable" => "textbox",
        "ConstantVariable" => "constant",
        _ => "query",
    };
    let mut spec: Map<String, Value> = of["spec"].as_object().cloned().unwrap_or_default();
    if let Some(plugin) = spec.get("pluginId").cloned() {
        spec.insert("query".to_owned(), plugin);
    }
    if let Some(query) = spec.get("query").filter(|query| query.is_object()) {
        let inner = &query["spec"];
        let known = ["query", "expr", "__legacyStringValue"];
        let query = known
            .iter()
            .map(|key| &inner[key])
            .find(|value| value.is_string())
            .cloned();
        spec.insert("query".to_owned(), query.unwrap_or_default());
    }
    spec.insert("type".to_owned(), kind.into());
    spec.into()
}

fn annotation(of: &Value) -> Value {
    let spec = &of["spec"];
    json!({
        "name": spec["name"],
        "enable": spec["enable"],
        "expr": spec["query"]["spec"]["expr"],
        "datasource": { "type": plugin(&spec["query"], "DataQuery") },
    })
}
