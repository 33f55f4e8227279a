//! What is chosen at the head of our boards.

use manifest::landscape::{Landscape, Platform};

use crate::model::query::DataSource;
use crate::model::variable::{Choice, Current, LabelChoice, LabelQuery, ListChoice, SourceChoice, Variable};

fn source(name: &'static str, plugin: &'static str, label: &str, about: &str) -> Variable {
    Variable::Datasource(SourceChoice {
        current: Current::default(),
        description: about.to_owned(),
        hide: 0,
        include_all: false,
        label: label.to_owned(),
        multi: false,
        name,
        options: Vec::new(),
        query: plugin,
        refresh: 1,
        regex: String::new(),
        skip_url_sync: false,
    })
}

/// Which Prometheus.
pub(super) fn prometheus() -> Variable {
    source("datasource", "prometheus", "Metrics", "The Prometheus that is asked.")
}

/// Which Loki.
pub(super) fn loki() -> Variable {
    source("loki", "loki", "Logs", "The Loki that is asked.")
}

/// Which services of the landscape, all at first. What queries get is the job, on Kubernetes the Deployment; an address
/// may say `var-service=` with the service's name.
pub(super) fn services(landscape: &Landscape) -> Variable {
    let choices: Vec<(String, String)> = landscape
        .services
        .iter()
        .map(|service| {
            let workload = match landscape.platform {
                Platform::Kubernetes => service.deployment.as_ref(),
                Platform::Local => None,
            };
            (service.name.clone(), workload.unwrap_or(&service.name).clone())
        })
        .collect();
    list("service", "Service", "The services that are shown.", &choices)
}

/// Which of a list that is known, all at first.
fn list(name: &str, label: &str, about: &str, choices: &[(String, String)]) -> Variable {
    let written = choices.iter().map(|(text, value)| {
        if text == value {
            text.clone()
        } else {
            format!("{text} : {value}")
        }
    });
    let option = |text: &str, value: &str, selected| Choice {
        selected,
        text: text.to_owned(),
        value: value.to_owned(),
    };
    let all = option("All", "$__all", true);
    let options = choices.iter().map(|(text, value)| option(text, value, false));
    Variable::Custom(ListChoice {
        current: Current::all(),
        description: about.to_owned(),
        hide: 0,
        include_all: true,
        label: label.to_owned(),
        multi: true,
        name: name.to_owned(),
        options: std::iter::once(all).chain(options).collect(),
        query: written.collect::<Vec<_>>().join(","),
        skip_url_sync: false,
    })
}

/// Which values of a label, all at first.
pub(super) fn label_values(name: &str, title: &str, about: &str, series: &str, label: &str) -> Variable {
    let query = format!("label_values({series}, {label})");
    Variable::Query(LabelChoice {
        all_value: Some(".+"),
        current: Current::all(),
        datasource: DataSource::PROMETHEUS,
        definition: query.clone(),
        description: about.to_owned(),
        hide: 0,
        include_all: true,
        label: title.to_owned(),
        multi: true,
        name: name.to_owned(),
        options: Vec::new(),
        query: LabelQuery {
            qry_type: 1,
            query,
            ref_id: "PrometheusVariableQueryEditor-VariableQuery",
        },
        refresh: 2,
        regex: String::new(),
        skip_url_sync: false,
        sort: 1,
    })
}
