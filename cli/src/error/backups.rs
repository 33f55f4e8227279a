//! What is told of a backup, restore or check that failed.

use backups::pitr::postgres::archive::ArchiveError;
use backups::pitr::postgres::push::PushError;
use backups::pitr::postgres::reach::NoWay;
use backups::pitr::postgres::receiver::ReceiverError;
use backups::pitr::postgres::recovery::RecoveryError;
use backups::pitr::sqlite::ShippingError;
use backups::source::SourceError;
use backups::source::command::CommandFailure;
use backups::source::postgres::base::BaseError;
use backups::{Damage, Error, Object, StoreError};

use crate::error::Failure;
use crate::exit::Exit;

/// The failure of doing `what`, for example ``could not back up `orders-db` ``.
pub(crate) fn failure(what: impl Into<String>, error: &Error) -> Failure {
    let what = what.into();
    let told = |exit, code| Failure::new(exit, code, what.clone()).because(error);
    match error {
        Error::NoRepository { .. } => told(Exit::Usage, "no_repository")
            .help("`opsctl repository init` makes one, and so does the first `opsctl backup`"),
        Error::RepositoryExists { .. } => told(Exit::Usage, "repository_exists"),
        Error::WrongPassword { .. } => told(Exit::Usage, "wrong_password")
            .help("put the right password where `password` of the repository says; `opsctl config show repository` tells where that is"),
        Error::UnsupportedVersion { .. } => {
            told(Exit::Usage, "unsupported_version").help("this opsctl reads versions 1 and 2 of restic's format")
        }
        Error::ReadOnlyVersion => told(Exit::Usage, "unsupported_version")
            .help("restore from it here, and back up into a new repository; restic's `migrate upgrade_repo_v2` converts it"),
        Error::Damaged { object, damage } => damaged(told(Exit::Failed, "damaged"), *object, *damage),
        Error::Locked(_) => told(Exit::Locked, "repository_locked")
            .help("wait for it; the lock of a process that died on this machine is taken over by itself, one of another machine after 30 minutes; see `opsctl repository unlock`"),
        Error::LockLost => told(Exit::Failed, "lock_lost")
            .help("the machine or the store stood still for too long; run the same command again"),
        Error::SnapshotNotFound { .. } => told(Exit::Usage, "unknown_snapshot").help("opsctl snapshot list"),
        Error::SnapshotAmbiguous { .. } => told(Exit::Usage, "ambiguous_snapshot").help("give more digits; `opsctl snapshot list` has them"),
        Error::PathNotFound { .. } | Error::WrongType { .. } => told(Exit::Usage, "unknown_path").help("`opsctl snapshot ls` shows what a snapshot holds"),
        Error::Source(source) => self::source(told(source_exit(source), "source_failed"), source),
        Error::Postgres(postgres) => super::postgres::failure(postgres, |exit, code| {
            // That it is about PostgreSQL is said by what follows.
            Failure::new(exit, code, what.clone()).because(postgres)
        }),
        Error::Shipping(shipping) => self::shipping(told(shipping_exit(shipping), "not_shipped"), shipping),
        Error::Recovery(recovery) => self::recovery(
            // That there is no way is said by what follows.
            Failure::new(recovery_exit(recovery), "not_recovered", what.clone()).because(recovery.as_ref()),
            recovery,
        ),
        Error::Cluster(cluster) => self::cluster(told(base_exit(cluster), "not_restored"), cluster),
        Error::Store(store) => self::store(told(store_exit(store), "store_failed"), store),
        Error::TargetFull { .. } => told(Exit::Failed, "disk_full").help("free some space, then run the same command again"),
        Error::Target { .. } => told(Exit::Failed, "target_failed"),
        Error::PlanOutdated { .. } => told(Exit::Failed, "plan_outdated")
            .help("somebody else was faster; run the same command again, it makes a new plan"),
        Error::Output(_) => told(Exit::Failed, "io"),
        Error::Invalid(_) => told(Exit::Usage, "usage"),
        Error::ClockSkew { .. } => told(Exit::Refused, "clock_skew")
            .help("set the clock that is wrong: what is deleted for its age is judged by the store's"),
        Error::LastSnapshot { .. } => told(Exit::Refused, "last_snapshot")
            .help("make another one first; nothing was removed"),
        Error::KeyNotFound { .. } => told(Exit::Usage, "unknown_key").help("`opsctl repository key list` shows all"),
        Error::KeyAmbiguous { .. } => {
            told(Exit::Usage, "ambiguous_key").help("give more digits; `opsctl repository key list` has them")
        }
        Error::KeyInUse { .. } => told(Exit::Refused, "key_in_use")
            .help("to replace the password in use: `opsctl repository key rotate --new-password-file FILE`"),
        Error::TooManyKeys { .. } => {
            told(Exit::Refused, "too_many_keys").help("remove one first: `opsctl repository key remove ID`")
        }
        Error::Cancelled => Failure::new(Exit::Interrupted, "interrupted", format!("{what}: interrupted"))
            .help("nothing is left half done; run the same command again"),
        Error::Internal(_) => told(Exit::Failed, "bug").help("this is a bug in opsctl: report it with the command and `opsctl --version`"),
    }
}

fn damaged(failure: Failure, object: Object, damage: Damage) -> Failure {
    match (object, damage) {
        (Object::Key(_), _) => failure.help(
            "the key file is damaged, so the password cannot be tried: bring `keys/` back from a copy of the repository",
        ),
        (Object::Config, Damage::Missing) => failure.help("is this the right store? `opsctl config show repository`"),
        (Object::Config | Object::Index(_) | Object::Pack(_) | Object::Tree(_) | Object::DataBlob(_) | Object::Snapshot(_) | Object::Lock(_), _) => {
            failure.help("`opsctl repository check --read-data` lists everything that is damaged; other snapshots may be whole")
        }
    }
}

fn source_exit(source: &SourceError) -> Exit {
    match source {
        SourceError::Read { .. }
        | SourceError::NotA { .. }
        | SourceError::SameName { .. }
        | SourceError::Program { .. } => Exit::Usage,
        SourceError::Command {
            failure: CommandFailure::Timeout(_),
            ..
        } => Exit::Unreachable,
        SourceError::Base(base) => base_exit(base),
        SourceError::Command { .. }
        | SourceError::Database { .. }
        | SourceError::DatabaseDamaged { .. }
        | SourceError::StagingFull { .. }
        | SourceError::Staging { .. } => Exit::Failed,
    }
}

fn source(failure: Failure, source: &SourceError) -> Failure {
    match source {
        SourceError::Read { .. } | SourceError::NotA { .. } => {
            failure.help("is the `path` in opsctl.toml right? `opsctl config show datastore`")
        }
        SourceError::DatabaseDamaged { .. } => {
            failure.help("the last good snapshot is untouched: `opsctl snapshot list`, then `opsctl restore`")
        }
        SourceError::StagingFull { .. } => Failure {
            code: "disk_full",
            ..failure
        }
        .help("a backup of a database needs as much free space as the database, beside opsctl.toml"),
        SourceError::Base(base) => cluster(failure, base),
        SourceError::Program { .. } => {
            failure.help("`command` in opsctl.toml says what is run: `opsctl config show datastore`")
        }
        SourceError::Command { said, .. } => failure
            .details(said.lines().map(str::to_owned))
            .help("no snapshot was made, and earlier ones are untouched; put the command right and run the same again"),
        SourceError::Database { .. } | SourceError::Staging { .. } | SourceError::SameName { .. } => failure,
    }
}

fn base_exit(base: &BaseError) -> Exit {
    match base {
        BaseError::Server(server) if server.is_unreachable() => Exit::Unreachable,
        BaseError::TooOld(_) | BaseError::NoBase(_) | BaseError::Occupied(_) | BaseError::Tablespaces(_) => Exit::Usage,
        BaseError::Server(_)
        | BaseError::CorruptPages { .. }
        | BaseError::Archive { .. }
        | BaseError::Manifest(_)
        | BaseError::File { .. }
        | BaseError::Inconsistent(_)
        | BaseError::NoLog(_)
        | BaseError::LogArchive(_)
        | BaseError::Incomplete { .. } => Exit::Failed,
    }
}

fn cluster(failure: Failure, base: &BaseError) -> Failure {
    match base {
        BaseError::Server(server) if server.is_authentication() => failure.help(
            "the user needs the right to replicate (`ALTER ROLE … REPLICATION`) and a line for `replication` in pg_hba.conf",
        ),
        BaseError::CorruptPages { .. } => failure.help(
            "no snapshot was made, and earlier ones are untouched; restore the tables that these files belong to (`pg_filenode_relation`), or repair the server",
        ),
        BaseError::NoLog(_) | BaseError::LogArchive(_) => {
            failure.help("no snapshot was made: without its log a backup cannot be restored; see that the log is received")
        }
        BaseError::Occupied(_) => failure.help("choose another folder, or empty this one"),
        BaseError::NoBase(_) => failure.help("`opsctl snapshot list` shows what there is"),
        BaseError::Incomplete { .. } => {
            failure.help("`opsctl repository check --read-data` lists everything that is damaged; earlier snapshots may be whole")
        }
        BaseError::Server(_)
        | BaseError::TooOld(_)
        | BaseError::Archive { .. }
        | BaseError::Manifest(_)
        | BaseError::File { .. }
        | BaseError::Inconsistent(_)
        | BaseError::Tablespaces(_) => failure,
    }
}

fn shipping_exit(shipping: &ShippingError) -> Exit {
    match shipping {
        ShippingError::NothingShipped { .. }
        | ShippingError::BeforeFirst { .. }
        | ShippingError::Beyond { .. }
        | ShippingError::Gap { .. } => Exit::Usage,
        ShippingError::Damaged { .. } | ShippingError::Unequal | ShippingError::Overrun => Exit::Failed,
    }
}

fn shipping(failure: Failure, shipping: &ShippingError) -> Failure {
    match shipping {
        ShippingError::NothingShipped { .. } => failure
            .help("`opsctl backup --continuous` ships changes; `opsctl snapshot list` shows what else can be restored"),
        ShippingError::BeforeFirst { earliest, .. } => failure.help(format!(
            "--at {earliest} is the earliest; `opsctl snapshot list` may have older snapshots"
        )),
        ShippingError::Beyond { latest, .. } => failure.help(format!(
            "--at {latest} is the latest; is `opsctl backup --continuous` running?"
        )),
        ShippingError::Gap { from, until, .. } => failure.help(format!(
            "--at {from} or --at {until}; --allow-older takes the one before"
        )),
        ShippingError::Damaged { .. } => {
            failure.help("an earlier moment may be whole; `opsctl snapshot list` has the snapshots")
        }
        ShippingError::Unequal => {
            failure.help("nothing was replaced; try an earlier moment, and report this as a bug in opsctl")
        }
        ShippingError::Overrun => failure.help("ship to a faster store, or take snapshots alone"),
    }
}

/// The failure of receiving the log of a PostgreSQL.
pub(crate) fn receiver(what: impl Into<String>, error: &ReceiverError) -> Failure {
    let told = |exit, code| Failure::new(exit, code, what.into()).because(error);
    match error {
        ReceiverError::Archive(ArchiveError::Repository(inner)) => failure("could not archive the log", inner),
        ReceiverError::Server(server) if server.is_authentication() => told(Exit::Usage, "not_followed").help(
            "the user needs the right to replicate (`ALTER ROLE … REPLICATION`) and a line for `replication` in pg_hba.conf",
        ),
        ReceiverError::Server(_) => {
            told(Exit::Failed, "not_followed").help("nothing that was archived is lost; the server keeps the rest for the slot")
        }
        ReceiverError::SlotInUse { .. } => told(Exit::Locked, "locked").help(
            "somebody follows already, perhaps on another machine: `select client_addr from pg_stat_replication` on the server says where",
        ),
        ReceiverError::Foreign { .. } | ReceiverError::SegmentSize { .. } => told(Exit::Failed, "other_cluster").help(
            "is `dsn` right? One datastore is one cluster: give a cluster that was made anew a table of its own in opsctl.toml",
        ),
        ReceiverError::Ahead { .. } => told(Exit::Failed, "behind_archive").help(
            "what it writes from now on is another log under the same names: give it a table of its own in opsctl.toml, so that both histories can be restored",
        ),
        ReceiverError::Archive(_) => told(Exit::Failed, "not_archived")
            .help("nothing was replaced: look which of the two is of this cluster before anything is removed"),
        ReceiverError::OutOfOrder { .. }
        | ReceiverError::Fault(_)
        | ReceiverError::Malformed { .. }
        | ReceiverError::History { .. } => told(Exit::Failed, "log_damaged").help(
            "nothing of it was confirmed, so the server still has it; run the same again, and look after the server's disk and memory if that does not help",
        ),
    }
}

/// The failure of archiving a file of PostgreSQL's log.
pub(crate) fn pushed(what: impl Into<String>, error: &PushError) -> Failure {
    let told = |exit, code| Failure::new(exit, code, what.into()).because(error);
    match error {
        PushError::Archive(ArchiveError::Repository(inner)) => failure("could not keep a file of the log", inner),
        PushError::Archive(_) => told(Exit::Failed, "not_archived")
            .help("the server keeps the file; look which of the two is of this cluster before anything is removed"),
        PushError::OtherCluster { .. } => told(Exit::Usage, "other_cluster")
            .help("one datastore is one cluster: give the other one a table of its own in opsctl.toml"),
        PushError::Name(_) | PushError::Size { .. } | PushError::NoCluster(_) => {
            told(Exit::Usage, "usage").help("archive_command = 'opsctl --config FILE wal push DATASTORE %p'")
        }
        PushError::Log { .. } | PushError::History { .. } => told(Exit::Failed, "damaged"),
    }
}

fn recovery_exit(error: &RecoveryError) -> Exit {
    match error {
        // It was there once.
        RecoveryError::NoWay {
            why: NoWay::NoHistory { .. },
            ..
        }
        | RecoveryError::Short { .. }
        | RecoveryError::Archive(_)
        | RecoveryError::Search { .. }
        | RecoveryError::Failed { .. }
        | RecoveryError::Fewer { .. } => Exit::Failed,
        RecoveryError::NoBackup { .. }
        | RecoveryError::NoLog { .. }
        | RecoveryError::NoWay { .. }
        | RecoveryError::BeforeFirst { .. }
        | RecoveryError::Beyond { .. }
        | RecoveryError::NoSuchName { .. }
        | RecoveryError::OtherVersion { .. } => Exit::Usage,
    }
}

fn recovery(failure: Failure, error: &RecoveryError) -> Failure {
    match error {
        RecoveryError::NoBackup { .. } => failure.help("opsctl backup"),
        RecoveryError::NoLog { .. } => failure.help("`opsctl backup --follow` archives the log, and so does `opsctl wal push`"),
        RecoveryError::NoWay {
            why: NoWay::NoHistory { .. },
            ..
        } => failure.help(
            "`opsctl wal push DATASTORE PATH` archives it again if a server still has the file in `pg_wal`; an older timeline may be whole (`--timeline`)",
        ),
        RecoveryError::NoWay { .. } => failure.help("choose an older timeline with `--timeline`, or take a base backup: opsctl backup"),
        RecoveryError::BeforeFirst { .. } => failure.help("opsctl snapshot list"),
        RecoveryError::Short { .. } => failure.help(
            "nothing was written; a moment before the gap can be restored, and `--allow-older` takes the last one. A new base backup begins behind it: opsctl backup",
        ),
        RecoveryError::Beyond { .. } => failure.help("nothing was written; without `--at` it is the latest state that is held"),
        RecoveryError::NoSuchName { .. } => failure.help("restore points are made by `SELECT pg_create_restore_point('NAME')`, and names are as they were given"),
        RecoveryError::Archive(_) | RecoveryError::Search { .. } => failure.help("nothing was written; an older moment may be whole"),
        RecoveryError::Failed { said, .. } if said.contains("No space left on device") => Failure {
            code: "disk_full",
            ..failure
        }
        .details(said.lines().map(str::to_owned).collect::<Vec<_>>())
        .help("remove what was restored and free some space, or restore elsewhere with `--into FOLDER`"),
        RecoveryError::Failed { said, .. } => failure
            .details(said.lines().map(str::to_owned).collect::<Vec<_>>())
            .help("what was restored is not what was asked for; remove it"),
        RecoveryError::Fewer { .. } => failure.help("what was restored is not what was asked for; remove it"),
        RecoveryError::OtherVersion { .. } => failure.help(
            "a cluster runs only under the version that wrote it: install that, or say in `programs` of the datastore in which folder it is",
        ),
    }
}

fn store_exit(error: &StoreError) -> Exit {
    match error {
        StoreError::NotFound { .. }
        | StoreError::Exists { .. }
        | StoreError::Full { .. }
        | StoreError::Denied { .. }
        | StoreError::ClockSkew { .. }
        | StoreError::Io { .. }
        | StoreError::InvalidKey { .. } => Exit::Failed,
        StoreError::NoPlace { .. } | StoreError::Credentials { .. } => Exit::Usage,
        StoreError::Unavailable { .. } => Exit::Unreachable,
    }
}

fn store(failure: Failure, error: &StoreError) -> Failure {
    match error {
        StoreError::Full { .. } => Failure {
            code: "disk_full",
            ..failure
        }
        .help("free some space in the store, then run the same command again; what was stored so far is used then"),
        StoreError::Denied { .. } => failure.help(
            "the store belongs to somebody else, is read-only or locks its objects; in S3 `opsctl rbac --for backup` prints what must be allowed",
        ),
        StoreError::Unavailable { .. } => Failure {
            code: "store_unavailable",
            ..failure
        }
        .help("nothing is left half done; run the same command again when the store answers; what was stored so far is used then"),
        StoreError::NoPlace { .. } => Failure {
            code: "no_bucket",
            ..failure
        }
        .help("opsctl makes no buckets: make it, or put the right name into `store` of the repository"),
        StoreError::Credentials { .. } => Failure {
            code: "credentials_refused",
            ..failure
        }
        .help("put valid keys where `credentials` of the repository says; without it those of the surroundings are used (`AWS_ACCESS_KEY_ID`, `AWS_PROFILE`, …)"),
        StoreError::ClockSkew { .. } => Failure {
            code: "clock_skew",
            ..failure
        }
        .help("set the clock that is wrong, then run the same command again"),
        StoreError::NotFound { .. }
        | StoreError::Exists { .. }
        | StoreError::Io { .. }
        | StoreError::InvalidKey { .. } => failure,
    }
}
