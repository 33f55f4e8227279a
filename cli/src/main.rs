//! `opsctl`: keeps services up, and proves it. This file starts the process and ends it; the words are in
//! [`cli`], what each command does in the file under `command/` that has its name.

#![expect(
    clippy::format_push_string,
    clippy::format_collect,
    reason = "text for a terminal is built once and reads best as it will look"
)]

mod admin;
mod attach;
mod cleanup;
mod cli;
mod command;
mod config;
mod consent;
mod context;
mod derived;
mod error;
mod exit;
mod internal;
mod landscape;
mod moment;
mod output;
mod physical;
mod platform;
mod repository;
mod request;
mod retention;
mod schedule;
mod target;
mod tour;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run().into()
}
