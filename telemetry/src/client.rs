//! Outgoing calls: a CLIENT span each, the current context and correlation id in its headers, the outcome in its status.
//! [`GrpcClientLayer`] for tonic, [`HttpClient`] for reqwest, [`HttpClientLayer`] for any other HTTP client that is a
//! tower service. Retries are `resilience`'s: put these below it, and each attempt has a span of its own under the span
//! of the caller.
//!
//! Sources: <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>,
//! <https://opentelemetry.io/docs/specs/semconv/rpc/grpc/>.

mod grpc;
mod http;

pub use self::grpc::{GrpcClientBody, GrpcClientFuture, GrpcClientLayer, GrpcClientService};
pub use self::http::{HttpClient, HttpClientFuture, HttpClientLayer, HttpClientService};

/// To whom context is sent. Others get no headers: what a correlation id or baggage says is not everybody's.
#[derive(Debug, Clone, Default)]
pub struct Hosts(Option<std::sync::Arc<[String]>>);

impl Hosts {
    /// Everybody.
    pub const ALL: Self = Self(None);

    /// These hosts (`payments`), and all below a domain (`*.shop.internal`).
    pub fn only<I>(hosts: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        Self(Some(
            hosts.into_iter().map(|host| host.into().to_ascii_lowercase()).collect(),
        ))
    }

    /// Whether `host` is listed, by itself or by a `*.domain` above it.
    fn has(&self, host: Option<&str>) -> bool {
        let Some(listed) = &self.0 else { return true };
        let Some(host) = host.map(str::to_ascii_lowercase) else {
            return false;
        };
        listed.iter().any(|pattern| match pattern.strip_prefix('*') {
            Some(domain) => host.ends_with(domain) && host.len() > domain.len(),
            None => *pattern == host,
        })
    }
}

#[cfg(test)]
mod tests {
    //! Who gets context.

    use super::Hosts;

    #[test]
    fn hosts_are_listed_by_name_or_domain() {
        assert!(Hosts::ALL.has(None) && Hosts::ALL.has(Some("anywhere")));
        let hosts = Hosts::only(["Payments", "*.shop.internal"]);
        for (host, wanted) in [
            (Some("payments"), true),
            (Some("PAYMENTS"), true),
            (Some("orders.shop.internal"), true),
            (Some("a.b.shop.internal"), true),
            (Some("shop.internal"), false),
            (Some(".shop.internal"), false),
            (Some("evilshop.internal"), false),
            (Some("payments.example.com"), false),
            (None, false),
        ] {
            assert_eq!(hosts.has(host), wanted, "{host:?}");
        }
    }
}
