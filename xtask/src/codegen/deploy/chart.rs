//! The Helm chart: the values, their schema, and the objects as templates.

use serde_json::{Value, json};

use super::holes::{Scope, Template};
use super::values::{self, ENVIRONMENTS};
use super::{head, objects, yaml};

/// The files of the chart, below its folder.
pub fn files(defaults: &Value, version: &str) -> Vec<(String, String)> {
    let mut files = vec![
        ("Chart.yaml".to_owned(), head("") + &yaml::text(&about(version))),
        (
            "values.yaml".to_owned(),
            head("The defaults; values-ENVIRONMENT.yaml goes over them.")
                + &yaml::text(&values::with_comments(defaults)),
        ),
        ("values.schema.json".to_owned(), json_text(&values::schema(defaults))),
        ("templates/NOTES.txt".to_owned(), NOTES.to_owned()),
    ];
    for environment in ENVIRONMENTS {
        let text = yaml::text(&values::of_environment(environment, defaults));
        files.push((format!("values-{environment}.yaml"), head("") + &text));
    }
    // All services have the same values, so that any may stand for the others; but for those that only one has.
    let mut example = json!({});
    for service in defaults["services"]
        .as_object()
        .into_iter()
        .flat_map(|services| services.values())
    {
        values::over(&mut example, service);
    }
    let template = Template::new(Scope::of(defaults).with("service", example));
    for (name, objects) in objects::files() {
        let head = "{{- /* Written by `cargo xtask codegen` from xtask/src/codegen/deploy; edit that. */ -}}\n";
        files.push((
            format!("templates/{name}.yaml"),
            format!("{head}{}", template.documents(&objects)),
        ));
    }
    files
}

fn about(version: &str) -> Value {
    json!({
        "apiVersion": "v2",
        "name": "shop",
        "description": "The reference services: identity, orders, payments and notifications",
        "type": "application",
        "version": version,
        "appVersion": version,
        "kubeVersion": ">=1.31.0-0",
    })
}

/// What Helm says after it has installed the chart.
const NOTES: &str = "\
{{ .Chart.Name }} {{ .Chart.AppVersion }} runs in {{ .Release.Namespace }} as {{ .Values.environment }}.

It needs, and does not make, in the same namespace:
{{- range $name, $service := .Values.services }}
  Secret {{ $service.database.secret }}: {{ $service.database.key }} is the DATABASE_URL of {{ $name }}
{{- if $service.keys }}
  Secret {{ $service.keys.secret }}: each file *.pem is a signing key of {{ $name }}
{{- end }}
{{- if $service.admin.secret }}
  Secret {{ $service.admin.secret }}: {{ $service.admin.key }} is the token of the admin listener of {{ $name }}
{{- end }}
{{- end }}
{{- if .Values.gateway.enabled }}

Gateway {{ .Values.gateway.namespace }}/{{ .Values.gateway.name }} sends to them:
{{- range $name, $service := .Values.services }}
  {{ $name }}.{{ $.Values.gateway.domain }}
{{- end }}
{{- end }}

See that they are ready:
  kubectl -n {{ .Release.Namespace }} get pods -l app.kubernetes.io/part-of={{ .Values.project }}
";

/// JSON as people read it.
fn json_text(value: &Value) -> String {
    format!("{value:#}\n")
}
