//! The proxy's control protocol: its messages and a client for its Unix socket.
