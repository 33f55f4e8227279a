//! A stand-in for the opsctl executable and for a service, so that this crate's tests can run real processes:
//! `twin internal supervisor|proxy|judge|watchdog --state DIR [--run ID]` and `twin service`. Nothing users run.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use opsctl_platform::local::{Launcher, LocalPlatform, StateDir, supervisor};
use opsctl_platform::process::detach;
use opsctl_platform::run::{Control, Journal, Outcome, Run, WatchOptions, this_process, watch};
use opsctl_platform::{Field, Hold, Platform};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let word = |index: usize| arguments.get(index).map(String::as_str);
    if word(0) == Some("service") {
        return service().await;
    }
    detach();
    let after = |flag: &str| {
        arguments
            .iter()
            .position(|argument| argument == flag)
            .and_then(|at| arguments.get(at + 1))
            .cloned()
    };
    let state = StateDir::open(PathBuf::from(after("--state").ok_or("--state is missing")?))?;
    let launcher = Launcher::new(std::env::current_exe()?);
    let run = after("--run").unwrap_or_default();
    match word(1) {
        Some("supervisor") => supervisor::run(state, launcher).await?,
        Some("proxy") => proxy(&state).await?,
        Some("judge") => worker(LocalPlatform::new(state, Some(launcher)), &run).await?,
        Some("watchdog") => {
            let journal = Journal::open(state.journal(&run), &run)?;
            let platform = Arc::new(LocalPlatform::new(state, Some(launcher)));
            let options = WatchOptions {
                poll: Duration::from_millis(50),
                ..WatchOptions::default()
            };
            watch(platform, &run, this_process(&run), &journal, &options).await?;
        }
        _ => return Err("unknown role".into()),
    }
    Ok(())
}

async fn proxy(state: &StateDir) -> Result<(), Failure> {
    let shutdown = tokio_util::sync::CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let ended = shutdown.clone();
    tokio::spawn(async move {
        terminate.recv().await;
        ended.cancel();
    });
    opsctl_proxy::run(opsctl_proxy::Options::new(state.root(), shutdown)).await?;
    Ok(())
}

/// A run that holds the service `service` of its spec and scales it to one, with a stop before each of its steps: it says
/// where it is in its journal and goes on when the file `go-<step>` is in its folder.
async fn worker(platform: LocalPlatform, id: &str) -> Result<(), Failure> {
    let state = platform.state().clone();
    let platform: Arc<dyn Platform> = Arc::new(platform);
    let journal = Journal::open(state.journal(id), id)?;
    let spec = platform.record(id).await?.ok_or("no record")?.spec;
    let ttl = Duration::from_secs_f64(spec["ttl"].as_f64().unwrap_or(15.0));
    let service = spec["service"].as_str().ok_or("no service")?.to_owned();
    let mut run = Run::take(platform, id, this_process(id), ttl, journal).await?;
    if spec["watched"] == json!(true) {
        run.await_watchdog(Duration::from_secs(10)).await?;
    }
    let version = run
        .platform()
        .service(&service)
        .await?
        .stable_version
        .ok_or("no version")?;
    let hold = Hold {
        holder: id.to_owned(),
        reason: "a test".to_owned(),
        retry_after_seconds: 1,
    }
    .value();
    let steps: [(Field, Option<Value>); 3] = [
        (Field::replicas(&service, &version), Some(json!(1))),
        (Field::hold(&service), Some(hold)),
        (Field::replicas(&service, &version), Some(json!(3))),
    ];
    let mut cancelled = false;
    for (number, (field, value)) in steps.into_iter().enumerate() {
        run.event("before", json!({ "step": number }))?;
        if !pause(&run, &state, id, number).await {
            cancelled = true;
            break;
        }
        run.change(&field, value).await?;
        run.event("after", json!({ "step": number }))?;
    }
    if !cancelled {
        pause(&run, &state, id, 9).await;
    }
    run.undo().await?;
    run.close(if cancelled { Outcome::Aborted } else { Outcome::Passed }, "done")
        .await?;
    Ok(())
}

async fn pause(run: &Run, state: &StateDir, id: &str, number: usize) -> bool {
    let file = state.run_dir(id).join(format!("go-{number}"));
    while !file.exists() {
        if run.control() != Control::Run {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    true
}

/// Answers every request with its instance, version and process; ends on SIGTERM after what it has. `TWIN_MODE` is
/// `die` (at once), `never` (never ready), `die-later` (when asked for `/die`) or nothing.
async fn service() -> Result<(), Failure> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let mode = variable("TWIN_MODE");
    say(&format!("starting as {mode}"))?;
    if mode == "die" {
        return Err("told to die".into());
    }
    let addr: SocketAddr = variable("HTTP_ADDR").parse()?;
    let text: Arc<str> = format!(
        "{} {} {}",
        variable("INSTANCE_ID"),
        variable("SERVICE_VERSION"),
        std::process::id()
    )
    .into();
    let listener = tokio::net::TcpListener::bind(addr).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let server = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
    let graceful = hyper_util::server::graceful::GracefulShutdown::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                let (text, never) = (Arc::clone(&text), mode == "never");
                let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let text = Arc::clone(&text);
                    async move { Ok::<_, Infallible>(answer(&request, &text, never).await) }
                });
                let connection = server.serve_connection(TokioIo::new(stream), answer).into_owned();
                let connection = graceful.watch(connection);
                tokio::spawn(async move {
                    let _ = connection.await;
                });
            }
            _ = terminate.recv() => break,
        }
    }
    drop(listener);
    say("draining")?;
    let _ = tokio::time::timeout(Duration::from_secs(5), graceful.shutdown()).await;
    Ok(())
}

fn say(line: &str) -> std::io::Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}")
}

async fn answer(request: &Request<Incoming>, text: &str, never: bool) -> Response<Full<Bytes>> {
    let status = match request.uri().path() {
        "/health/ready" if never => StatusCode::SERVICE_UNAVAILABLE,
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            StatusCode::OK
        }
        _ => StatusCode::OK,
    };
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    response
}
