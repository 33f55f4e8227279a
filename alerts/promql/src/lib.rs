//! PromQL as a tree with positions: reads what Prometheus reads, and prints it back. It evaluates nothing.
