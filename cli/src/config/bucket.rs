//! The keys of a repository that lies in S3: which bucket, on which service, and whose credentials. It asks no service.

use std::net::IpAddr;
use std::path::PathBuf;

use super::model::{Bucket, BucketCredentials};
use super::section::Section;

/// Reads what stands beside `store = "s3://BUCKET/PREFIX"`; `place` is what follows the `s3://`.
pub(super) fn read(place: &str, section: &Section<'_>) -> Bucket {
    let (name, prefix) = place.split_once('/').unwrap_or((place, ""));
    let wrong = |key: &str, problem: String| section.findings().error(section.place(key), problem);
    let sound = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if name.is_empty() || !name.chars().all(sound) {
        wrong(
            "store",
            format!("`{name}` is no name of a bucket: expected \"s3://BUCKET/PREFIX\""),
        );
    }
    let prefix = prefix.trim_matches('/');
    let odd = |part: &str| part.is_empty() || part == "." || part == ".." || part.chars().any(char::is_control);
    if !prefix.is_empty() && prefix.split('/').any(odd) {
        wrong("store", format!("`{prefix}` is no prefix for the names of objects"));
    }
    let endpoint: Option<String> = section.optional("endpoint");
    let insecure = section.or("insecure", false);
    if let Some(endpoint) = &endpoint
        && let Some(problem) = problem_of(endpoint, insecure)
    {
        wrong("endpoint", problem);
    }
    let checksums: String = section.or("checksums", "when-required".to_owned());
    if !["when-required", "always"].contains(&checksums.as_str()) {
        wrong(
            "checksums",
            format!("`{checksums}` says not when: expected \"when-required\" or \"always\""),
        );
    }
    let region = section.optional("region");
    let path_style = section.or("path_style", endpoint.is_some());
    let certificate = section.optional::<PathBuf>("certificate");
    let credentials = section.section("credentials").and_then(|keys| {
        let read = (
            keys.required("access_key"),
            keys.required("secret_key"),
            keys.optional("session_token"),
        );
        keys.finish();
        Some(BucketCredentials {
            access_key: read.0?,
            secret_key: read.1?,
            session_token: read.2,
        })
    });
    Bucket {
        name: name.to_owned(),
        prefix: prefix.to_owned(),
        endpoint,
        region,
        path_style,
        checksums: checksums == "always",
        certificate,
        credentials,
    }
}

/// What is wrong with the URL of a service.
fn problem_of(endpoint: &str, insecure: bool) -> Option<String> {
    let url: Result<http::Uri, _> = endpoint.parse();
    let parts = url.ok().and_then(|url| {
        let authority = url.authority()?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let plain = authority.as_str().contains('@') || url.query().is_some();
        Some((url.scheme_str()?.to_owned(), host, plain))
    });
    let Some((scheme, host, false)) = parts else {
        return Some("no URL of a service: expected \"https://HOST\" or \"https://HOST:PORT\"".to_owned());
    };
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match scheme.as_str() {
        "https" => None,
        "http" if loopback || insecure => None,
        "http" => Some(format!(
            "http:// to `{host}` lets everybody on the way read names and change what is sent: use https://, or say `insecure = true`"
        )),
        _ => Some(format!("`{scheme}` is no way to a service: expected https or http")),
    }
}

#[cfg(test)]
mod tests {
    use super::problem_of;

    #[test]
    fn a_plain_endpoint_is_for_this_machine_alone() {
        for good in [
            "https://s3.example.com",
            "https://10.1.2.3:9000",
            "http://127.0.0.1:9000",
            "http://[::1]:9000",
            "http://localhost:9000/",
        ] {
            assert_eq!(problem_of(good, false), None, "{good}");
        }
        for bad in [
            "http://10.1.2.3:9000",
            "http://minio.internal",
            "http://localhost.example.com",
        ] {
            assert!(problem_of(bad, false).is_some(), "{bad}");
            assert_eq!(problem_of(bad, true), None, "{bad}");
        }
        for none in [
            "minio:9000",
            "https://",
            "s3.example.com",
            "ftp://127.0.0.1",
            "https://key:secret@host",
            "https://host/?x=1",
        ] {
            assert!(problem_of(none, true).is_some(), "{none}");
        }
    }
}
