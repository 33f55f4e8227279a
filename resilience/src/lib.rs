//! Policies that keep a service up when what it calls does not answer: retry, breaker, timeout, bulkhead.
