//! From the catalogue to what the local platform runs: programs found, ports and health named, builds run.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use opsctl_platform::local::up::{FrontDoor, ServiceSpec};
use opsctl_platform::{Health, Objectives, Probe};

use crate::config::{Config, Local, Service};
use crate::context::Context;
use crate::error::Failure;
use crate::exit::Exit;

/// A program that was found.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// Program, absolute, and arguments.
    pub(crate) command: Vec<String>,
    /// Whether a copy of it is run, so that a rebuild does not change what runs.
    pub(crate) copy: bool,
}

/// How a service runs here.
pub(crate) fn local(service: &Service) -> Result<&Local, Failure> {
    service.local.as_ref().ok_or_else(|| {
        Failure::usage(
            "not_local",
            format!("service `{}` does not say how it runs here", service.name),
        )
        .cause(format!("it is declared at {}", service.origin))
        .help(format!(
            "add `local = {{ command = [ … ] }}` to `[service.{}]`",
            service.name
        ))
    })
}

/// Everything the local platform wants to know of a service.
pub(crate) fn service(context: &Context, config: &Config, service: &Service) -> Result<ServiceSpec, Failure> {
    let local = local(service)?;
    let program = find(context, service, &local.command)?;
    let door = |port: Option<u16>, spoken: bool| match port {
        Some(port) => FrontDoor::Port(port),
        None if spoken => FrontDoor::Remembered,
        None => FrontDoor::Closed,
    };
    Ok(ServiceSpec {
        name: service.name.clone(),
        command: program.command,
        copy: program.copy,
        version: None,
        cwd: local.cwd.clone(),
        data_dir: Some(service.data_dir(&config.state())),
        env: local.env.clone(),
        replicas: local.replicas,
        depends_on: service.depends_on.clone(),
        health: health(service),
        probe: probe(service),
        objectives: objectives(service),
        http: door(local.http_port, true),
        grpc: door(local.grpc_port, service.health_grpc.is_some()),
        drain: Duration::from_secs(10),
        start_limit: Duration::from_secs(30),
    })
}

/// How its readiness is asked.
pub(super) fn health(service: &Service) -> Health {
    Health {
        http: service.health_http.clone(),
        grpc: service.health_grpc.clone(),
    }
}

/// What drills send it when nobody else does.
pub(super) fn probe(service: &Service) -> Option<Probe> {
    service.probe.as_ref().map(|probe| Probe {
        http: probe.http.clone(),
        rate: probe.rate.clone(),
    })
}

/// What it promises.
pub(super) fn objectives(service: &Service) -> Objectives {
    Objectives {
        availability_ratio: service.availability,
        latency_seconds: service.latency.map(|latency| latency.bound.as_secs_f64()),
        latency_ratio: service.latency.map(|latency| latency.quantile),
    }
}

/// Finds `command[0]`: absolute, or relative to the file when it holds a `/`, or beside the opsctl executable, or on PATH.
pub(crate) fn find(context: &Context, service: &Service, command: &[String]) -> Result<Program, Failure> {
    let [name, arguments @ ..] = command else {
        return Err(Failure::usage(
            "config_invalid",
            format!("service `{}` has an empty command", service.name),
        ));
    };
    let (path, from_path) = match locate(context, &service.folder, name)? {
        Some((path, from_path)) => (Some(path), from_path),
        None => (None, true),
    };
    let path = path.ok_or_else(|| {
        let failure = Failure::usage(
            "program_not_found",
            format!("the program `{name}` of service `{}` is not there", service.name),
        )
        .cause(format!("it is named at {}", service.origin));
        match service.local.as_ref().and_then(|local| local.build.as_ref()) {
            Some(build) => failure.help(format!("is it what `{}` builds?", build.join(" "))),
            None => failure.help(
                "a name without `/` is looked for beside opsctl and on PATH, one with `/` from the file that names it",
            ),
        }
    })?;
    let mut found = vec![path.display().to_string()];
    found.extend(arguments.iter().cloned());
    Ok(Program {
        copy: !from_path && is_binary(&path),
        command: found,
    })
}

/// The program that a name means in a file of this folder, and whether it was found on PATH.
pub(crate) fn locate(context: &Context, folder: &Path, name: &str) -> Result<Option<(PathBuf, bool)>, Failure> {
    let beside = context.executable()?.parent().unwrap_or(Path::new("/")).join(name);
    if name.contains('/') {
        return Ok(Some((folder.join(name), false)).filter(|(path, _)| runnable(path)));
    }
    if runnable(&beside) {
        return Ok(Some((beside, false)));
    }
    let folders = context
        .env("PATH")
        .unwrap_or_default()
        .split(':')
        .filter(|folder| !folder.is_empty());
    let mut paths = folders.map(|folder| Path::new(folder).join(name));
    Ok(paths.find(|path| runnable(path)).map(|path| (path, true)))
}

fn runnable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// A script may look for what lies beside it, so only binaries are run from a copy.
fn is_binary(path: &Path) -> bool {
    use std::io::Read as _;
    let mut magic = [0; 4];
    std::fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut magic))
        .is_ok()
        && magic == *b"\x7fELF"
}

/// Runs the builds of these services, each command once. What they print goes to stderr.
pub(crate) fn build(context: &Context, services: &[&Service]) -> Result<(), Failure> {
    let mut done: Vec<(&[String], &PathBuf)> = Vec::new();
    for service in services {
        let Some(local) = &service.local else { continue };
        let Some(build @ [program, arguments @ ..]) = local.build.as_deref() else {
            continue;
        };
        if done.contains(&(build, &local.cwd)) {
            continue;
        }
        done.push((build, &local.cwd));
        context
            .out
            .note(format!("building {}: {}", service.name, build.join(" ")));
        let failed = || {
            Failure::new(
                Exit::Failed,
                "build_failed",
                format!("could not build `{}`", service.name),
            )
        };
        let status = Command::new(program)
            .args(arguments)
            .current_dir(&local.cwd)
            .stdin(Stdio::null())
            .stdout(stderr()?)
            .status()
            .map_err(|error| failed().cause(format!("could not start `{program}`")).because(&error))?;
        if !status.success() {
            return Err(failed().cause(format!("`{}` ended with {status}", build.join(" "))));
        }
    }
    Ok(())
}

fn stderr() -> Result<Stdio, Failure> {
    rustix::io::dup(std::io::stderr())
        .map(Stdio::from)
        .map_err(|error| Failure::io("could not share stderr with the build", &error.into()))
}
