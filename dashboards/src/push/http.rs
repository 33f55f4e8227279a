//! A Grafana over HTTP. Where it has the newer API (`/apis`, Grafana 12 and later) a board is an object with a resource
//! version; where it has not, a dashboard with a version (`/api`). Folders are made over the older API, which both have.
//!
//! NOT PROVED: written after Grafana's documentation and source, held against a server that speaks as they say, never
//! against a Grafana.
//!
//! Source: Grafana's HTTP API, "Dashboard", "Folder" and "New API structure".

use std::fmt;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Url};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{Board, Folder, Grafana, PushError, Revision, Stored};

/// Longer answers are refused; a large board has a mebibyte.
const LARGEST: usize = 16 << 20;
/// One request with its answer.
const LIMIT: Duration = Duration::from_secs(10);
/// As much of what a Grafana says about an error as is shown.
const LONGEST_MESSAGE: usize = 300;

const GROUP: &str = "dashboard.grafana.app";
const FOLDER: &str = "grafana.app/folder";
const MANAGED: &str = "grafana.app/managedBy";
const MESSAGE: &str = "grafana.app/message";
/// What a board's history says.
const WHY: &str = "pushed by opsctl";

/// A Grafana over HTTP.
pub struct Http {
    base: Url,
    client: reqwest::Client,
    token: Option<String>,
    namespace: String,
    /// The version of the newer API to speak; none for the older one. Asked for once.
    version: OnceCell<Option<&'static str>>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http")
            .field("base", &self.base.as_str())
            .field("token", &self.token.is_some())
            .finish_non_exhaustive()
    }
}

/// An answer, read to its end.
struct Answer {
    status: u16,
    body: Value,
}

impl Http {
    /// A client for the Grafana below `url`; sends nothing. The token is that of a service account; `authority` is a PEM
    /// certificate that is trusted beside those of the system; `namespace` is `default` but for other organisations.
    ///
    /// # Errors
    /// [`PushError::Address`], [`PushError::Client`].
    pub fn new(url: &str, token: Option<String>, namespace: &str, authority: Option<&[u8]>) -> Result<Self, PushError> {
        let mut base: Url = url.parse().map_err(|_| PushError::Address)?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none_or(str::is_empty) {
            return Err(PushError::Address);
        }
        // The address is shown in errors.
        let _ = base.set_username("");
        let _ = base.set_password(None);
        base.set_query(None);
        base.set_fragment(None);
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        // An error says that one is installed already: as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A redirect would carry the token elsewhere.
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .timeout(LIMIT)
            .no_proxy();
        for certificate in authority
            .map(reqwest::Certificate::from_pem_bundle)
            .transpose()
            .map_err(PushError::Client)?
            .into_iter()
            .flatten()
        {
            builder = builder.add_root_certificate(certificate);
        }
        Ok(Self {
            base,
            client: builder.build().map_err(PushError::Client)?,
            token,
            namespace: namespace.to_owned(),
            version: OnceCell::new(),
        })
    }

    /// Its address, without a slash at its end and without a password.
    pub fn address(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    fn refused(&self, answer: &Answer) -> PushError {
        PushError::Refused {
            status: answer.status,
            message: self.visible(answer.body["message"].as_str().unwrap_or("it does not say why")),
        }
    }

    /// The begin of what Grafana says, without the token, which it may say again.
    fn visible(&self, words: &str) -> String {
        let words = match self.token.as_deref().map(str::trim) {
            Some(token) if !token.is_empty() => words.replace(token, "…"),
            _ => words.to_owned(),
        };
        words
            .chars()
            .filter(|c| !c.is_control())
            .take(LONGEST_MESSAGE)
            .collect()
    }

    fn foreign(&self) -> PushError {
        PushError::Foreign { at: self.address() }
    }

    /// Each piece is a segment of its own, whatever is in it; see [`is_segment`].
    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let request = self.client.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token.trim()),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Answer, PushError> {
        let failed = |error: reqwest::Error| {
            if error.is_timeout() {
                PushError::TimedOut {
                    at: self.address(),
                    seconds: LIMIT.as_secs(),
                }
            } else {
                PushError::Unreachable {
                    at: self.address(),
                    source: error.without_url(),
                }
            }
        };
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if bytes.len() + chunk.len() > LARGEST {
                return Err(PushError::TooLarge { limit: LARGEST });
            }
            bytes.extend_from_slice(&chunk);
        }
        if matches!(status, 401 | 403) {
            return Err(PushError::Forbidden {
                at: self.address(),
                status,
            });
        }
        match serde_json::from_slice(&bytes) {
            Ok(body) => Ok(Answer { status, body }),
            // An error page of a proxy, or a page that is not there.
            Err(_) if status >= 400 => Ok(Answer {
                status,
                body: Value::Null,
            }),
            Err(_) => Err(self.foreign()),
        }
    }

    /// The best version of the newer API that there is and that we speak.
    async fn version(&self) -> Result<Option<&'static str>, PushError> {
        let ask = || async {
            let answer = self.send(self.request(Method::GET, &["apis"])).await?;
            let groups = answer.body["groups"].as_array().map_or(&[][..], Vec::as_slice);
            let group = groups.iter().find(|group| group["name"] == GROUP);
            let versions = group.and_then(|group| group["versions"].as_array());
            let offered = |name: &str| versions.is_some_and(|all| all.iter().any(|version| version["version"] == name));
            Ok(["v1", "v1beta1"]
                .into_iter()
                .find(|name| answer.status == 200 && offered(name)))
        };
        self.version.get_or_try_init(ask).await.copied()
    }

    fn object(&self, method: Method, version: &str, name: Option<&str>) -> RequestBuilder {
        let mut path = vec!["apis", GROUP, version, "namespaces", &self.namespace, "dashboards"];
        path.extend(name);
        self.request(method, &path)
    }

    async fn read_object(&self, version: &str, uid: &str) -> Result<Option<Stored>, PushError> {
        let answer = self.send(self.object(Method::GET, version, Some(uid))).await?;
        match answer.status {
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
        let revision = metadata["resourceVersion"].as_str().ok_or_else(|| self.foreign())?;
        // In which version it is kept, when that is another one than was asked for.
        let kept = answer.body["status"]["conversion"]["storedVersion"].as_str();
        Ok(Some(Stored {
            spec: answer.body["spec"].clone(),
            revision: Revision(revision.to_owned()),
            folder: note(FOLDER),
            model: kept
                .filter(|kept| !kept.starts_with("v0") && !kept.starts_with("v1"))
                .map(|kept| self.visible(kept)),
            managed_by: note(MANAGED).map(|by| self.visible(&by)),
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
        let mut request = self.object(Method::POST, version, None);
        if let Some(Revision(revision)) = follows {
            metadata["resourceVersion"] = revision.as_str().into();
            request = self.object(Method::PUT, version, Some(&board.uid));
        }
        let body = json!({
            "apiVersion": format!("{GROUP}/{version}"),
            "kind": "Dashboard",
            "metadata": metadata,
            "spec": board.spec,
        });
        let answer = self.send(request.json(&body)).await?;
        match answer.status {
            200..=299 => Ok(()),
            409 | 412 => Err(PushError::Changed { uid: board.uid.clone() }),
            _ => Err(self.refused(&answer)),
        }
    }

    async fn read_dashboard(&self, uid: &str) -> Result<Option<Stored>, PushError> {
        let answer = self
            .send(self.request(Method::GET, &["api", "dashboards", "uid", uid]))
            .await?;
        let found = match answer.status {
            404 => return Ok(None),
            200 => &answer.body,
            // Grafana 12 says over the older API that the board is one of the newer: `… use /apis/…/v2… instead`.
            406 => {
                let words = answer.body["message"].as_str().unwrap_or("");
                let model = words.split('/').find(|part| part.starts_with("v2")).unwrap_or("v2");
                let mut stored = Stored::classic(Value::Null, "");
                stored.model = Some(self.visible(model));
                return Ok(Some(stored));
            }
            _ => return Err(self.refused(&answer)),
        };
        let (spec, about) = (&found["dashboard"], &found["meta"]);
        let version = spec["version"].as_u64().ok_or_else(|| self.foreign())?;
        let file = about["provisionedExternalId"].as_str().filter(|file| !file.is_empty());
        Ok(Some(Stored {
            spec: spec.clone(),
            revision: Revision(version.to_string()),
            folder: about["folderUid"]
                .as_str()
                .filter(|uid| !uid.is_empty())
                .map(str::to_owned),
            model: None,
            managed_by: (about["provisioned"] == true)
                .then(|| format!("the file {}", self.visible(file.unwrap_or("of a provisioning")))),
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
            .send(self.request(Method::POST, &["api", "dashboards", "db"]).json(&body))
            .await?;
        match (answer.status, answer.body["status"].as_str()) {
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
        let answer = self.send(self.request(Method::GET, &["api", "folders", uid])).await?;
        match answer.status {
            200 => answer.body["title"]
                .as_str()
                .map(|title| Some(title.to_owned()))
                .ok_or_else(|| self.foreign()),
            404 => Ok(None),
            _ => Err(self.refused(&answer)),
        }
    }

    async fn make_folder(&self, folder: &Folder) -> Result<(), PushError> {
        let body = json!({ "uid": folder.uid, "title": folder.title });
        let answer = self
            .send(self.request(Method::POST, &["api", "folders"]).json(&body))
            .await?;
        match answer.status {
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
