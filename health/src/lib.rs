//! Background checks, a service's life cycle, and the HTTP and gRPC servers that tell of both.
