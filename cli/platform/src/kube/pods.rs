//! Into single pods: what they print, a connection to one of their ports, and how their admin listener is reached. What
//! state a pod is in is the business of the platform.

use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{AsyncBufRead, AsyncBufReadExt as _, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Secret};
use kube::Api;
use kube::api::LogParams;
use tokio::io::DuplexStream;

use super::KubePlatform;
use super::state::container_of;
use crate::{Instance, PlatformError, Result};

/// Which lines of a pod are meant.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogQuery {
    /// Go on as lines come.
    pub follow: bool,
    /// So many of the last.
    pub last: Option<usize>,
    /// Printed within this time.
    pub since: Option<Duration>,
    /// Printed at this time or later; stands above `since`.
    pub from: Option<Timestamp>,
}

/// A line that a pod printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When the kubelet got it.
    pub time: Option<Timestamp>,
    /// Without its end.
    pub text: String,
}

/// A connection to a port of a pod, through the API server.
pub type PodStream = DuplexStream;

/// Where an instance listens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ports {
    /// HTTP.
    pub http: Option<u16>,
    /// gRPC.
    pub grpc: Option<u16>,
}

/// How the admin listener of a pod is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminDoor {
    /// The port, on the pod's loopback.
    pub port: u16,
    /// What lets callers in.
    pub token: String,
}

impl KubePlatform {
    fn pod_api(&self, client: kube::Client, service: &str) -> Result<Api<Pod>> {
        Ok(Api::namespaced(client, &self.workload(service)?.namespace))
    }

    async fn pod(&self, instance: &Instance) -> Result<Pod> {
        let pod = self
            .pod_api(self.clients.calls.clone(), &instance.service)?
            .get_opt(&instance.id)
            .await;
        pod.map_err(|error| self.error(error))?
            .ok_or_else(|| PlatformError::Gone {
                instance: instance.id.clone(),
                uid: instance.uid.clone(),
            })
    }

    /// The container that runs the service.
    fn main<'a>(&self, service: &str, spec: &'a PodSpec) -> Result<Option<&'a Container>> {
        let workload = self.workload(service)?;
        Ok(container_of(
            &spec.containers,
            workload.container.as_deref(),
            &workload.deployment,
        ))
    }

    /// Where an instance listens, by the ports that its container declares: those named `http` and `grpc`, else what
    /// `HTTP_ADDR` and `GRPC_ADDR` of its environment say; an only port without such a name is HTTP.
    pub async fn ports(&self, instance: &Instance) -> Result<Ports> {
        let spec = self.pod(instance).await?.spec.unwrap_or_default();
        Ok(self.main(&instance.service, &spec)?.map(ports_of).unwrap_or_default())
    }

    /// What an instance prints, line by line.
    ///
    /// Errors: [`PlatformError::Gone`] when there is no such pod.
    pub async fn log(&self, instance: &Instance, query: LogQuery) -> Result<BoxStream<'static, Result<LogLine>>> {
        let pod = self.pod(instance).await?;
        let spec = pod.spec.unwrap_or_default();
        let parameters = LogParams {
            container: self
                .main(&instance.service, &spec)?
                .map(|container| container.name.clone()),
            follow: query.follow,
            since_time: query.from,
            since_seconds: match (query.from, query.since) {
                (None, Some(since)) => Some(i64::try_from(since.as_secs().max(1)).unwrap_or(i64::MAX)),
                _ => None,
            },
            tail_lines: query.last.map(|last| i64::try_from(last).unwrap_or(i64::MAX)),
            timestamps: true,
            ..LogParams::default()
        };
        let api = self.pod_api(self.clients.once.clone(), &instance.service)?;
        let reader = api.log_stream(&instance.id, &parameters).await;
        let reader = Box::pin(reader.map_err(|error| self.error(error))?);
        let id = instance.id.clone();
        Ok(lines(reader)
            .map(move |line| {
                line.map_err(|source| PlatformError::Unreachable {
                    what: format!("the log of `{id}`"),
                    source: Box::new(source),
                })
            })
            .boxed())
    }

    /// Connects to a port of an instance, also to one that listens on its loopback alone.
    pub async fn connect_to(&self, instance: &Instance, port: u16) -> Result<PodStream> {
        let api = self.pod_api(self.clients.once.clone(), &instance.service)?;
        let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| PlatformError::Unreachable {
            what: format!("port {port} of `{}`", instance.id),
            source,
        };
        let mut forward = match api.portforward(&instance.id, &[port]).await {
            Ok(forward) => forward,
            Err(error @ kube::Error::Api(_)) => return Err(self.error(error)),
            Err(error) => return Err(unreachable(error.into())),
        };
        forward
            .take_stream(port)
            .ok_or_else(|| unreachable("it was not forwarded".into()))
    }

    /// How the admin listener of an instance is reached, by what its pod says: `ADMIN_ADDR` and `ADMIN_TOKEN_FILE` of its
    /// environment, and the Secret that is mounted there. `None`: it has none.
    pub async fn admin_door(&self, instance: &Instance) -> Result<Option<AdminDoor>> {
        let pod = self.pod(instance).await?;
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let spec = pod.spec.unwrap_or_default();
        let Some(place) = self
            .main(&instance.service, &spec)?
            .and_then(|container| token_of(container, &spec))
        else {
            return Ok(None);
        };
        let api: Api<Secret> = Api::namespaced(self.clients.calls.clone(), &namespace);
        let secret = api.get_opt(&place.secret).await.map_err(|error| self.error(error))?;
        let token = secret
            .and_then(|mut secret| secret.data.get_or_insert_default().remove(&place.key))
            .and_then(|token| String::from_utf8(token.0).ok())
            .ok_or_else(|| PlatformError::Missing {
                what: format!("key `{}` of the secret `{namespace}/{}`", place.key, place.secret),
            })?;
        Ok(Some(AdminDoor {
            port: place.port,
            token: token.trim().to_owned(),
        }))
    }
}

/// The port of an admin listener, and where its token is kept.
#[derive(Debug, PartialEq, Eq)]
struct TokenPlace {
    port: u16,
    secret: String,
    key: String,
}

/// A variable that the pod's description sets itself.
fn variable<'a>(container: &'a Container, name: &str) -> Option<&'a str> {
    let mut variables = container.env.iter().flatten();
    variables.find(|variable| variable.name == name)?.value.as_deref()
}

/// The port of `HOST:PORT` in a variable.
fn port_in(container: &Container, name: &str) -> Option<u16> {
    variable(container, name)?.rsplit_once(':')?.1.parse().ok()
}

fn ports_of(container: &Container) -> Ports {
    let declared: Vec<_> = container.ports.iter().flatten().collect();
    let named = |name: &str| {
        let port = declared.iter().find(|port| port.name.as_deref() == Some(name))?;
        u16::try_from(port.container_port).ok()
    };
    let grpc = named("grpc").or_else(|| port_in(container, "GRPC_ADDR"));
    let only = || match declared.as_slice() {
        [only] => u16::try_from(only.container_port)
            .ok()
            .filter(|only| Some(*only) != grpc),
        _ => None,
    };
    Ports {
        http: named("http").or_else(|| port_in(container, "HTTP_ADDR")).or_else(only),
        grpc,
    }
}

fn token_of(container: &Container, spec: &PodSpec) -> Option<TokenPlace> {
    let port = port_in(container, "ADMIN_ADDR")?;
    let file = variable(container, "ADMIN_TOKEN_FILE")?;
    let mounts = container.volume_mounts.iter().flatten();
    let (mount, key) = mounts
        .filter_map(|mount| {
            let below = file.strip_prefix(mount.mount_path.trim_end_matches('/'))?;
            let key = match (&mount.sub_path, below.strip_prefix('/')) {
                (Some(sub_path), None) if below.is_empty() => sub_path.as_str(),
                (None, Some(key)) => key,
                _ => return None,
            };
            Some((mount, key))
        })
        .max_by_key(|(mount, _)| mount.mount_path.len())?;
    let volume = spec.volumes.iter().flatten().find(|volume| volume.name == mount.name)?;
    let secret = volume.secret.as_ref()?;
    let key = secret
        .items
        .iter()
        .flatten()
        .find(|item| item.path == key)
        .map_or(key, |item| item.key.as_str());
    Some(TokenPlace {
        port,
        secret: secret.secret_name.clone()?,
        key: key.to_owned(),
    })
}

/// Lines as the kubelet hands them out, each after its time.
fn lines(reader: impl AsyncBufRead + Send + Unpin + 'static) -> BoxStream<'static, std::io::Result<LogLine>> {
    stream::try_unfold(reader, async |mut reader| {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line).await? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches(['\n', '\r']);
        let (time, text) = match line
            .split_once(' ')
            .map(|(time, text)| (time.parse::<Timestamp>(), text))
        {
            Some((Ok(time), text)) => (Some(time), text),
            _ => (None, line),
        };
        let line = LogLine {
            time,
            text: text.to_owned(),
        };
        Ok(Some((line, reader)))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;
    use serde_json::json;

    use super::*;

    fn spec(mount: &serde_json::Value, items: &serde_json::Value, env: &serde_json::Value) -> PodSpec {
        serde_json::from_value(json!({
            "containers": [{ "name": "orders", "env": env, "volumeMounts": [mount] }],
            "volumes": [{ "name": "admin", "secret": { "secretName": "orders-admin", "items": items } }],
        }))
        .expect("it is a pod's")
    }

    #[test]
    fn the_token_of_an_admin_listener_is_found_by_what_the_pod_says() {
        let env = json!([
            { "name": "ADMIN_ADDR", "value": "127.0.0.1:9900" },
            { "name": "ADMIN_TOKEN_FILE", "value": "/run/admin/token" },
        ]);
        let place = |key: &str| {
            Some(TokenPlace {
                port: 9900,
                secret: "orders-admin".to_owned(),
                key: key.to_owned(),
            })
        };
        let folder = json!({ "name": "admin", "mountPath": "/run/admin/" });
        let file = json!({ "name": "admin", "mountPath": "/run/admin/token", "subPath": "token" });
        let renamed = json!([{ "key": "secret", "path": "token" }]);
        let found = |spec: &PodSpec| token_of(&spec.containers[0], spec);
        assert_eq!(found(&spec(&folder, &json!([]), &env)), place("token"));
        assert_eq!(found(&spec(&folder, &renamed, &env)), place("secret"));
        assert_eq!(found(&spec(&file, &json!([]), &env)), place("token"));
        let other = json!({ "name": "admin", "mountPath": "/run/adm" });
        assert_eq!(found(&spec(&other, &json!([]), &env)), None);
        assert_eq!(found(&spec(&folder, &json!([]), &json!([]))), None);
    }

    #[test]
    fn ports_are_known_by_name_by_variable_or_by_being_the_only_one() {
        let ports = |container: serde_json::Value| ports_of(&serde_json::from_value(container).expect("a container"));
        let both = Ports {
            http: Some(8080),
            grpc: Some(9090),
        };
        let named = json!([{ "name": "grpc", "containerPort": 9090 }, { "name": "http", "containerPort": 8080 }]);
        assert_eq!(ports(json!({ "name": "a", "ports": named })), both);
        let env =
            json!([{ "name": "HTTP_ADDR", "value": "0.0.0.0:8080" }, { "name": "GRPC_ADDR", "value": "[::]:9090" }]);
        assert_eq!(ports(json!({ "name": "a", "env": env })), both);
        let only = ports(json!({ "name": "a", "ports": [{ "containerPort": 80 }] }));
        assert_eq!((only.http, only.grpc), (Some(80), None));
        assert_eq!(ports(json!({ "name": "a" })), Ports::default());
    }

    #[tokio::test]
    async fn lines_have_the_time_that_stands_before_them() {
        let text: &[u8] = b"2026-03-14T09:26:53.5Z started\nno time\r\n2026-03-14T09:26:54Z \xffx";
        let lines: Vec<LogLine> = lines(text).try_collect().await.expect("bytes in memory");
        let told: Vec<(bool, &str)> = lines
            .iter()
            .map(|line| (line.time.is_some(), line.text.as_str()))
            .collect();
        assert_eq!(told, [(true, "started"), (false, "no time"), (true, "\u{fffd}x")]);
    }
}
