//! Lines from Loki: `GET /loki/api/v1/query_range`. The LogQL is made of ids and names whose characters are known, so no
//! text of a caller can become a part of the language.
//! Source: <https://grafana.com/docs/loki/latest/reference/loki-http-api/>.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::server::Server;
use super::{Found, LINES, Line, Query, RequestId};
use crate::config::Loki;
use crate::context::Context;
use crate::error::Failure;
use crate::exit::Exit;

/// How far back is looked when nothing else is said.
const SINCE: Duration = Duration::from_hours(24);

/// A Loki that is asked.
#[derive(Debug)]
pub(super) struct LokiServer {
    server: Server,
    label: String,
}

impl LokiServer {
    pub(super) fn new(context: &Context, loki: &Loki) -> Result<Self, Failure> {
        Ok(Self {
            server: Server::new(context, "Loki", "loki", &loki.server)?,
            label: loki.label.clone(),
        })
    }

    pub(super) fn words(&self) -> String {
        self.server.words()
    }

    /// Lines with one of the ids, at most [`LINES`].
    pub(super) async fn lines(
        &self,
        context: &Context,
        ids: &[RequestId],
        query: Query<'_>,
    ) -> Result<Found<Line>, Failure> {
        if let Some(instance) = query.instance {
            return Err(Failure::usage(
                "not_in_loki",
                format!("Loki cannot be asked for the instance `{instance}`"),
            )
            .cause("lines there are known by their service")
            .help("leave `--instance` out"));
        }
        let now = context.now();
        let start = now
            .checked_sub(query.since.unwrap_or(SINCE))
            .unwrap_or(Timestamp::UNIX_EPOCH);
        let parameters = [
            ("query", logql(&self.label, query.services, ids)),
            ("start", start.as_nanosecond().to_string()),
            // Clocks differ.
            ("end", (now.as_nanosecond() + 60_000_000_000).to_string()),
            ("limit", LINES.to_string()),
            ("direction", "forward".to_owned()),
        ];
        let answer = self.server.get("/loki/api/v1/query_range", &parameters).await?;
        let streams = answer
            .as_ref()
            .and_then(|answer| answer.pointer("/data/result")?.as_array());
        let Some(streams) = streams else {
            return Err(Failure::new(
                Exit::Usage,
                "bad_answer",
                format!("{} answers as no Loki does", self.words()),
            )
            .help("does `loki` in opsctl.toml name the right server?"));
        };
        let mut lines: Vec<Line> = streams.iter().flat_map(|stream| self.stream(stream)).collect();
        let cut = lines.len() >= LINES;
        // Loki compares texts; a longer id may begin like this one.
        lines.retain(|line| ids.iter().any(|id| id.is_in(&line.text)));
        Ok(Found { items: lines, cut })
    }

    fn stream<'a>(&'a self, stream: &'a Value) -> impl Iterator<Item = Line> + 'a {
        let label = |name: &str| {
            let value = stream.get("stream").and_then(|labels| labels.get(name)?.as_str());
            value.unwrap_or_default().to_owned()
        };
        let (service, instance) = (label(&self.label), label("instance"));
        let values = stream.get("values").and_then(Value::as_array).into_iter().flatten();
        values.filter_map(move |value| {
            let nanoseconds: i128 = value.get(0)?.as_str()?.parse().ok()?;
            let line = Line::new(service.clone(), instance.clone(), value.get(1)?.as_str()?);
            let kept = Timestamp::from_nanosecond(nanoseconds).ok();
            Some(Line {
                time: line.time.or(kept),
                ..line
            })
        })
    }
}

/// `{service=~"a|b"} |~ "id1|id2"`, in raw strings.
fn logql(label: &str, services: &[String], ids: &[RequestId]) -> String {
    // Names of services are letters, digits and dashes; of what an id may hold only the dot means something here.
    let services = if services.is_empty() {
        ".+".to_owned()
    } else {
        services.join("|")
    };
    let ids: Vec<String> = ids.iter().map(|id| id.text().replace('.', "\\.")).collect();
    format!("{{{label}=~`{services}`}} |~ `{}`", ids.join("|"))
}

#[cfg(test)]
mod tests {
    use super::{RequestId, logql};

    #[test]
    fn a_query_is_made_of_known_characters() {
        let ids = ["4bf92f3577b34da6a3ce929d0e0e4736", "a.b:c-d_e"].map(|id| RequestId::parse(id).expect("an id"));
        assert_eq!(
            logql("service", &[], &ids),
            r"{service=~`.+`} |~ `4bf92f3577b34da6a3ce929d0e0e4736|a\.b:c-d_e`"
        );
        let services = ["orders".to_owned(), "payments".to_owned()];
        assert_eq!(
            logql("app", &services, &ids[..1])[..27],
            *r"{app=~`orders|payments`} |~"
        );
    }
}
