//! What a run shall do, how it tells of its progress, and why it may not start. Not the doing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::rate::Rate;
use crate::request::{InvalidRequest, RequestSource};
use crate::target::Target;

/// A run of load at a constant rate.
#[derive(Clone)]
#[non_exhaustive]
pub struct Plan {
    /// Where to.
    pub target: Target,
    /// How often.
    pub rate: Rate,
    /// For how long arrivals come. The run ends when the last of them has ended.
    pub duration: Duration,
    /// The most connections that are open at once, at least 1; they are opened on demand. Default 256.
    pub connections: usize,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// What is sent.
    pub source: Arc<dyn RequestSource>,
}

impl Plan {
    /// A plan with the default number of connections and time-outs; change the fields to differ.
    pub fn new(target: Target, rate: Rate, duration: Duration, source: Arc<dyn RequestSource>) -> Self {
        Self {
            target,
            rate,
            duration,
            connections: 256,
            timeouts: Timeouts::default(),
            source,
        }
    }
}

/// How long the parts of a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the attempt to connect to the connection. Default 5 s.
    pub connect: Duration,
    /// From the first byte sent to the last byte received. Also the longest that an arrival waits for a free
    /// connection before it is dropped. Default 10 s.
    pub response: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            response: Duration::from_secs(10),
        }
    }
}

/// Why a run could not start, or could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The rate cannot be read or used.
    #[error("the rate {text:?} cannot be used: {reason}")]
    InvalidRate {
        /// What was given.
        text: String,
        /// Why not.
        reason: &'static str,
    },
    /// The URL cannot be read or used.
    #[error("the address {text:?} cannot be used: {reason}")]
    InvalidTarget {
        /// What was given.
        text: String,
        /// Why not.
        reason: &'static str,
    },
    /// The request cannot be written.
    #[error("the request cannot be sent")]
    InvalidRequest(#[from] InvalidRequest),
    /// A field of the plan makes no sense.
    #[error("{0}")]
    InvalidPlan(&'static str),
    /// The host has no address.
    #[error("the address of {host} was not found")]
    Resolve {
        /// The host.
        host: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// The operating system gave no thread or no timer.
    #[error("the load generator could not be started")]
    Start(#[source] io::Error),
    /// The generator's thread ended in a panic, a bug in a [`RequestSource`] for one.
    #[error("the load generator stopped unexpectedly")]
    Stopped,
}

/// Told how a run comes along, about once a second, on the generator's thread; must be quick.
pub trait Progress: Send + Sync + 'static {
    /// The state now.
    fn update(&self, snapshot: &Snapshot);
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn update(&self, _snapshot: &Snapshot) {}
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Snapshot {
    /// Since the first arrival was due.
    pub elapsed: Duration,
    /// For how long arrivals come.
    pub planned: Duration,
    /// Arrivals that came due.
    pub scheduled: u64,
    /// Whole responses.
    pub completed: u64,
    /// Those of them that are successes.
    pub succeeded: u64,
    /// Failures.
    pub failed: u64,
    /// Arrivals never sent.
    pub dropped: u64,
    /// Under way or waiting for a connection.
    pub in_flight: u64,
    /// Open connections.
    pub connections: usize,
    /// Median response time so far.
    pub p50: Duration,
    /// 99th percentile of the response times so far.
    pub p99: Duration,
}
