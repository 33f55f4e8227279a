//! Checks of who is asked.

use std::collections::BTreeSet;

use lint::Fix;

use super::table::{SOURCE_BARE, SOURCE_FIXED, SOURCE_UNKNOWN};
use super::{Look, fix};
use crate::read::{DataSource, Node};

pub(super) fn all(look: &mut Look<'_>) {
    let board = look.board;
    let asking = look.panels().iter().filter(|panel| panel.asks());
    for panel in asking {
        // What a whole panel asks is said once, not once a query.
        let mut said = BTreeSet::new();
        let of_targets = panel.targets.iter().filter_map(|target| target.datasource);
        for source in panel.datasource.into_iter().chain(of_targets) {
            if said.insert(source.name) {
                one(look, source, &panel.name());
            }
        }
    }
    for variable in &board.variables {
        if let Some(source) = variable.datasource {
            one(look, source, variable.name().unwrap_or(""));
        }
    }
    for annotation in &board.annotations {
        if let Some(source) = annotation.datasource {
            one(look, source, annotation.name.unwrap_or(""));
        }
    }
}

fn one(look: &mut Look<'_>, source: DataSource<'_>, subject: &str) {
    if source.is_own() {
        return;
    }
    let board = look.board;
    let Some(name) = source.name else { return };
    let span = source.node.span.clone();
    if let Some(variable) = source.variable() {
        let known = board.variable(variable).is_some() || board.inputs.iter().any(|(input, _)| *input == variable);
        if !known {
            let what = format!("The board has no variable `{variable}`, which is asked here.");
            let finding = look.find(&SOURCE_UNKNOWN, span, what);
            subject.clone_into(&mut finding.subject);
        } else if source.bare {
            let variable = board
                .variable(variable)
                .filter(|variable| variable.kind == "datasource");
            let fix = variable.and_then(|variable| {
                let (name, plugin) = (variable.name()?, variable.plugin?);
                let object = serde_json::json!({ "type": plugin, "uid": format!("${{{name}}}") });
                let edits = vec![fix::replace(source.node, object)];
                // An older Grafana reads no object there.
                let old = board
                    .schema_version
                    .and_then(Node::number)
                    .is_some_and(|version| version < 33.0);
                Some(Fix {
                    title: "name plugin and uid".to_owned(),
                    safe: !old,
                    edits,
                })
            });
            let finding = look.find(&SOURCE_BARE, span, format!("`{name}` is a bare text."));
            subject.clone_into(&mut finding.subject);
            finding.fix = fix;
        }
    } else if !name.is_empty() {
        let finding = look.find(&SOURCE_FIXED, span, format!("This asks `{name}` and nobody else."));
        subject.clone_into(&mut finding.subject);
    }
}
