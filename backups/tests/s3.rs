//! Repositories in S3: a real MinIO, over the network, through a proxy that fails as it is told, judged by restic.

#[cfg(test)]
#[path = "s3/bad_days.rs"]
mod bad_days;
#[cfg(test)]
#[path = "s3/contract.rs"]
mod contract;
#[cfg(test)]
#[path = "s3/credentials.rs"]
mod credentials;
#[cfg(test)]
#[path = "s3/engine.rs"]
mod engine;
#[cfg(test)]
#[path = "s3/large_objects.rs"]
mod large_objects;
#[cfg(test)]
#[path = "s3/roles.rs"]
mod roles;
#[cfg(test)]
#[path = "s3/service.rs"]
mod service;
#[cfg(test)]
#[path = "s3/versions.rs"]
mod versions;
#[cfg(test)]
#[path = "engine/world.rs"]
#[expect(dead_code, reason = "the tests of the engine use all of it")]
mod world;
