//! PostgreSQL on the host, with a role and a database for each reference service. Its data lies in memory, in a folder of
//! its own: it refuses to be root, nobody else gets into the cluster's, and a thousand files on a disk take long to remove.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use super::{
    configuration::POSTGRES,
    machine::{remove, run},
    network::ADDRESS,
    state::State,
};
use crate::{
    Program,
    servers::{self, postgres},
};

/// Whose data is kept there: a role and a database of this name each.
pub(super) const SERVICES: [&str; 4] = ["identity", "orders", "payments", "notifications"];

/// Where the data lies. Its name is the cluster's, of which there is one.
fn folder() -> PathBuf {
    Path::new("/dev/shm").join("opsctl-cluster-postgres")
}

/// Makes the data, as its user.
pub(super) fn make(state: &State) -> io::Result<()> {
    remove_data()?;
    let folder = folder();
    fs::create_dir_all(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
    let (uid, gid) = postgres::ids_of(postgres::USER)?;
    let password = folder.join("password");
    fs::write(&password, &state.password)?;
    for path in [&folder, &password] {
        chown(path, Some(uid), Some(gid))?;
    }
    let initdb = as_user("initdb")?
        .arg("-D")
        .arg(folder.join("data"))
        .args([
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
            "-A",
            "scram-sha-256",
        ])
        .arg(format!("--pwfile={}", password.display()));
    let words: Vec<String> = initdb
        .words()
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let arguments: Vec<&str> = words[1..].iter().map(String::as_str).collect();
    run(&words[0], &arguments, "")?;
    // Pods come from addresses that are not known before; who has no password is refused all the same.
    let access = folder.join("data/pg_hba.conf");
    fs::write(&access, "host all all all scram-sha-256\n")
}

/// The server.
pub(super) fn program() -> io::Result<Program> {
    let server = as_user("postgres")?.arg("-D").arg(folder().join("data"));
    Ok(server.args([
        "-c",
        &format!("listen_addresses={ADDRESS}"),
        "-p",
        &POSTGRES.to_string(),
        "-c",
        "fsync=off",
        "-c",
        "unix_socket_directories=",
        "-c",
        // In its folder: what a killed server leaves of it elsewhere nobody removes.
        "dynamic_shared_memory_type=mmap",
        "-c",
        "max_connections=300",
    ]))
}

/// Makes the roles and databases of the services that are not there. Fails while the server does not serve.
pub(super) fn fill(state: &State) -> io::Result<()> {
    let statements = SERVICES.map(|service| {
        let password = state.password_of(service);
        format!(
            r"select $$create role {service} login password '{password}'$$
where not exists (select from pg_roles where rolname = '{service}') \gexec
select $$create database {service} owner {service}$$
where not exists (select from pg_database where datname = '{service}') \gexec
"
        )
    });
    let psql = servers::program("psql")?.display().to_string();
    let url = url_of_superuser(state);
    let arguments = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname", &url];
    run(&psql, &arguments, &statements.concat()).map(drop)
}

/// Where a service's database is, for a client that calls the server `host`.
pub(super) fn url(state: &State, service: &str, host: &str) -> String {
    format!(
        "postgres://{service}:{}@{host}:{POSTGRES}/{service}",
        state.password_of(service)
    )
}

/// Where everything is, for who may do everything.
pub(super) fn url_of_superuser(state: &State) -> String {
    format!("postgres://postgres:{}@{ADDRESS}:{POSTGRES}/postgres", state.password)
}

/// Removes the data.
pub(super) fn remove_data() -> io::Result<()> {
    remove(&folder())
}

fn as_user(name: &str) -> io::Result<Program> {
    Ok(Program::new(servers::program(name)?).user(Some(postgres::USER)))
}
