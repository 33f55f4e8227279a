//! What is marked on all charts of all boards: what was deployed, and what was broken on purpose. Both are read from what
//! services and proxy export, so that a mark is there whoever did it, and needs nobody to write it down.

use manifest::landscape::{Landscape, Platform};

use crate::model::{Annotation, DataSource};

/// The marks, in the order of their switches.
pub(super) fn of(landscape: &Landscape) -> Vec<Annotation> {
    let local = landscape.platform == Platform::Local;
    let mut all = vec![of_people()];
    all.push(mark(
        "Deploys",
        "blue",
        "count by (service, version) (build_info) unless count by (service, version) (build_info offset 5m)",
        "{{service}}: version {{version}}",
        "A version runs that did not five minutes before.",
        "service,version",
    ));
    if local {
        all.push(mark(
            "Canaries",
            "purple",
            "proxy_weight_ratio > 0 and proxy_weight_ratio < 1",
            "{{service}}: traffic is split",
            "Version {{version}} gets a part of the traffic.",
            "service,version",
        ));
        all.push(mark(
            "Drills",
            "orange",
            "sum by (service, kind) (rate(proxy_faults_injected_total[$__rate_interval])) > 0",
            "{{service}}: {{kind}} on purpose",
            "The proxy puts a fault on requests.",
            "service,kind",
        ));
    }
    all.push(mark(
        "Faults in calls",
        "orange",
        "max by (job, name) (faults_active) > 0",
        "{{job}}: faults in calls by {{name}} on purpose",
        "Faults are put into a policy's calls.",
        "job,name",
    ));
    all.push(mark(
        "Restarts",
        "yellow",
        "sum by (job) (changes(process_start_time_seconds[$__rate_interval])) > 0",
        "{{job}}: an instance began anew",
        "By a deploy, a drill or a crash.",
        "job",
    ));
    all
}

/// What people write on the board, and Grafana's own alerts: every board has it.
fn of_people() -> Annotation {
    Annotation {
        built_in: Some(1),
        datasource: DataSource::GRAFANA,
        enable: true,
        expr: None,
        hide: true,
        icon_color: "rgba(0, 211, 255, 1)".to_owned(),
        name: "Annotations & Alerts".to_owned(),
        step: None,
        tag_keys: None,
        text_format: None,
        title_format: None,
        kind: Some("dashboard".to_owned()),
    }
}

fn mark(name: &str, color: &str, expr: &str, title: &str, text: &str, tags: &str) -> Annotation {
    Annotation {
        built_in: None,
        datasource: DataSource::PROMETHEUS,
        enable: true,
        expr: Some(expr.to_owned()),
        hide: false,
        icon_color: color.to_owned(),
        name: name.to_owned(),
        step: Some("60s".to_owned()),
        tag_keys: Some(tags.to_owned()),
        text_format: Some(text.to_owned()),
        title_format: Some(title.to_owned()),
        kind: None,
    }
}
