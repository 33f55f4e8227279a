//! The proxy over real sockets: what clients, instances and the control socket see. Its parts are tested beside them.

mod proxy {
    pub(crate) mod support;

    mod failure;
    mod faults;
    mod grpc;
    mod hostile;
    mod patience;
    mod routing;
}
