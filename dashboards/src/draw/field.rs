//! How the values of a panel are shown: unit, digits, ends, thresholds, words for values, colours - the defaults, and what
//! overrides them for single series. Panels of before 2020 say it elsewhere; both are read.

use pictures::{Colour, Tone, Unit};
use regex::Regex;
use serde_json::Value;

use super::board::{list, text};

/// How values are shown.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub unit: Unit,
    pub decimals: Option<u8>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub name: Option<String>,
    pub colour: Option<Colour>,
    /// From the least: from which value on which colour.
    pub steps: Vec<(f64, Colour)>,
    /// Whether the steps are percent of the way from `min` to `max`.
    pub in_percent: bool,
    /// Whether values have the colour of their step.
    pub by_step: bool,
    mappings: Vec<Mapping>,
    none: Option<String>,
    pub bars: bool,
    pub points: bool,
    pub stepped: bool,
    pub fill: f64,
    pub stacked: bool,
    pub logarithmic: bool,
    /// Whether thresholds are drawn as lines.
    pub lines: bool,
    pub hidden: bool,
}

#[derive(Debug, Clone)]
enum Mapping {
    Value(String, String, Option<Colour>),
    Range(f64, f64, String, Option<Colour>),
    Nothing(String, Option<Colour>),
}

/// What a field is called and where it is from, for overrides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'a> {
    pub name: &'a str,
    pub target: &'a str,
}

/// Overrides of one panel, with their patterns made ready.
#[derive(Debug)]
pub(super) struct Fields {
    defaults: Field,
    overrides: Vec<(Matcher, Vec<(String, Value)>)>,
}

#[derive(Debug)]
enum Matcher {
    Name(String),
    Pattern(Regex),
    Target(String),
}

/// A colour of Grafana as one of ours: what it means rather than how it looks, so that it is legible in both themes.
pub(super) fn colour(name: &str) -> Option<Colour> {
    let base = ["super-light-", "semi-dark-", "light-", "dark-"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name);
    Some(match base {
        "green" => Colour::Of(Tone::Good),
        "red" => Colour::Of(Tone::Bad),
        "orange" | "yellow" => Colour::Of(Tone::Other),
        "blue" => Colour::Of(Tone::Plain),
        "purple" => Colour::Series(3),
        "text" | "white" | "black" | "transparent" => Colour::Ink,
        "gray" | "grey" => Colour::Soft,
        _ => return nearest(base),
    })
}

/// The colour whose hue is nearest to that of `#rrggbb` or `rgb(r, g, b)`.
fn nearest(text: &str) -> Option<Colour> {
    let parts: Vec<f64> = if let Some(hex) = text.strip_prefix('#') {
        let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
        [byte(0)?, byte(2)?, byte(4)?].map(f64::from).to_vec()
    } else {
        let inner = text.split_once('(')?.1.split_once(')')?.0;
        inner
            .split(',')
            .take(3)
            .map(|part| part.trim().parse().ok())
            .collect::<Option<_>>()?
    };
    let [red, green, blue] = parts.try_into().ok()?;
    let (most, least) = (red.max(green).max(blue), red.min(green).min(blue));
    let spread = most - least;
    if spread < 24.0 {
        return Some(Colour::Soft);
    }
    let sixth = if red >= most {
        ((green - blue) / spread).rem_euclid(6.0)
    } else if green >= most {
        (blue - red) / spread + 2.0
    } else {
        (red - green) / spread + 4.0
    };
    Some(match sixth * 60.0 {
        ..18.0 | 340.0.. => Colour::Of(Tone::Bad),
        ..70.0 => Colour::Of(Tone::Other),
        ..175.0 => Colour::Of(Tone::Good),
        ..255.0 => Colour::Of(Tone::Plain),
        _ => Colour::Series(3),
    })
}

fn number(value: &Value) -> Option<f64> {
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    number.filter(|number: &f64| number.is_finite())
}

fn decimals(value: &Value) -> Option<u8> {
    number(value).map(|number| number.clamp(0.0, 9.0) as u8)
}

fn steps(thresholds: &Value) -> Vec<(f64, Colour)> {
    let mut steps: Vec<(f64, Colour)> = list(thresholds, "steps")
        .iter()
        .take(20)
        .filter_map(|step| {
            let from = number(&step["value"]).unwrap_or(f64::NEG_INFINITY);
            Some((from, colour(step["color"].as_str()?)?))
        })
        .collect();
    steps.sort_by(|a, b| a.0.total_cmp(&b.0));
    steps
}

fn mappings(value: &Value) -> Vec<Mapping> {
    let mut all = Vec::new();
    for mapping in value.as_array().into_iter().flatten().take(200) {
        let of = |result: &Value| (text(result, "text"), result["color"].as_str().and_then(colour));
        match (&mapping["type"], &mapping["options"]) {
            (Value::String(kind), Value::Object(options)) if kind == "value" => {
                for (key, result) in options.iter().take(200) {
                    let (words, colour) = of(result);
                    all.push(Mapping::Value(key.clone(), words, colour));
                }
            }
            (Value::String(kind), options) if kind == "range" => {
                let (words, colour) = of(&options["result"]);
                let from = number(&options["from"]).unwrap_or(f64::NEG_INFINITY);
                let to = number(&options["to"]).unwrap_or(f64::INFINITY);
                all.push(Mapping::Range(from, to, words, colour));
            }
            (Value::String(kind), options) if kind == "special" => {
                let (words, colour) = of(&options["result"]);
                if matches!(options["match"].as_str(), Some("null" | "nan" | "null+nan")) {
                    all.push(Mapping::Nothing(words, colour));
                }
            }
            // As it was before 2021: 1 is a value, 2 a range.
            _ => {
                let words = text(mapping, "text");
                if let (Some(from), Some(to)) = (number(&mapping["from"]), number(&mapping["to"])) {
                    all.push(Mapping::Range(from, to, words, None));
                } else if mapping["value"] == "null" {
                    all.push(Mapping::Nothing(words, None));
                } else if let Some(value) = mapping["value"].as_str() {
                    all.push(Mapping::Value(value.to_owned(), words, None));
                }
            }
        }
    }
    all
}

impl Default for Field {
    fn default() -> Self {
        Self {
            unit: Unit::default(),
            decimals: None,
            min: None,
            max: None,
            name: None,
            colour: None,
            steps: Vec::new(),
            in_percent: false,
            by_step: false,
            mappings: Vec::new(),
            none: None,
            bars: false,
            points: false,
            stepped: false,
            fill: 0.0,
            stacked: false,
            logarithmic: false,
            lines: false,
            hidden: false,
        }
    }
}

impl Field {
    /// Takes one setting, as `defaults` and overrides name it.
    fn set(&mut self, key: &str, value: &Value) {
        let words = value.as_str().unwrap_or_default();
        match key {
            "unit" if !words.is_empty() => self.unit = Unit::named(words),
            "decimals" => self.decimals = decimals(value),
            "min" => self.min = number(value),
            "max" => self.max = number(value),
            "displayName" if !words.is_empty() => self.name = Some(words.to_owned()),
            "noValue" => {
                self.none = value
                    .as_str()
                    .map(str::to_owned)
                    .or_else(|| Some(number(value)?.to_string()));
            }
            "color" => {
                let mode = value["mode"].as_str().unwrap_or_default();
                self.by_step = mode == "thresholds";
                self.colour = match mode {
                    "fixed" | "shades" => value["fixedColor"].as_str().and_then(colour),
                    _ => None,
                };
            }
            "thresholds" => {
                self.steps = steps(value);
                self.in_percent = value["mode"] == "percentage";
            }
            "mappings" => self.mappings = mappings(value),
            "custom" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    self.set(&format!("custom.{key}"), value);
                }
            }
            "custom.drawStyle" => {
                self.bars = words == "bars";
                self.points = words == "points";
            }
            "custom.fillOpacity" => self.fill = number(value).unwrap_or_default().clamp(0.0, 100.0) / 100.0,
            "custom.lineInterpolation" => self.stepped = words.starts_with("step"),
            "custom.stacking" => self.stacked = matches!(value["mode"].as_str(), Some("normal" | "percent")),
            "custom.scaleDistribution" => self.logarithmic = value["type"] == "log",
            "custom.thresholdsStyle" => {
                self.lines = !matches!(value["mode"].as_str(), None | Some("off"));
            }
            "custom.hideFrom" => self.hidden = value["viz"] == true,
            "custom.hidden" => self.hidden = value == true,
            _ => {}
        }
    }

    /// Settings of panels that were made before settings were the same in all of them.
    fn old(&mut self, panel: &Value) {
        let axis = &panel["yaxes"][0];
        for format in [&axis["format"], &panel["format"]] {
            if let Some(unit) = format.as_str() {
                self.unit = Unit::named(unit);
            }
        }
        self.decimals = decimals(&axis["decimals"]).or(decimals(&panel["decimals"]));
        self.min = number(&axis["min"]);
        self.max = number(&axis["max"]);
        self.logarithmic = axis["logBase"].as_f64().is_some_and(|base| base > 1.0);
        self.stacked = panel["stack"] == true;
        self.fill = panel["fill"].as_f64().unwrap_or_default().clamp(0.0, 10.0) / 10.0;
        self.bars = panel["bars"] == true && panel["lines"] != true;
        self.points = panel["points"] == true && panel["lines"] == false && !self.bars;
        self.stepped = panel["steppedLine"] == true;
        self.mappings = mappings(&panel["valueMaps"]);
        if let Some(words) = panel["thresholds"].as_str() {
            let colours = list(panel, "colors").iter().map(|name| name.as_str().and_then(colour));
            let from =
                std::iter::once(Some(f64::NEG_INFINITY)).chain(words.split(',').map(|part| part.trim().parse().ok()));
            self.steps = from
                .zip(colours)
                .filter_map(|(from, colour)| Some((from?, colour?)))
                .collect();
            self.by_step = panel["colorValue"] == true || panel["colorBackground"] == true;
        }
    }

    /// The colour of the step that a value is in.
    pub fn step(&self, value: f64) -> Option<Colour> {
        let at = |from: f64| match (self.in_percent, self.min, self.max) {
            (true, min, max) if from.is_finite() => {
                let (min, max) = (min.unwrap_or(0.0), max.unwrap_or(100.0));
                min + (max - min) * from / 100.0
            }
            _ => from,
        };
        let reached = self.steps.iter().rev().find(|(from, _)| value >= at(*from));
        reached.map(|(_, colour)| *colour)
    }

    /// What the panel says where there is nothing, if it says something.
    pub fn nothing(&self) -> Option<(String, Option<Colour>)> {
        let mapped = self.mappings.iter().find_map(|mapping| match mapping {
            Mapping::Nothing(words, colour) => Some((words.clone(), *colour)),
            _ => None,
        });
        mapped.or_else(|| Some((self.none.clone()?, None)))
    }

    /// A value as it is written, and in which colour where a mapping or a step says so.
    pub fn write(&self, value: Option<f64>) -> (String, Option<Colour>) {
        let Some(value) = value.filter(|value| !value.is_nan()) else {
            return self.nothing().unwrap_or_else(|| ("no data".to_owned(), None));
        };
        for mapping in &self.mappings {
            let (words, colour) = match mapping {
                Mapping::Value(key, words, colour) if key.parse() == Ok(value) => (words, colour),
                Mapping::Range(from, to, words, colour) if (*from..=*to).contains(&value) => (words, colour),
                _ => continue,
            };
            let words = if words.is_empty() {
                self.unit.format(value, self.decimals)
            } else {
                words.clone()
            };
            return (words, colour.or_else(|| self.step(value)));
        }
        (self.unit.format(value, self.decimals), self.step(value))
    }
}

impl Fields {
    /// The settings of a panel.
    pub fn of(panel: &Value) -> Self {
        let mut defaults = Field::default();
        defaults.old(panel);
        for (key, value) in panel["fieldConfig"]["defaults"].as_object().into_iter().flatten() {
            defaults.set(key, value);
        }
        let overrides = list(&panel["fieldConfig"], "overrides").iter().take(100);
        let overrides = overrides.filter_map(|one| {
            let words = one["matcher"]["options"].as_str()?;
            let matcher = match one["matcher"]["id"].as_str()? {
                "byName" => Matcher::Name(words.to_owned()),
                "byRegexp" => Matcher::Pattern(pattern(words)?),
                "byFrameRefID" => Matcher::Target(words.to_owned()),
                _ => return None,
            };
            let settings = list(one, "properties").iter().take(50);
            let settings = settings.map(|setting| (text(setting, "id"), setting["value"].clone()));
            Some((matcher, settings.collect()))
        });
        Self {
            overrides: overrides.collect(),
            defaults,
        }
    }

    /// What holds for a panel as a whole.
    pub fn whole(&self) -> &Field {
        &self.defaults
    }

    /// What holds for one field.
    pub fn field(&self, named: Named<'_>) -> Field {
        let mut field = self.defaults.clone();
        for (matcher, settings) in &self.overrides {
            let holds = match matcher {
                Matcher::Name(name) => name == named.name,
                Matcher::Pattern(pattern) => pattern.is_match(named.name),
                Matcher::Target(target) => target == named.target,
            };
            if holds {
                for (key, value) in settings {
                    field.set(key, value);
                }
            }
        }
        field
    }
}

/// A pattern as Grafana writes it: between slashes, or bare.
pub(super) fn pattern(text: &str) -> Option<Regex> {
    let bare = text.strip_prefix('/').and_then(|rest| rest.rsplit_once('/'));
    let (pattern, flags) = bare.unwrap_or((text, ""));
    let pattern = if flags.contains('i') {
        format!("(?i){pattern}")
    } else {
        pattern.to_owned()
    };
    regex::RegexBuilder::new(&pattern).size_limit(1 << 18).build().ok()
}
