//! Changes one object by compare-and-set: a JSON patch that tests the uid and the resource version which were read in the
//! same call, so that it can neither hit another object of that name nor undo what somebody else did meanwhile.
//!
//! The patch also notes on the object how to undo it, and the check of the fence lies between the read and the patch:
//! whoever raises the epoch then touches the object ([`KubePlatform::claim`](crate::Platform::claim)), and a patch that
//! was under way meets another resource version.

use kube::api::{Api, ApiResource, DynamicObject};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::KubePlatform;
use super::client::doubtful;
use crate::run::RunRecord;
use crate::{Cas, Fence, Field, PlatformError, Result};

/// How to undo what a run changed on the object: a list of [`Note`]s.
pub(super) const UNDO: &str = "opsctl.dev/undo";
/// The last `run/epoch` that took charge of the object.
pub(super) const FENCE: &str = "opsctl.dev/fence";
/// Who writes, in the `managedFields` of objects.
pub(super) const MANAGER: &str = "opsctl";
/// Somebody may be faster so often before we give up.
const ROUNDS: usize = 8;

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    pub(super) resource: ApiResource,
    /// `None` for what belongs to the cluster.
    pub(super) namespace: Option<String>,
    pub(super) name: String,
}

impl Target {
    /// An object of a kind that is known when this is built.
    pub(super) fn of<K: kube::Resource<DynamicType = ()>>(namespace: &str, name: &str) -> Self {
        Self {
            resource: ApiResource::erase::<K>(&()),
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
        }
    }

    pub(super) fn api(&self, client: kube::Client) -> Api<DynamicObject> {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &self.resource),
            None => Api::all_with(client, &self.resource),
        }
    }
}

/// What is to be changed, for whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change<'a> {
    pub(super) by: Option<&'a Fence>,
    pub(super) field: &'a Field,
    pub(super) expect: Option<&'a Value>,
    pub(super) new: Option<&'a Value>,
    /// Ask the API server whether it would do it.
    pub(super) dry_run: bool,
}

/// One undo step as the object has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) run: String,
    pub(super) epoch: u64,
    pub(super) kind: String,
    pub(super) target: String,
    pub(super) order: u32,
    pub(super) field: Field,
    pub(super) before: Option<Value>,
    pub(super) ours: Vec<Option<Value>>,
}

impl Note {
    /// What a run has to undo of a field.
    pub(super) fn all(record: &RunRecord, field: &Field) -> Vec<Self> {
        let steps = record.undo.iter();
        steps
            .filter(|step| step.field == *field && !step.settled())
            .map(|step| Self {
                run: record.id.clone(),
                epoch: record.epoch,
                kind: record.kind.clone(),
                target: record.target.clone(),
                order: step.order,
                field: step.field.clone(),
                before: step.before.clone(),
                ours: step.ours.clone(),
            })
            .collect()
    }
}

/// The operations of one patch.
pub(super) struct Patch<'a> {
    object: &'a DynamicObject,
    ops: Vec<Value>,
    annotations: bool,
}

impl<'a> Patch<'a> {
    /// A patch for exactly the object that was read.
    pub(super) fn new(object: &'a DynamicObject) -> Self {
        Self {
            object,
            ops: vec![
                json!({ "op": "test", "path": "/metadata/uid", "value": object.metadata.uid }),
                json!({ "op": "test", "path": "/metadata/resourceVersion", "value": object.metadata.resource_version }),
            ],
            annotations: object.metadata.annotations.is_some(),
        }
    }

    /// Adds or replaces a value.
    pub(super) fn set(&mut self, pointer: &str, value: impl Into<Value>) {
        self.ops
            .push(json!({ "op": "add", "path": pointer, "value": value.into() }));
    }

    /// Removes a value that is there.
    pub(super) fn remove(&mut self, pointer: &str) {
        self.ops.push(json!({ "op": "remove", "path": pointer }));
    }

    /// Sets an annotation, or removes it.
    pub(super) fn annotate(&mut self, key: &str, value: Option<&str>) {
        let pointer = format!("/metadata/annotations/{}", crate::field::escape(key));
        match value {
            Some(value) => {
                if !self.annotations {
                    self.set("/metadata/annotations", json!({}));
                    self.annotations = true;
                }
                self.set(&pointer, value);
            }
            None if annotation(self.object, key).is_some() => self.remove(&pointer),
            None => {}
        }
    }

    /// Notes on the object how to undo the change, or that it is undone.
    fn note(&mut self, change: &Change<'_>, record: Option<&RunRecord>) {
        let mut notes = notes(self.object);
        let before = notes.clone();
        match (change.by, record) {
            (Some(by), Some(record)) => {
                notes.retain(|note| note.run != by.run || note.field != *change.field);
                notes.extend(Note::all(record, change.field));
            }
            _ => notes.retain(|note| note.field != *change.field || note.before.as_ref() != change.new),
        }
        if notes != before {
            self.set_notes(&notes);
        }
        if notes.is_empty() && change.by.is_none() {
            self.annotate(FENCE, None);
        }
    }

    /// Replaces the list of undo steps.
    pub(super) fn set_notes(&mut self, notes: &[Note]) {
        let text = serde_json::to_string(notes).expect("strings, numbers and JSON are JSON");
        self.annotate(UNDO, (!notes.is_empty()).then_some(text.as_str()));
    }

    pub(super) fn into_ops(self) -> Vec<Value> {
        self.ops
    }
}

/// An annotation of an object.
pub(super) fn annotation<'a>(object: &'a DynamicObject, key: &str) -> Option<&'a str> {
    object.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The undo steps on an object; what cannot be read was not written by us.
pub(super) fn notes(object: &DynamicObject) -> Vec<Note> {
    annotation(object, UNDO)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// What came of a patch.
pub(super) enum Patched {
    /// It was made.
    Done,
    /// A test failed: the object is not what was read.
    Raced,
    /// There is no such object any more.
    Gone,
}

impl KubePlatform {
    /// Compares and sets one field of one object: `read` tells its value, `write` adds what makes it `change.new`. An
    /// object that does not exist has the value `None`.
    ///
    /// Errors: [`PlatformError::Fenced`] when the run has lost its right; those of `write`.
    pub(super) async fn edit(
        &self,
        target: &Target,
        change: &Change<'_>,
        read: impl Fn(&DynamicObject) -> Option<Value>,
        write: impl Fn(&DynamicObject, &mut Patch<'_>) -> Result<()>,
    ) -> Result<Cas> {
        let mut doubt = None;
        let mut last = None;
        for _ in 0..ROUNDS {
            let object = self.read(target).await?;
            let record = self.admit(change.by).await?;
            let actual = object.as_ref().and_then(&read);
            let Some(object) = object.filter(|_| actual.as_ref() == change.expect) else {
                // A patch of ours whose answer was lost.
                return Ok(if doubt.is_some() && actual.as_ref() == change.new {
                    Cas::Applied
                } else {
                    Cas::Conflict { actual }
                });
            };
            if last == object.metadata.resource_version {
                // Nobody was faster: a test of ours did not fail, the API server does not like the change.
                break;
            }
            last.clone_from(&object.metadata.resource_version);
            let mut patch = Patch::new(&object);
            write(&object, &mut patch)?;
            patch.note(change, record.as_ref());
            match self.patch(target, patch.into_ops(), change.dry_run).await {
                Ok(Patched::Done) => return Ok(Cas::Applied),
                Ok(Patched::Raced | Patched::Gone) => {}
                Err(error) if doubtful(&error) => {
                    last = None;
                    doubt = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(doubt.unwrap_or_else(|| PlatformError::Refused {
            what: format!("the change of `{}`", change.field),
            why: "the object changes all the time, or the API server finds the change invalid".to_owned(),
        }))
    }

    /// One object, if it exists.
    pub(super) async fn read(&self, target: &Target) -> Result<Option<DynamicObject>> {
        let read = target.api(self.clients.calls.clone()).get_opt(&target.name).await;
        read.map_err(|error| self.error(error))
    }

    /// Sends a JSON patch.
    pub(super) async fn patch(&self, target: &Target, ops: Vec<Value>, dry_run: bool) -> Result<Patched> {
        let api = target.api(self.clients.calls.clone());
        let dry = if dry_run { "&dryRun=All" } else { "" };
        let request = http::Request::patch(format!(
            "{}/{}?fieldManager={MANAGER}{dry}",
            api.resource_url(),
            target.name
        ))
        .header(http::header::CONTENT_TYPE, "application/json-patch+json")
        .body(Value::from(ops).to_string().into_bytes())
        .expect("names of objects make a path");
        match self.clients.calls.request::<DynamicObject>(request).await {
            Ok(_) => Ok(Patched::Done),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Patched::Gone),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Patched::Raced),
            Err(kube::Error::Api(status)) if status.code == 422 && is_test(&status) => Ok(Patched::Raced),
            Err(error) => Err(self.error(error)),
        }
    }

    /// The record of the run `by`, if that may still change things.
    pub(super) async fn admit(&self, by: Option<&Fence>) -> Result<Option<RunRecord>> {
        let Some(fence) = by else { return Ok(None) };
        let record = self.find_record(&fence.run).await?;
        match record.filter(|record| record.admits(fence)) {
            Some(record) => Ok(Some(record)),
            None => Err(PlatformError::Fenced { run: fence.run.clone() }),
        }
    }

    pub(super) fn error(&self, error: kube::Error) -> PlatformError {
        self.clients.error(error)
    }
}

/// A failed test of a JSON patch is an error without a cause; what is invalid names the field that is.
fn is_test(status: &kube::core::Status) -> bool {
    status.details.as_ref().is_none_or(|details| details.causes.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).expect("an object")
    }

    #[test]
    fn the_first_annotation_makes_the_map() {
        let bare = object(json!({ "metadata": { "name": "a", "uid": "u", "resourceVersion": "7" } }));
        let mut patch = Patch::new(&bare);
        patch.annotate("opsctl.dev/a", Some("1"));
        patch.annotate("opsctl.dev/b", Some("2"));
        patch.annotate("opsctl.dev/c", None);
        assert_eq!(
            Value::from(patch.into_ops()),
            json!([
                { "op": "test", "path": "/metadata/uid", "value": "u" },
                { "op": "test", "path": "/metadata/resourceVersion", "value": "7" },
                { "op": "add", "path": "/metadata/annotations", "value": {} },
                { "op": "add", "path": "/metadata/annotations/opsctl.dev~1a", "value": "1" },
                { "op": "add", "path": "/metadata/annotations/opsctl.dev~1b", "value": "2" },
            ])
        );
    }
}
