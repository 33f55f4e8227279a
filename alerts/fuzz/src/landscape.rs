//! What holds for rules that are derived, whatever services, teams and addresses are called: they are refused, or what is
//! written is read as what was meant, with no path, template or query in it that sound names would not have.

use std::collections::BTreeSet;
use std::path::{Component, Path};
use std::sync::LazyLock;

use alerts::render::{Rendered, Settings, render};
use alerts::{check::routes, rules};
use fixtures::fuzzing::Target;
use lint::SourceFile;
use lint::document::{LIMITS, read};
use manifest::landscape::{Landscape, Selector, Sli};

/// The targets of this file.
pub const TARGETS: &[Target] = &[Target {
    name: "landscape",
    seeds,
    property: landscape,
    odd: ODD,
}];

/// What means something where names are put.
pub const ODD: &[&str] = &[
    "{{ $labels.x }}",
    "{{",
    "}}",
    "{{ .Values }}",
    "../",
    "/",
    "\\\\",
    "\\\"",
    "'",
    "${x}",
    "$(x)",
    "\\n",
    "\\u0000",
    "\\u001b",
    "\\u2028",
    "#",
    ": ",
    "\"}[5m]) or vector(1) #",
    "é",
    " ",
    "null",
    "[]",
    "{}",
    "0",
    "1e-9",
    "0.999999",
    "1e18",
    "javascript:",
    "https://x/",
    "%2e%2e/",
    "</script>",
];

fn seeds() -> Vec<Vec<u8>> {
    let files: [&[u8]; 3] = [
        include_bytes!("../../tests/reference/landscape.json"),
        include_bytes!("../../../dashboards/tests/ours/local.json"),
        include_bytes!("../../../dashboards/tests/ours/kubernetes.json"),
    ];
    files.map(<[u8]>::to_vec).to_vec()
}

/// Every action that the templates of sound landscapes have.
static ACTIONS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let landscapes = seeds()
        .into_iter()
        .map(|seed| serde_json::from_slice(&seed).expect("a seed is a landscape"));
    let rendered = landscapes.map(|landscape| render(&landscape, &Settings::default()).expect("a seed is sound"));
    rendered
        .flat_map(|rendered| templates(&rendered))
        .flat_map(|text| actions(&text))
        .collect()
});

/// Every text of the rules that is a template.
fn templates(rendered: &Rendered) -> Vec<String> {
    let mut all = Vec::new();
    let files = rendered.prometheus();
    // Their tests stand beside them.
    for file in files.iter().filter(|file| !file.path.starts_with("tests/")) {
        let (set, refused) = rules::read(&SourceFile::new(&file.path, file.text.as_str()));
        assert!(refused.is_empty(), "{refused:?} in {}", file.text);
        for (group, rule) in set.rules() {
            let query = promql::parse(&rule.expr.value);
            assert!(query.is_ok(), "{query:?} of {}", rule.expr.value);
            let texts = [&group.labels, &rule.labels, &rule.annotations].into_iter().flatten();
            all.extend(texts.map(|(_, text)| text.value.clone()));
        }
    }
    all
}

fn actions(text: &str) -> Vec<String> {
    let begun = text.split("{{").skip(1);
    begun
        .map(|rest| rest.split("}}").next().unwrap_or(rest).to_owned())
        .collect()
}

/// Selectors are made by whoever reads the catalogue, and are PromQL. Those of a service's own counters are not looked at.
fn is_selected(landscape: &Landscape) -> bool {
    let services = landscape.services.iter();
    let own = services
        .clone()
        .any(|service| matches!(service.sli, Sli::Traefik(_) | Sli::Custom { .. }));
    let exporters = landscape.datastores.iter().filter_map(|store| store.exporter.as_ref());
    let sound = |selector: &Selector| promql::parse(&format!("up{{{selector}}}")).is_ok();
    !own && services.map(|service| &service.selector).chain(exporters).all(sound)
}

fn landscape(input: &[u8]) {
    let Ok(landscape) = serde_json::from_slice::<Landscape>(input) else {
        return;
    };
    if !is_selected(&landscape) {
        return;
    }
    let rendered = match render(&landscape, &Settings::default()) {
        Ok(rendered) => rendered,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    for text in templates(&rendered) {
        for action in actions(&text) {
            assert!(
                ACTIONS.contains(&action),
                "{action:?} of {text:?} is a template of nobody's"
            );
        }
        assert!(!text.contains('\0'), "{text:?}");
    }
    let routes_file = rendered.alertmanager();
    let source = SourceFile::new(&routes_file.path, routes_file.text.as_str());
    assert!(routes::receivers(&source).is_some(), "{}", routes_file.text);
    for files in [rendered.prometheus(), rendered.kubernetes(), vec![routes_file]] {
        let mut paths = BTreeSet::new();
        for file in &files {
            let below = Path::new(&file.path)
                .components()
                .all(|part| matches!(part, Component::Normal(_)));
            assert!(below, "{:?} leads elsewhere", file.path);
            assert!(paths.insert(file.path.to_lowercase()), "{} is there twice", file.path);
            assert!(read(&file.text, LIMITS).is_ok(), "{}", file.text);
        }
    }
}
