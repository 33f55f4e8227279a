//! The three forms in which a Grafana takes a board: classic, which every Grafana since 10 reads from a file; v1, the same
//! in the envelope of its newer API; v2, whose panels and layout are apart. All are made from the one [`Dashboard`].
//!
//! Source of v2: Grafana's `apps/dashboard/kinds/v2/dashboard_spec.cue`.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Annotation, Chart, Dashboard, GridPos, Link, Panel, Row, Target, Variable};

/// A form of a board.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// Bare, as in files of provisioning.
    #[default]
    Classic,
    /// `dashboard.grafana.app/v1`.
    V1,
    /// `dashboard.grafana.app/v2`.
    V2,
}

impl Format {
    /// `classic`, `v1`, `v2`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// The board in that form, as a file.
pub fn write(board: &Dashboard, format: Format) -> String {
    let spec = match format {
        Format::Classic => return board.to_json(),
        Format::V1 => value(board),
        Format::V2 => v2(board),
    };
    pretty(&resource(format, &board.uid, spec))
}

/// The envelope of Grafana's newer API around `spec`.
pub(crate) fn resource(format: Format, uid: &str, spec: Value) -> Value {
    json!({
        "apiVersion": format!("dashboard.grafana.app/{}", format.as_str()),
        "kind": "Dashboard",
        "metadata": { "name": uid },
        "spec": spec,
    })
}

/// Two spaces, a line at the end.
pub(crate) fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// What serialises as JSON without fail: ours have no maps with keys that are not text.
pub(crate) fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

/// The board as the `spec` of v2.
pub fn v2(board: &Dashboard) -> Value {
    let elements: Map<String, Value> = board.charts().map(|chart| (name(chart), element(chart))).collect();
    json!({
        "annotations": board.annotations.list.iter().map(annotation).collect::<Vec<_>>(),
        "cursorSync": match board.graph_tooltip { 0 => "Off", 1 => "Crosshair", _ => "Tooltip" },
        "description": board.description,
        "editable": board.editable,
        "elements": elements,
        "layout": layout(board),
        "links": board.links.iter().map(link).collect::<Vec<_>>(),
        "preload": false,
        "tags": board.tags,
        "timeSettings": {
            "timezone": board.timezone,
            "from": board.time.from,
            "to": board.time.to,
            "autoRefresh": board.refresh,
            "autoRefreshIntervals": ["5s", "10s", "30s", "1m", "5m", "15m", "30m", "1h", "2h", "1d"],
            "hideTimepicker": false,
            "fiscalYearStartMonth": board.fiscal_year_start_month,
        },
        "title": board.title,
        "variables": board.templating.list.iter().map(variable).collect::<Vec<_>>(),
    })
}

fn name(chart: &Chart) -> String {
    format!("panel-{}", chart.id)
}

fn data_query(group: &str, source: &str, spec: Value) -> Value {
    json!({
        "kind": "DataQuery",
        "group": group,
        "version": "v0",
        "datasource": { "name": source },
        "spec": spec,
    })
}

/// The fields of `of` but for those of the envelope.
fn without(of: &impl Serialize, left_out: &[&str]) -> Value {
    let mut value = value(of);
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|name, _| !left_out.contains(&name.as_str()));
    }
    value
}

fn query(target: &Target) -> Value {
    let source = target.datasource();
    json!({
        "kind": "PanelQuery",
        "spec": {
            "query": data_query(source.kind, source.uid, without(target, &["datasource", "refId"])),
            "refId": target.ref_id(),
            "hidden": false,
        },
    })
}

fn element(chart: &Chart) -> Value {
    let visual = value(&chart.visual);
    let transformations: Vec<Value> = chart
        .transformations
        .iter()
        .map(|of| json!({ "kind": "Transformation", "group": of.id, "spec": { "options": of.options } }))
        .collect();
    json!({
        "kind": "Panel",
        "spec": {
            "id": chart.id,
            "title": chart.title,
            "description": chart.description,
            "links": chart.links,
            "data": {
                "kind": "QueryGroup",
                "spec": {
                    "queries": chart.targets.iter().map(query).collect::<Vec<_>>(),
                    "transformations": transformations,
                    "queryOptions": {},
                },
            },
            "vizConfig": {
                "kind": "VizConfig",
                "group": chart.visual.kind(),
                "version": "",
                "spec": { "options": visual["options"], "fieldConfig": chart.field_config },
            },
        },
    })
}

/// Rows with a grid each; what stands before the first row has one without a headline.
fn layout(board: &Dashboard) -> Value {
    let mut rows: Vec<(Option<&Row>, Vec<&Chart>)> = Vec::new();
    for panel in &board.panels {
        match panel {
            Panel::Row(row) => rows.push((Some(row), row.panels.iter().collect())),
            Panel::Chart(chart) => match rows.last_mut() {
                Some((_, charts)) => charts.push(chart),
                None => rows.push((None, vec![chart])),
            },
        }
    }
    let rows: Vec<Value> = rows.into_iter().map(|(row, charts)| layout_row(row, &charts)).collect();
    json!({ "kind": "RowsLayout", "spec": { "rows": rows } })
}

fn layout_row(row: Option<&Row>, charts: &[&Chart]) -> Value {
    let top = charts.iter().map(|chart| chart.grid_pos.y).min().unwrap_or_default();
    let items: Vec<Value> = charts
        .iter()
        .map(|chart| {
            let GridPos { h, w, x, y } = chart.grid_pos;
            json!({
                "kind": "GridLayoutItem",
                "spec": {
                    "x": x, "y": y - top, "width": w, "height": h,
                    "element": { "kind": "ElementReference", "name": name(chart) },
                },
            })
        })
        .collect();
    json!({
        "kind": "RowsLayoutRow",
        "spec": {
            "title": row.map_or("", |row| &row.title),
            "collapse": row.is_some_and(|row| row.collapsed),
            "hideHeader": row.is_none(),
            "layout": { "kind": "GridLayout", "spec": { "items": items } },
        },
    })
}

fn link(link: &Link) -> Value {
    value(link)
}

fn annotation(of: &Annotation) -> Value {
    let spec = match &of.expr {
        Some(expr) => json!({ "expr": expr, "step": of.step }),
        None => json!({}),
    };
    let mut out = json!({
        "query": data_query(of.datasource.kind, of.datasource.uid, spec),
        "enable": of.enable,
        "hide": of.hide,
        "iconColor": of.icon_color,
        "name": of.name,
        "builtIn": of.built_in == Some(1),
    });
    if of.expr.is_some() {
        let format = json!({ "tagKeys": of.tag_keys, "textFormat": of.text_format, "titleFormat": of.title_format });
        out["legacyOptions"] = format;
    }
    json!({ "kind": "AnnotationQuery", "spec": out })
}

fn variable(of: &Variable) -> Value {
    let nothing = json!({ "text": "", "value": "" });
    match of {
        Variable::Datasource(choice) => json!({
            "kind": "DatasourceVariable",
            "spec": {
                "name": choice.name,
                "pluginId": choice.query,
                "refresh": "onDashboardLoad",
                "regex": choice.regex,
                "current": nothing,
                "options": [],
                "multi": choice.multi,
                "includeAll": choice.include_all,
                "label": choice.label,
                "hide": "dontHide",
                "skipUrlSync": choice.skip_url_sync,
                "description": choice.description,
                "allowCustomValue": true,
            },
        }),
        Variable::Custom(choice) => json!({
            "kind": "CustomVariable",
            "spec": {
                "name": choice.name,
                "query": choice.query,
                "current": if choice.include_all { json!({ "text": "All", "value": "$__all" }) } else { nothing },
                "options": choice.options,
                "multi": choice.multi,
                "includeAll": choice.include_all,
                "label": choice.label,
                "hide": "dontHide",
                "skipUrlSync": choice.skip_url_sync,
                "description": choice.description,
                "allowCustomValue": true,
            },
        }),
        Variable::Query(choice) => {
            let mut spec = json!({
                "name": choice.name,
                "current": if choice.include_all { json!({ "text": "All", "value": "$__all" }) } else { nothing },
                "label": choice.label,
                "hide": "dontHide",
                "refresh": "onTimeRangeChanged",
                "skipUrlSync": choice.skip_url_sync,
                "description": choice.description,
                "query": data_query(choice.datasource.kind, choice.datasource.uid, value(&choice.query)),
                "regex": choice.regex,
                "sort": "alphabeticalAsc",
                "definition": choice.definition,
                "options": [],
                "multi": choice.multi,
                "includeAll": choice.include_all,
                "allowCustomValue": true,
            });
            if let Some(all) = choice.all_value {
                spec["allValue"] = all.into();
            }
            json!({ "kind": "QueryVariable", "spec": spec })
        }
    }
}
