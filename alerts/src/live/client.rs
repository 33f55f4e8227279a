//! What Prometheus and Alertmanager have in common when they are asked: a good answer is read, within what its objects may
//! cost; of a refusal the words are kept. What is asked and what the answers mean stands in `prometheus` and
//! `alertmanager`.

use endpoint::{Endpoint, EndpointError, Method, Question};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// No answer holds more braces, however large it may be: an empty object takes two bytes there and hundreds here.
const BRACES: usize = 500_000;

/// A server below an address.
#[derive(Debug, Clone)]
pub(super) struct Client(pub(super) Endpoint);

impl Client {
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, EndpointError> {
        let body = self.send(self.ask(Method::GET, path)).await?;
        self.read(&body)
    }

    /// What is no JSON, as `take` reads it.
    pub async fn text<T>(&self, path: &str, take: impl Fn(&str) -> Result<T, String>) -> Result<T, EndpointError> {
        let body = self.send(self.ask(Method::GET, path)).await?;
        take(&String::from_utf8_lossy(&body)).map_err(|what| self.0.foreign(what))
    }

    /// What a form is answered with.
    pub async fn form<T: DeserializeOwned>(&self, path: &str, pairs: &[(&str, &str)]) -> Result<T, EndpointError> {
        let body = self.send(self.ask(Method::POST, path).form(pairs)).await?;
        self.read(&body)
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, value: &impl Serialize) -> Result<T, EndpointError> {
        let body = self.send(self.ask(Method::POST, path).json(value)).await?;
        self.read(&body)
    }

    /// The same, of what is not answered in words.
    pub async fn tell(&self, path: &str, value: &impl Serialize) -> Result<(), EndpointError> {
        self.send(self.ask(Method::POST, path).json(value)).await.map(drop)
    }

    pub async fn delete(&self, path: &str) -> Result<(), EndpointError> {
        self.send(self.ask(Method::DELETE, path)).await.map(drop)
    }

    fn ask(&self, method: Method, path: &str) -> Question<'_> {
        self.0.ask(method, self.0.url(path))
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, EndpointError> {
        if body.split(|byte| *byte == b'{').nth(BRACES + 1).is_some() {
            return Err(self.0.foreign(format_args!("it holds more than {BRACES} objects")));
        }
        serde_json::from_slice(body).map_err(|error| self.0.foreign(error))
    }

    async fn send(&self, question: Question<'_>) -> Result<Vec<u8>, EndpointError> {
        let answer = question.answer().await?;
        if answer.status.is_success() {
            Ok(answer.body)
        } else {
            Err(self.0.refused(answer.status, &words(&answer.body)))
        }
    }
}

/// What a server says of a refusal: Prometheus speaks in objects, Alertmanager in text or in JSON text.
fn words(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Refusal {
        error: String,
    }
    serde_json::from_slice::<Refusal>(body)
        .map(|refusal| refusal.error)
        .or_else(|_| serde_json::from_slice::<String>(body))
        .unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned())
}
