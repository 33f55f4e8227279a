//! Little that grows into much: what each kind of bomb costs in memory, measured in a process of its own.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::store::LocalStore;

/// Says to this program that it is the one that is measured.
const CHILD: &str = "OPSCTL_TEST_BOMB";
/// What it may take at most; each bomb would take more, or stands for what has no end.
const MOST_MIB: u64 = 600;

impl World {
    /// As [`World::add`], compressed.
    fn add_packed(&mut self, kind: BlobKind, plain: &[u8]) -> Id {
        let mut packed = Vec::new();
        compress::Zstd::new().unwrap().compress(plain, &mut packed).unwrap();
        let (id, offset) = (Id::of(plain), self.body.len() as u32);
        let sealed = self.repository.key().seal_to_vec(&packed);
        self.blobs.push(PackedBlob {
            kind,
            id,
            offset,
            length: sealed.len() as u32,
            uncompressed: Some(plain.len() as u32),
        });
        self.body.extend(sealed);
        id
    }
}

/// A document of so many bytes that says nothing.
fn spaces(length: usize) -> Vec<u8> {
    let mut document = b"{\"packs\":[]".to_vec();
    document.resize(length, b' ');
    document.push(b'}');
    document
}

/// Nodes of 26 bytes: in memory each takes four hundred.
fn tiny_nodes(count: usize) -> Vec<u8> {
    let nodes = br#"{"name":"a","type":"dir"},"#.repeat(count);
    [&b"{\"nodes\":["[..], &nodes[..nodes.len() - 1], b"]}"].concat()
}

async fn build(bomb: &str, place: &Path) {
    let mut world = World::new().await;
    match bomb {
        "tree" => world.root = world.add_packed(BlobKind::Tree, &tiny_nodes(4 << 20)),
        "content" => {
            let zeros = world.add_packed(BlobKind::Data, &vec![0; 300 << 20]);
            let mut file = Node::new("zeros", NodeKind::File, 0o644);
            (file.content, file.size) = (Some(vec![zeros; 40]), 40 * (300 << 20));
            world.root = world.add(BlobKind::Tree, &Tree::new(vec![file]).to_bytes().unwrap());
        }
        "index" => drop(world.put_sealed(FileKind::Index, &spaces(300 << 20), true)),
        "snapshot" => drop(world.put_sealed(FileKind::Snapshot, &spaces(300 << 20), true)),
        _ => {}
    }
    if bomb != "index" {
        world.put_sealed(FileKind::Index, &world.index_json(world.put_pack(None)), true);
    }
    world.put_sealed(FileKind::Snapshot, &world.snapshot_json(), true);
    let store = LocalStore::new(place);
    for (key, body) in objects(&world.memory).await {
        store.put(&key, body).await.unwrap();
    }
    // Files of a hundred gigabytes that take no room on the disk.
    let sparse = |key: &str| {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(place.join(key))
            .unwrap();
        file.set_len(100 << 30).unwrap();
    };
    match bomb {
        "long config" => {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(place.join("config"), std::fs::Permissions::from_mode(0o600)).unwrap();
            sparse("config");
        }
        "long key" => sparse(&format!("keys/{}", Id::of(b"key"))),
        "long index" => sparse(&format!("index/{}", Id::of(b"index"))),
        "long snapshot" => sparse(&format!("snapshots/{}", Id::of(b"snapshot"))),
        "long pack" => {
            let pack = Id::of(b"pack").to_string();
            std::fs::create_dir_all(place.join("data").join(&pack[..2])).unwrap();
            sparse(&format!("data/{}/{pack}", &pack[..2]));
        }
        _ => {}
    }
}

/// Everything that reads, in turn. Errors and findings are what is expected.
async fn read_all(place: &Path) {
    let Some(repository) = sane(Repository::open(Arc::new(LocalStore::new(place)), PASSWORD).await) else {
        return;
    };
    let (silent, cancel, root) = (Silent, CancellationToken::new(), Path::new(""));
    let options = CheckOptions {
        read_data: ReadData::All,
    };
    sane(crate::check(&repository, &options, &silent, &cancel).await);
    let Some(list) = sane(snapshots::list(&repository, &SnapshotFilter::default()).await) else {
        return;
    };
    for record in &list.snapshots {
        sane(snapshots::ls(&repository, &record.snapshot, root, true).await);
        sane(snapshots::dump(&repository, &record.snapshot, root, &mut std::io::sink()).await);
        let target = tempfile::tempdir().unwrap();
        let options = RestoreOptions::default();
        sane(crate::restore(&repository, &record.id, target.path(), &options, &silent, &cancel).await);
    }
    sane(repository.keys().await);
}

fn highest_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

#[test]
fn no_bomb_goes_off() {
    if let Some(place) = std::env::var_os(CHILD) {
        run(read_all(Path::new(&place)));
        println!("took {} MiB", highest_mib());
        return;
    }
    for bomb in [
        "tree",
        "content",
        "index",
        "snapshot",
        "long config",
        "long key",
        "long index",
        "long snapshot",
        "long pack",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("repo");
        run(build(bomb, &place));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "repo::hostile::bombs::no_bomb_goes_off", "--nocapture"])
            .env(CHILD, &place)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout).into_owned();
        assert!(
            child.status.success(),
            "{bomb}: {said}{}",
            String::from_utf8_lossy(&child.stderr)
        );
        let took = said
            .lines()
            .find_map(|line| line.split("took ").nth(1)?.strip_suffix(" MiB"));
        let took: u64 = took.expect("it says so").parse().unwrap();
        println!("{bomb}: {took} MiB");
        assert!(took < MOST_MIB, "{bomb} took {took} MiB");
    }
}
