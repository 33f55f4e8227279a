//! Ships what changed, one step at a time or in a loop.
//!
//! What was seen is sealed and kept until the store has it; only then is the database looked at again. So the chain has no
//! holes whatever the store does, and after an outage the next set leads to the newest state at once. What a process
//! knows of the pages dies with it: the next one begins a new generation.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::chain::{generation_name, rounded, set_key};
use super::look::{Changes, Compare, Live, Look};
use super::set::{CONTENT_LIMIT, Header, seal};
use super::table::Table;
use super::{Datastore, ShippingError};
use crate::backup::{BackupOptions, Parent, backup};
use crate::clock;
use crate::error::Error;
use crate::progress::Silent;
use crate::repo::{Id, Repository};
use crate::source::SqliteSource;
use crate::source::sqlite::Watch;
use crate::store::{StoreError, StoreKey};
use crate::threads::{blocking, ended};

/// How long the store may take to keep one set.
const PUT_LIMIT: Duration = Duration::from_mins(1);
/// After this time without a state somebody should hear of it; the next step goes on where this one ended.
const STEP_LIMIT: Duration = Duration::from_mins(2);
/// How long the end of the loop may take.
const LAST_LIMIT: Duration = Duration::from_secs(10);
/// The longest pause while something fails, unless the interval is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How to ship.
#[derive(Debug, Clone)]
pub struct ShipOptions {
    /// How often the database is looked at.
    pub interval: Duration,
    /// How often it is told that nothing changes: the times in between cannot be restored before that was told.
    pub heartbeat: Duration,
    /// How often every page is compared, whatever the log says.
    pub compare_all: Duration,
    /// When a generation is old enough for a new one.
    pub generation_age: Duration,
    /// After how many sets a new generation begins: a restore reads up to so many.
    pub generation_sets: u64,
    /// Bytes of pages in one set, 64 MiB at most. More takes several.
    pub set_bytes: usize,
    /// The machine's name in snapshots.
    pub host: String,
    /// The user's name in snapshots.
    pub username: String,
    /// Labels of snapshots.
    pub tags: Vec<String>,
    /// The folder for the temporary copy that a snapshot is made from.
    pub staging: PathBuf,
    /// Read the pages from a copy of the database, as a SQLite without `sqlite_dbpage` has to.
    pub by_copy: bool,
}

impl ShipOptions {
    /// Every second, and whatever else is sensible.
    pub fn new(staging: impl Into<PathBuf>) -> Self {
        Self {
            interval: Duration::from_secs(1),
            heartbeat: Duration::from_mins(1),
            compare_all: Duration::from_mins(10),
            generation_age: Duration::from_hours(24),
            generation_sets: 10_000,
            set_bytes: CONTENT_LIMIT,
            host: String::new(),
            username: String::new(),
            tags: Vec::new(),
            staging: staging.into(),
            by_copy: false,
        }
    }
}

/// What one step did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shipped {
    /// Everything that was committed before is in the store.
    pub until: Timestamp,
    /// The time of the latest state there: who asks for it gets that state.
    pub latest: Timestamp,
    /// Whether anything had changed.
    pub outcome: Outcome,
    /// The generation that was begun, if one was.
    pub generation: Option<NewGeneration>,
}

/// Whether anything had changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Unchanged,
    /// Pages.
    Changed {
        /// How many.
        pages: u64,
        /// How many were compared to find them.
        compared: u64,
        /// Bytes stored.
        bytes: u64,
        /// Changes that the log had not told of: a defect, after which every page is compared.
        missed: u64,
    },
}

/// A generation that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGeneration {
    /// Its name.
    pub name: String,
    /// Its snapshot.
    pub snapshot: Id,
}

/// What the loop tells.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step was done.
    Shipped(&'a Shipped),
    /// A step failed, and will be tried again. Told at once, and every minute.
    Failing {
        /// Why.
        error: &'a Error,
        /// The first failure in a row.
        since: Timestamp,
        /// What was committed later is not in the store.
        until: Option<Timestamp>,
    },
    /// A step was done after failures.
    Recovered {
        /// The first failure in a row.
        since: Timestamp,
    },
}

/// Ships one database.
pub struct Shipper {
    base: Arc<Base>,
    live: Option<Live>,
    current: Option<Current>,
    /// The next generation, while the current one goes on.
    next: Option<JoinHandle<Result<Current, Error>>>,
    /// Everything that was committed before is in the store.
    until: Option<Timestamp>,
}

/// What every generation has in common.
struct Base {
    repository: Repository,
    datastore: Datastore,
    database: PathBuf,
    options: ShipOptions,
}

/// The generation that is being written.
struct Current {
    name: String,
    snapshot: Id,
    sequence: u64,
    previous: Option<Id>,
    table: Arc<Table>,
    /// Whether `table` is what the last look saw.
    fresh: bool,
    /// Sealed, and not known to be in the store.
    pending: Option<Pending>,
    /// What the database was until then is in the chain.
    seen: Timestamp,
    taken_at: Timestamp,
    told: Instant,
    began: Instant,
    compared: Instant,
    stored: u64,
    store_ahead_ms: i64,
}

struct Pending {
    key: StoreKey,
    sealed: Bytes,
}

impl Drop for Shipper {
    fn drop(&mut self) {
        if let Some(next) = &self.next {
            next.abort();
        }
    }
}

impl Shipper {
    /// Ships the database at this absolute path, under this name.
    pub fn new(
        repository: Repository,
        datastore: Datastore,
        database: impl Into<PathBuf>,
        options: ShipOptions,
    ) -> Self {
        let base = Base {
            repository,
            datastore,
            database: database.into(),
            options,
        };
        Self {
            base: Arc::new(base),
            live: None,
            current: None,
            next: None,
            until: None,
        }
    }

    /// The database.
    pub fn database(&self) -> &Path {
        &self.base.database
    }

    /// Looks once, and ships what changed. After `Ok` the store has it; after `Err` nothing is lost or half done, and the
    /// next step goes on. The future may be dropped.
    pub async fn ship_once(&mut self, cancel: &CancellationToken) -> Result<Shipped, Error> {
        self.step(false, cancel).await
    }

    /// The same, and tells the store that it was done even if nothing had changed: for the end.
    pub async fn ship_last(&mut self, cancel: &CancellationToken) -> Result<Shipped, Error> {
        self.step(true, cancel).await
    }

    async fn step(&mut self, tell: bool, cancel: &CancellationToken) -> Result<Shipped, Error> {
        let mut generation = None;
        self.flush().await?;
        if let Some(next) = self.next.take_if(|next| next.is_finished()) {
            // One that failed is tried again when the time comes.
            match next.await.map_err(ended).flatten() {
                Ok(next) => {
                    generation = Some(self.begin(next));
                    self.flush().await?;
                }
                Err(error) => tracing::warn!(%error, "no new generation could be begun"),
            }
        }
        let (mut pages, mut compared, mut bytes, mut missed) = (0, 0, 0, 0);
        let began = Instant::now();
        loop {
            if began.elapsed() > STEP_LIMIT {
                return Err(ShippingError::Overrun.into());
            }
            if self.current.is_none() {
                let next = self.base.generation(cancel).await?;
                generation = Some(self.begin(next));
                self.flush().await?;
            }
            let Some(current) = &mut self.current else {
                return Err(Error::Internal("a generation was just begun"));
            };
            match look(&self.base, &mut self.live, current, cancel).await? {
                Look::Different => {
                    self.current = None;
                    continue;
                }
                Look::Changed(changes) if !changes.is_nothing(&current.table) => {
                    pages += changes.numbers.len() as u64;
                    compared += changes.compared;
                    missed += changes.missed;
                    bytes += self.base.seal(current, &changes)?;
                    current.fresh = !changes.partial;
                    if changes.partial {
                        self.flush().await?;
                        continue;
                    }
                }
                Look::Changed(Changes { complete_until: at, .. }) | Look::Unchanged { at } => {
                    current.seen = at;
                    if tell || current.told.elapsed() >= self.base.options.heartbeat {
                        current.store_ahead_ms = self.base.store_ahead().await;
                        self.base.seal(current, &Changes::none(at, &current.table))?;
                    }
                }
            }
            if self.next.is_none() && self.base.is_due(current) {
                current.began = Instant::now();
                let (base, cancel) = (Arc::clone(&self.base), cancel.clone());
                self.next = Some(tokio::spawn(async move { base.generation(&cancel).await }));
            }
            let (until, latest) = (current.seen, current.taken_at);
            self.flush().await?;
            pass(latest).await;
            self.until = Some(until);
            let outcome = if bytes == 0 {
                Outcome::Unchanged
            } else {
                Outcome::Changed {
                    pages,
                    compared,
                    bytes,
                    missed,
                }
            };
            return Ok(Shipped {
                until,
                latest,
                outcome,
                generation,
            });
        }
    }

    /// Brings the set that is waiting into the store.
    async fn flush(&mut self) -> Result<(), Error> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        let flushed = self.base.flush(current).await;
        if let Err(Error::Store(StoreError::Exists { .. })) = &flushed {
            // Somebody else's object is where ours should be: this chain ends here.
            self.current = None;
        }
        flushed
    }

    fn begin(&mut self, next: Current) -> NewGeneration {
        let begun = NewGeneration {
            name: next.name.clone(),
            snapshot: next.snapshot,
        };
        self.current = Some(next);
        begun
    }

    /// Ships until cancelled, and then what is left. Whatever fails is told and tried again.
    pub async fn run(&mut self, cancel: &CancellationToken, tell: &(dyn Fn(Event<'_>) + Send + Sync)) {
        let interval = self.base.options.interval;
        let (mut failing, mut pause) = (None::<(Timestamp, Instant)>, interval);
        loop {
            let started = Instant::now();
            let outcome = tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                outcome = self.ship_once(cancel) => outcome,
            };
            match outcome {
                Ok(shipped) => {
                    if let Some((since, _)) = failing.take() {
                        tell(Event::Recovered { since });
                    }
                    tell(Event::Shipped(&shipped));
                    pause = interval;
                }
                Err(_) if cancel.is_cancelled() => break,
                Err(error) => {
                    let (since, told) = *failing.get_or_insert_with(|| (clock::now(), started));
                    let again = told.elapsed() >= Duration::from_mins(1);
                    if told == started || again {
                        tell(Event::Failing {
                            error: &error,
                            since,
                            until: self.until,
                        });
                    }
                    failing = Some((since, if again { Instant::now() } else { told }));
                    pause = (pause * 2).min(LONGEST_PAUSE.max(interval));
                }
            }
            // Never later than the interval says, and not all shippers at one time.
            let jittered = pause.mul_f64(0.9 + 0.1 * rand::random::<f64>());
            tokio::select! {
                () = cancel.cancelled() => break,
                () = tokio::time::sleep_until(started + jittered) => {}
            }
        }
        if self.current.is_some() {
            let never = CancellationToken::new();
            match tokio::time::timeout(LAST_LIMIT, self.ship_last(&never)).await {
                Ok(Ok(shipped)) => tell(Event::Shipped(&shipped)),
                Ok(Err(error)) => tell(Event::Failing {
                    error: &error,
                    since: clock::now(),
                    until: self.until,
                }),
                Err(_) => tracing::warn!("the last changes could not be shipped in time"),
            }
        }
    }
}

/// The moment of a state is rounded up, and a fast store has it before that: whoever hears that it is shipped may ask for
/// the state of right now, and means this one.
async fn pass(moment: Timestamp) {
    let ahead = moment.duration_since(clock::now());
    if let Ok(ahead) = Duration::try_from(ahead) {
        // A clock that was set back keeps nobody waiting.
        tokio::time::sleep(ahead.min(Duration::from_millis(1))).await;
    }
}

/// Looks at the database from a thread of its own.
async fn look(
    base: &Base,
    live: &mut Option<Live>,
    current: &mut Current,
    cancel: &CancellationToken,
) -> Result<Look, Error> {
    let options = &base.options;
    let mut eye = live
        .take()
        .unwrap_or_else(|| Live::new(base.database.clone(), options.staging.clone(), options.by_copy));
    let compare = match current.fresh {
        false => Compare::Anew,
        true if current.compared.elapsed() >= options.compare_all => Compare::All,
        true => Compare::Changed,
    };
    // Tells the thread to stop when this future is dropped.
    let cancel = cancel.child_token();
    let guard = cancel.clone().drop_guard();
    let table = Arc::clone(&current.table);
    // One page must fit.
    let limit = options.set_bytes.clamp(1 << 16, CONTENT_LIMIT);
    let looking = blocking(move || {
        let looked = eye.look(&table, compare, limit, &cancel);
        (eye, looked)
    });
    let (eye, looked) = looking.await?;
    drop(guard);
    *live = Some(eye);
    // A look that failed forgets what it knew, and the next one compares everything by itself.
    if looked.is_ok() {
        current.fresh = true;
        if compare != Compare::Changed {
            current.compared = Instant::now();
        }
    }
    looked
}

impl Changes {
    /// Somebody committed, and every page is what it was.
    fn is_nothing(&self, table: &Table) -> bool {
        self.numbers.is_empty() && self.page_count == table.page_count() && !self.partial
    }

    fn none(at: Timestamp, table: &Table) -> Self {
        Self {
            partial: false,
            complete_until: at,
            taken_at: at,
            page_size: table.page_size,
            page_count: table.page_count(),
            numbers: Vec::new(),
            hashes: Vec::new(),
            content: Vec::new(),
            compared: 0,
            missed: 0,
        }
    }
}

impl Base {
    /// Whether a restore would have too much to do after the snapshot.
    fn is_due(&self, current: &Current) -> bool {
        let database = u64::from(current.table.page_count()) * u64::from(current.table.page_size);
        current.began.elapsed() >= self.options.generation_age
            || current.sequence >= self.options.generation_sets
            || current.stored >= database.max(CONTENT_LIMIT as u64)
    }

    /// Takes a snapshot; its set is sealed, and not stored yet.
    async fn generation(&self, cancel: &CancellationToken) -> Result<Current, Error> {
        let watch = Arc::new(Mutex::new(Watch::default()));
        let source = SqliteSource::new(&self.database, &self.options.staging).watched(Arc::clone(&watch));
        let options = BackupOptions {
            now: clock::now(),
            host: self.options.host.clone(),
            username: self.options.username.clone(),
            tags: self.options.tags.clone(),
            parent: Parent::Latest,
        };
        let report = backup(&self.repository, &source, &options, &Silent, cancel).await?;
        let watch = std::mem::take(&mut *watch.lock().unwrap_or_else(PoisonError::into_inner));
        let (Some(table), Some(seen), Some(taken_at)) = (watch.table.finish(), watch.began, watch.copied) else {
            return Err(Error::Internal("a database that was saved has pages"));
        };
        let (seen, taken_at) = (rounded(seen, false), rounded(taken_at, true));
        let now = Instant::now();
        let mut current = Current {
            name: generation_name(taken_at, report.snapshot),
            snapshot: report.snapshot,
            sequence: 0,
            previous: None,
            table: Arc::new(table),
            fresh: false,
            pending: None,
            seen,
            taken_at,
            told: now,
            began: now,
            compared: now,
            stored: 0,
            store_ahead_ms: self.store_ahead().await,
        };
        let changes = Changes {
            complete_until: seen,
            taken_at,
            ..Changes::none(seen, &current.table)
        };
        self.seal(&mut current, &changes)?;
        Ok(current)
    }

    /// How far the store's clock is ahead of ours, as far as it tells.
    async fn store_ahead(&self) -> i64 {
        let before = clock::now();
        let Ok(told) = self.repository.store().time().await else {
            return 0;
        };
        let half: SignedDuration = clock::now().duration_since(before) / 2;
        let ahead = told.duration_since(before + half);
        i64::try_from(ahead.as_millis()).unwrap_or(0)
    }

    /// Takes the changes over into what is known, and makes the set of them that is to be stored.
    fn seal(&self, current: &mut Current, changes: &Changes) -> Result<u64, Error> {
        if current.pending.is_some() {
            return Err(Error::Internal("a set is sealed when the one before is stored"));
        }
        let table = Arc::make_mut(&mut current.table);
        table.page_size = changes.page_size;
        table.resize(changes.page_count);
        for (number, hash) in changes.numbers.iter().zip(&changes.hashes) {
            table.set(*number, *hash);
        }
        // A clock that was put back does not put the chain back.
        let taken_at = changes.taken_at.max(current.taken_at);
        let header = Header {
            schema: Header::schema(),
            datastore: self.datastore.as_str().to_owned(),
            generation: current.name.clone(),
            sequence: current.sequence,
            previous: current.previous,
            page_size: table.page_size,
            page_count: table.page_count(),
            pages: changes.numbers.len() as u32,
            partial: changes.partial,
            sum: Header::sum_of(table.sum()),
            complete_until: changes.complete_until,
            taken_at,
            unchanged_until: current.previous.map(|_| current.seen),
            interval_ms: u64::try_from(self.options.interval.as_millis()).unwrap_or(u64::MAX),
            store_ahead_ms: current.store_ahead_ms,
            program: concat!("opsctl ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        let sealed = Bytes::from(seal(&self.repository, &header, &changes.numbers, &changes.content)?);
        let key = set_key(&self.datastore, &header)?;
        let bytes = sealed.len() as u64;
        current.previous = Some(Id::of(&sealed));
        current.pending = Some(Pending { key, sealed });
        current.sequence += 1;
        current.stored += bytes;
        current.taken_at = taken_at;
        if !changes.partial {
            current.seen = changes.complete_until;
        }
        Ok(bytes)
    }

    /// Brings the set that is waiting into the store.
    async fn flush(&self, current: &mut Current) -> Result<(), Error> {
        let Some(pending) = &current.pending else { return Ok(()) };
        let store = self.repository.store();
        let slow = |_| StoreError::Io {
            action: "write",
            key: pending.key.to_string(),
            source: std::io::ErrorKind::TimedOut.into(),
        };
        let put = tokio::time::timeout(PUT_LIMIT, store.put(&pending.key, pending.sealed.clone()));
        match put.await.map_err(slow).flatten() {
            Ok(()) => {}
            // An answer was lost: what is there must be ours.
            Err(error) if error.is_exists() => {
                let there = tokio::time::timeout(PUT_LIMIT, store.get(&pending.key))
                    .await
                    .map_err(slow)
                    .flatten()?;
                if there != pending.sealed {
                    return Err(error.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
        current.pending = None;
        current.told = Instant::now();
        Ok(())
    }
}
