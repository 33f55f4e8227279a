//! The rules of an HTTPRoute or GRPCRoute with a share for the canary: which of them lead to a service, what they say now,
//! and the same rules with another share. JSON in, JSON out; it asks nobody.
//!
//! Weights are proportions. A rule that leads to the service alone gets weights that add up to 100. Where it shares its
//! requests with other backends, theirs stay, and the service's own weight is divided, if that can be done in whole
//! numbers. A lone backend is never left at 0: gateways disagree about what that means.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kube::mark::{Carrier, Mark};
use crate::kube::traffic::escape;

/// The Services of one workload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backends<'a> {
    pub(super) namespace: &'a str,
    pub(super) stable: &'a str,
    pub(super) canary: &'a str,
}

/// What a rule had before a share was given, and the mark that leads past the share: whoever takes it away need not know
/// the settings by which it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Base {
    /// The weight of the stable Service.
    pub(super) weight: u64,
    /// Requests with it go to the canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mark: Option<Mark>,
    /// Its header was not yet stripped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) unstripped: bool,
}

/// A route has at most so many rules.
const MOST_RULES: usize = 16;

/// Whether rules of a route in `namespace` lead to the stable Service.
pub(super) fn lead_to(rules: &[Value], namespace: &str, backends: Backends<'_>) -> bool {
    let mut references = rules.iter().flat_map(refs);
    references.any(|reference| is(reference, backends.stable, namespace, backends))
}

/// What the rules have now, to be kept until the share is gone: one for each that leads to the service.
pub(super) fn bases(rules: &[Value], backends: Backends<'_>, mark: Option<&Mark>) -> Vec<Base> {
    let header = mark.and_then(header);
    rules
        .iter()
        .filter_map(|rule| {
            let stable = refs(rule)
                .iter()
                .find(|one| is(one, backends.stable, backends.namespace, backends))?;
            Some(Base {
                weight: weight(stable),
                mark: mark.cloned(),
                unstripped: header.is_some_and(|header| !strips(rule, header)),
            })
        })
        .collect()
}

/// The canary's share of the service's requests; absent when rules differ, which nobody but us should do.
pub(super) fn percent(rules: &[Value], backends: Backends<'_>) -> Option<u8> {
    let mut percent = None;
    for rule in rules {
        // Marked requests have no share.
        if !refs(rule)
            .iter()
            .any(|one| is(one, backends.stable, backends.namespace, backends))
        {
            continue;
        }
        let sum = |service: &str| -> u64 {
            let own = refs(rule)
                .iter()
                .filter(|one| is(one, service, backends.namespace, backends));
            own.map(weight).sum()
        };
        let (stable, canary) = (sum(backends.stable), sum(backends.canary));
        let Some(own) = (canary * 100).checked_div(stable + canary) else {
            continue;
        };
        let own = u8::try_from(own).unwrap_or(100);
        if percent.is_some_and(|percent| percent != own) {
            return None;
        }
        percent = Some(own);
    }
    Some(percent.unwrap_or(0))
}

/// The rules with the share in percent; `bases` is what they had without any. Errors: why that cannot be expressed.
pub(super) fn with_share(
    rules: &[Value],
    backends: Backends<'_>,
    bases: &[Base],
    percent: u8,
) -> Result<Vec<Value>, String> {
    let mut new = Vec::with_capacity(rules.len());
    let known = bases.first().and_then(|base| base.mark.as_ref());
    let mut bases = bases.iter();
    for rule in rules {
        if known.is_some_and(|mark| is_marked(rule, mark)) {
            continue;
        }
        let own = refs(rule)
            .iter()
            .any(|one| is(one, backends.stable, backends.namespace, backends));
        if !own {
            new.push(rule.clone());
            continue;
        }
        let base = bases.next().cloned().unwrap_or(Base {
            weight: 1,
            mark: None,
            unstripped: false,
        });
        let mut weighted = rule.clone();
        divide(&mut weighted, backends, base.weight, percent)?;
        if let Some(mark) = &base.mark {
            match header(mark).filter(|_| base.unstripped) {
                Some(header) if percent > 0 && !strips(&weighted, header) => strip(&mut weighted, header),
                Some(header) if percent == 0 => unstrip(&mut weighted, header),
                _ => {}
            }
            if percent > 0 {
                new.push(marked(rule, backends, mark));
            }
        }
        new.push(weighted);
    }
    if new.len() > MOST_RULES && new.len() > rules.len() {
        return Err(format!(
            "it would have {} rules, and a route has at most {MOST_RULES}",
            new.len()
        ));
    }
    Ok(new)
}

/// Puts the canary beside the stable Service of a rule, or takes it away.
fn divide(rule: &mut Value, backends: Backends<'_>, base: u64, percent: u8) -> Result<(), String> {
    let is_own = |reference: &Value, service| is(reference, service, backends.namespace, backends);
    let others = refs(rule)
        .iter()
        .filter(|one| !is_own(one, backends.stable) && !is_own(one, backends.canary))
        .any(|one| weight(one) > 0);
    let percent = u64::from(percent);
    let (stable, canary) = match percent {
        0 => (base, 0),
        // The rule sends nothing to the service: nothing is to be divided.
        _ if base == 0 && others => return Ok(()),
        _ if !others => (100 - percent, percent),
        _ if (base * percent).is_multiple_of(100) => {
            let canary = base * percent / 100;
            (base - canary, canary)
        }
        _ => {
            return Err(format!(
                "`{}` has weight {} beside other backends, of which {percent} % is no whole number; multiply all weights of the rule by 100",
                backends.stable, base
            ));
        }
    };
    let Some(references) = rule.get_mut("backendRefs").and_then(Value::as_array_mut) else {
        return Ok(());
    };
    references.retain(|one| !is_own(one, backends.canary));
    let mut with_canary = Vec::with_capacity(references.len() + 1);
    for mut one in std::mem::take(references) {
        if is_own(&one, backends.stable) {
            let copy = (canary > 0).then(|| {
                let mut copy = one.clone();
                copy["name"] = backends.canary.into();
                copy["weight"] = canary.into();
                copy
            });
            one["weight"] = stable.into();
            with_canary.push(one);
            with_canary.extend(copy);
        } else {
            with_canary.push(one);
        }
    }
    *references = with_canary;
    Ok(())
}

/// A copy of a rule for requests with the mark, all of which go to the canary.
fn marked(rule: &Value, backends: Backends<'_>, mark: &Mark) -> Value {
    let mut copy = rule.clone();
    let matches = match rule.get("matches").and_then(Value::as_array) {
        Some(matches) if !matches.is_empty() => matches.clone(),
        _ => vec![json!({})],
    };
    let with = |one: &Value| {
        let mut one = one.clone();
        let mut headers = one
            .get("headers")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        headers.push(condition(mark));
        one["headers"] = headers.into();
        one
    };
    copy["matches"] = matches.iter().map(with).collect();
    if let Some(name) = rule.get("name").and_then(Value::as_str) {
        copy["name"] = format!("{name}-marked").into();
    }
    let stable = refs(rule)
        .iter()
        .find(|one| is(one, backends.stable, backends.namespace, backends));
    let mut canary = stable.cloned().unwrap_or_default();
    canary["name"] = backends.canary.into();
    canary["weight"] = 1.into();
    copy["backendRefs"] = json!([canary]);
    // The mark goes on to the services behind.
    if let Some(header) = header(mark) {
        unstrip(&mut copy, header);
    }
    copy
}

/// The header that is taken off requests without the mark. A cookie goes no further than to whom it was sent.
fn header(mark: &Mark) -> Option<&str> {
    (mark.carrier == Carrier::Header).then_some(&mark.name)
}

/// What a match of a route says of the headers of a request with the mark.
fn condition(mark: &Mark) -> Value {
    match mark.carrier {
        Carrier::Header => json!({ "type": "Exact", "name": mark.name, "value": mark.value }),
        Carrier::Cookie => json!({
            "type": "RegularExpression",
            "name": "Cookie",
            "value": format!("(.*;)?\\s*{}={}\\s*(;.*)?", escape(&mark.name), escape(&mark.value)),
        }),
    }
}

/// Whether a rule is one that [`marked`] made.
fn is_marked(rule: &Value, mark: &Mark) -> bool {
    let matches = rule.get("matches").and_then(Value::as_array);
    let headers = matches
        .and_then(|all| all.first())
        .and_then(|one| one.get("headers"))
        .and_then(Value::as_array);
    headers.is_some_and(|headers| headers.contains(&condition(mark)))
}

fn modifier(rule: &Value) -> Option<&Value> {
    let filters = rule.get("filters")?.as_array()?;
    filters.iter().find(|filter| filter["type"] == "RequestHeaderModifier")
}

/// Whether the rule takes a header off requests.
fn strips(rule: &Value, header: &str) -> bool {
    let removed = modifier(rule).and_then(|filter| filter.pointer("/requestHeaderModifier/remove"));
    removed
        .and_then(Value::as_array)
        .is_some_and(|removed| removed.iter().any(|name| is_header(name, header)))
}

fn is_header(name: &Value, header: &str) -> bool {
    name.as_str().is_some_and(|name| name.eq_ignore_ascii_case(header))
}

/// Adds the header to what is removed: to the filter that is there, for a rule may have only one of a kind.
fn strip(rule: &mut Value, header: &str) {
    if rule.get("filters").and_then(Value::as_array).is_none() {
        rule["filters"] = json!([]);
    }
    let filters = rule["filters"].as_array_mut().expect("it was just made a list");
    let known = filters
        .iter_mut()
        .find(|filter| filter["type"] == "RequestHeaderModifier");
    match known {
        Some(filter) => match filter
            .pointer_mut("/requestHeaderModifier/remove")
            .and_then(Value::as_array_mut)
        {
            Some(removed) => removed.push(header.into()),
            None => filter["requestHeaderModifier"]["remove"] = json!([header]),
        },
        None => filters.push(json!({
            "type": "RequestHeaderModifier",
            "requestHeaderModifier": { "remove": [header] },
        })),
    }
}

/// Takes back what [`strip`] added, and only that.
fn unstrip(rule: &mut Value, header: &str) {
    let Some(filters) = rule.get_mut("filters").and_then(Value::as_array_mut) else {
        return;
    };
    for filter in filters
        .iter_mut()
        .filter(|filter| filter["type"] == "RequestHeaderModifier")
    {
        let Some(modifier) = filter.get_mut("requestHeaderModifier").and_then(Value::as_object_mut) else {
            continue;
        };
        let emptied = modifier
            .get_mut("remove")
            .and_then(Value::as_array_mut)
            .is_some_and(|removed| {
                removed.retain(|name| !is_header(name, header));
                removed.is_empty()
            });
        if emptied {
            modifier.remove("remove");
        }
    }
    let empty = |filter: &Value| {
        filter["type"] == "RequestHeaderModifier"
            && filter["requestHeaderModifier"]
                .as_object()
                .is_none_or(serde_json::Map::is_empty)
    };
    filters.retain(|filter| !empty(filter));
    if filters.is_empty()
        && let Some(rule) = rule.as_object_mut()
    {
        rule.remove("filters");
    }
}

fn refs(rule: &Value) -> &[Value] {
    rule.get("backendRefs")
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// Whether a reference of a route in `namespace` means the Service.
fn is(reference: &Value, service: &str, namespace: &str, backends: Backends<'_>) -> bool {
    let text = |key: &str| reference.get(key).and_then(Value::as_str);
    text("name") == Some(service)
        && text("kind").unwrap_or("Service") == "Service"
        && text("group").unwrap_or_default().is_empty()
        && text("namespace").unwrap_or(namespace) == backends.namespace
}

/// Its proportion; 1 when it says none.
fn weight(reference: &Value) -> u64 {
    reference.get("weight").and_then(Value::as_u64).unwrap_or(1)
}

#[cfg(test)]
mod tests;
