//! How long a person waits for `opsctl --help` and `opsctl status`: whole processes, beside the emptiest program there is.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use super::{machine, page::Section, program};
use crate::step;

const RUNS: usize = 41;
const SERVICES: [&str; 4] = ["identity", "payments", "notifications", "orders"];

/// Measures with the reference services up, two instances of each.
pub fn measure() -> Result<Section> {
    program::build(&["opsctl", "identity", "orders", "payments", "notifications"])?;
    let opsctl = program::release("opsctl")?;
    let folder = tempfile::tempdir().context("could not make a scratch folder")?;
    let catalogue = catalogue()?;
    let file = folder.path().join("opsctl.toml");
    fs::write(&file, catalogue)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&opsctl);
        command
            .args(arguments)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stdin(Stdio::null());
        command
    };
    step::run(&mut run(&["up"]))?;
    let measured = (|| -> Result<_> {
        Ok((
            median(&mut run(&["--help"]))?,
            median(&mut run(&["status"]))?,
            median(&mut nothing(folder.path()))?,
        ))
    })();
    step::run(&mut run(&["down"]))?;
    let (help, status, floor) = measured?;
    Ok(Section {
        area: "command-line",
        title: "Command line",
        method: format!(
            "Whole processes from start to exit, median of {RUNS}, {} services with two instances each up; `/bin/true` is the floor of the machine.\n\n{}",
            SERVICES.len(),
            machine::describe()
        ),
        columns: vec!["command", "ms", "bar"],
        rows: vec![
            vec!["opsctl --help".into(), format!("{help:.1}"), "10".into()],
            vec!["opsctl status".into(), format!("{status:.1}"), "30".into()],
            vec!["/bin/true".into(), format!("{floor:.1}"), String::new()],
        ],
    })
}

/// The reference catalogue with the programs that were just built, instead of the command that builds them.
fn catalogue() -> Result<String> {
    let file = peers::workspace_root().join("opsctl.toml");
    let mut catalogue: toml::Table = toml::from_str(&fs::read_to_string(file)?)?;
    let defaults = table(&mut catalogue, "defaults")?;
    table(table(defaults, "service")?, "local")?.remove("build");
    let services = table(&mut catalogue, "service")?;
    for name in SERVICES {
        let program = program::release(name)?.display().to_string();
        table(table(services, name)?, "local")?.insert("command".into(), vec![program].into());
    }
    Ok(toml::to_string(&catalogue)?)
}

fn table<'a>(parent: &'a mut toml::Table, key: &str) -> Result<&'a mut toml::Table> {
    let table = parent.get_mut(key).and_then(toml::Value::as_table_mut);
    table.with_context(|| format!("opsctl.toml has no table `{key}`"))
}

fn nothing(folder: &Path) -> Command {
    let mut command = Command::new("/bin/true");
    command.current_dir(folder);
    command
}

/// The median wall time of a whole process, in milliseconds.
#[expect(
    clippy::disallowed_methods,
    reason = "a measurement of a whole process reads the real clock"
)]
fn median(command: &mut Command) -> Result<f64> {
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let started = std::time::Instant::now();
        step::run(command)?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[RUNS / 2])
}
