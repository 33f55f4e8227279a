//! An identity for tests: keys, tokens, and a JWKS answered over HTTP on a fixed free port.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) struct Key {
    id: String,
    private: EncodingKey,
    public: Value,
}

impl Key {
    pub(crate) fn new(id: &str) -> Self {
        let random = ring::rand::SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let point = pair.public_key().as_ref();
        let public = json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": id,
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..65]),
        });
        Self {
            id: id.into(),
            private: EncodingKey::from_ec_der(pkcs8.as_ref()),
            public,
        }
    }

    /// A token of `customer` that ends in `seconds` (negative: ended).
    pub(crate) fn token(&self, customer: &str, seconds: i64) -> String {
        let header = Header {
            kid: Some(self.id.clone()),
            ..Header::new(Algorithm::ES256)
        };
        let exp = jiff::Timestamp::now().as_second() + seconds;
        jsonwebtoken::encode(&header, &json!({"sub": customer, "exp": exp}), &self.private).unwrap()
    }
}

pub(crate) struct Identity {
    address: SocketAddr,
    published: Arc<Mutex<Vec<Value>>>,
    server: Option<JoinHandle<()>>,
}

impl Identity {
    pub(crate) async fn start(key: &Key) -> Self {
        let published = Arc::new(Mutex::new(vec![key.public.clone()]));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut identity = Self {
            address,
            published,
            server: None,
        };
        identity.serve(listener);
        identity
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn publish(&self, keys: &[&Key]) {
        *self.published.lock().unwrap() = keys.iter().map(|key| key.public.clone()).collect();
    }

    pub(crate) fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }

    fn serve(&mut self, listener: TcpListener) {
        let published = self.published.clone();
        let app = Router::new()
            .route(
                "/.well-known/jwks.json",
                get(move || async move { Json(json!({"keys": *published.lock().unwrap()})) }),
            )
            .route("/health/live", get(async || Json(json!({"status": "pass"}))));
        self.server = Some(tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }));
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        self.stop();
    }
}
