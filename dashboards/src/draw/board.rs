//! A board as far as it can be drawn, from the JSON that a Grafana of any age has written. What is missing or of an
//! unexpected kind is taken for absent; nothing is checked here.

use serde_json::Value;

use super::resource;

/// A board.
#[derive(Debug, Clone)]
pub struct Board {
    /// Its title.
    pub title: String,
    /// What it says it is for.
    pub description: String,
    pub(super) variables: Vec<Value>,
    pub(super) annotations: Vec<Value>,
    pub(super) rows: Vec<Row>,
    /// The begin that it asks for, in seconds before now.
    pub(super) back: Option<f64>,
}

/// Panels below a headline, or before the first.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    /// Its headline; absent before the first.
    pub title: Option<String>,
    /// Whether it is folded.
    pub folded: bool,
    /// The variable for whose values it is repeated.
    pub repeat: Option<String>,
    pub panels: Vec<Panel>,
}

/// A panel.
#[derive(Debug, Clone)]
pub(super) struct Panel {
    pub kind: String,
    pub title: String,
    /// From the left, in 24 columns; from the top; width; height.
    pub grid: [u16; 4],
    pub targets: Vec<Target>,
    pub repeat: Option<Repeat>,
    /// All of it.
    pub json: Value,
}

/// For whose values a panel is repeated, and how.
#[derive(Debug, Clone)]
pub(super) struct Repeat {
    pub variable: String,
    pub downwards: bool,
    pub most_per_row: u16,
}

/// A query.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub name: String,
    pub expr: String,
    pub legend: String,
    pub instant: bool,
    pub format: String,
    pub exemplars: bool,
    /// Whom it asks: the plugin, where it can be told.
    pub plugin: Option<String>,
    /// At least so far apart, in seconds.
    pub step: Option<f64>,
}

/// This is no board.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotABoard {
    /// It is no JSON.
    #[error("this is not JSON: {0}")]
    Json(String),
    /// It has nothing to draw.
    #[error("this is not a board: it has neither `panels` nor `rows` nor `elements`")]
    Shape,
}

/// More panels than these are not drawn.
const PANELS: usize = 400;
/// Rows of the grid that a panel may be high.
const HIGHEST: u16 = 100;
/// How many rows of the grid a panel of a board without a grid is high.
const USUAL: u16 = 8;

pub(super) fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

impl Board {
    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, NotABoard> {
        let json: Value = serde_json::from_str(text).map_err(|error| NotABoard::Json(error.to_string()))?;
        Self::read(&json)
    }

    /// Reads any form: bare, in the answer of the older API, in the envelope of the newer one, or of version 2.
    pub fn read(json: &Value) -> Result<Self, NotABoard> {
        let is_board = |value: &Value| value["panels"].is_array() || value["rows"].is_array();
        let candidates = [json, &json["dashboard"], &json["spec"]];
        let Some(board) = candidates.into_iter().find(|value| is_board(value)) else {
            let apart = candidates.into_iter().find(|value| value["elements"].is_object());
            return Self::read(&resource::classic(apart.ok_or(NotABoard::Shape)?));
        };
        let mut rows = vec![Row::default()];
        let mut left = PANELS;
        let plugins = plugins(board);
        for panel in list(board, "panels") {
            if panel["type"] == "row" {
                let inner = list(panel, "panels");
                rows.push(Row {
                    title: Some(text(panel, "title")),
                    folded: panel["collapsed"] == true,
                    repeat: named(panel),
                    panels: read_panels(inner, &mut left, &plugins),
                });
            } else if let Some(row) = rows.last_mut() {
                row.panels
                    .extend(read_panels(std::slice::from_ref(panel), &mut left, &plugins));
            }
        }
        for row in list(board, "rows") {
            let mut panels = read_panels(list(row, "panels"), &mut left, &plugins);
            flow(&mut panels, list(row, "panels"), row);
            rows.push(Row {
                title: row["showTitle"].as_bool().unwrap_or(true).then(|| text(row, "title")),
                folded: row["collapse"] == true,
                repeat: named(row),
                panels,
            });
        }
        // Panels that stand in the grid before the first headline.
        rows.retain(|row| row.title.is_some() || !row.panels.is_empty());
        Ok(Self {
            title: text(board, "title"),
            description: text(board, "description"),
            variables: list(&board["templating"], "list").to_vec(),
            annotations: list(&board["annotations"], "list").to_vec(),
            rows,
            back: board["time"]["from"].as_str().and_then(back),
        })
    }

    /// How long before now it begins, in seconds, where it says so.
    pub fn back(&self) -> Option<f64> {
        self.back
    }

    /// How many panels it has.
    pub fn panels(&self) -> usize {
        self.rows.iter().map(|row| row.panels.len()).sum()
    }
}

/// `now-6h` as seconds.
fn back(text: &str) -> Option<f64> {
    super::variables::seconds(text.strip_prefix("now-")?.split('/').next()?)
}

fn named(json: &Value) -> Option<String> {
    json["repeat"]
        .as_str()
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}

/// The plugins of variables that choose a data source.
fn plugins(board: &Value) -> Vec<(String, String)> {
    list(&board["templating"], "list")
        .iter()
        .filter(|variable| variable["type"] == "datasource")
        .map(|variable| (text(variable, "name"), text(variable, "query")))
        .collect()
}

/// The plugin of a data source, where it can be told.
fn plugin(source: &Value, plugins: &[(String, String)]) -> Option<String> {
    if let Some(plugin) = source["type"].as_str().filter(|plugin| !plugin.contains('$')) {
        return Some(plugin.to_owned());
    }
    let name = source["uid"].as_str().or(source.as_str())?;
    let name = name
        .trim_start_matches("${")
        .trim_start_matches('$')
        .trim_end_matches('}');
    plugins
        .iter()
        .find(|(variable, _)| variable == name)
        .map(|(_, plugin)| plugin.clone())
}

fn read_panels(panels: &[Value], left: &mut usize, plugins: &[(String, String)]) -> Vec<Panel> {
    let taken = panels.len().min(*left);
    *left -= taken;
    panels[..taken].iter().map(|panel| read_panel(panel, plugins)).collect()
}

fn read_panel(json: &Value, plugins: &[(String, String)]) -> Panel {
    let cell = |key: &str, usual: u16, most: u16| {
        let number = json["gridPos"][key].as_f64().filter(|number| number.is_finite());
        number.map_or(usual, |number| number.clamp(0.0, f64::from(most)) as u16)
    };
    let width = cell("w", 12, 24).max(1);
    let whose = plugin(&json["datasource"], plugins);
    let targets = list(json, "targets").iter().take(26);
    Panel {
        kind: text(json, "type"),
        title: text(json, "title"),
        grid: [
            cell("x", 0, 24 - width),
            cell("y", 0, u16::MAX),
            width,
            cell("h", USUAL, HIGHEST).max(1),
        ],
        targets: targets
            .filter(|target| target["hide"] != true)
            .map(|target| Target {
                name: text(target, "refId"),
                expr: text(target, "expr"),
                legend: text(target, "legendFormat"),
                instant: target["instant"] == true && target["range"] != true,
                format: text(target, "format"),
                exemplars: target["exemplar"] == true,
                plugin: plugin(&target["datasource"], plugins).or_else(|| whose.clone()),
                step: target["interval"]
                    .as_str()
                    .or(json["interval"].as_str())
                    .and_then(|step| super::variables::seconds(step.trim_start_matches('>'))),
            })
            .collect(),
        repeat: named(json).map(|variable| Repeat {
            variable,
            downwards: json["repeatDirection"] == "v",
            most_per_row: json["maxPerRow"]
                .as_u64()
                .or(json["maxPerRow"].as_str().and_then(|text| text.parse().ok()))
                .map_or(4, |most| most.clamp(1, 24) as u16),
        }),
        json: json.clone(),
    }
}

/// Places of panels that have a width in twelfths and no grid, as boards had before 2018.
fn flow(panels: &mut [Panel], json: &[Value], row: &Value) {
    let pixels = |value: &Value| {
        let text = value
            .as_str()
            .map(|text| text.trim_end_matches("px").trim().parse().ok());
        text.unwrap_or_else(|| value.as_f64())
    };
    let (mut x, mut y, mut deepest) = (0, 0, 0);
    for (panel, json) in panels.iter_mut().zip(json) {
        if json["gridPos"].is_object() {
            continue;
        }
        let width = (json["span"].as_f64().unwrap_or(12.0).clamp(1.0, 12.0) * 2.0) as u16;
        let high = pixels(&json["height"])
            .or_else(|| pixels(&row["height"]))
            .unwrap_or(250.0);
        let high = (high / 38.0).ceil().clamp(2.0, f64::from(HIGHEST)) as u16;
        if x + width > 24 {
            (x, y) = (0, y + deepest);
            deepest = 0;
        }
        panel.grid = [x, y, width, high];
        x += width;
        deepest = deepest.max(high);
    }
}
