//! The protobuf messages and gRPC services of the reference services, generated and checked in.
