//! Rule files as PrometheusRule objects of the Prometheus Operator. They hold the same groups as the files.

use super::model::RuleFile;
use super::prometheus;
use super::yaml::Yaml;

/// A PrometheusRule.
pub(super) fn prometheus_rule(file: &RuleFile, environment: &str) -> Yaml {
    let labels = [
        ("app.kubernetes.io/managed-by", "opsctl"),
        ("opsctl.dev/environment", environment),
        // What an installation of the community's charts selects by when nobody says otherwise.
        ("prometheus", "k8s"),
        ("role", "alert-rules"),
    ];
    let mut metadata = vec![("name", Yaml::text(object_name(&file.name)))];
    metadata.extend(
        file.namespace
            .as_ref()
            .map(|namespace| ("namespace", Yaml::text(namespace))),
    );
    metadata.push(("labels", Yaml::texts(labels)));
    Yaml::map([
        ("apiVersion", Yaml::text("monitoring.coreos.com/v1")),
        ("kind", Yaml::text("PrometheusRule")),
        ("metadata", Yaml::map(metadata)),
        ("spec", Yaml::map([("groups", prometheus::groups(file))])),
    ])
}

/// A name that Kubernetes takes: lower case, no underscores, a letter or digit at its end.
fn object_name(name: &str) -> String {
    let name = format!("opsctl-{}", name.to_ascii_lowercase().replace('_', "-"));
    name.trim_end_matches(['-', '.']).to_owned()
}
