//! Telemetry of a service's gRPC methods, all of which are there from the start. What is measured is `telemetry`'s matter.

use telemetry::{GrpcLayer, GrpcType, Telemetry};

/// The layer for a server of `service` with these methods: names, and whether the caller and the server send many
/// messages, as `proto` has them.
pub fn grpc_layer(telemetry: &Telemetry, service: &str, methods: &[(&str, bool, bool)]) -> GrpcLayer {
    let methods: Vec<_> = methods
        .iter()
        .map(|(name, caller, server)| (*name, GrpcType::of(*caller, *server)))
        .collect();
    telemetry.grpc_layer().methods(service, &methods)
}
