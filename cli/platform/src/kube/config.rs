//! How the API server is reached: a kubeconfig and one named context of it, never the one that happens to be current; or,
//! in a pod, its service account.

use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::{PlatformError, Result};

/// Reads the context `name` from `file`, else from the files in `KUBECONFIG`, else from `~/.kube/config`. `server`, if
/// given, is the URL that the context must lead to.
///
/// Errors: [`PlatformError::Kubeconfig`], [`PlatformError::UnknownContext`], [`PlatformError::WrongServer`].
pub async fn context(file: Option<&Path>, name: &str, server: Option<&str>) -> Result<kube::Config> {
    let unusable = |why: String| PlatformError::Kubeconfig { why };
    let told = |error: kube::config::KubeconfigError| unusable(crate::run::message_of(&error));
    let kubeconfig = match file {
        Some(file) => Some(Kubeconfig::read_from(file).map_err(told)?),
        None => Kubeconfig::from_env().map_err(told)?,
    };
    let kubeconfig = match (kubeconfig, standard()) {
        (Some(kubeconfig), _) => kubeconfig,
        (None, Some(file)) if file.exists() => Kubeconfig::read_from(&file).map_err(told)?,
        (None, Some(file)) => {
            let file = file.display();
            return Err(unusable(format!("KUBECONFIG is not set, and `{file}` does not exist")));
        }
        (None, None) => return Err(unusable("KUBECONFIG is not set, and there is no home".to_owned())),
    };
    let mut known: Vec<String> = kubeconfig.contexts.iter().map(|context| context.name.clone()).collect();
    known.sort();
    if !known.iter().any(|known| known == name) {
        return Err(PlatformError::UnknownContext {
            context: name.to_owned(),
            known,
        });
    }
    let options = KubeConfigOptions {
        context: Some(name.to_owned()),
        ..KubeConfigOptions::default()
    };
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(told)?;
    if let Some(expected) = server
        && !same(expected, &config.cluster_url)
    {
        return Err(PlatformError::WrongServer {
            context: name.to_owned(),
            expected: expected.to_owned(),
            actual: config.cluster_url.to_string(),
        });
    }
    Ok(config)
}

/// The service account of the pod that this runs in.
pub fn in_cluster() -> Result<kube::Config> {
    kube::Config::incluster().map_err(|error| PlatformError::Kubeconfig {
        why: crate::run::message_of(&error),
    })
}

fn standard() -> Option<PathBuf> {
    Some(std::env::home_dir()?.join(".kube/config"))
}

/// Whether two URLs mean one server: scheme, host, port and path, whatever the last slash.
fn same(expected: &str, actual: &http::Uri) -> bool {
    let Ok(expected) = expected.parse::<http::Uri>() else {
        return false;
    };
    let parts = |uri: &http::Uri| {
        let scheme = uri.scheme_str().unwrap_or("https").to_owned();
        let port = uri.port_u16().unwrap_or(if scheme == "http" { 80 } else { 443 });
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        (scheme, host, port, uri.path().trim_end_matches('/').to_owned())
    };
    parts(&expected) == parts(actual)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_compared_by_what_it_means() {
        let actual: http::Uri = "https://API.example:443/".parse().expect("a URL");
        assert!(same("https://api.example", &actual));
        assert!(!same("https://api.example:6443", &actual));
        assert!(!same("http://api.example:443", &actual));
    }
}
