//! `opsctl internal hop`: what runs in a pod before a Service while a drill plays faults on it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use std::sync::Arc;

use opsctl_proxy::hop::{Forward, Hop, Options};
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Signals};
use crate::error::{Failure, Outcome};
use crate::exit::Exit;

/// What it passes on, and who may steer it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `LISTEN=HOST:PORT`, for example `0.0.0.0:5432=postgres-copy:5432`; once for each port
    #[arg(long, value_name = "FORWARD", required = true, value_parser = forward)]
    forward: Vec<Forward>,
    /// Where it is steered
    #[arg(long, value_name = "ADDRESS")]
    control: SocketAddr,
    /// A file with what whoever steers it must show
    #[arg(long, value_name = "FILE")]
    token: PathBuf,
    /// How long connections under way may go on when it is told to stop
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    drain: Duration,
    /// The database itself, where it ends sessions of the role in `DATABASE_URL`
    #[arg(long, value_name = "HOST:PORT")]
    sessions_at: Option<String>,
}

fn forward(text: &str) -> Result<Forward, String> {
    let (listen, to) = text.split_once('=').ok_or("`=` is missing")?;
    Ok(Forward {
        listen: listen.parse().map_err(|_| format!("`{listen}` is no address"))?,
        to: to.to_owned(),
    })
}

/// Passes connections on until it is told to stop.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let token = std::fs::read_to_string(&args.token)
        .map_err(|error| Failure::usage("usage", format!("cannot read `{}`", args.token.display())).because(&error))?;
    let token = token.trim().to_owned();
    if token.is_empty() {
        return Err(Failure::usage("usage", format!("`{}` is empty", args.token.display())));
    }
    context.block_on(async {
        let shutdown = CancellationToken::new();
        let mut signals = Signals::listen()?;
        let mut options = Options::new(args.forward.clone(), args.control, token, shutdown.clone());
        options.drain = args.drain;
        if let Some(at) = &args.sessions_at {
            let url = context.env("DATABASE_URL").unwrap_or_default();
            let (url, at): (Arc<str>, Arc<str>) = (url.into(), at.as_str().into());
            options.end_sessions = Some(Arc::new(move || {
                Box::pin(end_sessions(Arc::clone(&url), Arc::clone(&at)))
            }));
        }
        let hop = Hop::bind(options)
            .await
            .map_err(|error| Failure::usage("port_taken", "the hop cannot listen").because(&error))?;
        let running = hop.run();
        tokio::pin!(running);
        loop {
            tokio::select! {
                () = &mut running => return Ok(Exit::Done),
                _ = signals.next() => shutdown.cancel(),
            }
        }
    })
}

/// Ends every other session of the role, at `at`: the address in `url` leads through the hop.
async fn end_sessions(url: Arc<str>, at: Arc<str>) -> Result<u64, String> {
    const END: &str = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                       where usename = current_user and backend_type = 'client backend' and pid <> pg_backend_pid()";
    let told = |error: tokio_postgres::Error| error.to_string();
    let known: tokio_postgres::Config = url.parse().map_err(told)?;
    let (host, port) = at.rsplit_once(':').ok_or("`--sessions-at` has no port")?;
    let mut config = tokio_postgres::Config::new();
    config
        .host(host)
        .port(port.parse().map_err(|_| "`--sessions-at` has no port")?);
    config.connect_timeout(Duration::from_secs(3));
    if let Some(user) = known.get_user() {
        config.user(user);
    }
    if let Some(password) = known.get_password() {
        config.password(password);
    }
    if let Some(database) = known.get_dbname() {
        config.dbname(database);
    }
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.map_err(told)?;
    let connection = tokio::spawn(connection);
    let counted = client.query_one(END, &[]).await;
    connection.abort();
    let ended: i64 = counted.and_then(|row| row.try_get(0)).map_err(told)?;
    Ok(u64::try_from(ended).unwrap_or_default())
}
