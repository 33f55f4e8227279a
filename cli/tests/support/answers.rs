//! A server on a loopback port that answers as a test says: for answers that no real server gives on demand.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What it was asked: the first line and the headers of each request, lower case.
pub type Asked = Arc<Mutex<Vec<String>>>;

/// A server until the end of the test process.
pub struct Answers {
    pub address: SocketAddr,
    pub asked: Asked,
    /// The bodies of requests that had one.
    pub bodies: Arc<Mutex<Vec<String>>>,
}

impl Answers {
    /// Answers each request with the bytes that `answer` makes of its first line; none: never, the connection stays open.
    pub fn start(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = Asked::default();
        let bodies = Arc::default();
        let (answer, seen, read) = (Arc::new(answer), Arc::clone(&asked), Arc::clone(&bodies));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, seen, read) = (Arc::clone(&answer), Arc::clone(&seen), Arc::clone(&read));
                std::thread::spawn(move || serve(&stream, &*answer, &seen, &read));
            }
        });
        Self { address, asked, bodies }
    }

    /// One answer to everything.
    pub fn always(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |_| Some(answer.clone()))
    }

    /// A path on it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panics with it").clone()
    }

    /// The bodies that were JSON documents.
    pub fn documents(&self) -> Vec<serde_json::Value> {
        let bodies = self.bodies.lock().expect("nobody panics with it");
        bodies
            .iter()
            .filter_map(|body| serde_json::from_str(body).ok())
            .collect()
    }
}

fn serve(mut stream: &TcpStream, answer: &dyn Fn(&str) -> Option<Vec<u8>>, seen: &Asked, bodies: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    let mut request = String::new();
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if line == "\r\n" => break,
            Ok(_) => request.push_str(&line),
        }
    }
    let first = request.lines().next().unwrap_or_default().to_owned();
    let lower = request.to_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: u64 = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
    let mut body = String::new();
    if length > 0 && reader.by_ref().take(length).read_to_string(&mut body).is_ok() {
        bodies.lock().expect("nobody panics with it").push(body);
    }
    seen.lock().expect("nobody panics with it").push(lower);
    match answer(&first) {
        Some(answer) => {
            let _ = stream.write_all(&answer);
        }
        // Until the other side gives up.
        None => while matches!(reader.read_line(&mut String::new()), Ok(1..)) {},
    }
}

/// An HTTP answer that ends the connection.
pub fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A JSON document.
pub fn json(body: &serde_json::Value) -> Vec<u8> {
    http("200 OK", "content-type: application/json\r\n", &body.to_string())
}
