//! Backup and restore: sources, a repository engine that speaks restic format 2, stores, proof.
