//! What is refused of a landscape before anything is derived: names and addresses that would mean something else in
//! templates, file names and objects, and queries that are no selectors.

use std::collections::BTreeSet;

use manifest::landscape::{Landscape, Service, Sli};
use promql::ast::{Expr, Modifiers};

use super::error::RenderError;

/// Refuses what cannot stand in rules.
pub(super) fn check(landscape: &Landscape) -> Result<(), RenderError> {
    name("environment", &landscape.environment)?;
    let services = landscape.services.iter().map(|service| service.name.as_str());
    let stores = landscape.datastores.iter().map(|store| store.name.as_str());
    let teams = landscape.teams.iter().map(|team| team.name.as_str());
    names("service", services)?;
    names("datastore", stores)?;
    names("team", teams)?;
    for service in &landscape.services {
        if let Some(team) = &service.team {
            name("team", team)?;
        }
        queries(service)?;
    }
    let links = &landscape.links;
    for address in [&links.dashboards, &links.runbooks].into_iter().flatten() {
        let web = address.starts_with("http://") || address.starts_with("https://");
        if !web || address.contains(|c: char| c.is_whitespace() || c.is_control() || "{}\"'`<>".contains(c)) {
            return Err(RenderError::Address {
                address: address.clone(),
            });
        }
    }
    Ok(())
}

fn names<'a>(what: &'static str, all: impl Iterator<Item = &'a str>) -> Result<(), RenderError> {
    let mut seen = BTreeSet::new();
    for one in all {
        name(what, one)?;
        // File systems and Kubernetes do not tell large letters from small ones.
        if !seen.insert(one.to_ascii_lowercase()) {
            return Err(RenderError::Twice {
                what,
                name: one.to_owned(),
            });
        }
    }
    Ok(())
}

fn name(what: &'static str, name: &str) -> Result<(), RenderError> {
    let well = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.len() <= 200
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if well {
        return Ok(());
    }
    Err(RenderError::Name {
        what,
        name: name.to_owned(),
    })
}

/// A service's own counters are selectors: what is asked of them is ours.
fn queries(service: &Service) -> Result<(), RenderError> {
    let Sli::Custom { total, errors, slow } = &service.sli else {
        return Ok(());
    };
    for query in [Some(total), Some(errors), slow.as_ref()].into_iter().flatten() {
        if let Some(why) = no_selector(query) {
            return Err(RenderError::Query {
                service: service.name.clone(),
                query: query.clone(),
                why,
            });
        }
    }
    Ok(())
}

/// Why a query is no selector: a range and functions are put around it.
fn no_selector(query: &str) -> Option<String> {
    let read = match promql::parse(query) {
        Ok(read) => read,
        Err(error) => return Some(error.to_string()),
    };
    let plain = match &read.expr {
        Expr::Selector(selector) => selector.range.is_none() && selector.modifiers == Modifiers::default(),
        _ => false,
    };
    // Behind a comment nothing else would count.
    let why = "it is to be a metric's name and matchers in braces; ranges and functions are put around it";
    (!plain || !read.comments.is_empty()).then(|| why.to_owned())
}
