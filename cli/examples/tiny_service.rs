//! A service for tests: listens on `HTTP_ADDR` and answers every request with 200. It links nothing of ours.
//!
//! `--die` ends at once with status 3, `--never-ready` answers 503, `--hold FILE` keeps a file open, `--postgres FILE` keeps a
//! session at the address in the file and answers 503 while it has none in which `--needs QUERY` succeeds. `--release NAME` is a
//! version of it: one whose name begins with `bad` fails every third request that is no health check, one that begins with
//! `dead` dies at once. `/metrics` says how long it runs. SIGTERM: it ends when what it was asked is answered.

#![expect(clippy::print_stdout, reason = "what a service prints is its log")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);
static ASKED: AtomicUsize = AtomicUsize::new(0);
static CUT_OFF: AtomicBool = AtomicBool::new(false);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| args.iter().any(|arg| arg == word);
    let after = |word: &str| args.iter().position(|arg| arg == word).map(|at| args[at + 1].clone());
    let release = after("--release").unwrap_or_default();
    if has("--die") || release.starts_with("dead") {
        println!("there is no database");
        std::process::exit(3);
    }
    let _held = after("--hold").map(|file| std::fs::File::open(file).expect("a file to hold"));
    if let Some(file) = after("--postgres") {
        CUT_OFF.store(true, Ordering::SeqCst);
        let query = after("--needs").unwrap_or_else(|| "SELECT 1".to_owned());
        std::thread::spawn(move || keep_session(&file, &query));
    }
    let address = std::env::var("HTTP_ADDR").expect("HTTP_ADDR says where to listen");
    let status = if has("--never-ready") {
        "503 Service Unavailable"
    } else {
        "200 OK"
    };
    let bad = release.starts_with("bad");
    let since = tokio::time::Instant::now();
    std::thread::spawn(end_when_told);
    let listener = TcpListener::bind(&address).expect("a free address");
    println!("listening on {address}");
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || answer(&stream, status, bad, since));
    }
}

fn answer(mut stream: &TcpStream, status: &str, bad: bool, since: tokio::time::Instant) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let (mut health, mut metrics) = (false, false);
    let mut first = true;
    while let Some(line) = lines.next().transpose()? {
        if first {
            UNDER_WAY.fetch_add(1, Ordering::SeqCst);
            health = line.contains("/healthz");
            metrics = line.contains("/metrics");
            first = false;
        }
        if line.is_empty() {
            let fails = bad && !health && ASKED.fetch_add(1, Ordering::SeqCst).is_multiple_of(3);
            let status = if fails {
                "500 Internal Server Error"
            } else if CUT_OFF.load(Ordering::SeqCst) {
                "503 Service Unavailable"
            } else {
                status
            };
            let body = if metrics {
                let runs = since.elapsed().as_secs_f64();
                format!("# TYPE tiny_uptime_seconds gauge\ntiny_uptime_seconds {runs}\n")
            } else {
                "ok\n".to_owned()
            };
            let length = body.len();
            let written = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n{body}"
            );
            UNDER_WAY.fetch_sub(1, Ordering::SeqCst);
            written?;
            first = true;
        }
    }
    Ok(())
}

/// Has a session at a database, and another one when it ends.
fn keep_session(file: &str, query: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        loop {
            let address = std::fs::read_to_string(file).expect("an address");
            let mut address: tokio_postgres::Config = address.trim().parse().expect("an address");
            address.application_name("tiny_service");
            if let Ok((client, connection)) = address.connect(tokio_postgres::NoTls).await {
                let served = tokio::spawn(connection);
                if client.simple_query(query).await.is_ok() {
                    CUT_OFF.store(false, Ordering::SeqCst);
                    let _ = served.await;
                    CUT_OFF.store(true, Ordering::SeqCst);
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

/// Waits for SIGTERM, then for a moment without requests.
#[expect(clippy::exit, reason = "the other threads wait for connections for ever")]
fn end_when_told() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut told = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("SIGTERM");
        told.recv().await;
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if UNDER_WAY.load(Ordering::SeqCst) == 0 {
                std::process::exit(0);
            }
        }
    });
}
