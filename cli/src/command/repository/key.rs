//! `opsctl repository key`: the passwords that open the repository. A password is read from a file, never from a flag.

use std::path::PathBuf;

use backups::repo::KdfParams;
use backups::{Error, Repository as Engine};
use clap::Subcommand;
use serde::Serialize;

use crate::config::{self, Config, Secret, SecretSource};
use crate::consent::{ConsentArgs, Consequence, Stake, approve};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::{Style, Table};
use crate::repository::{self, IfEmpty};

/// List, add, remove and replace the passwords of the repository
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Add(Add),
    Remove(Remove),
    Rotate(Rotate),
}

/// List the key files; each is opened by one password
#[derive(Debug, clap::Args)]
#[command(after_long_help = help("# Who can open it\n  opsctl repository key list", "The one marked with * is opened by the password in use. Which password opens another nobody can tell."))]
struct List {
    #[command(flatten)]
    which: Which,
}

/// Let another password open the repository
#[derive(Debug, clap::Args)]
#[command(after_long_help = help("# A second password\n  opsctl repository key add --new-password-file /run/secrets/second", "The first line of the file is the password. A repository has at most 20 key files, as many as restic tries."))]
struct Add {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    new: New,
    #[command(flatten)]
    consent: ConsentArgs,
}

/// Remove a key file; its password opens the repository no more
#[derive(Debug, clap::Args)]
#[command(after_long_help = help("# The password of somebody who left\n  opsctl repository key remove 3f8a01bc", "The key file in use is never removed; `key rotate` replaces it. Copies of the repository made earlier are still opened."))]
struct Remove {
    /// The key file, by the first digits of its id
    #[arg(value_name = "KEY")]
    key: String,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    consent: ConsentArgs,
}

/// Replace the password in use by another
#[derive(Debug, clap::Args)]
#[command(after_long_help = help("# Then put the new password where `password` of the repository says\n  opsctl repository key rotate --new-password-file new-password", "The new one is added and tried before the old one is removed: cut in the middle, both open the repository."))]
struct Rotate {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    new: New,
    #[command(flatten)]
    consent: ConsentArgs,
}

/// Which repository.
#[derive(Debug, clap::Args)]
struct Which {
    /// Which repository of opsctl.toml, instead of the environment's
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,
}

/// The new password.
#[derive(Debug, clap::Args)]
struct New {
    /// The file whose first line is the new password
    #[arg(long, value_name = "FILE")]
    new_password_file: PathBuf,
}

impl New {
    fn fetch(&self, context: &Context) -> Result<Secret, Failure> {
        SecretSource::File(context.absolute(&self.new_password_file)).fetch(context, "the new password")
    }
}

fn help(example: &str, more: &str) -> String {
    format!(
        "Examples:\n  {example}\n\n{more}\n\n{}",
        Exit::section(&[Exit::Failed, Exit::Usage, Exit::Refused, Exit::Locked])
    )
}

/// What was done, in documents.
#[derive(Serialize)]
struct Document {
    schema: &'static str,
    r#type: &'static str,
    repository: String,
    added: Option<String>,
    removed: Vec<String>,
    keys: Vec<Told>,
    damaged: Vec<String>,
}

#[derive(Serialize)]
struct Told {
    key: String,
    user: String,
    host: String,
    created: jiff::Timestamp,
    current: bool,
}

/// What changed.
#[derive(Default)]
struct Changed {
    added: Option<backups::Id>,
    removed: Vec<backups::Id>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    match &args.command {
        Command::List(args) => change(context, &config, &args.which, "keys", async |_, _| {
            Ok(Changed::default())
        }),
        Command::Add(args) => {
            let declared = repository::declared(&config, args.which.repository.as_deref())?;
            let password = args.new.fetch(context)?;
            let question = format!("let another password open repository `{}`?", declared.name);
            consent(
                context,
                &config,
                &args.consent,
                declared,
                question,
                Consequence::UndoneByItself,
            )?;
            change(context, &config, &args.which, "key_added", async move |engine, _| {
                let added = engine.add_key(password.expose(), KdfParams::default()).await?;
                Ok(Changed {
                    added: Some(added),
                    removed: Vec::new(),
                })
            })
        }
        Command::Remove(args) => {
            let declared = repository::declared(&config, args.which.repository.as_deref())?;
            let question = format!("remove key file `{}` of repository `{}`?", args.key, declared.name);
            consent(
                context,
                &config,
                &args.consent,
                declared,
                question,
                Consequence::ReplacesData,
            )?;
            change(context, &config, &args.which, "key_removed", async |engine, _| {
                Ok(Changed {
                    added: None,
                    removed: vec![engine.remove_key(&args.key).await?],
                })
            })
        }
        Command::Rotate(args) => {
            let declared = repository::declared(&config, args.which.repository.as_deref())?;
            let password = args.new.fetch(context)?;
            let question = format!("replace the password of repository `{}`?", declared.name);
            consent(
                context,
                &config,
                &args.consent,
                declared,
                question,
                Consequence::ReplacesData,
            )?;
            let outcome = change(
                context,
                &config,
                &args.which,
                "key_rotated",
                async move |engine, old| {
                    let rotated = engine.rotate_key(old.expose(), password.expose(), KdfParams::default());
                    let (added, removed) = rotated.await?;
                    Ok(Changed {
                        added: Some(added),
                        removed,
                    })
                },
            )?;
            context.out.warn(format!(
                "the password that opsctl.toml names opens repository `{}` no more: put the new one there, and a copy elsewhere",
                declared.name
            ));
            Ok(outcome)
        }
    }
}

fn consent(
    context: &Context,
    config: &Config,
    args: &ConsentArgs,
    declared: &config::Repository,
    question: String,
    consequence: Consequence,
) -> Result<(), Failure> {
    let stake = Stake {
        question,
        name: &declared.name,
        consequence,
        protected: config.protected(),
    };
    approve(context, args, (), &stake).map(crate::consent::Approved::into_plan)
}

/// Opens the repository, changes its keys, and tells which there are.
fn change<F>(
    context: &Context,
    config: &Config,
    which: &Which,
    r#type: &'static str,
    work: impl FnOnce(Engine, Secret) -> F,
) -> Outcome
where
    F: Future<Output = Result<Changed, Error>>,
{
    let declared = repository::declared(config, which.repository.as_deref())?;
    let failed = |error| {
        error::backups::failure(
            format!("could not do that to the keys of repository `{}`", declared.name),
            &error,
        )
    };
    repository::cancellable(context, async |cancel| {
        let engine = repository::open(context, declared, IfEmpty::Fail).await?;
        let old = repository::password(context, declared)?;
        let changed = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            changed = work(engine.clone(), old) => changed,
        };
        let changed = changed.map_err(failed)?;
        let list = engine.keys().await.map_err(failed)?;
        let document = Document {
            schema: "opsctl.keys/v1",
            r#type,
            repository: declared.name.clone(),
            added: changed.added.map(|id| id.to_string()),
            removed: changed.removed.iter().map(ToString::to_string).collect(),
            keys: list
                .keys
                .iter()
                .map(|key| Told {
                    key: key.id.to_string(),
                    user: key.username.clone(),
                    host: key.host.clone(),
                    created: key.created,
                    current: key.current,
                })
                .collect(),
            damaged: list
                .damaged
                .iter()
                .map(|(id, damage)| format!("{id} is {damage}"))
                .collect(),
        };
        context.out.answer(&document, |paint| {
            let mut table = Table::new(&["key", "user", "host", "created"]);
            for told in &document.keys {
                let mark = if told.current { "*" } else { "" };
                table.styled(vec![
                    (format!("{}{mark}", &told.key[..8]), Some(Style::Hint)),
                    (told.user.clone(), None),
                    (told.host.clone(), None),
                    (told.created.strftime("%Y-%m-%d %H:%M:%SZ").to_string(), None),
                ]);
            }
            table.render(paint, context.out.width)
        })?;
        for damaged in &document.damaged {
            context.out.warn(format!("key file {damaged}"));
        }
        if let Some(added) = &document.added {
            context.out.done(format!("added key file {}", &added[..8]));
        }
        for removed in &document.removed {
            context.out.done(format!("removed key file {}", &removed[..8]));
        }
        Ok(if document.damaged.is_empty() {
            Exit::Done
        } else {
            Exit::Partial
        })
    })
}
