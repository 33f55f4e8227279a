//! Large objects in parts: begun, sent several at a time, and completed under the condition that nothing is there. What
//! cannot be completed is aborted, since parts cost money and no listing shows them; what was left by a process that
//! died is swept.

use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;

use super::failure::{Failed, Kind};
use super::{S3Store, timestamp};
use crate::store::StoreKey;

/// S3 takes no more.
const MOST_PARTS: u64 = 10_000;
/// Parts of one object on their way at one time.
const PARTS_AT_ONCE: usize = 4;

/// An upload that is aborted unless it was completed, also when nobody waits for it any more.
struct Upload {
    store: S3Store,
    name: String,
    id: String,
    over: bool,
}

impl Upload {
    async fn abort(&mut self) {
        self.over = true;
        if let Err(failed) = self.store.abort_upload(&self.name, &self.id).await {
            tracing::warn!(
                object = self.name,
                said = failed.said,
                "an unfinished upload could not be aborted"
            );
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let (false, Ok(runtime)) = (self.over, tokio::runtime::Handle::try_current()) else {
            return;
        };
        let (store, name, id) = (
            self.store.clone(),
            std::mem::take(&mut self.name),
            std::mem::take(&mut self.id),
        );
        let over = true;
        let mut upload = Self { store, name, id, over };
        runtime.spawn(async move { upload.abort().await });
    }
}

impl S3Store {
    /// Puts a body in parts.
    pub(super) async fn put_parts(&self, key: &StoreKey, body: &Bytes) -> Result<(), Failed> {
        let mut upload = self.begin(self.name(key.as_str())).await?;
        let outcome = match self.send_parts(&upload, body).await {
            Ok(parts) => self.complete(&upload, key, parts, body).await,
            Err(failed) => Err(failed),
        };
        match outcome {
            Ok(()) => upload.over = true,
            Err(_) => upload.abort().await,
        }
        outcome
    }

    /// Begins an upload in a task of its own: where nobody waits for it any more, it is aborted once its id is known.
    async fn begin(&self, name: String) -> Result<Upload, Failed> {
        let store = self.clone();
        let begun = tokio::spawn(async move {
            let id = store.begin_upload(&name).await?;
            let over = false;
            Ok(Upload { store, name, id, over })
        });
        begun
            .await
            .unwrap_or_else(|_| Err(Failed::new(Kind::Other, "the program is ending")))
    }

    async fn begin_upload(&self, name: &str) -> Result<String, Failed> {
        let begun = self.attempt(|| async {
            let link = self.link().await?;
            let watch = self.watch();
            let request = link
                .client
                .create_multipart_upload()
                .bucket(self.bucket())
                .key(name)
                .set_checksum_algorithm(self.checksum());
            watch
                .sent(&link, request.customize().interceptor(watch.clone()).send())
                .await
        });
        let id = begun.await?.upload_id;
        id.ok_or_else(|| Failed::new(Kind::Other, "the service gives an upload no name"))
    }

    async fn send_parts(&self, upload: &Upload, body: &Bytes) -> Result<Vec<CompletedPart>, Failed> {
        let wanted = self.shared.options.multipart.part.max(1);
        let length = wanted.max((body.len() as u64).div_ceil(MOST_PARTS));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let starts = (0..body.len()).step_by(length).enumerate();
        let given_up = AtomicBool::new(false);
        let given_up = &given_up;
        let parts = starts.map(|(index, start)| async move {
            if given_up.load(Ordering::Relaxed) {
                return Err(Failed::new(Kind::Other, "another part could not be sent"));
            }
            let part = body.slice(start..start.saturating_add(length).min(body.len()));
            self.send_part(upload, index, part).await
        });
        let mut sending = futures::stream::iter(parts).buffered(PARTS_AT_ONCE);
        let (mut sent, mut outcome) = (Vec::new(), Ok(()));
        while let Some(part) = sending.next().await {
            match part {
                Ok(part) => sent.push(part),
                // Those on their way are waited for: a part that comes after the upload is aborted may stay for good.
                Err(failed) if outcome.is_ok() => {
                    given_up.store(true, Ordering::Relaxed);
                    outcome = Err(failed);
                }
                Err(_) => {}
            }
        }
        outcome.map(|()| sent)
    }

    async fn send_part(&self, upload: &Upload, index: usize, body: Bytes) -> Result<CompletedPart, Failed> {
        let number = i32::try_from(index + 1).unwrap_or(i32::MAX);
        let sent = self.attempt(|| async {
            let link = self.link().await?;
            let watch = self.watch();
            let request = link
                .client
                .upload_part()
                .bucket(self.bucket())
                .key(&upload.name)
                .upload_id(&upload.id)
                .part_number(number)
                .set_checksum_algorithm(self.checksum())
                .body(body.clone().into())
                .customize()
                .interceptor(watch.clone());
            let request = if link.encrypted {
                request.disable_payload_signing()
            } else {
                request
            };
            watch.sent(&link, request.send()).await
        });
        let sent = sent.await?;
        let part = CompletedPart::builder().part_number(number);
        Ok(part
            .set_e_tag(sent.e_tag)
            .set_checksum_crc32(sent.checksum_crc32)
            .build())
    }

    async fn complete(
        &self,
        upload: &Upload,
        key: &StoreKey,
        parts: Vec<CompletedPart>,
        body: &Bytes,
    ) -> Result<(), Failed> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let in_doubt = AtomicBool::new(false);
        let outcome = self
            .attempt(|| async {
                let link = self.link().await?;
                let watch = self.watch();
                let request = link
                    .client
                    .complete_multipart_upload()
                    .bucket(self.bucket())
                    .key(&upload.name)
                    .upload_id(&upload.id)
                    .set_if_none_match(self.condition().map(str::to_owned))
                    .multipart_upload(parts.clone());
                let outcome = watch
                    .sent(&link, request.customize().interceptor(watch.clone()).send())
                    .await;
                if outcome.as_ref().is_err_and(Failed::leaves_doubt) {
                    in_doubt.store(true, Ordering::Relaxed);
                }
                outcome.map(drop)
            })
            .await;
        match outcome {
            // An answer was lost: the upload is over because it was completed.
            Err(failed) if matches!(failed.kind, Kind::NoUpload | Kind::Exists) && in_doubt.into_inner() => {
                let failed = Failed {
                    kind: Kind::Exists,
                    ..failed
                };
                self.ours_or(failed, key, body).await
            }
            outcome => outcome,
        }
    }

    async fn abort_upload(&self, name: &str, id: &str) -> Result<(), Failed> {
        let aborted = self.attempt(|| async {
            let link = self.link().await?;
            let watch = self.watch();
            let request = link
                .client
                .abort_multipart_upload()
                .bucket(self.bucket())
                .key(name)
                .upload_id(id);
            watch
                .sent(&link, request.customize().interceptor(watch.clone()).send())
                .await
        });
        match aborted.await {
            Err(failed) if failed.kind != Kind::NoUpload => Err(failed),
            _ => Ok(()),
        }
    }

    /// Aborts our uploads that were begun before `then`; says how many.
    pub(super) async fn abort_uploads_from_before(&self, then: Timestamp) -> Result<u64, Failed> {
        let (mut aborted, mut key_marker, mut id_marker) = (0, None::<String>, None::<String>);
        loop {
            let page = self.attempt(|| async {
                let link = self.link().await?;
                let watch = self.watch();
                let request = link
                    .client
                    .list_multipart_uploads()
                    .bucket(self.bucket())
                    .prefix(&self.shared.root)
                    .set_key_marker(key_marker.clone())
                    .set_upload_id_marker(id_marker.clone());
                watch
                    .sent(&link, request.customize().interceptor(watch.clone()).send())
                    .await
            });
            let page = page.await?;
            for upload in page.uploads() {
                let old = upload.initiated().and_then(timestamp).is_some_and(|begun| begun < then);
                if let (true, Some(name), Some(id)) = (old, upload.key(), upload.upload_id()) {
                    self.abort_upload(name, id).await?;
                    aborted += 1;
                }
            }
            let next = page.next_key_marker().map(str::to_owned);
            if page.is_truncated() != Some(true)
                || next <= key_marker && page.next_upload_id_marker() == id_marker.as_deref()
            {
                return Ok(aborted);
            }
            (key_marker, id_marker) = (next, page.next_upload_id_marker().map(str::to_owned));
        }
    }
}
