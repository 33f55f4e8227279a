//! `[[service.X.criteria]]`: numbers of a service that must keep within bounds while it is shipped. Read and checked; who
//! asks for them is the judge of a canary.

use std::collections::BTreeSet;

use opsctl_rollouts::Criterion;
use opsctl_rollouts::judge::criteria::{PLACEHOLDERS, QueryError, expand};

use super::section::Section;
use super::suggest::suggestion;

/// The criteria of a service, their placeholders as written.
pub(super) fn criteria(service: &Section<'_>) -> Vec<Criterion> {
    let mut names = BTreeSet::new();
    let sections = service.each("criteria").into_iter();
    sections
        .filter_map(|section| {
            let criterion = criterion(&section);
            let place = section.place("name");
            if let Some(criterion) = &criterion
                && !names.insert(criterion.name.clone())
            {
                let told = format!("there are two criteria of the name `{}`", criterion.name);
                section.findings().error(place, told);
            }
            section.finish();
            criterion
        })
        .collect()
}

fn criterion(section: &Section<'_>) -> Option<Criterion> {
    let (name, query): (Option<String>, Option<String>) = (section.required("name"), section.required("query"));
    let (max, min): (Option<f64>, Option<f64>) = (section.optional("max"), section.optional("min"));
    let error = |key: &str, told: &str| section.findings().error(section.place(key), told);
    match (min, max) {
        (None, None) => error("name", "a criterion needs `max`, `min`, or both"),
        (Some(min), Some(max)) if min > max => error("min", "`min` is greater than `max`: nothing could meet that"),
        _ => {}
    }
    let (name, query) = (name?, query?);
    if name.trim().is_empty() {
        error("name", "a criterion needs a name");
    }
    if query.trim().is_empty() {
        error("query", "a criterion needs a query in PromQL");
    }
    let known = |word: &str| PLACEHOLDERS.contains(&word).then(String::new);
    match expand(&query, known) {
        Err(QueryError::Unknown(word)) => {
            let help = suggestion(&word, PLACEHOLDERS).map_or_else(
                || format!("known are {}", PLACEHOLDERS.join(", ")),
                |near| format!("did you mean `{{{{{near}}}}}`?"),
            );
            error("query", &format!("`{{{{{word}}}}}` stands for nothing, {help}"));
        }
        Err(QueryError::Unclosed) => error("query", "`{{` is not closed by `}}`"),
        Ok(_) => {}
    }
    Some(Criterion { name, query, max, min })
}
