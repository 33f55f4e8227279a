//! Where workloads run (memory, local) and what a run may leave behind: record, lock, undo, watchdog.
