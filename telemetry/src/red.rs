//! Rate, errors and duration of requests: which series a request counts in, found without a lock. When a request begins
//! and ends is known by `server` and `client`.

pub(crate) mod grpc;
pub(crate) mod http;
