//! Which service or datastore a command means: the argument, else the only one, else the environment's default
//! service, else the answer to a question on a terminal, else exit 2 with the choices.

use crate::config::{Config, Datastore, Service, suggestion};
use crate::consent;
use crate::context::Context;
use crate::error::Failure;

/// Every datastore that `backup` means: the named one, those of the named service, or all.
pub(crate) fn stores<'a>(config: &'a Config, target: Option<&str>) -> Result<Vec<&'a Datastore>, Failure> {
    let Some(target) = target else {
        if config.datastores.is_empty() {
            return Err(Failure::usage(
                "nothing_declared",
                "there is nothing to back up: no datastore is declared",
            )
            .help("declare one in opsctl.toml, see `opsctl help config`"));
        }
        return Ok(config.datastores.values().collect());
    };
    named(config, target)
}

/// The one datastore that `restore` means.
pub(crate) fn store<'a>(context: &Context, config: &'a Config, target: Option<&str>) -> Result<&'a Datastore, Failure> {
    let candidates = match target {
        Some(target) => named(config, target)?,
        None if config.datastores.len() == 1 => config.datastores.values().collect(),
        None => match default_service(config) {
            Some(service) if !service.uses.is_empty() => used_by(config, service),
            _ => config.datastores.values().collect(),
        },
    };
    choose(context, "datastore", candidates, |store| &store.name)
}

/// The one service that `drill`, `deploy` and `logs` mean.
pub(crate) fn service<'a>(context: &Context, config: &'a Config, target: Option<&str>) -> Result<&'a Service, Failure> {
    if let Some(target) = target {
        return config
            .services
            .get(target)
            .ok_or_else(|| unknown_service(config, target));
    }
    if config.services.len() == 1
        && let Some(only) = config.services.values().next()
    {
        return Ok(only);
    }
    if let Some(service) = default_service(config) {
        return Ok(service);
    }
    choose(context, "service", config.services.values().collect(), |service| {
        &service.name
    })
}

/// There is no such service.
pub(crate) fn unknown_service(config: &Config, name: &str) -> Failure {
    let failure = Failure::usage("unknown_service", format!("there is no service `{name}`"));
    let known: Vec<&str> = config.services.keys().map(String::as_str).collect();
    told(failure, name, &known)
}

/// There is no such thing of that kind; `known` are.
pub(crate) fn unknown(kind: &'static str, name: &str, known: &[String]) -> Failure {
    let code = match kind {
        "policy" => "unknown_policy",
        _ => "unknown_instance",
    };
    let failure = Failure::usage(code, format!("there is no {kind} `{name}`")).cause(if known.is_empty() {
        "there is none at all".to_owned()
    } else {
        format!("there are {}", known.join(", "))
    });
    match suggestion(name, known.iter().map(String::as_str)) {
        Some(near) => failure.help(format!("did you mean `{near}`?")),
        None => failure,
    }
}

fn default_service(config: &Config) -> Option<&Service> {
    config.services.get(config.environment.default_service.as_deref()?)
}

fn used_by<'a>(config: &'a Config, service: &Service) -> Vec<&'a Datastore> {
    let mut stores: Vec<&Datastore> = service
        .uses
        .iter()
        .filter_map(|used| config.datastores.get(&used.store))
        .collect();
    stores.dedup_by_key(|store| &store.name);
    stores
}

fn named<'a>(config: &'a Config, target: &str) -> Result<Vec<&'a Datastore>, Failure> {
    if let Some(store) = config.datastores.get(target) {
        return Ok(vec![store]);
    }
    if let Some(service) = config.services.get(target) {
        let stores = used_by(config, service);
        if stores.is_empty() {
            return Err(
                Failure::usage("uses_nothing", format!("service `{target}` uses no datastore"))
                    .help("name its datastores in `uses`, see `opsctl help config`"),
            );
        }
        return Ok(stores);
    }
    let failure = Failure::usage("unknown_target", format!("there is no datastore or service `{target}`"));
    let known: Vec<&str> = config
        .datastores
        .keys()
        .chain(config.services.keys())
        .map(String::as_str)
        .collect();
    Err(told(failure, target, &known))
}

fn told(failure: Failure, name: &str, known: &[&str]) -> Failure {
    let failure = match known {
        [] => failure.cause("opsctl.toml declares none"),
        known => failure.cause(format!("declared are {}", known.join(", "))),
    };
    match suggestion(name, known.iter().copied()) {
        Some(near) => failure.help(format!("did you mean `{near}`?")),
        None => failure,
    }
}

fn choose<'a, T>(
    context: &Context,
    what: &str,
    candidates: Vec<&'a T>,
    name: impl Fn(&T) -> &String,
) -> Result<&'a T, Failure> {
    match candidates.as_slice() {
        [] => Err(
            Failure::usage("nothing_declared", format!("there is no {what}: none is declared"))
                .help("declare one in opsctl.toml, see `opsctl help config`"),
        ),
        [only] => Ok(only),
        several => {
            let names: Vec<String> = several.iter().map(|candidate| name(candidate).clone()).collect();
            if context.interactive()
                && let Some(index) = consent::pick(context, &format!("which {what}?"), &names)?
            {
                return Ok(several[index]);
            }
            Err(
                Failure::usage("ambiguous", format!("which {what} is meant is not clear"))
                    .details(names)
                    .help("name one of these, or set `default_service` in `[env.…]` of opsctl.toml"),
            )
        }
    }
}
