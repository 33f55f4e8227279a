//! One-call set-up of logs, traces and metrics for a service.
