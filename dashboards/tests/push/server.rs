//! A server that speaks as much of Grafana's HTTP API as pushing needs: written after its documentation, with versions
//! that go up, refusals that have its words, and a token.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use dashboards::push::http::Http;
use serde_json::{Value, json};

/// Which API it has.
#[derive(Debug, Clone, Copy)]
pub enum Api {
    /// `/api` alone.
    Older,
    /// `/apis` as well, in this version.
    Newer(&'static str),
}

/// A running server.
pub struct Server {
    address: String,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Debug)]
struct Inside {
    api: Api,
    token: String,
    strange: Option<&'static str>,
    folders: BTreeMap<String, String>,
    boards: BTreeMap<String, Kept>,
    asked: Vec<String>,
    version: u64,
}

#[derive(Debug, Clone)]
struct Kept {
    spec: Value,
    version: u64,
    folder: String,
    model: Option<String>,
    file: Option<String>,
}

impl Server {
    pub async fn start(api: Api, token: &str) -> Self {
        Self::with(api, token, None).await
    }

    /// One that answers in ways in which no Grafana does.
    pub async fn strange(how: &'static str) -> Self {
        Self::with(Api::Older, "", Some(how)).await
    }

    async fn with(api: Api, token: &str, strange: Option<&'static str>) -> Self {
        let inside = Arc::new(Mutex::new(Inside {
            api,
            token: token.to_owned(),
            strange,
            folders: BTreeMap::new(),
            boards: BTreeMap::new(),
            asked: Vec::new(),
            version: 0,
        }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(inside.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, inside }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn client(&self, token: &str) -> Http {
        Http::new(&self.address, Some(token.to_owned()), "default", None).unwrap()
    }

    /// Beside the question which API there is.
    pub fn assert_only_asked(&self, prefix: &str) {
        let inside = self.inside.lock().unwrap();
        let other = inside
            .asked
            .iter()
            .find(|path| !path.starts_with(prefix) && *path != "/apis");
        assert_eq!(other, None);
    }

    /// Every path that was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.inside.lock().unwrap().asked.clone()
    }

    pub fn keep_in_second_model(&self, uid: &str, model: &str) {
        self.keep(uid, |kept| kept.model = Some(model.to_owned()));
    }

    pub fn provision(&self, uid: &str, file: &str) {
        self.keep(uid, |kept| kept.file = Some(file.to_owned()));
    }

    fn keep(&self, uid: &str, change: impl Fn(&mut Kept)) {
        let mut kept = Kept {
            spec: json!({}),
            version: 1,
            folder: "opsctl".to_owned(),
            model: None,
            file: None,
        };
        change(&mut kept);
        self.inside.lock().unwrap().boards.insert(uid.to_owned(), kept);
    }
}

async fn answer(
    State(inside): State<Arc<Mutex<Inside>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut inside = inside.lock().unwrap();
    inside.asked.push(uri.path().to_owned());
    match inside.strange {
        Some("page") => return "<html>welcome</html>".into_response(),
        Some("large") => return vec![b' '; 17 << 20].into_response(),
        Some("redirect") => return (StatusCode::FOUND, [(header::LOCATION, "/login")]).into_response(),
        Some("echo") => {
            return says(
                500,
                json!({ "message": format!("you said {}", headers["authorization"].to_str().unwrap()) }),
            );
        }
        Some("broken") => return (StatusCode::INTERNAL_SERVER_ERROR, "oh").into_response(),
        _ => {}
    }
    let expected = format!("Bearer {}", inside.token);
    if headers
        .get(header::AUTHORIZATION)
        .is_none_or(|sent| sent != expected.as_str())
    {
        return says(401, json!({ "message": "Invalid API key" }));
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path: Vec<String> = uri.path().split('/').skip(1).map(decoded).collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match (inside.api, path.as_slice()) {
        (Api::Newer(version), ["apis"]) => {
            let of = json!([{ "groupVersion": format!("dashboard.grafana.app/{version}"), "version": version }]);
            says(
                200,
                json!({ "kind": "APIGroupList", "groups": [{ "name": "dashboard.grafana.app", "versions": of }] }),
            )
        }
        (
            Api::Newer(own),
            [
                "apis",
                "dashboard.grafana.app",
                version,
                "namespaces",
                "default",
                "dashboards",
                uid @ ..,
            ],
        ) if own == *version => inside.object(&method, version, uid.first().copied(), body),
        (_, ["api", "folders", uid]) => match inside.folders.get(*uid) {
            Some(title) => says(200, json!({ "uid": uid, "title": title })),
            None => says(404, json!({ "message": "folder not found" })),
        },
        (_, ["api", "folders"]) => {
            let uid = body["uid"].as_str().unwrap().to_owned();
            inside.folders.insert(uid, body["title"].as_str().unwrap().to_owned());
            says(200, body)
        }
        (Api::Older, ["api", "dashboards", "uid", uid]) => inside.read(uid),
        (Api::Older, ["api", "dashboards", "db"]) => inside.write(body),
        _ => says(404, json!({ "message": "Not found" })),
    }
}

fn says(status: u16, body: Value) -> Response {
    (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
}

fn decoded(segment: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = segment.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'%').then(|| std::str::from_utf8(&after[..2]).unwrap());
        bytes.push(code.map_or(first, |code| u8::from_str_radix(code, 16).unwrap()));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).unwrap()
}

impl Inside {
    fn read(&self, uid: &str) -> Response {
        let Some(kept) = self.boards.get(uid) else {
            return says(404, json!({ "message": "Dashboard not found" }));
        };
        if let Some(model) = &kept.model {
            let instead = format!("/apis/dashboard.grafana.app/{model}/namespaces/default/dashboards/{uid}");
            let message = format!("dashboard api version not supported, use {instead} instead");
            return says(406, json!({ "message": message }));
        }
        let mut spec = kept.spec.clone();
        (spec["id"], spec["version"]) = (17.into(), kept.version.into());
        let about = json!({ "folderUid": kept.folder, "provisioned": kept.file.is_some(),
            "provisionedExternalId": kept.file.clone().unwrap_or_default() });
        says(200, json!({ "dashboard": spec, "meta": about }))
    }

    fn write(&mut self, body: Value) -> Response {
        let spec = body["dashboard"].clone();
        let uid = spec["uid"].as_str().unwrap().to_owned();
        assert_eq!((&body["overwrite"], &spec["id"]), (&json!(false), &Value::Null));
        let version = self.boards.get(&uid).map_or(0, |kept| kept.version);
        if spec["version"] != version {
            let message = "The dashboard has been changed by someone else";
            return says(412, json!({ "message": message, "status": "version-mismatch" }));
        }
        let folder = body["folderUid"].as_str().unwrap().to_owned();
        self.boards.insert(
            uid,
            Kept {
                spec,
                version: version + 1,
                folder,
                model: None,
                file: None,
            },
        );
        says(200, json!({ "status": "success", "version": version + 1 }))
    }

    fn object(&mut self, method: &Method, version: &str, uid: Option<&str>, body: Value) -> Response {
        let missing = || says(404, json!({ "kind": "Status", "message": "not found", "code": 404 }));
        let conflict = || {
            says(
                409,
                json!({ "kind": "Status", "message": "the object has been modified", "code": 409 }),
            )
        };
        if *method == Method::GET {
            let Some(kept) = self.boards.get(uid.unwrap()) else {
                return missing();
            };
            let status = match &kept.model {
                Some(model) => json!({ "conversion": { "failed": false, "storedVersion": model } }),
                None => json!({}),
            };
            return says(
                200,
                json!({ "kind": "Dashboard", "apiVersion": format!("dashboard.grafana.app/{version}"),
                    "metadata": { "name": uid, "resourceVersion": kept.version.to_string(),
                        "annotations": { "grafana.app/folder": kept.folder } },
                    "spec": kept.spec, "status": status }),
            );
        }
        let name = body["metadata"]["name"].as_str().unwrap().to_owned();
        let sent = body["metadata"]["resourceVersion"].as_str();
        let kept = self.boards.get(&name).map(|kept| kept.version.to_string());
        if *method == Method::PUT {
            assert_eq!(uid, Some(name.as_str()));
            assert!(sent.is_some(), "an update without the revision that it follows");
        }
        if kept.as_deref() != sent {
            return conflict();
        }
        self.version += 1;
        let folder = body["metadata"]["annotations"]["grafana.app/folder"]
            .as_str()
            .unwrap()
            .to_owned();
        let kept = Kept {
            spec: body["spec"].clone(),
            version: self.version,
            folder,
            model: None,
            file: None,
        };
        self.boards.insert(name, kept);
        says(if sent.is_some() { 200 } else { 201 }, body)
    }
}
