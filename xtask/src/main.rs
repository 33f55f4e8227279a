//! The project's tasks, run as `cargo xtask TASK`: this file is the list of them, each task is a file of its own.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a task speaks to the person who runs it"
)]

mod background;
mod bench;
mod ci;
mod cluster;
mod codegen;
mod dist;
mod fuzz;
mod instructions;
mod peers;
mod prove;
mod soak;
mod step;
mod test;
mod tidy;

use clap::{Parser, Subcommand};

/// The project's own tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Runs every test, and names each that was skipped and why
    Test(test::Arguments),
    /// Runs what a change must pass: format, lints, tidy, generated files, docs, tests; prints the minutes of each
    Ci(ci::Arguments),
    /// Runs the kill and fault tests with their full counts
    Soak(soak::Arguments),
    /// Fuzzes whatever reads foreign bytes in `backups`, guided by coverage
    Fuzz(fuzz::Arguments),
    /// Proves drills and canaries on real pods: makes images, starts a cluster, runs what wants one, ends it
    Prove(prove::Arguments),
    /// Checks the rules of the house that no compiler knows
    Tidy,
    /// Measures ours beside its peers in one run and writes docs/reference/benchmarks.md
    Bench(bench::Arguments),
    /// Counts the instructions of the hot paths and holds them against their ceilings
    Instructions(instructions::Arguments),
    /// Writes the generated files, or says which are stale
    Codegen(codegen::Arguments),
    /// Makes what is shipped: self-contained programs, their container images, what they are made of, checksums
    Dist(dist::Arguments),
    /// Lists, builds, starts and ends the real servers that tests hold ours against
    Peers(peers::Arguments),
    /// Starts and ends a Kubernetes cluster of one real node on this machine
    Cluster(cluster::Arguments),
}

fn main() {
    let outcome = match Arguments::parse().task {
        Task::Test(arguments) => test::run(&arguments),
        Task::Ci(arguments) => ci::run(&arguments),
        Task::Soak(arguments) => soak::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Prove(arguments) => prove::run(&arguments),
        Task::Tidy => tidy::run(),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Instructions(arguments) => instructions::run(&arguments),
        Task::Codegen(arguments) => codegen::run(&arguments),
        Task::Dist(arguments) => dist::run(&arguments),
        Task::Peers(arguments) => peers::run(&arguments),
        Task::Cluster(arguments) => cluster::run(&arguments),
    };
    if let Err(error) = outcome {
        eprintln!("error: {error:#}");
        std::process::exit(1);
    }
}
