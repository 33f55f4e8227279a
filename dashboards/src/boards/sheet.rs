//! How our boards are written: rows of plots, laid out from left to right. A plot is a title, a sentence, a unit and its
//! questions; everything that all boards have alike is said here once. It decides nothing about what is shown.

use std::collections::BTreeMap;

use serde_json::json;

use crate::model::chart::{
    Chart, GridPos, HeatmapAxis, HeatmapColor, HeatmapOptions, HeatmapTooltip, Legend, LinesOptions, LogsOptions,
    Reduce, StatOptions, StatesOptions, TableOptions, Tooltip, Transformation, Visual,
};
use crate::model::field::{
    Color, Custom, DataLink, Defaults, FieldConfig, LineStyle, Mapping, Matcher, Mode, Override, Property, Stacking,
    StateStyle, Threshold, Thresholds, Word,
};
use crate::model::query::{DataSource, Lines, Metrics, Shape, Target};
use crate::model::{Panel, Row, Unit};

/// Cells from side to side.
pub const WIDTH: u32 = 24;

/// A chart before it has its place and number.
#[derive(Debug, Clone)]
pub struct Plot {
    chart: Chart,
    exemplars: bool,
}

/// Rows of plots.
#[derive(Debug, Default)]
pub struct Sheet {
    rows: Vec<(String, bool, Vec<Plot>)>,
}

impl Sheet {
    /// Adds a row that is open.
    #[must_use]
    pub fn row(self, title: &str, plots: impl IntoIterator<Item = Plot>) -> Self {
        self.with(title, false, plots)
    }

    /// Adds a row that is folded: nothing in it is asked for until somebody opens it.
    #[must_use]
    pub fn folded(self, title: &str, plots: impl IntoIterator<Item = Plot>) -> Self {
        self.with(title, true, plots)
    }

    fn with(mut self, title: &str, folded: bool, plots: impl IntoIterator<Item = Plot>) -> Self {
        self.rows.push((title.to_owned(), folded, plots.into_iter().collect()));
        self
    }

    /// The panels, each in its place and with its number.
    pub fn panels(self) -> Vec<Panel> {
        let mut panels = Vec::new();
        let mut top = 0;
        for (title, folded, plots) in self.rows {
            let headline = GridPos {
                h: 1,
                w: WIDTH,
                x: 0,
                y: top,
            };
            let (charts, bottom) = lay_out(&title, plots, top + 1);
            let row = |panels| {
                Panel::Row(Row {
                    collapsed: folded,
                    grid_pos: headline,
                    id: number(&title, ""),
                    panels,
                    title: title.clone(),
                    kind: crate::model::RowKind::Row,
                })
            };
            if folded {
                panels.push(row(charts));
                top += 1;
            } else {
                panels.push(row(Vec::new()));
                panels.extend(charts.into_iter().map(|chart| Panel::Chart(Box::new(chart))));
                top = bottom;
            }
        }
        panels
    }
}

/// From left to right; a plot that does not fit beside the last one begins a new line. Also the first free cell below.
fn lay_out(row: &str, plots: Vec<Plot>, top: u32) -> (Vec<Chart>, u32) {
    let (mut x, mut y, mut height) = (0, top, 0);
    let mut charts = Vec::new();
    for plot in plots {
        let mut chart = plot.chart;
        let GridPos { w, h, .. } = chart.grid_pos;
        if x + w > WIDTH {
            (x, y, height) = (0, y + height, 0);
        }
        chart.grid_pos = GridPos { h, w, x, y };
        chart.id = number(row, &chart.title);
        (x, height) = (x + w, height.max(h));
        charts.push(chart);
    }
    (charts, y + height)
}

/// A number that is the same for as long as row and title are, so that links to a panel outlive a new one above it.
/// FNV-1a; two of one board that meet are found by a test, and one of them gets another title.
fn number(row: &str, title: &str) -> u32 {
    let mut hash = 0x811c_9dc5_u32;
    for byte in row.bytes().chain([0]).chain(title.bytes()) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    hash % 1_000_000 + 1
}

impl Plot {
    fn new(title: &str, unit: Unit, visual: Visual, custom: Option<Custom>, color: &'static str) -> Self {
        let green = Threshold {
            color: "green",
            value: None,
        };
        Self {
            chart: Chart {
                datasource: DataSource::PROMETHEUS,
                description: String::new(),
                field_config: FieldConfig {
                    defaults: Defaults {
                        color: Color {
                            fixed_color: None,
                            mode: color,
                        },
                        custom,
                        decimals: None,
                        links: Vec::new(),
                        mappings: Vec::new(),
                        max: None,
                        min: None,
                        no_value: None,
                        thresholds: Thresholds {
                            mode: "absolute",
                            steps: vec![green],
                        },
                        unit,
                    },
                    overrides: Vec::new(),
                },
                grid_pos: GridPos { h: 8, w: 8, x: 0, y: 0 },
                id: 0,
                links: Vec::new(),
                targets: Vec::new(),
                title: title.to_owned(),
                transformations: Vec::new(),
                visual,
            },
            exemplars: false,
        }
    }

    /// Lines over time, from zero on.
    pub fn lines(title: &str, unit: Unit) -> Self {
        let style = LineStyle {
            draw_style: "line",
            fill_opacity: 8,
            line_interpolation: "linear",
            line_width: 1,
            show_points: "never",
            span_nulls: false,
            stacking: Stacking {
                group: "A",
                mode: "none",
            },
            thresholds_style: Mode { mode: "off" },
        };
        let legend = Legend {
            calcs: vec!["mean", "max"],
            display_mode: "table",
            placement: "bottom",
            show_legend: true,
        };
        let tooltip = Tooltip {
            mode: "multi",
            sort: "desc",
        };
        let visual = Visual::Timeseries(LinesOptions { legend, tooltip });
        let mut plot = Self::new(title, unit, visual, Some(Custom::Lines(style)), "palette-classic");
        plot.chart.field_config.defaults.min = Some(0.0);
        plot
    }

    /// One number, or one for each series, with its course behind it.
    pub fn number(title: &str, unit: Unit) -> Self {
        let visual = Visual::Stat(StatOptions {
            color_mode: "value",
            graph_mode: "area",
            justify_mode: "auto",
            orientation: "auto",
            reduce_options: Reduce::default(),
            text_mode: "auto",
            wide_layout: true,
        });
        Self::new(title, unit, visual, None, "thresholds").size(4, 4)
    }

    /// How often which duration, over time.
    pub fn heat(title: &str, unit: Unit) -> Self {
        let visual = Visual::Heatmap(HeatmapOptions {
            calculate: false,
            color: HeatmapColor {
                mode: "scheme",
                scheme: "Oranges",
                steps: 64,
            },
            y_axis: HeatmapAxis { unit },
            tooltip: HeatmapTooltip {
                mode: "single",
                y_histogram: true,
            },
        });
        Self::new(title, unit, visual, None, "palette-classic")
    }

    /// States over time, one line each, named by words for numbers.
    pub fn states(title: &str, words: &[(&str, &str, &'static str)]) -> Self {
        let visual = Visual::StateTimeline(StatesOptions {
            legend: Legend {
                calcs: Vec::new(),
                display_mode: "list",
                placement: "bottom",
                show_legend: true,
            },
            merge_values: true,
            row_height: 0.8,
            show_value: "never",
            tooltip: Tooltip {
                mode: "single",
                sort: "none",
            },
        });
        let style = StateStyle {
            fill_opacity: 80,
            line_width: 0,
        };
        Self::new(title, Unit::Number, visual, Some(Custom::States(style)), "thresholds").words(words)
    }

    /// A row for each series of the last moment. `columns` are labels and queries with their headings, in order; what is
    /// not named is left out.
    pub fn table(title: &str, unit: Unit, columns: &[(&str, &str)]) -> Self {
        let visual = Visual::Table(TableOptions {
            cell_height: "sm",
            show_header: true,
            sort_by: Vec::new(),
        });
        let mut plot = Self::new(title, unit, visual, None, "thresholds");
        let include: BTreeMap<&str, bool> = columns.iter().map(|(name, _)| (*name, true)).collect();
        let order: BTreeMap<&str, usize> = columns.iter().enumerate().map(|(at, (name, _))| (*name, at)).collect();
        let names: BTreeMap<&str, &str> = columns.iter().copied().collect();
        plot.chart.transformations = vec![
            Transformation {
                id: "merge",
                options: json!({}),
            },
            Transformation {
                id: "organize",
                options: json!({ "includeByName": include, "indexByName": order, "renameByName": names }),
            },
        ];
        plot.size(24, 8)
    }

    /// Log lines of a Loki.
    pub fn logs(title: &str, question: &str) -> Self {
        let visual = Visual::Logs(LogsOptions {
            dedup_strategy: "none",
            enable_log_details: true,
            prettify_log_message: false,
            show_common_labels: false,
            show_labels: false,
            show_time: true,
            sort_order: "Descending",
            wrap_log_message: false,
        });
        let mut plot = Self::new(title, Unit::Text, visual, None, "palette-classic").size(24, 9);
        plot.chart.datasource = DataSource::LOKI;
        plot.chart.targets.push(Target::Loki(Lines {
            datasource: DataSource::LOKI,
            editor_mode: "code",
            expr: question.to_owned(),
            query_type: "range",
            ref_id: "A".to_owned(),
        }));
        plot
    }

    /// What is shown, what is good, what to do when it is not.
    #[must_use]
    pub fn about(mut self, text: &str) -> Self {
        text.clone_into(&mut self.chart.description);
        self
    }

    /// Asks a question; `legend` names its lines.
    #[must_use]
    pub fn ask(mut self, expr: impl Into<String>, legend: &str) -> Self {
        let (format, instant) = match self.chart.visual {
            Visual::Heatmap(_) => (Shape::Heatmap, false),
            Visual::Table(_) => (Shape::Table, true),
            _ => (Shape::TimeSeries, false),
        };
        let letter = char::from(b'A' + u8::try_from(self.chart.targets.len()).unwrap_or_default());
        self.chart.targets.push(Target::Prometheus(Metrics {
            datasource: DataSource::PROMETHEUS,
            editor_mode: "code",
            exemplar: self.exemplars,
            expr: expr.into(),
            format,
            instant,
            legend_format: legend.to_owned(),
            range: !instant,
            ref_id: letter.to_string(),
        }));
        self
    }

    /// Traces are dots on the chart: for the questions that follow.
    #[must_use]
    pub fn with_traces(mut self) -> Self {
        self.exemplars = true;
        self
    }

    /// So many cells wide and high.
    #[must_use]
    pub fn size(mut self, w: u32, h: u32) -> Self {
        (self.chart.grid_pos.w, self.chart.grid_pos.h) = (w, h);
        self
    }

    /// So many cells wide.
    #[must_use]
    pub fn wide(mut self, w: u32) -> Self {
        self.chart.grid_pos.w = w;
        self
    }

    /// Lines stand on each other.
    #[must_use]
    pub fn stacked(mut self) -> Self {
        if let Some(Custom::Lines(style)) = &mut self.chart.field_config.defaults.custom {
            style.stacking.mode = "normal";
            style.fill_opacity = 30;
        }
        self
    }

    /// From these values on these colours, ascending; green below. Lines are dashed where they are drawn.
    #[must_use]
    pub fn steps(mut self, steps: &[(f64, &'static str)]) -> Self {
        let defaults = &mut self.chart.field_config.defaults;
        defaults.thresholds.steps.truncate(1);
        let steps = steps.iter().map(|&(value, color)| Threshold {
            color,
            value: Some(value),
        });
        defaults.thresholds.steps.extend(steps);
        if let Some(Custom::Lines(style)) = &mut defaults.custom {
            style.thresholds_style.mode = "dashed";
        }
        self
    }

    /// The colour below the first step, where low is bad.
    #[must_use]
    pub fn below(mut self, color: &'static str) -> Self {
        if let Some(first) = self.chart.field_config.defaults.thresholds.steps.first_mut() {
            first.color = color;
        }
        self
    }

    /// Below zero too.
    #[must_use]
    pub fn signed(mut self) -> Self {
        self.chart.field_config.defaults.min = None;
        self
    }

    /// The highest that can be.
    #[must_use]
    pub fn up_to(mut self, max: f64) -> Self {
        self.chart.field_config.defaults.max = Some(max);
        self
    }

    /// What stands where there is nothing, for a chart that is empty while all is well.
    #[must_use]
    pub fn or_else(mut self, text: &str) -> Self {
        self.chart.field_config.defaults.no_value = Some(text.to_owned());
        self
    }

    /// Words and colours for numbers.
    #[must_use]
    pub fn words(mut self, words: &[(&str, &str, &'static str)]) -> Self {
        let options = words.iter().zip(0..).map(|((number, text, color), index)| {
            let text = (*text).to_owned();
            ((*number).to_owned(), Word { color, index, text })
        });
        self.chart.field_config.defaults.mappings = vec![Mapping {
            options: options.collect(),
            kind: "value",
        }];
        self
    }

    /// A column or line by name that is in another unit.
    #[must_use]
    pub fn unit_of(mut self, name: &str, unit: Unit) -> Self {
        self.chart.field_config.overrides.push(Override {
            matcher: Matcher {
                id: "byName",
                options: name.to_owned(),
            },
            properties: vec![Property {
                id: "unit",
                value: json!(unit),
            }],
        });
        self
    }

    /// A click on a value leads there.
    #[must_use]
    pub fn leads_to(mut self, title: &str, url: Option<String>) -> Self {
        if let Some(url) = url {
            self.chart.field_config.defaults.links.push(DataLink {
                target_blank: true,
                title: title.to_owned(),
                url,
            });
        }
        self
    }
}
