//! The way to pods: a port-forward through the API server, which carries HTTP, gRPC and plain connections alike and needs
//! no address that can be reached from here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use opsctl_platform::kube::KubePlatform;
use opsctl_platform::kube::pods::PodStream;
use opsctl_platform::{Instance, PlatformError, ServiceState};
use tokio::io::AsyncReadExt as _;

use super::connect::{Trouble, innermost};

/// How many pods are asked for their ports at one time.
const AT_ONCE: usize = 16;
/// A connection that nobody takes is ended within this time.
const REFUSAL: Duration = Duration::from_millis(250);

/// A pod that is reached through its API server.
#[derive(Clone)]
pub(super) struct Forward {
    kube: Arc<KubePlatform>,
    instance: Instance,
}

impl Forward {
    pub(super) fn new(kube: Arc<KubePlatform>, instance: Instance) -> Self {
        Self { kube, instance }
    }

    /// Connects to a port of the pod.
    pub(super) async fn connect(&self, port: u16) -> Result<PodStream, Trouble> {
        self.kube.connect_to(&self.instance, port).await.map_err(|error| {
            let reason = match error {
                PlatformError::Forbidden { .. } => "forbidden",
                _ => "network",
            };
            Trouble::new(reason, innermost(&error))
        })
    }

    /// Whether the port takes connections: one that is refused there ends here.
    pub(super) async fn accepts(&self, port: u16) -> Result<(), Trouble> {
        let mut stream = self.connect(port).await?;
        match tokio::time::timeout(REFUSAL, stream.read_u8()).await {
            // It speaks first, or waits for us to.
            Ok(Ok(_)) | Err(_) => Ok(()),
            Ok(Err(_)) => Err(Trouble::new(
                "refused",
                format!("connection refused: nothing listens on port {port}"),
            )),
        }
    }
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Forward").field(&self.instance.id).finish()
    }
}

impl PartialEq for Forward {
    fn eq(&self, other: &Self) -> bool {
        self.instance.uid == other.instance.uid
    }
}

impl Eq for Forward {}

/// Notes where each pod listens. The address is a word for people: a port-forward needs the port alone.
pub(super) async fn give_addresses(kube: &KubePlatform, states: &mut [ServiceState]) -> Result<(), PlatformError> {
    let instances = states.iter_mut().flat_map(|state| &mut state.instances);
    futures::stream::iter(instances)
        .map(|instance| async move {
            let ports = match kube.ports(instance).await {
                Ok(ports) => ports,
                // Between the list and this question it went.
                Err(PlatformError::Gone { .. }) => return Ok(()),
                Err(error) => return Err(error),
            };
            let at = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
            instance.addresses.http = ports.http.map(at);
            instance.addresses.grpc = ports.grpc.map(at);
            Ok(())
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}
