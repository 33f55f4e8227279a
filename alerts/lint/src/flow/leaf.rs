//! Labels of what a selector selects: what its metric is declared with, what its matchers ask for.

use manifest::{Found, Manifest, Part, Source, Values};
use promql::Span;
use promql::ast::{MatchOp, Selector};

use super::{Flow, How, Loss, Presence, Records};

pub(super) fn flow(selector: &Selector, manifest: &Manifest, records: &Records) -> Flow {
    let span = selector.span;
    let name = (!selector.metric_is_templated()).then(|| selector.metric()).flatten();
    let mut flow = match name {
        None => Flow::anything(),
        // What is lost in a rule was not lost in this query.
        Some(name) if records.contains_key(name) => records[name].map(|_, presence| match presence {
            Presence::Impossible(_) => Presence::Impossible(Loss {
                span,
                how: How::Recorded,
            }),
            known => known,
        }),
        Some(name) => manifest
            .lookup(name)
            .map_or_else(Flow::anything, |found| of_metric(found, span, manifest)),
    };
    for view in selector
        .views()
        .filter(|view| !view.templated && view.label != "__name__")
    {
        match view.op {
            MatchOp::Equal if view.value.is_empty() => {
                let loss = Loss {
                    span: view.span,
                    how: How::AskedEmpty,
                };
                flow.set(view.label, Presence::Impossible(loss));
            }
            MatchOp::Equal => flow.set(view.label, Presence::Fixed),
            MatchOp::NotEqual if view.value.is_empty() => flow.set(view.label, Presence::Certain),
            MatchOp::Regex if view.value == ".+" => flow.set(view.label, Presence::Certain),
            _ => {}
        }
    }
    flow
}

fn of_metric(found: Found<'_>, span: Span, manifest: &Manifest) -> Flow {
    let mut flow = Flow::anything();
    if found.metric.complete {
        flow.declared = Presence::Impossible(Loss {
            span,
            how: How::NotExported,
        });
        flow.vocabulary = Some(manifest.vocabulary(&found.metric.source));
    }
    // Of what another server has, nobody knows whether it was scraped or recorded there.
    if !matches!(found.metric.source, Source::Live(_)) {
        for label in ["job", "instance"] {
            flow.set(label, Presence::Certain);
        }
    }
    for label in &found.metric.labels {
        let may_be_empty = label.optional
            || match &label.values {
                Values::Closed(values) => values.iter().any(String::is_empty),
                Values::Bounded => false,
                Values::Seen(_) => !found.metric.complete,
            };
        let presence = if may_be_empty {
            Presence::Possible
        } else {
            Presence::Certain
        };
        flow.set(&label.name, presence);
    }
    if found.part == Part::Bucket {
        flow.set("le", Presence::Certain);
    }
    flow
}
