//! What a cluster keeps on disk: its folder, its settings, and a lock so that two never work on it at one time.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    certificates::write_private,
    ports::{Port, Reserved},
};

/// The folder of the cluster. There is one a user, since there can be one a machine.
pub(super) fn folder() -> PathBuf {
    crate::cache().with_file_name("cluster")
}

/// Waits until nobody else starts or ends a cluster, and keeps others out while the value lives.
pub(super) fn lock() -> io::Result<File> {
    let path = folder().with_extension("lock");
    fs::create_dir_all(path.parent().unwrap_or(&path))?;
    let file = File::create(path)?;
    file.lock()?;
    Ok(file)
}

/// What was chosen when the cluster was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    /// Where everything of it lies.
    pub folder: PathBuf,
    /// Ports of 127.0.0.1.
    pub gateway: u16,
    pub traefik: u16,
    pub etcd: u16,
    pub etcd_peer: u16,
    /// What PostgreSQL asks its superuser for; the services' own are made of it.
    pub password: String,
    /// How many nodes kwok plays.
    pub played: usize,
    /// Whether everything has been ready once.
    pub whole: bool,
}

impl State {
    /// New settings, with ports that are free now.
    pub fn choose(folder: &Path) -> io::Result<Self> {
        let names = ["gateway", "traefik", "etcd", "etcd-peer"];
        let ports: Vec<Reserved> = names
            .into_iter()
            .map(|name| Reserved::choose(Port::http(name)))
            .collect::<io::Result<_>>()?;
        let mut random = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        Ok(Self {
            folder: folder.to_owned(),
            gateway: ports[0].number,
            traefik: ports[1].number,
            etcd: ports[2].number,
            etcd_peer: ports[3].number,
            password: hex::encode(random),
            played: 0,
            whole: false,
        })
    }

    /// The settings of the cluster in `folder`, if they can be read.
    pub fn read(folder: &Path) -> Option<Self> {
        let text = fs::read_to_string(folder.join("cluster.json")).ok()?;
        let value: Value = serde_json::from_str(&text).ok()?;
        let port = |name: &str| value[name].as_u64().map(|port| port as u16);
        Some(Self {
            folder: folder.to_owned(),
            gateway: port("gateway")?,
            traefik: port("traefik")?,
            etcd: port("etcd")?,
            etcd_peer: port("etcd_peer")?,
            password: value["password"].as_str()?.to_owned(),
            played: value["played"].as_u64()? as usize,
            whole: value["whole"].as_bool()?,
        })
    }

    /// Keeps the settings, as a whole or not at all.
    pub fn write(&self) -> io::Result<()> {
        let value = json!({
            "version": 1,
            "gateway": self.gateway,
            "traefik": self.traefik,
            "etcd": self.etcd,
            "etcd_peer": self.etcd_peer,
            "password": self.password,
            "played": self.played,
            "whole": self.whole,
        });
        let half = self.folder.join("cluster.json.half");
        write_private(&half, &value.to_string())?;
        fs::rename(half, self.folder.join("cluster.json"))
    }

    /// A file of the cluster.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The password of a service's role in PostgreSQL.
    pub fn password_of(&self, service: &str) -> String {
        format!("{service}-{}", self.password)
    }
}
