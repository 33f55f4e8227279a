//! A store in a bucket of S3, or of a service that speaks as S3 does, in restic's layout below a prefix.
//!
//! Every put says `If-None-Match: *`, so that nothing is replaced; a service that lacks it is asked for the object first,
//! which two writers at one time can slip through. The SDK repeats nothing: a policy of `resilience` does. A put whose
//! answer was lost finds its own object when it is repeated, and knows it by its bytes.
//!
//! Where the bucket keeps versions, `delete` hides an object behind a delete marker: listings and reads pass it over, and
//! the bytes stay until the bucket's own rules let go of them. Retention is the bucket's: what it locks by default is
//! locked, and a delete that is refused for it is [`StoreError::Denied`].
//!
//! Listings are believed as far as S3 promises: whatever was acknowledged before is in them. A service whose listings lag
//! loses nothing that way: what a backup does not see it stores again, and a restore or a check that misses an object says so.

mod attempt;
mod client;
mod failure;
mod multipart;
mod options;
mod read;
mod roles;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use aws_sdk_s3::types::ChecksumAlgorithm;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

pub use options::{Checksums, Credentials, Keys, Multipart, Patience, S3Options};
pub use roles::{pruner_policy, writer_policy};

use super::{Entry, Page, Store, StoreError, StoreKey};
use attempt::{Policy, Watch};
use client::{Clients, Link};
use failure::{Failed, Kind};

/// The most that S3 lists at once.
const MOST_LISTED: usize = 1000;

/// A bucket, or what lies below a prefix in it. Clones share connections and what was learned of the service.
#[derive(Clone)]
pub struct S3Store {
    shared: Arc<Shared>,
}

struct Shared {
    options: S3Options,
    /// Empty, or ending in `/`.
    root: String,
    clients: Clients,
    policy: Policy,
    /// The service keeps `If-None-Match`.
    conditional: AtomicBool,
}

impl S3Store {
    /// The store; nothing is asked yet, and no credentials are fetched.
    pub fn new(options: S3Options) -> Self {
        let prefix = options.prefix.trim_matches('/');
        let root = if prefix.is_empty() {
            String::new()
        } else {
            format!("{prefix}/")
        };
        let shared = Shared {
            root,
            clients: Clients::new(&options),
            policy: Policy::new(&options.patience),
            conditional: AtomicBool::new(true),
            options,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The bucket.
    fn bucket(&self) -> &str {
        &self.shared.options.bucket
    }

    /// The name of an object in the bucket.
    fn name(&self, key: &str) -> String {
        format!("{}{key}", self.shared.root)
    }

    /// A client, with the credentials that are valid now.
    async fn link(&self) -> Result<Link, Failed> {
        self.shared.clients.link().await
    }

    fn watch(&self) -> Watch {
        Watch::new(self.shared.options.patience.idle)
    }

    /// Attempts something until it succeeds, or repeating it makes no sense any more.
    async fn attempt<T, F, Fut>(&self, operation: F) -> Result<T, Failed>
    where
        F: FnMut() -> Fut + Send,
        Fut: Future<Output = Result<T, Failed>> + Send,
        T: Send,
    {
        self.shared.policy.run(&self.shared.clients, operation).await
    }

    fn told(&self, failed: Failed, action: &'static str, key: impl Into<String>) -> StoreError {
        failed.told(&self.location(), self.bucket(), action, key.into())
    }

    /// Algorithm of a checksum, if one is wanted.
    fn checksum(&self) -> Option<ChecksumAlgorithm> {
        let wanted = self.shared.clients.with_checksums();
        wanted.then_some(ChecksumAlgorithm::Crc32)
    }

    fn condition(&self) -> Option<&'static str> {
        self.shared.conditional.load(Ordering::Relaxed).then_some("*")
    }

    /// Whether the failure tells of a property of the service that the store can live with, so that another try makes sense.
    fn learned(&self, failed: &Failed) -> bool {
        match failed.kind {
            Kind::NotImplemented if self.shared.conditional.swap(false, Ordering::Relaxed) => {
                tracing::warn!(
                    location = self.location(),
                    "the service has no conditional writes: two machines that write the same object at the same time are not kept apart"
                );
                true
            }
            // As buckets with object lock do.
            Kind::ChecksumNeeded => self.shared.clients.want_checksums(),
            _ => false,
        }
    }

    /// Puts a body in one request.
    async fn put_whole(&self, key: &StoreKey, body: &Bytes) -> Result<(), Failed> {
        // A request that failed on the way may have been done.
        let in_doubt = AtomicBool::new(false);
        let outcome = self
            .attempt(|| async {
                // Where it was done, a service may refuse the next one before it has read it, and cut the connection: the
                // refusal is lost under what is still being sent.
                if in_doubt.load(Ordering::Relaxed) {
                    match self.head_once(key).await {
                        Ok(_) => return Err(Failed::new(Kind::Exists, "it is there")),
                        Err(failed) if failed.kind == Kind::NotFound => {}
                        Err(failed) => return Err(failed),
                    }
                }
                let link = self.link().await?;
                let watch = self.watch();
                let request = link
                    .client
                    .put_object()
                    .bucket(self.bucket())
                    .key(self.name(key.as_str()))
                    .set_if_none_match(self.condition().map(str::to_owned))
                    .set_checksum_algorithm(self.checksum())
                    .body(body.clone().into())
                    .customize()
                    .interceptor(watch.clone());
                let request = if link.encrypted {
                    request.disable_payload_signing()
                } else {
                    request
                };
                let outcome = watch.sent(&link, request.send()).await;
                if outcome.as_ref().is_err_and(Failed::leaves_doubt) {
                    in_doubt.store(true, Ordering::Relaxed);
                }
                outcome.map(drop)
            })
            .await;
        match outcome {
            Err(failed) if failed.kind == Kind::Exists && in_doubt.into_inner() => {
                self.ours_or(failed, key, body).await
            }
            outcome => outcome,
        }
    }

    /// `Ok` if the object has these bytes, so that it was our own request that made it.
    async fn ours_or(&self, failed: Failed, key: &StoreKey, body: &Bytes) -> Result<(), Failed> {
        const PIECE: usize = 16 << 20;
        if self.head(key).await?.size != body.len() as u64 {
            return Err(failed);
        }
        let mut offset = 0;
        while offset < body.len() {
            let mine = body.slice(offset..(offset + PIECE).min(body.len()));
            let there = self.read_range(key, offset as u64, mine.len() as u64).await?;
            if there != mine {
                return Err(failed);
            }
            offset += mine.len();
        }
        Ok(())
    }

    async fn head(&self, key: &StoreKey) -> Result<Entry, Failed> {
        self.attempt(|| self.head_once(key)).await
    }

    async fn head_once(&self, key: &StoreKey) -> Result<Entry, Failed> {
        let link = self.link().await?;
        let (watch, name) = (self.watch(), self.name(key.as_str()));
        let request = link.client.head_object().bucket(self.bucket()).key(&name);
        let head = match watch
            .sent(&link, request.customize().interceptor(watch.clone()).send())
            .await
        {
            // The answer to HEAD has no body that could say why: that to GET has one.
            Err(refused) if refused.is_refusal() => {
                let again = self.watch();
                let request = link
                    .client
                    .get_object()
                    .bucket(self.bucket())
                    .key(name)
                    .range("bytes=0-0");
                let asked = again
                    .sent(&link, request.customize().interceptor(again.clone()).send())
                    .await;
                return Err(asked.err().unwrap_or(Failed {
                    kind: Kind::Passing,
                    ..refused
                }));
            }
            head => head?,
        };
        Ok(Entry {
            key: key.clone(),
            size: head
                .content_length()
                .and_then(|length| u64::try_from(length).ok())
                .unwrap_or(0),
            modified: head.last_modified().and_then(timestamp),
        })
    }

    /// One page of a listing, as the service cuts it: names, and whether there are more.
    async fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<(String, u64, Option<Timestamp>)>, bool), Failed> {
        let limit = i32::try_from(limit.clamp(1, MOST_LISTED)).unwrap_or(1);
        let listed = self.attempt(|| async {
            let link = self.link().await?;
            let watch = self.watch();
            let request = link
                .client
                .list_objects_v2()
                .bucket(self.bucket())
                .prefix(self.name(prefix))
                .set_start_after(after.map(str::to_owned))
                .max_keys(limit);
            watch
                .sent(&link, request.customize().interceptor(watch.clone()).send())
                .await
        });
        let listed = listed.await?;
        let objects = listed.contents().iter().filter_map(|object| {
            let size = object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
            Some((
                object.key()?.to_owned(),
                size,
                object.last_modified().and_then(timestamp),
            ))
        });
        Ok((objects.collect(), listed.is_truncated().unwrap_or(false)))
    }

    async fn list_keys(&self, prefix: &str, after: Option<&StoreKey>, limit: usize) -> Result<Page, Failed> {
        let mut after = after.map(|key| self.name(key.as_str()));
        loop {
            let (objects, more) = self.page(prefix, after.as_deref(), limit).await?;
            let last = objects.last().map(|(name, ..)| name.clone());
            // Names that are none of ours, such as those of "folders", are passed over.
            let entries = objects.into_iter().filter_map(|(name, size, modified)| {
                let key = StoreKey::new(name.strip_prefix(&self.shared.root)?).ok()?;
                Some(Entry { key, size, modified })
            });
            let entries: Vec<Entry> = entries.collect();
            match (more, entries.last()) {
                (false, _) => return Ok(Page { entries, next: None }),
                (true, Some(entry)) => {
                    let next = Some(entry.key.clone());
                    return Ok(Page { entries, next });
                }
                (true, None) if last.is_none() || last <= after => {
                    return Err(Failed::new(Kind::Other, "a page of the listing leads nowhere"));
                }
                (true, None) => after = last,
            }
        }
    }

    async fn remove(&self, key: &StoreKey) -> Result<(), Failed> {
        let removed = self.attempt(|| async {
            let link = self.link().await?;
            let watch = self.watch();
            let request = link
                .client
                .delete_object()
                .bucket(self.bucket())
                .key(self.name(key.as_str()));
            watch
                .sent(&link, request.customize().interceptor(watch.clone()).send())
                .await
        });
        match removed.await {
            Err(failed) if failed.kind != Kind::NotFound => Err(failed),
            _ => Ok(()),
        }
    }

    async fn server_time(&self) -> Result<Timestamp, Failed> {
        self.attempt(|| async {
            let link = self.link().await?;
            let watch = self.watch();
            let request = link.client.head_object().bucket(self.bucket()).key(self.name("config"));
            let outcome = watch
                .sent(&link, request.customize().interceptor(watch.clone()).send())
                .await;
            // Refused or not, it says what time it is.
            match (watch.date(), outcome) {
                (Some(date), Ok(_)) => Ok(date),
                (Some(date), Err(failed)) if failed.is_refusal() => Ok(date),
                (_, Err(failed)) => Err(failed),
                (None, Ok(_)) => Err(Failed::new(Kind::Other, "the service does not say what time it is")),
            }
        })
        .await
    }
}

/// A time of the SDK.
fn timestamp(time: &aws_sdk_s3::primitives::DateTime) -> Option<Timestamp> {
    Timestamp::new(time.secs(), i32::try_from(time.subsec_nanos()).ok()?).ok()
}

#[async_trait]
impl Store for S3Store {
    fn location(&self) -> String {
        let prefix = self.shared.root.trim_end_matches('/');
        let slash = if prefix.is_empty() { "" } else { "/" };
        format!("s3://{}{slash}{prefix}", self.bucket())
    }

    async fn put(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        loop {
            let large = body.len() as u64 > self.shared.options.multipart.above;
            let outcome = async {
                // Without the condition, and before much is sent for nothing.
                if large || self.condition().is_none() {
                    match self.head(key).await {
                        Ok(_) => return Err(Failed::new(Kind::Exists, "it is there")),
                        Err(failed) if failed.kind == Kind::NotFound => {}
                        Err(failed) => return Err(failed),
                    }
                }
                if large {
                    self.put_parts(key, &body).await
                } else {
                    self.put_whole(key, &body).await
                }
            };
            match outcome.await {
                Ok(()) => return Ok(()),
                Err(failed) if self.learned(&failed) => {}
                Err(failed) => return Err(self.told(failed, "write", key.as_str())),
            }
        }
    }

    async fn get(&self, key: &StoreKey) -> Result<Bytes, StoreError> {
        let read = self.read_whole(key).await;
        read.map_err(|failed| self.told(failed, "read", key.as_str()))
    }

    async fn get_range(&self, key: &StoreKey, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        let read = self.read_range(key, offset, length).await;
        read.map_err(|failed| self.told(failed, "read", key.as_str()))
    }

    async fn stat(&self, key: &StoreKey) -> Result<Entry, StoreError> {
        let head = self.head(key).await;
        head.map_err(|failed| self.told(failed, "look at", key.as_str()))
    }

    async fn list(&self, prefix: &str, after: Option<&StoreKey>, limit: usize) -> Result<Page, StoreError> {
        let listed = self.list_keys(prefix, after, limit).await;
        listed.map_err(|failed| self.told(failed, "list", prefix))
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        let removed = self.remove(key).await;
        removed.map_err(|failed| self.told(failed, "delete", key.as_str()))
    }

    async fn time(&self) -> Result<Timestamp, StoreError> {
        let time = self.server_time().await;
        time.map_err(|failed| self.told(failed, "ask for the time of", self.location()))
    }

    fn transfers(&self) -> usize {
        self.shared.options.transfers.max(1)
    }

    async fn sweep(&self, age: SignedDuration) -> Result<u64, StoreError> {
        let before = self.time().await? - age;
        let swept = self.abort_uploads_from_before(before).await;
        swept.map_err(|failed| self.told(failed, "look for unfinished uploads in", self.location()))
    }
}
