//! What kube's errors mean, in this crate's words. No sentences for people beyond what the API server said itself.

use std::error::Error as StdError;
use std::time::Duration;

use hyper_util::client::legacy;
use kube::core::Status;
use rustls::{AlertDescription, CertificateError, Error as TlsError};

use crate::PlatformError;

/// An error of asking `server` (in words).
pub(super) fn from_kube(server: &str, error: kube::Error) -> PlatformError {
    match error {
        kube::Error::Api(status) => from_status(server, &status),
        kube::Error::InferKubeconfig(error) => PlatformError::Kubeconfig {
            why: crate::run::message_of(&error),
        },
        kube::Error::Auth(error) => PlatformError::Kubeconfig {
            why: crate::run::message_of(&error),
        },
        kube::Error::Service(source) => from_transport(server, source),
        other => from_transport(server, Box::new(other)),
    }
}

fn from_transport(server: &str, source: Box<dyn StdError + Send + Sync>) -> PlatformError {
    if let Some(limit) = timeout(source.as_ref()) {
        return PlatformError::TimedOut {
            what: server.to_owned(),
            limit,
        };
    }
    match tls(source.as_ref()) {
        Some(TlsError::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            PlatformError::Expired {
                what: format!("of {server}"),
            }
        }
        Some(TlsError::AlertReceived(AlertDescription::CertificateExpired)) => PlatformError::Expired {
            what: "in the kubeconfig".to_owned(),
        },
        _ => PlatformError::Unreachable {
            what: server.to_owned(),
            source,
        },
    }
}

/// The limit that ended the call, if one did.
fn timeout(error: &(dyn StdError + 'static)) -> Option<Duration> {
    chain(error).find_map(|error| match error.downcast_ref() {
        Some(resilience::Error::<legacy::Error>::Timeout { limit, .. }) => Some(*limit),
        _ => None,
    })
}

fn tls<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a TlsError> {
    chain(error).find_map(|error| match error.downcast_ref::<std::io::Error>() {
        // An error within an `io::Error` is not its source, but what it is.
        Some(io) => io.get_ref().and_then(|inner| inner.downcast_ref()),
        None => error.downcast_ref(),
    })
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

fn from_status(server: &str, status: &Status) -> PlatformError {
    let details = status.details.as_ref();
    let ending = details.is_some_and(|details| {
        details
            .causes
            .iter()
            .any(|cause| cause.reason == "NamespaceTerminating")
    });
    match status.code {
        401 => PlatformError::Unauthorized {
            what: server.to_owned(),
        },
        403 if ending => PlatformError::Missing {
            what: format!("the namespace ({})", status.message),
        },
        403 => forbidden(&status.message).unwrap_or_else(|| PlatformError::Refused {
            what: server.to_owned(),
            why: status.message.clone(),
        }),
        404 => PlatformError::Missing {
            what: match details.filter(|details| !details.name.is_empty()) {
                Some(details) => format!("{} `{}`", details.kind, details.name),
                None => format!("that kind of object ({})", status.message),
            },
        },
        429 | 500..=599 => PlatformError::Unreachable {
            what: server.to_owned(),
            source: status.message.clone().into(),
        },
        _ => PlatformError::Refused {
            what: "the change".to_owned(),
            why: status.message.clone(),
        },
    }
}

/// Reads `… cannot VERB resource "R" in API group "G" in the namespace "N"` (or `at the cluster scope`), which is all
/// that the API server says about it.
fn forbidden(message: &str) -> Option<PlatformError> {
    let (_, rest) = message.split_once(" cannot ")?;
    let (verb, rest) = rest.split_once(' ')?;
    let quoted = |key: &str| {
        let (_, rest) = rest.split_once(&format!("{key} \""))?;
        rest.split_once('"').map(|(value, _)| value)
    };
    let resource = quoted("resource")?;
    let group = quoted("group").unwrap_or_default();
    Some(PlatformError::Forbidden {
        verb: verb.to_owned(),
        resource: super::access::full_name(group, resource),
        namespace: quoted("namespace").map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_verb_and_the_resource() {
        let message = r#"deployments.apps "orders" is forbidden: User "system:serviceaccount:shop:opsctl" cannot patch resource "deployments" in API group "apps" in the namespace "shop""#;
        assert_eq!(
            forbidden(message).expect("it says all").to_string(),
            "not allowed to patch deployments.apps in namespace `shop`"
        );
        let message =
            r#"nodes is forbidden: User "u" cannot list resource "nodes" in API group "" at the cluster scope"#;
        assert_eq!(
            forbidden(message).expect("it says all").to_string(),
            "not allowed to list nodes in the cluster"
        );
        let message = r#"pods "a" is forbidden: violates PodSecurity "restricted:latest": privileged"#;
        assert!(forbidden(message).is_none());
    }
}
