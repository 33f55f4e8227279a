//! `opsctl init`: writes an opsctl.toml with comments for a service in any language, and makes the password file of the
//! repository. In a folder that has an opsctl.toml it makes only what is missing.

mod template;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use backups::Repository as Engine;
use serde::Serialize;

use crate::config::{self, Config, FILE_NAME, SecretSource};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::repository;
use template::Answers;

/// Write an opsctl.toml, make the repository's password
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// The service's name
    #[arg(long, value_name = "NAME")]
    service: Option<String>,

    /// What runs it, for example "python3 app.py"
    #[arg(long, value_name = "COMMAND")]
    command: Option<String>,

    /// What builds it, for example "cargo build --release"
    #[arg(long, value_name = "COMMAND")]
    build: Option<String>,

    /// Its readiness check, a path on its HTTP port
    #[arg(long, value_name = "PATH")]
    health: Option<String>,

    /// The stable port that its users call
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// How many instances run
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    replicas: u32,

    /// A SQLite database that it uses, to be backed up
    #[arg(long, value_name = "FILE")]
    sqlite: Option<PathBuf>,

    /// A file or folder that it uses, to be backed up
    #[arg(long, value_name = "PATH")]
    files: Option<PathBuf>,
}

fn help() -> String {
    format!(
        "Examples:\n  # A Python service with a SQLite database\n  \
         opsctl init --service shop --command \"python3 app.py\" --health /healthz --port 8080 --sqlite shop.db\n\n  \
         # On a fresh copy of a project that has an opsctl.toml: make the password file\n  opsctl init\n\n\
         On a terminal it asks for what is missing. A service of any language is told where to listen by the\n\
         variable HTTP_ADDR (host:port); see `opsctl help environment`.\n\n{}",
        Exit::section(&[Exit::Failed, Exit::Usage, Exit::Refused])
    )
}

#[derive(Default, Serialize)]
struct Document {
    schema: &'static str,
    r#type: &'static str,
    made: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let file = context.cwd().join(FILE_NAME);
    let mut made = Vec::new();
    if file.symlink_metadata().is_err() {
        // What is written must be trusted afterwards.
        config::check_trust(context, context.cwd())?;
        let answers = ask(args, context)?;
        write_new(&file, template::render(&answers).as_bytes(), 0o644)
            .map_err(|error| Failure::io(format!("could not write `{FILE_NAME}`"), &error))?;
        made.push(file);
    } else if args.service.is_some() || args.command.is_some() {
        return Err(Failure::refused("exists", format!("`{FILE_NAME}` exists already"))
            .cause("init never changes a file that is there")
            .help("add the service by hand, see `opsctl help config`"));
    }
    let config = config::load(context)?;
    make_state(context, &config, &mut made)?;
    make_passwords(context, &config, &mut made)?;

    let document = Document {
        schema: "opsctl.init/v1",
        r#type: "init",
        made: made.iter().map(|path| path.display().to_string()).collect(),
    };
    context.out.answer(&document, |_| {
        made.iter().map(|path| format!("{}\n", context.shown(path))).collect()
    })?;
    if made.is_empty() {
        context.out.note("nothing to do: everything is there");
    } else {
        context.out.done(format!("ready: {}", context.shown(&config.file)));
    }
    context.out.next("opsctl up, then opsctl backup");
    Ok(Exit::Done)
}

fn ask(args: &Args, context: &Context) -> Result<Answers, Failure> {
    let question = |given: &Option<String>, question: &str, flag: &str| -> Result<Option<String>, Failure> {
        if given.is_some() {
            return Ok(given.clone());
        }
        if !context.interactive() {
            return match flag {
                "" => Ok(None),
                flag => Err(
                    Failure::usage("usage", format!("`{flag}` is missing and nobody can be asked"))
                        .help("opsctl init --service NAME --command \"COMMAND\""),
                ),
            };
        }
        context.out.ask(question);
        Ok(context.read_line()?.filter(|answer| !answer.is_empty()))
    };
    let service = question(&args.service, "Name of the service:", "--service")?
        .ok_or_else(|| Failure::usage("usage", "the service needs a name"))?;
    let command = question(&args.command, "Command that runs it:", "--command")?
        .ok_or_else(|| Failure::usage("usage", "the service needs a command"))?;
    let health = question(&args.health, "Path of its readiness check (empty: a TCP connect):", "")?;
    let words = |text: &str, flag: &str| {
        split_words(text).filter(|words| !words.is_empty()).ok_or_else(|| {
            Failure::usage(
                "usage",
                format!("`{flag}` is no command: a quote is not closed, or it is empty"),
            )
        })
    };
    if let Some(path) = health.as_ref().filter(|path| !path.starts_with('/')) {
        return Err(Failure::usage(
            "usage",
            format!("`--health {path}`: expected a path that begins with `/`"),
        ));
    }
    Ok(Answers {
        command: words(&command, "--command")?,
        build: args.build.as_deref().map(|build| words(build, "--build")).transpose()?,
        service,
        health,
        port: args.port,
        replicas: args.replicas,
        sqlite: args.sqlite.clone(),
        files: args.files.clone(),
    })
}

/// Words as a shell would see them, without its expansions. `None` when a quote is not closed.
fn split_words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None | Some('"'), '\\') => word.get_or_insert_default().push(chars.next()?),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

fn make_state(context: &Context, config: &Config, made: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let state = config.state();
    let failed =
        |path: &Path, error: &std::io::Error| Failure::io(format!("could not make `{}`", context.shown(path)), error);
    if !state.is_dir() {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&state)
            .map_err(|error| failed(&state, &error))?;
        made.push(state.clone());
    }
    // Nothing in it belongs into version control, the password least of all.
    let ignore = state.join(".gitignore");
    match write_new(&ignore, b"*\n", 0o600) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(failed(&ignore, &error)),
        _ => Ok(()),
    }
}

fn make_passwords(context: &Context, config: &Config, made: &mut Vec<PathBuf>) -> Result<(), Failure> {
    // Those in buckets last, as they may be out of reach.
    let (folders, elsewhere): (Vec<_>, Vec<_>) = config
        .repositories
        .values()
        .partition(|declared| declared.folder.is_some());
    for declared in folders.into_iter().chain(elsewhere) {
        let SecretSource::File(path) = &declared.password else {
            continue;
        };
        if path.symlink_metadata().is_ok() {
            continue;
        }
        if declared.folder.is_some() || declared.bucket.is_some() {
            let store = repository::store(declared)?;
            let what = format!("could not look into repository `{}`", declared.name);
            let exists = context
                .block_on(Engine::exists(store.as_ref()))
                .map_err(|error| error::backups::failure(what, &error))?;
            if exists {
                return Err(Failure::refused(
                    "password_lost",
                    format!("repository `{}` has data and its password is missing", declared.name),
                )
                .cause("a new password would not open it")
                .help(format!("put the old password back into `{}`", context.shown(path))));
            }
        }
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|error| Failure::io(format!("could not make `{}`", context.shown(folder)), &error))?;
        }
        let password = new_password()?;
        write_new(path, password.as_bytes(), 0o600)
            .map_err(|error| Failure::io(format!("could not write `{}`", context.shown(path)), &error))?;
        context.out.note(format!(
            "keep a copy of `{}` somewhere else: without it no backup can be read",
            context.shown(path)
        ));
        made.push(path.clone());
    }
    Ok(())
}

/// 256 random bits, written so that they can be typed.
fn new_password() -> Result<zeroize::Zeroizing<String>, Failure> {
    let mut random = zeroize::Zeroizing::new([0_u8; 32]);
    getrandom::fill(random.as_mut()).map_err(|error| Failure::io("could not get random bytes", &error.into()))?;
    let mut text = zeroize::Zeroizing::new(String::new());
    for byte in random.iter() {
        text.push_str(&format!("{byte:02x}"));
    }
    text.push('\n');
    Ok(text)
}

/// Writes a file that must not exist, durably.
fn write_new(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::split_words;

    #[test]
    fn words_as_a_shell_sees_them() {
        let words = |text| split_words(text).expect("closed quotes");
        assert_eq!(
            words("python3  app.py --name 'a b' \"c d\""),
            ["python3", "app.py", "--name", "a b", "c d"]
        );
        assert_eq!(
            words(r"sh -c 'exec x ${HTTP_ADDR##*:}'"),
            ["sh", "-c", "exec x ${HTTP_ADDR##*:}"]
        );
        assert_eq!(words(r"a\ b ''"), ["a b", ""]);
        assert_eq!(split_words("a 'b"), None);
    }
}
