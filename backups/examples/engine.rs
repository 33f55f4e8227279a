//! The engine without the command line: `init|backup|restore|check REPOSITORY [PATH]` with the password in
//! `OPSCTL_EXAMPLE_PASSWORD`. What `cargo xtask bench backup` profiles; no product.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use backups::repo::InitOptions;
use backups::source::{Excludes, FilesSource};
use backups::store::LocalStore;
use backups::{
    BackupOptions, CheckOptions, Error, Parent, ReadData, Repository, RestoreOptions, Silent, SnapshotFilter,
};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments).await {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                eprintln!("  {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[&str]) -> Result<String, Error> {
    let password = std::env::var("OPSCTL_EXAMPLE_PASSWORD").unwrap_or_default();
    let (verb, repository, path) = match arguments {
        [verb, repository] => (*verb, *repository, ""),
        [verb, repository, path] => (*verb, *repository, *path),
        _ => return Err(Error::Invalid("init|backup|restore|check REPOSITORY [PATH]".to_owned())),
    };
    let store = Arc::new(LocalStore::new(repository));
    let cancel = CancellationToken::new();
    if verb == "init" {
        let made = Repository::init(store, &password, &InitOptions::default()).await?;
        return Ok(format!("made {}", made.id()));
    }
    let repository = Repository::open(store, &password).await?;
    match verb {
        "backup" => {
            let path = std::path::absolute(path).map_err(Error::Output)?;
            let options = BackupOptions {
                now: backups::now(),
                host: "example".to_owned(),
                username: String::new(),
                tags: Vec::new(),
                parent: Parent::Latest,
            };
            let source = FilesSource::new(vec![path], Excludes::default());
            let report = backups::backup(&repository, &source, &options, &Silent, &cancel).await?;
            Ok(format!("{report:#?}"))
        }
        "restore" => {
            let latest = backups::snapshots::find(&repository, "latest", &SnapshotFilter::default()).await?;
            let options = RestoreOptions::default();
            let report = backups::restore(&repository, &latest.id, Path::new(path), &options, &Silent, &cancel).await?;
            Ok(format!("{report:#?}"))
        }
        "check" => {
            let options = CheckOptions {
                read_data: ReadData::All,
            };
            Ok(format!(
                "{:#?}",
                backups::check(&repository, &options, &Silent, &cancel).await?
            ))
        }
        other => Err(Error::Invalid(format!("{other} is no verb"))),
    }
}
