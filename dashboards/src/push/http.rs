//! A Grafana over HTTP. Where it has the newer API (`/apis`, Grafana 12 and later) a board is an object with a resource
//! version; where it has not, a dashboard with a version (`/api`). Folders are made over the older API, which both have.
//!
//! NOT PROVED: written after Grafana's documentation and source, held against a server that speaks as they say, never
//! against a Grafana.
//!
//! Source: Grafana's HTTP API, "Dashboard", "Folder" and "New API structure".

use endpoint::{Access, Endpoint, EndpointError, Method, Question, StatusCode};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{Board, Folder, Grafana, PushError, Revision, Stored};

/// Longer answers are refused; a large board has a mebibyte.
const LARGEST: usize = 16 << 20;

const GROUP: &str = "dashboard.grafana.app";
const FOLDER: &str = "grafana.app/folder";
const MANAGED: &str = "grafana.app/managedBy";
const MESSAGE: &str = "grafana.app/message";
/// What a board's history says.
const WHY: &str = "pushed by opsctl";

/// A Grafana over HTTP.
#[derive(Debug)]
pub struct Http {
    endpoint: Endpoint,
    namespace: String,
    /// The version of the newer API to speak; none for the older one. Asked for once.
    version: OnceCell<Option<&'static str>>,
}

/// An answer and its document; null where it has none.
struct Answer {
    status: StatusCode,
    body: Value,
}

impl Http {
    /// A client for the Grafana below `url`; sends nothing. The token is that of a service account; `authority` is a PEM
    /// certificate that is trusted beside those of the system; `namespace` is `default` but for other organisations.
    ///
    /// # Errors
    /// [`EndpointError::Address`], [`EndpointError::Client`].
    pub fn new(url: &str, token: Option<String>, namespace: &str, authority: Option<&[u8]>) -> Result<Self, PushError> {
        let access = token.map_or(Access::Open, Access::Bearer);
        Ok(Self {
            endpoint: Endpoint::new("Grafana", url, access, authority)?.largest(LARGEST),
            namespace: namespace.to_owned(),
            version: OnceCell::new(),
        })
    }

    /// Its address, without a slash at its end and without a password.
    pub fn address(&self) -> String {
        self.endpoint.address().to_owned()
    }

    fn refused(&self, answer: &Answer) -> PushError {
        let words = answer.body["message"].as_str().unwrap_or("it does not say why");
        self.endpoint.refused(answer.status, words).into()
    }

    fn without(&self, field: &str) -> PushError {
        self.endpoint.foreign(format_args!("there is no `{field}`")).into()
    }

    /// Each piece is a segment of its own, whatever is in it; see [`is_segment`].
    fn ask(&self, method: Method, path: &[&str]) -> Question<'_> {
        let mut url = self.endpoint.url("");
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        self.endpoint.ask(method, url)
    }

    async fn send(&self, question: Question<'_>) -> Result<Answer, EndpointError> {
        let answer = question.answer().await?;
        let body = match serde_json::from_slice(&answer.body) {
            Ok(body) => body,
            // An error page of a proxy, or a page that is not there.
            Err(_) if !answer.status.is_success() => Value::Null,
            Err(error) => return Err(self.endpoint.foreign(error)),
        };
        let status = answer.status;
        Ok(Answer { status, body })
    }

    /// The best version of the newer API that there is and that we speak.
    async fn version(&self) -> Result<Option<&'static str>, PushError> {
        let ask = || async {
            let answer = self.send(self.ask(Method::GET, &["apis"])).await?;
            let groups = answer.body["groups"].as_array().map_or(&[][..], Vec::as_slice);
            let group = groups.iter().find(|group| group["name"] == GROUP);
            let versions = group.and_then(|group| group["versions"].as_array());
            let offered = |name: &str| versions.is_some_and(|all| all.iter().any(|version| version["version"] == name));
            Ok(["v1", "v1beta1"]
                .into_iter()
                .find(|name| answer.status == StatusCode::OK && offered(name)))
        };
        self.version.get_or_try_init(ask).await.copied()
    }

    fn object(&self, method: Method, version: &str, name: Option<&str>) -> Question<'_> {
        let mut path = vec!["apis", GROUP, version, "namespaces", &self.namespace, "dashboards"];
        path.extend(name);
        self.ask(method, &path)
    }

    async fn read_object(&self, version: &str, uid: &str) -> Result<Option<Stored>, PushError> {
        let answer = self.send(self.object(Method::GET, version, Some(uid))).await?;
        match answer.status.as_u16() {
            404 => return Ok(None),
            200 => {}
            _ => return Err(self.refused(&answer)),
        }
        let metadata = &answer.body["metadata"];
        let note = |name: &str| {
            metadata["annotations"][name]
                .as_str()
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let revision = metadata["resourceVersion"]
            .as_str()
            .ok_or_else(|| self.without("resourceVersion"))?;
        // In which version it is kept, when that is another one than was asked for.
        let kept = answer.body["status"]["conversion"]["storedVersion"].as_str();
        Ok(Some(Stored {
            spec: answer.body["spec"].clone(),
            revision: Revision(revision.to_owned()),
            folder: note(FOLDER),
            model: kept
                .filter(|kept| !kept.starts_with("v0") && !kept.starts_with("v1"))
                .map(|kept| self.endpoint.visible(kept)),
            managed_by: note(MANAGED).map(|by| self.endpoint.visible(&by)),
        }))
    }

    async fn write_object(
        &self,
        version: &str,
        board: &Board,
        folder: &Folder,
        follows: Option<&Revision>,
    ) -> Result<(), PushError> {
        let mut metadata = json!({
            "name": board.uid,
            "annotations": { (FOLDER): folder.uid, (MESSAGE): WHY },
        });
        let mut question = self.object(Method::POST, version, None);
        if let Some(Revision(revision)) = follows {
            metadata["resourceVersion"] = revision.as_str().into();
            question = self.object(Method::PUT, version, Some(&board.uid));
        }
        let body = json!({
            "apiVersion": format!("{GROUP}/{version}"),
            "kind": "Dashboard",
            "metadata": metadata,
            "spec": board.spec,
        });
        let answer = self.send(question.json(&body)).await?;
        match answer.status.as_u16() {
            200..=299 => Ok(()),
            409 | 412 => Err(PushError::Changed { uid: board.uid.clone() }),
            _ => Err(self.refused(&answer)),
        }
    }

    async fn read_dashboard(&self, uid: &str) -> Result<Option<Stored>, PushError> {
        let answer = self
            .send(self.ask(Method::GET, &["api", "dashboards", "uid", uid]))
            .await?;
        let found = match answer.status.as_u16() {
            404 => return Ok(None),
            200 => &answer.body,
            // Grafana 12 says over the older API that the board is one of the newer: `… use /apis/…/v2… instead`.
            406 => {
                let words = answer.body["message"].as_str().unwrap_or("");
                let model = words.split('/').find(|part| part.starts_with("v2")).unwrap_or("v2");
                let mut stored = Stored::classic(Value::Null, "");
                stored.model = Some(self.endpoint.visible(model));
                return Ok(Some(stored));
            }
            _ => return Err(self.refused(&answer)),
        };
        let (spec, about) = (&found["dashboard"], &found["meta"]);
        let version = spec["version"].as_u64().ok_or_else(|| self.without("version"))?;
        let file = about["provisionedExternalId"].as_str().filter(|file| !file.is_empty());
        Ok(Some(Stored {
            spec: spec.clone(),
            revision: Revision(version.to_string()),
            folder: about["folderUid"]
                .as_str()
                .filter(|uid| !uid.is_empty())
                .map(str::to_owned),
            model: None,
            managed_by: (about["provisioned"] == true).then(|| {
                format!(
                    "the file {}",
                    self.endpoint.visible(file.unwrap_or("of a provisioning"))
                )
            }),
        }))
    }

    async fn write_dashboard(
        &self,
        board: &Board,
        folder: &Folder,
        follows: Option<&Revision>,
    ) -> Result<(), PushError> {
        let mut spec = board.spec.clone();
        spec["id"] = Value::Null;
        spec["version"] = follows
            .and_then(|revision| revision.0.parse::<u64>().ok())
            .unwrap_or(0)
            .into();
        let body = json!({ "dashboard": spec, "folderUid": folder.uid, "overwrite": false, "message": WHY });
        let answer = self
            .send(self.ask(Method::POST, &["api", "dashboards", "db"]).json(&body))
            .await?;
        match (answer.status.as_u16(), answer.body["status"].as_str()) {
            (200..=299, _) => Ok(()),
            (409, _) | (412, Some("version-mismatch") | None) => Err(PushError::Changed { uid: board.uid.clone() }),
            _ => Err(self.refused(&answer)),
        }
    }
}

/// Whether something stays a segment in an address. No Grafana has anything of another name.
fn is_segment(uid: &str) -> bool {
    !matches!(uid, "" | "." | "..")
}

impl Grafana for Http {
    async fn board(&self, uid: &str) -> Result<Option<Stored>, PushError> {
        if !is_segment(uid) {
            return Ok(None);
        }
        match self.version().await? {
            Some(version) => self.read_object(version, uid).await,
            None => self.read_dashboard(uid).await,
        }
    }

    async fn folder(&self, uid: &str) -> Result<Option<String>, PushError> {
        if !is_segment(uid) {
            return Ok(None);
        }
        let answer = self.send(self.ask(Method::GET, &["api", "folders", uid])).await?;
        match answer.status.as_u16() {
            200 => answer.body["title"]
                .as_str()
                .map(|title| Some(title.to_owned()))
                .ok_or_else(|| self.without("title")),
            404 => Ok(None),
            _ => Err(self.refused(&answer)),
        }
    }

    async fn make_folder(&self, folder: &Folder) -> Result<(), PushError> {
        let body = json!({ "uid": folder.uid, "title": folder.title });
        let answer = self
            .send(self.ask(Method::POST, &["api", "folders"]).json(&body))
            .await?;
        match answer.status.as_u16() {
            200..=299 => Ok(()),
            // There already, or made by somebody else at this moment.
            409 | 412 if self.folder(&folder.uid).await?.is_some() => Ok(()),
            _ => Err(self.refused(&answer)),
        }
    }

    async fn write(&self, board: &Board, folder: &Folder, follows: Option<&Revision>) -> Result<(), PushError> {
        match self.version().await? {
            Some(version) => self.write_object(version, board, folder, follows).await,
            None => self.write_dashboard(board, folder, follows).await,
        }
    }
}
