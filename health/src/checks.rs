//! Built-in checks that need no client library: HTTP, gRPC, disk. Anything else is a closure over the application's own
//! client or pool, so that a check never opens connections of its own kind.

mod disk;
mod grpc;
mod http;

pub use disk::DiskCheck;
pub use grpc::GrpcCheck;
pub use http::HttpCheck;
