//! Dead-man pings: the address of a check is asked when a job begins (`/start`), when it went well, and when it did not
//! (`/fail`), as healthchecks.io has it. Nobody's job fails because of a ping.

use std::time::Duration;

use crate::config::Ping;
use crate::context::Context;

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// It begins.
    Start,
    /// It went well.
    Success,
    /// It did not.
    Fail,
}

/// How long one ping may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Tells the check; what goes wrong is a warning without the address, which is a secret.
pub(super) async fn ping(context: &Context, schedule: &str, ping: &Ping, sign: Sign, line: &str) {
    if let Err(why) = send(context, schedule, ping, sign, line).await {
        context
            .out
            .warn(format!("the ping of `{schedule}` was not sent: {why}"));
    }
}

async fn send(context: &Context, schedule: &str, ping: &Ping, sign: Sign, line: &str) -> Result<(), String> {
    let secret = ping
        .url
        .fetch(context, &format!("the ping address of `{schedule}`"))
        .map_err(|failure| {
            std::iter::once(failure.message)
                .chain(failure.causes)
                .collect::<Vec<_>>()
                .join(": ")
        })?;
    let url = address(secret.expose(), sign).ok_or("it is no http:// or https:// address")?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().timeout(LIMIT).build().map_err(told)?;
    let mut last = String::new();
    // Once more after a failure that may pass.
    for _ in 0..2 {
        let request = if ping.post {
            client.post(url.clone()).body(line.to_owned())
        } else {
            client.get(url.clone())
        };
        match request.send().await {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) if answer.status().is_client_error() => {
                return Err(format!("the answer was {}", answer.status()));
            }
            Ok(answer) => last = format!("the answer was {}", answer.status()),
            Err(error) => last = told(error),
        }
    }
    Err(last)
}

fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// The address for a sign: its word is added to the path.
fn address(url: &str, sign: Sign) -> Option<reqwest::Url> {
    let mut url: reqwest::Url = url.parse().ok()?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return None;
    }
    let word = match sign {
        Sign::Start => "start",
        Sign::Fail => "fail",
        Sign::Success => return Some(url),
    };
    url.path_segments_mut().ok()?.pop_if_empty().push(word);
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::{Sign, address};

    #[test]
    fn the_sign_goes_behind_the_path_and_before_the_query() {
        let said = |url, sign| address(url, sign).map(|url| url.to_string());
        assert_eq!(
            said("https://hc.example/ping/abc?rid=1", Sign::Fail).as_deref(),
            Some("https://hc.example/ping/abc/fail?rid=1")
        );
        assert_eq!(
            said("http://hc.example/", Sign::Start).as_deref(),
            Some("http://hc.example/start")
        );
        assert_eq!(
            said("https://hc.example/a/", Sign::Success).as_deref(),
            Some("https://hc.example/a/")
        );
        assert_eq!(said("file:///etc/passwd", Sign::Success), None);
    }
}
