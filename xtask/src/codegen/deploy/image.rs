//! The image of the services, as a Dockerfile: all of them in one, since they are built together.

use super::stack::{SERVICE_USER, Stack};

/// As it is called.
pub const NAME: &str = "opsctl-services:dev";
/// Its file.
pub const FILE: &str = "Dockerfile";

/// The file. `rust`: the compiler's version.
pub fn file(stack: &Stack, rust: &str) -> String {
    let each = |before: &str| -> Vec<String> {
        let services = stack.services.iter();
        services.map(|service| format!("{before}{}", service.name)).collect()
    };
    let (packages, programs) = (each("--package "), each("/source/target/release/"));
    let (packages, programs) = (packages.join(" "), programs.join(" "));
    format!(
        "FROM rust:{rust}-bookworm AS build\n\
         WORKDIR /source\n\
         COPY . .\n\
         RUN cargo build --release --locked {packages}\n\
         \n\
         FROM debian:bookworm-slim\n\
         COPY --from=build {programs} /usr/local/bin/\n\
         # A volume that is mounted here takes its owner over.\n\
         RUN install -d -o {SERVICE_USER} -g {SERVICE_USER} -m 0700 /data\n\
         USER {SERVICE_USER}:{SERVICE_USER}\n"
    )
}
