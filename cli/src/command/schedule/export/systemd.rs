//! A service and a timer of systemd for each schedule, and a service for what goes on all the time.

use super::{Made, slug, slug_of};
use crate::config::{Config, Datastore, Schedule};
use crate::context::Context;
use crate::error::Failure;
use crate::schedule::{staying, what};

/// The units.
pub(super) fn files(
    context: &Context,
    config: &Config,
    schedules: &[&Schedule],
    stays: &[&Datastore],
) -> Result<Vec<Made>, Failure> {
    let executable = context.executable()?;
    let mut files = Vec::new();
    for store in stays {
        let command = [
            &executable.display().to_string(),
            "--config",
            &config.file.display().to_string(),
            "--env",
            &config.environment.name,
            "--no-input",
        ];
        let command = command.into_iter().map(str::to_owned).chain(staying::command(store));
        let command: Vec<String> = command.map(|word| quoted(&word)).collect();
        files.push(Made {
            name: format!("{}.service", slug_of(store)),
            content: format!(
                "[Unit]\nDescription=opsctl: {}\nDocumentation=man:opsctl(1)\nWants=network-online.target\nAfter=network-online.target\n\
                 # Nobody gives it up.\nStartLimitIntervalSec=0\n\n\
                 [Service]\nType=exec\nWorkingDirectory={}\nExecStart={}\nRestart=always\nRestartSec=10s\nUMask=0077\nNoNewPrivileges=yes\n\
                 # It keeps what it has received; a second signal would cut it short.\nKillMode=mixed\nTimeoutStopSec=2min\n\n\
                 [Install]\nWantedBy=multi-user.target\n",
                percent(&staying::command(store).join(" ")),
                percent(&config.root.display().to_string()),
                command.join(" ")
            ),
        });
    }
    for schedule in schedules {
        let name = slug(schedule);
        let mut command = vec![
            executable.display().to_string(),
            "--config".to_owned(),
            config.file.display().to_string(),
            "--env".to_owned(),
            config.environment.name.clone(),
            "--no-input".to_owned(),
            "schedule".to_owned(),
            "run".to_owned(),
            schedule.name.clone(),
        ];
        // The timer spreads the starts itself; only quiet hours are ours.
        if !schedule.timing.quiet.is_empty() {
            command.push("--as-scheduled".to_owned());
        }
        if config.protected().is_some() {
            command.extend(["--yes", "--reason", "systemd timer"].map(str::to_owned));
        }
        let command: Vec<String> = command.iter().map(|word| quoted(word)).collect();
        files.push(Made {
            name: format!("{name}.service"),
            content: format!(
                "[Unit]\nDescription=opsctl: {}\nDocumentation=man:opsctl(1)\nWants=network-online.target\nAfter=network-online.target\n\n\
                 [Service]\nType=oneshot\nWorkingDirectory={}\nExecStart={}\nUMask=0077\nNoNewPrivileges=yes\nNice=10\nIOSchedulingClass=idle\n\
                 # Ends what runs in order; a second signal would cut it short.\nKillMode=mixed\nTimeoutStopSec=10min\n",
                percent(&what(schedule)),
                percent(&config.root.display().to_string()),
                command.join(" ")
            ),
        });
        let calendar: String = schedule
            .timing
            .expression
            .on_calendar(&schedule.timing.zone)
            .iter()
            .map(|line| format!("OnCalendar={line}\n"))
            .collect();
        let jitter = schedule.timing.jitter.as_secs();
        let spread = if jitter > 0 && schedule.timing.quiet.is_empty() {
            format!("RandomizedDelaySec={jitter}s\nFixedRandomDelay=true\n")
        } else {
            String::new()
        };
        files.push(Made {
            name: format!("{name}.timer"),
            content: format!(
                "[Unit]\nDescription=opsctl: when {} is due ({})\n\n[Timer]\n{calendar}{spread}AccuracySec=1s\n\
                 # A run that was missed is made up for, once.\nPersistent=true\n\n[Install]\nWantedBy=timers.target\n",
                percent(&what(schedule)),
                percent(&schedule.timing.expression.to_string()),
            ),
        });
    }
    Ok(files)
}

/// A percent sign begins a specifier.
fn percent(text: &str) -> String {
    text.replace('%', "%%").replace('\n', " ")
}

/// A word of a command line, systemd.service(5).
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/' | '.' | ':' | '=' | '+' | '@');
    let escaped = percent(word)
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('$', "$$");
    if !word.is_empty() && word.chars().all(plain) {
        escaped
    } else {
        format!("\"{escaped}\"")
    }
}
