//! Alertmanager takes its file, and each alert goes where it should.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use alerts::render::{Alert, RuleFile, Settings, render};
use manifest::landscape::{Landscape, Team, Webhook};

use crate::judges::told;
use crate::landscapes;

struct Amtool(PathBuf);

impl Amtool {
    fn find(test: &str) -> Option<Self> {
        peers::peer("amtool", test).map(Self)
    }

    fn check(&self, file: &Path) {
        told(&Command::new(&self.0).arg("check-config").arg(file).output().unwrap()).unwrap();
    }

    /// Where an alert goes.
    fn route(&self, file: &Path, alert: &Alert) -> String {
        let labels = alert.labels.iter().map(|(name, value)| format!("{name}={value}"));
        let output = Command::new(&self.0)
            .args(["config", "routes", "test"])
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("alertname={}", alert.name))
            .args(labels)
            .output()
            .unwrap();
        told(&output).unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

fn written(landscape: &Landscape, folder: &Path) -> (PathBuf, Vec<Alert>, Vec<String>) {
    let settings = Settings {
        watchdog_file: Some("/run/secrets/watchdog".to_owned()),
        ..Settings::default()
    };
    let rendered = render(landscape, &settings).unwrap();
    let file = rendered.alertmanager();
    let path = folder.join(&file.path);
    fs::write(&path, &file.text).unwrap();
    let alerts = rendered.rules.iter().flat_map(RuleFile::alerts).cloned().collect();
    (path, alerts, rendered.notes)
}

#[test]
fn every_alert_goes_to_the_team_that_owns_it() {
    let Some(amtool) = Amtool::find("every_alert_goes_to_the_team_that_owns_it") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (file, alerts, _) = written(&landscapes::cluster(), folder.path());
    amtool.check(&file);
    let mut seen: Vec<(&str, String)> = Vec::new();
    for alert in &alerts {
        let team = alert.labels.iter().find(|(label, _)| label == "team");
        let team = team.map_or("", |(_, team)| team.as_str());
        if !seen.iter().any(|(name, of)| *name == alert.name && of == team) {
            seen.push((alert.name, team.to_owned()));
            let expected = match (alert.name, team) {
                ("Watchdog", _) => "watchdog",
                (_, "pay") => "team-pay",
                (_, "shop") => "team-shop",
                _ => "everybody",
            };
            assert_eq!(amtool.route(&file, alert), expected, "{} of {team}", alert.name);
        }
    }
    assert!(seen.len() > 25, "{seen:?}");
}

#[test]
fn an_address_is_named_and_never_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut landscape = landscapes::cluster();
    landscape.teams.push(Team {
        name: "data".to_owned(),
        webhook: Some(Webhook::Elsewhere),
    });
    let (file, _, notes) = written(&landscape, folder.path());
    let text = fs::read_to_string(&file).unwrap();
    for path in [
        "/run/secrets/pay",
        "/etc/alertmanager/secrets/shop-alerts/url",
        "/etc/alertmanager/secrets/data/webhook",
        "/run/secrets/watchdog",
    ] {
        assert!(text.contains(&format!("url_file: \"{path}\"")), "{path}\n{text}");
    }
    assert!(!text.contains("url:"), "{text}");
    assert!(
        notes.iter().any(|note| note.starts_with("team `data`: only opsctl")),
        "{notes:?}"
    );
}

#[test]
fn a_team_without_a_webhook_is_no_silence() {
    let Some(amtool) = Amtool::find("a_team_without_a_webhook_is_no_silence") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut landscape = landscapes::cluster();
    landscape.teams.retain(|team| team.name != "pay");
    let (file, alerts, notes) = written(&landscape, folder.path());
    amtool.check(&file);
    assert_eq!(amtool.route(&file, &alerts[0]), "everybody");
    assert!(
        notes.iter().any(|note| note.starts_with("team `pay` has no webhook")),
        "{notes:?}"
    );

    let (file, alerts, notes) = written(&landscapes::reference(), folder.path());
    amtool.check(&file);
    assert_eq!(amtool.route(&file, &alerts[0]), "everybody");
    assert!(
        notes.iter().any(|note| note.starts_with("no team has a webhook")),
        "{notes:?}"
    );
}
