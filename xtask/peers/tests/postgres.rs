//! What tests of backups ask of a PostgreSQL: standbys, rows with numbers, the end of a machine, TLS, a folder of their own.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use peers::{
    certificates::{Authority, Subject},
    servers::{
        Release,
        postgres::{Cluster, Postgres},
    },
};
use tokio::process::Command;

/// A standby follows, its primary is lost with its disk, the standby takes over: nothing but the row on its way may be missing.
#[tokio::test]
async fn a_standby_takes_over_from_a_machine_that_is_lost() {
    let test = "a_standby_takes_over_from_a_machine_that_is_lost";
    for release in [Release::V14, Release::V15] {
        let Some(mut primary) = Cluster::start(Postgres::of(release).socket(), test).await else {
            continue;
        };
        let standby = primary.standby(Some("follower")).await;
        assert_eq!(standby.system_identifier().await, primary.system_identifier().await);
        // What is acknowledged is on the standby, too.
        primary.run("alter system set synchronous_standby_names = '*'").await;
        primary.run("select pg_reload_conf()").await;
        let rows = primary.numbered(1000).await;
        let row = rows.reaches(50).await;
        assert_eq!(row.number, 50);
        let other = rows.acknowledged();
        assert!(other.is_sorted_by_key(|row| (row.number, row.at)), "{other:?}");
        assert!(primary.socket().read_dir().unwrap().next().is_some());

        primary.wipe();
        assert!(!primary.data().exists());
        rows.fails().await;
        assert!(primary.connect().await.is_err());
        standby.promote().await;
        let last = rows.last().unwrap().number;
        let here = standby.numbered_rows().await;
        assert!((last..=rows.attempted()).contains(&here), "{here} of {last}");

        // Who goes on where another left off continues its numbers, on the new timeline.
        let rows = standby.numbered(1000).await;
        rows.reaches(here + 10).await;
        let last = rows.stop().await.unwrap();
        assert_eq!(standby.numbered_rows().await, last.number);
        let file = standby.run("select pg_walfile_name(pg_current_wal_lsn())").await;
        assert!(file.starts_with("00000002"), "{file}");
    }
}

/// Kill and start again, over the same data and over data that another put there.
#[tokio::test]
async fn a_killed_cluster_recovers_and_a_wiped_one_takes_what_it_is_given() {
    let test = "a_killed_cluster_recovers_and_a_wiped_one_takes_what_it_is_given";
    for release in Release::ALL {
        let folder = tempfile::tempdir().unwrap();
        // The server's user goes through it.
        open_to_all(folder.path());
        let data = folder.path().join("cluster");
        let recipe = Postgres::of(release)
            .data(&data)
            .made_with("--wal-segsize=1")
            .password("correct horse");
        let Some(mut cluster) = Cluster::start(recipe, test).await else {
            continue;
        };
        assert_eq!(cluster.data(), data);
        assert_eq!(
            fs::read_to_string(data.join("PG_VERSION")).unwrap().trim(),
            release.to_string()
        );
        assert_eq!(cluster.run("show wal_segment_size").await, "1MB");
        assert_eq!(cluster.numbered_rows().await, 0);
        let rows = cluster.numbered(1000).await;
        rows.reaches(30).await;
        cluster.kill();
        rows.fails().await;
        cluster.start_again().await;
        let here = cluster.numbered_rows().await;
        assert!(
            (rows.last().unwrap().number..=rows.attempted()).contains(&here),
            "{here}"
        );

        let before = cluster.position().await;
        let point = cluster.restore_point("before the end").await;
        let switched = cluster.switch_wal().await;
        assert!(
            number(&before) < number(&point) && number(&point) <= number(&switched),
            "{before} {point} {switched}"
        );

        cluster.stop().await;
        let copy = folder.path().join("copy");
        let copied = Command::new("cp")
            .arg("-a")
            .args([&data, &copy])
            .status()
            .await
            .unwrap();
        assert!(copied.success());
        cluster.wipe();
        fs::rename(&copy, &data).unwrap();
        cluster.start_again().await;
        assert_eq!(cluster.numbered_rows().await, here);
        let gone = cluster.server().folder().to_owned();
        drop(cluster);
        assert!(!gone.exists());
        assert!(data.exists(), "a folder that the test named stays");
    }
}

/// A client without a certificate that the line in `pg_hba.conf` asks for is turned away, and one without TLS at all.
#[tokio::test]
async fn who_gets_in_is_said_by_the_lines_of_the_test() {
    let test = "who_gets_in_is_said_by_the_lines_of_the_test";
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("test").unwrap();
    let hosts = &["localhost"][..];
    let server = Subject {
        name: "server",
        hosts,
        ..Subject::default()
    };
    let client = Subject {
        name: "postgres",
        ..Subject::default()
    };
    for (subject, file) in [(server, "server"), (client, "client")] {
        authority.sign(subject).unwrap().write(folder.path(), file).unwrap();
    }
    let trusted = folder.path().join("ca.pem");
    fs::write(&trusted, authority.certificate()).unwrap();
    let recipe = Postgres::default()
        .tls(&folder.path().join("server.pem"), &folder.path().join("server.key"))
        .clients(&trusted)
        .access("hostssl template1 all 127.0.0.1/32 cert")
        .access("host template1 all 127.0.0.1/32 reject");
    let Some(cluster) = Cluster::start(recipe, test).await else {
        return;
    };
    let psql = async |more: &str| {
        let port = cluster.server().address("postgres").port();
        let words = format!("host=localhost hostaddr=127.0.0.1 port={port} user=postgres dbname=template1 {more}");
        let mut psql = Command::new(Release::V15.client("psql").unwrap());
        psql.args([
            "-qAt",
            "-c",
            "select ssl from pg_stat_ssl where pid = pg_backend_pid()",
            &words,
        ]);
        let output = psql
            .current_dir(folder.path())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let plain = psql("sslmode=disable").await;
    assert!(plain.contains("no encryption"), "{plain}");
    let nobody = psql("sslmode=verify-full sslrootcert=ca.pem sslcert=none").await;
    assert!(nobody.contains("valid client certificate"), "{nobody}");
    let known = psql("sslmode=verify-full sslrootcert=ca.pem sslcert=client.pem sslkey=client.key").await;
    assert_eq!(known.trim(), "t");
}

/// A position of the log as a number.
fn number(position: &str) -> u64 {
    let (high, low) = position.split_once('/').expect("two halves");
    let half = |text| u64::from_str_radix(text, 16).expect("a number");
    half(high) << 32 | half(low)
}

fn open_to_all(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).expect("it is the test's");
}
