//! An HTTP proxy before a real server that is slow or fails as it is told: what a network and a service do on a bad day.
//! HTTP/1.1 over TCP; it knows nothing of what the requests mean, and is no load balancer.
//!
//! Requests reach the server as they were sent, with the `Host` that the client named, so that signatures hold.

mod pipe;

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpSocket, TcpStream},
    task::{AbortHandle, JoinSet},
};

use pipe::Exchange;

/// A proxy that runs until it is dropped.
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

/// How fast a connection is. Every connection has the limits for itself, in each direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// What every request waits before the server gets it: the time of one round trip.
    pub latency: Duration,
    /// Bytes of bodies a second; none means as fast as it goes.
    pub bytes_per_second: Option<u64>,
}

/// A request, as rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Such as `PUT`.
    pub method: String,
    /// The path with its query, as it was sent.
    pub path: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The length of the body.
    pub length: u64,
}

impl Request {
    /// The value of a header; its name is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// An answer: the server's own, or one that takes its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names in lower case, and values. What frames the body is left out.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer with a text as its body.
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        let body = body.into();
        Self { status, headers, body }
    }

    /// Sets a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(key, _)| key != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Changes the server's answer.
pub type Edit = Arc<dyn Fn(Answer) -> Answer + Send + Sync>;

/// What happens to one request.
#[derive(Clone)]
pub enum Fault {
    /// The server never sees it; this is the answer.
    Instead(Answer),
    /// The server does it; what it answers is changed on the way.
    Edited(Edit),
    /// The server does it, and the connection is cut before its answer.
    AnswerLost,
    /// The connections are cut after so many bytes of the request's body.
    RequestCut(u64),
    /// The connection is cut after so many bytes of the answer's body.
    AnswerCut(u64),
    /// The server never sees it, and nothing more is heard.
    Silence,
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instead(answer) => f.debug_tuple("Instead").field(&answer.status).finish(),
            Self::Edited(_) => f.write_str("Edited"),
            Self::AnswerLost => f.write_str("AnswerLost"),
            Self::RequestCut(after) => f.debug_tuple("RequestCut").field(after).finish(),
            Self::AnswerCut(after) => f.debug_tuple("AnswerCut").field(after).finish(),
            Self::Silence => f.write_str("Silence"),
        }
    }
}

type Rule = Box<dyn FnMut(&Request) -> Option<Fault> + Send>;

struct Shared {
    upstream: SocketAddr,
    limits: Mutex<Limits>,
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<Request>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// What happens to a request, which is noted.
    fn decide(&self, request: &Request) -> Option<Fault> {
        locked(&self.seen).push(request.clone());
        locked(&self.rules).iter_mut().find_map(|rule| rule(request))
    }
}

impl FaultProxy {
    /// Starts a proxy before `upstream` on a free port of the loopback, without faults and limits.
    ///
    /// # Errors
    /// When no port can be had.
    ///
    /// # Panics
    /// Outside of a runtime of tokio.
    pub fn start(upstream: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        // Else the kernel takes megabytes at once, and a limit is one in name only.
        socket.set_recv_buffer_size(128 * 1024)?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let listener = socket.listen(1024)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream,
            limits: Mutex::default(),
            rules: Mutex::default(),
            seen: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                if let Ok((client, _)) = listener.accept().await {
                    connections.spawn(serve(client, Arc::clone(&serving)));
                }
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            address,
            shared,
            accepting: accepting.abort_handle(),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As [`FaultProxy::address`], with `http://`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the limits, for connections that there are too.
    pub fn limit(&self, limits: Limits) {
        *locked(&self.shared.limits) = limits;
    }

    /// Adds a rule. Rules are asked in the order in which they were added; the first fault counts.
    pub fn rule(&self, rule: impl FnMut(&Request) -> Option<Fault> + Send + 'static) {
        locked(&self.shared.rules).push(Box::new(rule));
    }

    /// `fault` happens to the first `times` requests that `applies` holds of.
    pub fn strike(&self, times: usize, fault: Fault, applies: impl Fn(&Request) -> bool + Send + 'static) {
        let mut left = times;
        self.rule(move |request| {
            if left == 0 || !applies(request) {
                return None;
            }
            left -= 1;
            Some(fault.clone())
        });
    }

    /// Takes all rules away.
    pub fn heal(&self) {
        locked(&self.shared.rules).clear();
    }

    /// Every request so far, in the order of their arrival.
    pub fn seen(&self) -> Vec<Request> {
        locked(&self.shared.seen).clone()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Serves a connection until one side closes it or a fault cuts it.
async fn serve(client: TcpStream, shared: Arc<Shared>) {
    let _ = client.set_nodelay(true);
    let mut exchange = Exchange::new(client, shared.upstream);
    loop {
        let limits = || *locked(&shared.limits);
        let decide = |request: &Request| shared.decide(request);
        match exchange.next(limits, decide).await {
            Ok(true) => {}
            // Whoever looks at the other side sees that it is cut; there is nobody to tell more.
            Ok(false) | Err(_) => return,
        }
    }
}
