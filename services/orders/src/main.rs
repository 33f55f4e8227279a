//! The `orders` service's process: settings in, exit code out. What it does is the library's matter.

use std::process::ExitCode;

use clap::Parser as _;
use orders::process::{Arguments, run};

#[tokio::main]
async fn main() -> ExitCode {
    chassis::start::exit("orders", run(Arguments::parse()).await)
}
