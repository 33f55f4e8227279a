//! Back to a moment: the snapshot of a generation, the sets up to that moment, and the proof that the file which comes of
//! it is the one that was shipped. A state that is older than promised is an error unless it is allowed.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::chain::{Generation, SetEntry, read, usable};
use super::set::{Header, Set};
use super::{Datastore, ShippingError, StreamTable};
use crate::error::{Damage, Error};
use crate::progress::{Phase, Progress};
use crate::repo::{Id, Repository};
use crate::restore::{RestoreOptions, RestoreReport, restore};
use crate::source::read_manifest;
use crate::source::sqlite::{MANIFEST, Manifest};
use crate::threads::blocking;

/// Sets that are read ahead of the one that is applied.
const READ_AHEAD: usize = 3;

/// Which state is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoreTo {
    /// The moment.
    pub time: Timestamp,
    /// Take the state before it, however much older that is.
    pub allow_older: bool,
}

/// What a restore to a moment will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    datastore: Datastore,
    /// The generation, with the sets that will be applied.
    generation: Generation,
    sum: String,
    /// What was asked for.
    pub wanted: Timestamp,
    /// The state is exactly that of this moment, which is not later than what was asked for.
    pub reached: Timestamp,
}

impl Plan {
    /// The snapshot that it begins with.
    pub fn snapshot(&self) -> Id {
        self.generation.snapshot
    }

    /// How many sets are applied to it.
    pub fn sets(&self) -> u64 {
        self.generation.sets.len() as u64 - 1
    }

    /// How many bytes they have.
    pub fn bytes(&self) -> u64 {
        self.generation.bytes()
    }
}

/// What was restored.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The restore of the snapshot that it began with.
    pub report: RestoreReport,
    /// Sets that were applied to it.
    pub sets: u64,
    /// Pages that they brought.
    pub pages: u64,
}

/// Finds the way to a moment. Reads two sets at most.
pub async fn plan(repository: &Repository, datastore: &Datastore, to: &RestoreTo) -> Result<Plan, Error> {
    let generations = usable(repository, datastore).await?;
    let wanted = to.time;
    let (generation, last) = choose(&generations, wanted).ok_or_else(|| nothing(&generations, datastore, wanted))?;
    let chosen = read(repository, datastore, &generation.name, &generation.sets[last]).await?;
    let known_until = match generation.sets.get(last + 1) {
        Some(next) => {
            let next = read(repository, datastore, &generation.name, next).await?;
            next.header.unchanged_until.unwrap_or_default()
        }
        None => chosen.header.complete_until,
    };
    let reached = wanted.min(known_until.max(chosen.header.complete_until));
    // Twice the interval, since a look takes its time, and a second for all intervals that are shorter.
    let interval = SignedDuration::from_millis(i64::try_from(chosen.header.interval_ms).unwrap_or(i64::MAX));
    let tolerance = interval
        .saturating_mul(2)
        .max(interval.saturating_add(SignedDuration::from_secs(1)));
    if wanted.duration_since(reached) > tolerance && !to.allow_older {
        let states = generations
            .iter()
            .flat_map(|generation| &generation.sets)
            .filter(|set| !set.partial);
        // Asking for it leads to the same state.
        let latest = reached.max(chosen.header.taken_at);
        let until = states
            .map(|set| set.taken_at)
            .filter(|taken_at| *taken_at > wanted)
            .min();
        return Err(Error::Shipping(match until {
            Some(until) => ShippingError::Gap {
                wanted,
                from: latest,
                until,
            },
            None => ShippingError::Beyond { wanted, latest },
        }));
    }
    Ok(Plan {
        datastore: datastore.clone(),
        generation: Generation {
            sets: generation.sets[..=last].to_vec(),
            ..generation.clone()
        },
        sum: chosen.header.sum,
        wanted,
        reached,
    })
}

/// The latest state that holds nothing later than `wanted`: its generation, and its place there.
fn choose(generations: &[Generation], wanted: Timestamp) -> Option<(&Generation, usize)> {
    let within = |generation: &Generation| {
        generation
            .sets
            .iter()
            .rposition(|set| !set.partial && set.taken_at <= wanted)
    };
    let states = generations
        .iter()
        .filter_map(|generation| Some((generation, within(generation)?)));
    states.max_by_key(|(generation, last)| generation.sets[*last].taken_at)
}

fn nothing(generations: &[Generation], datastore: &Datastore, wanted: Timestamp) -> Error {
    let earliest = generations.iter().filter_map(Generation::earliest).min();
    Error::Shipping(match earliest {
        Some(earliest) => ShippingError::BeforeFirst { wanted, earliest },
        None => ShippingError::NothingShipped {
            datastore: datastore.to_string(),
        },
    })
}

/// Where the work is done; removed when dropped.
struct Workshop(PathBuf);

impl Workshop {
    fn open(target: &Path) -> Result<Self, Error> {
        let folder = target.join(".opsctl-rolling-forward");
        let made = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(target)?;
            // What a killed restore left.
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs::DirBuilder::new().mode(0o700).create(&folder)
        };
        made().map_err(|source| target_failed("make", &folder, source))?;
        Ok(Self(folder))
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn target_failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::TargetFull { path },
        _ => Error::Target { action, path, source },
    }
}

impl Plan {
    /// Carries it out: `target` gets the database under the name `name`, and its manifest, both only when they are whole.
    /// What is there under these names is replaced then.
    pub async fn apply(
        &self,
        repository: &Repository,
        name: &Path,
        target: &Path,
        durable: bool,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Applied, Error> {
        let work = self.work(repository, name, target, durable, progress, cancel);
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            applied = work => applied,
        }
    }

    async fn work(
        &self,
        repository: &Repository,
        name: &Path,
        target: &Path,
        durable: bool,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Applied, Error> {
        let name = name
            .file_name()
            .ok_or_else(|| Error::Invalid("a database has a name".to_owned()))?;
        let workshop = Workshop::open(target)?;
        let (file, manifest) = (workshop.0.join(name), workshop.0.join(MANIFEST));
        let snapshot = &self.generation.snapshot;
        let report = restore(
            repository,
            snapshot,
            &workshop.0,
            &RestoreOptions::default(),
            progress,
            cancel,
        )
        .await?;
        if report.is_partial() {
            return Ok(Applied {
                report,
                sets: 0,
                pages: 0,
            });
        }
        progress.phase(Phase::Restoring, Some(self.bytes()), Some(self.sets()));
        progress.file(&file);
        let opened = File::options()
            .read(true)
            .write(true)
            .custom_flags(NO_FOLLOW)
            .open(&file);
        let mut database = opened.map_err(|source| target_failed("open", &file, source))?;
        let mut reading = stream::iter(&self.generation.sets)
            .map(|entry| async move { Ok::<_, Error>((entry, self.read(repository, entry).await?)) })
            .buffered(READ_AHEAD);
        let (mut previous, mut pages, mut last) = (None::<Id>, 0, None::<Header>);
        while let Some((entry, set)) = reading.try_next().await? {
            self.follows(entry, &set, previous, last.as_ref())?;
            progress.bytes(entry.bytes);
            (previous, last) = (Some(set.id), Some(set.header.clone()));
            pages += u64::from(set.header.pages);
            let path = file.clone();
            let writing = blocking(move || {
                let written = write(&database, &set);
                written
                    .map_err(|source| target_failed("write", &path, source))
                    .map(|()| database)
            });
            database = writing.await??;
        }
        drop(reading);
        let proved = Prove {
            database,
            file: file.clone(),
            manifest: manifest.clone(),
            sum: self.sum.clone(),
            reached: self.reached,
            durable,
        };
        blocking(move || proved.prove()).await??;
        for (from, name) in [(&file, name), (&manifest, MANIFEST.as_ref())] {
            let to = target.join(name);
            fs::rename(from, &to).map_err(|source| target_failed("write", &to, source))?;
        }
        if durable {
            let synced = File::open(target).and_then(|folder| folder.sync_all());
            synced.map_err(|source| target_failed("make durable", target, source))?;
        }
        Ok(Applied {
            report,
            sets: self.sets(),
            pages,
        })
    }

    async fn read(&self, repository: &Repository, entry: &SetEntry) -> Result<Set, Error> {
        read(repository, &self.datastore, &self.generation.name, entry).await
    }

    /// Each set names the one before; the first names none, and has no pages.
    fn follows(&self, entry: &SetEntry, set: &Set, previous: Option<Id>, last: Option<&Header>) -> Result<(), Error> {
        let expected = last.map_or(0, |last| last.sequence + 1);
        let same_size = last.is_none_or(|last| last.page_size == set.header.page_size || last.page_count == 0);
        if set.header.previous == previous && set.header.sequence == expected && same_size {
            return Ok(());
        }
        // Something that lay between is gone, or was swapped.
        let missing = set.header.sequence > expected;
        let damage = if missing { Damage::Missing } else { Damage::Malformed };
        let key = if missing {
            format!("number {expected} of {}", self.generation.name)
        } else {
            entry.key.to_string()
        };
        Err(Error::Shipping(ShippingError::Damaged { key, damage }))
    }
}

/// Never through a symbolic link.
const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

fn write(database: &File, set: &Set) -> io::Result<()> {
    let size = u64::from(set.header.page_size);
    for (number, page) in set.pages() {
        database.write_all_at(page, u64::from(number - 1) * size)?;
    }
    database.set_len(u64::from(set.header.page_count) * size)
}

/// The last look at the file.
struct Prove {
    database: File,
    file: PathBuf,
    manifest: PathBuf,
    sum: String,
    reached: Timestamp,
    durable: bool,
}

impl Prove {
    fn prove(self) -> Result<(), Error> {
        let failed = |source| target_failed("read", &self.file, source);
        let (mut table, mut hash, mut length) = (StreamTable::default(), Sha256::new(), 0);
        let mut file = File::open(&self.file).map_err(failed)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = file.read(&mut buffer).map_err(failed)?;
            if count == 0 {
                break;
            }
            table.update(&buffer[..count]);
            hash.update(&buffer[..count]);
            length += count as u64;
        }
        let sum = table.finish().map(|table| Header::sum_of(table.sum()));
        if sum.as_ref() != Some(&self.sum) {
            return Err(Error::Shipping(ShippingError::Unequal));
        }
        let write = || {
            let text = read_manifest(&self.manifest)?;
            let manifest = Manifest {
                length_bytes: length,
                sha256: hex::encode(hash.finalize()),
                taken_at: self.reached,
                ..serde_json::from_slice(&text)?
            };
            fs::write(&self.manifest, serde_json::to_vec_pretty(&manifest)?)?;
            if self.durable {
                self.database.sync_all()?;
                File::open(&self.manifest)?.sync_all()?;
            }
            Ok(())
        };
        write().map_err(|source| target_failed("write", &self.manifest, source))
    }
}
