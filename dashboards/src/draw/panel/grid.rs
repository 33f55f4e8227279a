//! Tables: a row for each set of labels, a column for each label and each query.

use std::collections::{BTreeMap, BTreeSet};

use pictures::{Cell, Colour, Table};
use serde_json::Value;

use super::{Scene, Shown};
use crate::draw::board::list;
use crate::draw::data::Labels;
use crate::draw::field::{Fields, Named};

/// More rows than these are not made.
const ROWS: usize = 500;
/// More labels than these are no columns.
const LABELS: usize = 16;

/// What `organize` says about columns.
struct Organized<'a> {
    hidden: BTreeSet<&'a str>,
    names: BTreeMap<&'a str, &'a str>,
    places: BTreeMap<&'a str, f64>,
}

impl<'a> Organized<'a> {
    fn of(panel: &'a Value) -> Self {
        let mut this = Self {
            hidden: BTreeSet::new(),
            names: BTreeMap::new(),
            places: BTreeMap::new(),
        };
        let all = list(panel, "transformations").iter();
        for options in all.filter(|one| one["id"] == "organize").map(|one| &one["options"]) {
            let entries = |key: &str| options[key].as_object().into_iter().flatten();
            this.hidden.extend(
                entries("excludeByName")
                    .filter(|entry| *entry.1 == true)
                    .map(|entry| entry.0.as_str()),
            );
            this.names.extend(entries("renameByName").filter_map(|(from, to)| {
                let to = to.as_str().filter(|to| !to.is_empty())?;
                Some((from.as_str(), to))
            }));
            this.places
                .extend(entries("indexByName").filter_map(|(name, place)| Some((name.as_str(), place.as_f64()?))));
        }
        this
    }

    fn name<'b>(&'b self, column: &'b str) -> &'b str {
        self.names.get(column).copied().unwrap_or(column)
    }
}

/// The last value of each series, beside its labels.
pub(super) fn table(scene: &Scene<'_>, named: &[Shown<'_>], fields: &Fields) -> Table {
    let organized = Organized::of(&scene.panel.json);
    let mut targets: Vec<&str> = Vec::new();
    let mut rows: BTreeMap<Labels, BTreeMap<&str, f64>> = BTreeMap::new();
    for one in named {
        if !targets.contains(&one.target.name.as_str()) {
            targets.push(&one.target.name);
        }
        let mut labels = one.series.labels.clone();
        labels.remove("__name__");
        if rows.len() < ROWS || rows.contains_key(&labels) {
            let value = one.series.points.last().map_or(f64::NAN, |point| point.1);
            rows.entry(labels).or_default().insert(&one.target.name, value);
        }
    }
    let labels: BTreeSet<&str> = rows
        .keys()
        .flat_map(|labels| labels.keys().map(String::as_str))
        .collect();
    let labels: Vec<&str> = labels
        .into_iter()
        .filter(|label| !organized.hidden.contains(label))
        .take(LABELS)
        .collect();
    let values: Vec<(String, &str)> = targets
        .iter()
        .map(|target| match targets.len() {
            1 => ("Value".to_owned(), *target),
            _ => (format!("Value #{target}"), *target),
        })
        .filter(|(column, _)| !organized.hidden.contains(column.as_str()))
        .collect();
    let mut columns: Vec<Column<'_>> = labels.iter().map(|label| Column::Label(label)).collect();
    columns.extend(values.iter().map(|(name, target)| Column::Value(name, target)));
    let usual = |index: usize| index as f64 + 1000.0;
    let mut placed: Vec<(f64, Column<'_>)> = columns
        .into_iter()
        .enumerate()
        .map(|(index, column)| {
            let place = organized.places.get(column.name()).copied();
            (place.unwrap_or(usual(index)), column)
        })
        .collect();
    placed.sort_by(|a, b| a.0.total_cmp(&b.0));
    let columns: Vec<Column<'_>> = placed.into_iter().map(|(_, column)| column).collect();
    let shown = columns.iter().map(|column| {
        let own = organized.name(column.name());
        // A column may be shown otherwise by its name, by the new one, or by its query.
        let named = |name| Named {
            name,
            target: column.target(),
        };
        let field = fields.field(named(own));
        if own == column.name() {
            field
        } else {
            merge(field, fields, named(column.name()))
        }
    });
    let shown: Vec<_> = shown.collect();
    let head = columns.iter().zip(&shown).map(|(column, field)| {
        let own = organized.name(column.name()).to_owned();
        field.name.clone().filter(|name| !name.contains("${")).unwrap_or(own)
    });
    let cells = rows.iter().map(|(labels, values)| {
        let cells = columns.iter().zip(&shown).map(|(column, field)| match column {
            Column::Label(label) => Cell::words(labels.get(*label).map_or("", String::as_str)),
            Column::Value(_, target) => match values.get(target) {
                None => Cell::words(""),
                Some(value) => {
                    let (text, colour) = field.write(Some(*value));
                    Cell::number(text, colour.filter(|_| field.by_step).unwrap_or(Colour::Ink))
                }
            },
        });
        cells.collect()
    });
    Table {
        head: head.collect(),
        rows: cells.collect(),
    }
}

#[derive(Clone, Copy)]
enum Column<'a> {
    Label(&'a str),
    Value(&'a str, &'a str),
}

impl<'a> Column<'a> {
    fn name(&self) -> &'a str {
        match self {
            Self::Label(name) | Self::Value(name, _) => name,
        }
    }

    fn target(&self) -> &'a str {
        match self {
            Self::Label(_) => "",
            Self::Value(_, target) => target,
        }
    }
}

/// The settings under the old name where the new one has none of its own.
fn merge(new: crate::draw::field::Field, fields: &Fields, old: Named<'_>) -> crate::draw::field::Field {
    if new.unit == fields.whole().unit && new.name == fields.whole().name {
        fields.field(old)
    } else {
        new
    }
}
