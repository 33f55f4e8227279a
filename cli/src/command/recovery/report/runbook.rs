//! What the document says: for each datastore what is promised, what was measured, and what to type to bring it back.
//! Pure: from the catalogue, the snapshots and the drills alone, without the time of day.

use std::path::Path;

use backups::proof::judge::seconds;
use backups::proof::standing::Standing;
use backups::proof::{Expectation, Group, Outcome, Phases, Proof, Verdict};
use jiff::Timestamp;

use super::page::Block;
use crate::command::recovery::stores::{Known, Store};
use crate::config::{Config, DatastoreKind, PlatformKind, Repository, SecretSource};
use crate::output::{bytes, plural};
use crate::repository::{environment_tag, path_of, store_tag};

/// So many drills are told of each datastore.
const HISTORY: usize = 10;

/// The whole document.
pub(super) fn document(known: &Known) -> Vec<Block> {
    let environment = &known.config.environment.name;
    let mut blocks = vec![
        Block::Title(format!("Recovery of {environment}")),
        Block::Text(
            "What may be lost (RPO), how long coming back may take (RTO), what restore drills have measured of both, and \
             what to type to bring each datastore back. Times are UTC."
                .to_owned(),
        ),
        Block::Table(
            vec!["Datastore", "RPO promised", "Lost in the last drill", "RTO promised", "Took in the last drill", "Last proof", "Last backup"],
            known.stores.iter().map(overview).collect(),
        ),
    ];
    for store in &known.stores {
        blocks.extend(measured(store));
        blocks.extend(runbook(known, store));
    }
    blocks.retain(|block| !matches!(block, Block::List(items) if items.is_empty()));
    if !known.damaged.is_empty() {
        blocks.push(Block::Section("Damaged".to_owned()));
        blocks.push(Block::Text(
            "These could not be read, and may be of any datastore:".to_owned(),
        ));
        blocks.push(Block::List(known.damaged.clone()));
    }
    blocks
}

fn overview(store: &Store) -> Vec<String> {
    let objectives = &store.declared.proof.objectives;
    let last = store.drills.last();
    let proved = store.drills.iter().rev().find(|proof| proof.verdict == Verdict::Proved);
    vec![
        store.declared.name.clone(),
        or_dash(objectives.rpo_seconds.map(seconds)),
        or_dash(last.and_then(|proof| proof.rpo_seconds).map(seconds)),
        or_dash(objectives.rto_seconds.map(seconds)),
        or_dash(last.and_then(|proof| proof.rto_seconds).map(seconds)),
        proved.map_or_else(|| "never".to_owned(), |proof| time(proof.at)),
        store
            .snapshots
            .last()
            .map_or_else(|| "never".to_owned(), |record| time(record.snapshot.time)),
    ]
}

/// What was measured.
fn measured(store: &Store) -> Vec<Block> {
    let name = &store.declared.name;
    // Nothing that depends on the time of day is taken from it.
    let standing: Standing = store.standing(Timestamp::UNIX_EPOCH);
    let mut facts = vec![format!(
        "{} kept",
        plural(standing.snapshots as u64, "snapshot is", "snapshots are")
    )];
    if let Some(last) = &standing.last_backup {
        let size = last.bytes.map_or_else(String::new, |size| format!(", {}", bytes(size)));
        let partial = if last.partial {
            ", partial: something could not be read"
        } else {
            ""
        };
        facts.push(format!(
            "the last one is {} of {}{size}{partial}",
            last.snapshot.short(),
            time(last.time)
        ));
    }
    if let Some(gap) = standing.longest_gap_seconds {
        facts.push(format!(
            "the longest time between two whole snapshots was {}",
            seconds(gap)
        ));
    }
    if let Some(a_day) = standing.trend.bytes_a_day {
        let sign = if a_day < 0.0 { "shrinks" } else { "grows" };
        facts.push(format!("it {sign} by {} a day", bytes(a_day.abs() as u64)));
    }
    if let Some(every) = standing.objectives.prove_every_seconds {
        facts.push(format!("it is to be proved every {}", seconds(every)));
    }
    let mut blocks = vec![Block::Section(format!("{name}: what was measured")), Block::List(facts)];
    if store.drills.is_empty() {
        blocks.push(Block::Text("No restore drill has measured anything yet.".to_owned()));
        return blocks;
    }
    let rows = store.drills.iter().rev().take(HISTORY).map(|proof| {
        vec![
            time(proof.at),
            proof.snapshot.short(),
            proof.verdict.as_str().to_owned(),
            or_dash(proof.rto_seconds.map(seconds)),
            or_dash(proof.rpo_seconds.map(seconds)),
            bytes(proof.bytes),
            proof.host.clone(),
        ]
    });
    blocks.push(Block::Table(
        vec!["Drill", "Snapshot", "Verdict", "Took", "Lost", "Restored", "On"],
        rows.collect(),
    ));
    if let Some(last) = store.drills.last().filter(|proof| proof.verdict != Verdict::Proved) {
        blocks.push(Block::Text(format!(
            "The last drill ended with “{}”:",
            last.verdict.as_str()
        )));
        blocks.push(Block::List(
            last.open()
                .map(|check| {
                    format!(
                        "{}: {}: {}, expected {}",
                        check.name,
                        check.outcome.as_str(),
                        check.observed,
                        check.expected
                    )
                })
                .collect(),
        ));
    }
    blocks
}

/// What to type, and how long it takes.
fn runbook(known: &Known, store: &Store) -> Vec<Block> {
    let (config, declared) = (&known.config, &store.declared);
    let name = &declared.name;
    let opsctl = format!("opsctl -e {}", config.environment.name);
    let mut blocks = vec![Block::Section(format!("{name}: restore runbook"))];
    blocks.push(Block::List(premises(known, store)));
    blocks.extend(expected(store));

    let Ok(path) = path_of(declared) else {
        blocks.push(Block::Text(format!(
            "This opsctl does not restore the kind {} by itself.",
            declared.kind.word()
        )));
        return blocks;
    };
    blocks.push(Block::Text(
        "Step 1: see which snapshots there are; the column “proved” says which came back in a drill.".to_owned(),
    ));
    blocks.push(Block::Code(vec![format!("{opsctl} snapshot list {name}")]));
    blocks.push(Block::Text(format!(
        "Step 2: bring the last one back beside the original, as {}.restored- and its id. Nothing is replaced. For an earlier \
         state add --snapshot and its id.",
        path.display()
    )));
    blocks.push(Block::Code(vec![format!("{opsctl} restore {name}")]));
    if declared.ship.is_some() {
        blocks.push(Block::Text(
            "Changes are shipped between snapshots, so that it also comes back as it was at a second:".to_owned(),
        ));
        blocks.push(Block::Code(vec![format!("{opsctl} restore {name} --at \"10m ago\"")]));
    }
    if declared.kind == DatastoreKind::Command {
        blocks.push(Block::Text(format!(
            "Step 3: {} is what the command printed. Feed it to the program that reads it. Beside it lies a manifest with its \
             length and SHA-256.",
            path.file_name().unwrap_or_default().to_string_lossy()
        )));
    } else if declared.kind == DatastoreKind::Postgres {
        blocks.push(Block::Text(
            "Step 3: make a new database of a dump; what is there is never written to. Where the snapshot holds several, \
             --database NAME says which; --globals makes roles that the server lacks. When all is well in it, end what is \
             connected to the old one, and rename both."
                .to_owned(),
        ));
        blocks.push(Block::Code(vec![
            format!("{opsctl} restore {name} --into restored"),
            "psql -c 'ALTER DATABASE shop RENAME TO shop_before' -c 'ALTER DATABASE restored RENAME TO shop'"
                .to_owned(),
        ]));
    } else {
        blocks.extend(in_place(config, store, &path, &opsctl));
    }
    blocks.push(Block::Text(
        "Then see that all is well, and that the next backup is:".to_owned(),
    ));
    blocks.push(Block::Code(vec![
        format!("{opsctl} status"),
        format!("{opsctl} backup {name}"),
        format!("{opsctl} drill restore {name}"),
    ]));
    if let Some(place) = place_for_restic(&known.repository) {
        blocks.push(Block::Text(
            "Without opsctl: the repository is in restic's format, and restic asks for the same password.".to_owned(),
        ));
        blocks.push(Block::Code(vec![format!(
            "restic -r {} restore latest --tag {},{} --target {}",
            quoted(&place),
            store_tag(name),
            environment_tag(&config.environment.name),
            quoted(&format!("restored-{name}")),
        )]));
    }
    blocks
}

/// What restic calls the place of a repository.
fn place_for_restic(repository: &Repository) -> Option<String> {
    let Some(bucket) = &repository.bucket else {
        return Some(repository.folder.as_ref()?.display().to_string());
    };
    let service = bucket.endpoint.as_deref().unwrap_or("https://s3.amazonaws.com");
    let place = format!("s3:{}/{}/{}", service.trim_end_matches('/'), bucket.name, bucket.prefix);
    Some(place.trim_end_matches('/').to_owned())
}

/// What one needs, where it lies, who is concerned.
fn premises(known: &Known, store: &Store) -> Vec<String> {
    let (config, declared) = (&known.config, &store.declared);
    let mut lines = vec![match (&declared.command, &declared.path) {
        // Its arguments may hold secrets.
        (Some(keys), _) => format!(
            "what: the output of the command {}",
            keys.command.first().map_or("", String::as_str)
        ),
        (None, Some(path)) => format!("what: {}, at {}", declared.kind.word(), path.display()),
        (None, None) => format!("what: {}", declared.kind.word()),
    }];
    let users = config
        .users_of(&declared.name)
        .into_iter()
        .map(|service| match &service.team {
            Some(team) => format!("{} (team {team})", service.name),
            None => service.name.clone(),
        });
    let users: Vec<String> = users.collect();
    lines.push(match users.as_slice() {
        [] => "used by: no service that is declared".to_owned(),
        users => format!("used by: {}", users.join(", ")),
    });
    lines.push(format!(
        "repository: {} at {}",
        known.repository.name, known.repository.store
    ));
    lines.push(format!(
        "password: {}",
        match &known.repository.password {
            SecretSource::File(path) => format!("in the file {}", path.display()),
            SecretSource::Command { command, .. } =>
                format!("from the command {}", command.first().map_or("", String::as_str)),
            SecretSource::Variable(name) => format!("in the environment variable {name}"),
            SecretSource::Kubernetes(name) => format!("in the Kubernetes Secret {name}"),
        }
    ));
    lines.push(format!("configuration: {}", config.file.display()));
    lines
}

/// How long it takes, and what is checked, by the last drill that brought it back.
fn expected(store: &Store) -> Vec<Block> {
    let Some(last) = store.drills.iter().rev().find(|proof| proof.rto_seconds.is_some()) else {
        return vec![
            Block::Text("How long it takes is not known: no restore drill has brought it back yet.".to_owned()),
            Block::List(asserted(store)),
        ];
    };
    let Phases {
        open_seconds,
        restore_seconds,
        recovery_seconds,
        checks_seconds,
        assertions_seconds,
    } = last.phases;
    let part = |what: &str, took| vec![what.to_owned(), seconds(took)];
    let mut parts = vec![
        part("open the repository", open_seconds),
        part("bring the data back", restore_seconds),
        part("check it", checks_seconds),
        part("first query and assertions", assertions_seconds),
    ];
    if recovery_seconds > 0.0 {
        parts.insert(2, part("replay the log, to the first answer", recovery_seconds));
    }
    vec![
        Block::Text(format!(
            "Expect it to take about {}, measured on {} on {} with {}:",
            seconds(last.rto_seconds.unwrap_or_else(|| last.phases.total())),
            time(last.at),
            last.host,
            bytes(last.bytes)
        )),
        Block::Table(vec!["Part", "Takes about"], parts),
        Block::Text("What is checked when it is back:".to_owned()),
        Block::List(checks(last).into_iter().chain(asserted(store)).collect()),
    ]
}

fn checks(last: &Proof) -> Vec<String> {
    let made = last
        .group(Group::Source)
        .filter(|check| check.outcome != Outcome::Skipped);
    made.map(|check| check.name.clone()).collect()
}

fn asserted(store: &Store) -> Vec<String> {
    let proof = &store.declared.proof;
    let assertions = proof.assertions.iter().map(|assertion| {
        let words = match &assertion.expect {
            Expectation::Sql { query, bound } => format!("{query}: {bound}"),
            Expectation::MinRows(tables) => {
                let rows = tables
                    .iter()
                    .map(|(table, least)| format!("{table} has at least {least} rows"));
                rows.collect::<Vec<_>>().join(", ")
            }
            Expectation::Path(path) => format!("{} is there", path.display()),
            Expectation::MinFiles(least) => format!("at least {least} files"),
            Expectation::MinBytes(least) => format!("at least {}", bytes(*least)),
        };
        match &assertion.name {
            Some(name) => format!("{name}: {words}"),
            None => words,
        }
    });
    let canary = proof
        .canary
        .iter()
        .map(|canary| format!("newest row: {}", canary.query));
    assertions.chain(canary).collect()
}

/// The way back in place.
fn in_place(config: &Config, store: &Store, path: &Path, opsctl: &str) -> Vec<Block> {
    let name = &store.declared.name;
    if config.environment.platform == PlatformKind::Kubernetes {
        return vec![
            Block::Text(
                "Step 3: bring it back into a folder that you mount where the services look for it. Stop them first: opsctl \
                 replaces data in place on the local platform alone."
                    .to_owned(),
            ),
            Block::Code(vec![format!("{opsctl} restore {name} --into {}", quoted(&format!("restored-{name}")))]),
        ];
    }
    let held: Vec<String> = config
        .users_of(name)
        .into_iter()
        .map(|service| service.name.clone())
        .collect();
    let held = match held.as_slice() {
        [] => "No declared service is held down meanwhile.".to_owned(),
        held => format!(
            "Held down meanwhile, with 503 and Retry-After to their callers: {}.",
            held.join(", ")
        ),
    };
    let typed = if config.environment.protected {
        format!(" The environment is protected: it asks for the name {name} to be typed.")
    } else {
        String::new()
    };
    vec![
        Block::Text(format!(
            "Step 3, or at once instead of step 2: put it in place of the original. {held} What was there is kept beside it, as {}.before- and the run's id. \
             Ctrl-C puts everything back.{typed}",
            path.display()
        )),
        Block::Code(vec![format!("{opsctl} restore {name} --replace")]),
        Block::Text("If that was cut short, by a kill or a power cut:".to_owned()),
        Block::Code(vec![format!("{opsctl} recover")]),
    ]
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn or_dash(figure: Option<String>) -> String {
    figure.unwrap_or_else(|| "–".to_owned())
}

/// A word of a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@%,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        assert_eq!(quoted("/srv/repo-1"), "/srv/repo-1");
        assert_eq!(quoted("/srv/it's here; rm -rf"), "'/srv/it'\\''s here; rm -rf'");
        assert_eq!(quoted(""), "''");
    }
}
