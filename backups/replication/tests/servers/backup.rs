//! Base backups of real servers: every byte that the manifest demands, tablespaces among them.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use peers::servers::postgres::Cluster;
use peers::servers::{Postgres, Release};
use replication::{BaseBackup, Checkpoint, Connection, Oid, Part, Position};
use sha2::{Digest, Sha256};

use crate::{chain, open, soon};

fn options() -> BaseBackup {
    BaseBackup {
        label: "it's a \"test\"\n".into(),
        checkpoint: Checkpoint::Fast,
        ..BaseBackup::default()
    }
}

/// What came.
struct Taken {
    archives: Vec<(Option<Oid>, PathBuf)>,
    manifest: Vec<u8>,
    start: Position,
    end: Position,
    connection: Connection,
}

async fn take(connection: Connection, folder: &Path) -> Taken {
    let mut stream = connection.base_backup(&options()).await.unwrap();
    let start = stream.start();
    let (mut archives, mut manifest) = (Vec::new(), Vec::new());
    let mut file: Option<fs::File> = None;
    let mut begun = false;
    while let Some(part) = soon("a part", stream.next()).await.unwrap() {
        match part {
            Part::Archive { tablespace } => {
                let path = folder.join(format!("{}.tar", archives.len()));
                file = Some(fs::File::create(&path).unwrap());
                archives.push((tablespace, path));
            }
            Part::Data(data) => file.as_mut().unwrap().write_all(&data).unwrap(),
            Part::ManifestBegins => begun = true,
            Part::Manifest(data) => {
                assert!(begun);
                manifest.extend_from_slice(&data);
            }
        }
    }
    let named: Vec<Option<Oid>> = stream.tablespaces().iter().map(|space| space.oid).collect();
    assert_eq!(named, archives.iter().map(|(oid, _)| *oid).collect::<Vec<_>>());
    assert!(
        stream.tablespaces().iter().all(|space| space.size.is_some()),
        "{:?}",
        stream.tablespaces()
    );
    // Asked again it says the same.
    assert_eq!(stream.next().await.unwrap(), None);
    let (end, connection) = stream.finish().await.unwrap();
    Taken {
        archives,
        manifest,
        start,
        end,
        connection,
    }
}

/// Every file that the manifest names, with its length and hash, and no other.
fn verify(folder: &Path, manifest: &[u8]) -> usize {
    let manifest: serde_json::Value = serde_json::from_slice(manifest).unwrap();
    let mut named = BTreeSet::new();
    for file in manifest["Files"].as_array().unwrap() {
        let path = file["Path"].as_str().unwrap();
        let content = fs::read(folder.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(file["Size"].as_u64(), Some(content.len() as u64), "{path}");
        assert_eq!(file["Checksum-Algorithm"], "SHA256", "{path}");
        let hash = hex::encode(Sha256::digest(&content));
        assert_eq!(file["Checksum"].as_str(), Some(hash.as_str()), "{path}");
        named.insert(path.to_owned());
    }
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(inner).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let path = entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            assert!(named.contains(&path), "{path} is not in the manifest");
        }
    }
    named.len()
}

fn untar(archive: &Path, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let done = Command::new("tar")
        .arg("-xf")
        .arg(archive)
        .arg("-C")
        .arg(folder)
        .status()
        .unwrap();
    assert!(done.success());
}

#[tokio::test]
async fn every_byte_that_the_manifest_demands_comes() {
    const TEST: &str = "every_byte_that_the_manifest_demands_comes";
    for release in Release::ALL {
        let Some(cluster) = Cluster::start(Postgres::of(release), TEST).await else {
            continue;
        };
        let space = cluster.server().folder().join("a space");
        fs::create_dir(&space).unwrap();
        let owner = fs::metadata(cluster.data()).unwrap();
        chown(&space, Some(owner.uid()), Some(owner.gid())).unwrap();
        cluster
            .run(&format!("create tablespace beside location '{}'", space.display()))
            .await;
        cluster
            .run("create table here as select n, repeat(md5(n::text), 20) from generate_series(1, 20000) n")
            .await;
        cluster
            .run("create table there tablespace beside as select * from here")
            .await;
        let oid: Oid = cluster
            .run("select oid::text from pg_tablespace where spcname = 'beside'")
            .await
            .parse()
            .unwrap();

        let folder = tempfile::tempdir().unwrap();
        let taken = take(open(&cluster).await, folder.path()).await;
        assert!(taken.start.lsn < taken.end.lsn, "{:?} to {:?}", taken.start, taken.end);
        assert_eq!((taken.start.timeline.0, taken.end.timeline.0), (1, 1));
        // The main data directory comes last: `pg_control` must be newer than all else.
        let order: Vec<Option<Oid>> = taken.archives.iter().map(|(oid, _)| *oid).collect();
        assert_eq!(order, [Some(oid), None]);
        let root = folder.path().join("data");
        for (tablespace, archive) in &taken.archives {
            match tablespace {
                None => untar(archive, &root),
                Some(oid) => untar(archive, &root.join(format!("pg_tblspc/{oid}"))),
            }
        }
        assert!(verify(&root, &taken.manifest) > 500, "{release}");
        let map = fs::read_to_string(root.join("tablespace_map")).unwrap();
        assert!(map.contains(&oid.to_string()) && map.contains("a space"), "{map}");
        let label = fs::read_to_string(root.join("backup_label")).unwrap();
        assert!(label.contains("LABEL: it's a \"test\" \n"), "{label}");
        assert!(label.contains(&taken.start.lsn.to_string()), "{label}");

        // What PostgreSQL itself says; Debian's does not know the manifests of later ones.
        if release <= Release::V15
            && let Ok(judge) = Release::V15.client("pg_verifybackup")
        {
            fs::write(root.join("backup_manifest"), &taken.manifest).unwrap();
            let said = Command::new(judge).arg("-n").arg(&root).output().unwrap();
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        }

        // The connection goes on.
        let mut connection = taken.connection;
        assert!(connection.identify().await.unwrap().flushed >= taken.end.lsn);
    }
}

#[tokio::test]
async fn a_damaged_page_is_named_at_the_end() {
    let recipe = Postgres::default().made_with("--data-checksums");
    let Some(mut cluster) = Cluster::start(recipe, "a_damaged_page_is_named_at_the_end").await else {
        return;
    };
    cluster
        .run("create table here as select n from generate_series(1, 20000) n")
        .await;
    let file = cluster.run("select pg_relation_filepath('here')").await;
    cluster.stop().await;
    let path = cluster.data().join(&file);
    let mut content = fs::read(&path).unwrap();
    content[3 * 8192 + 5000] ^= 0x40;
    fs::write(&path, content).unwrap();
    cluster.start_again().await;

    let mut stream = open(&cluster).await.base_backup(&options()).await.unwrap();
    while soon("a part", stream.next()).await.unwrap().is_some() {}
    let error = stream.finish().await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("XX001"), "{error}");
    assert!(chain(&error).contains(&file), "{}", chain(&error));
}

#[tokio::test]
async fn a_backup_that_ends_early_is_an_error() {
    let Some(mut cluster) = Cluster::start(Postgres::default(), "a_backup_that_ends_early_is_an_error").await else {
        return;
    };
    // More than what sockets hold.
    cluster
        .run("create table here as select n, repeat(md5(n::text), 20) from generate_series(1, 200000) n")
        .await;
    let stream = open(&cluster).await.base_backup(&options()).await.unwrap();
    drop(stream);
    let mut stream = open(&cluster).await.base_backup(&options()).await.unwrap();
    assert!(matches!(
        stream.next().await,
        Ok(Some(Part::Archive { tablespace: None }))
    ));
    cluster.kill();
    let error = soon("the end", async {
        loop {
            match stream.next().await {
                Ok(Some(Part::Data(_))) => {}
                Ok(other) => panic!("{other:?}"),
                Err(error) => break error,
            }
        }
    });
    let error = error.await;
    assert!(error.is_unreachable(), "{error:?}");
    assert!(stream.finish().await.is_err());
}

#[tokio::test]
async fn a_refusal_is_told_before_anything_comes() {
    let Some(cluster) = Cluster::start(Postgres::default(), "a_refusal_is_told_before_anything_comes").await else {
        return;
    };
    cluster.run("create role weak login").await;
    let weak = cluster.url().replace("postgres@", "weak@");
    let address = replication::Address::parse(&weak).unwrap();
    let error = Connection::open(&address, "test").await.unwrap_err();
    assert!(error.is_authentication(), "{error:?}");
}
