//! Real sockets: what is handed out, what is refused, and that the store's distance costs nothing.

use std::os::unix::fs::MetadataExt as _;

use replication::History;

use super::super::contents::Held;
use super::super::reach::Base;
use super::*;

const SEGMENT: u64 = 1 << 20;
/// The number of the first segment.
const FIRST: u64 = 1;

fn size() -> SegmentSize {
    SegmentSize::new(SEGMENT).unwrap()
}

fn segment(timeline: u32, number: u64) -> Segment {
    Segment {
        timeline: Timeline(timeline),
        number,
    }
}

fn name(timeline: u32, number: u64) -> String {
    segment(timeline, number).file_name(size())
}

/// Whole segments of timeline 1, half a one of timeline 2, and the history of it.
fn held(whole: u64) -> Held {
    let first = FIRST + whole;
    let history = History::parse(format!("1\t{}\tx\n", segment(1, first).start(size()).plus(77)).as_bytes()).unwrap();
    let until = segment(2, first).start(size()).plus(SEGMENT / 2);
    Held {
        segment_size: size(),
        segments: (FIRST..first).map(|number| segment(1, number)).collect(),
        partials: [(segment(2, first), until)].into(),
        histories: [(Timeline(2), history)].into(),
        standing: None,
    }
}

fn way_through(held: &Held) -> Way {
    let start = segment(1, FIRST).start(size());
    let base = Base {
        start: start.plus(40),
        timeline: Timeline(1),
        end: start.plus(400),
        end_timeline: Timeline(1),
    };
    reach::way(held, &base, reach::Branch::Newest).unwrap()
}

/// What a segment has in it.
fn content(segment: Segment) -> u8 {
    1 + segment.number as u8
}

/// Files in memory.
struct Shop {
    missing: Option<u64>,
    /// Nothing is handed out before so many were asked for at one time.
    together: usize,
    /// How many are asked for now, and how many were at most.
    asked: watch::Sender<(usize, usize)>,
}

impl Shop {
    fn new(missing: Option<u64>, together: usize) -> Self {
        Self {
            missing,
            together,
            asked: watch::Sender::default(),
        }
    }
}

#[async_trait]
impl Supply for Shop {
    async fn piece(&self, piece: &Piece, size: SegmentSize) -> Result<Bytes, Failed> {
        self.asked.send_modify(|(now, most)| {
            *now += 1;
            *most = (*most).max(*now);
        });
        let mut seen = self.asked.subscribe();
        let met = seen.wait_for(|(_, most)| *most >= self.together).await.is_ok();
        assert!(met, "the sender is ours");
        self.asked.send_modify(|(now, _)| *now -= 1);
        if self.missing == Some(piece.segment.number) {
            return Err("it is missing".into());
        }
        let length = piece.partial.map_or(size.bytes(), |until| until.since(piece.start));
        Ok(vec![content(piece.segment); length as usize].into())
    }

    async fn history(&self, timeline: Timeline) -> Result<Bytes, Failed> {
        Ok(format!("{timeline} and what was before").into())
    }
}

async fn ask(server: &Server, name: &str, to: &Path) -> Result<Taken, TakeError> {
    let (socket, name, to) = (server.socket().to_owned(), name.to_owned(), to.to_owned());
    tokio::task::spawn_blocking(move || take(&socket, &name, &to))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_handed_out_and_only_what_lies_beyond_the_end_is_absent() {
    let folder = tempfile::tempdir().unwrap();
    let private = folder.path().join("s");
    let held = held(30);
    let way = way_through(&held);
    assert_eq!(way.pieces.len(), 31);
    let histories = vec![Timeline(2), Timeline(5)];
    let server = Server::start(&private, None, way, histories, Arc::new(Shop::new(Some(7), 1)), None).unwrap();
    assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o700);
    let to = folder.path().join("RECOVERYXLOG");

    for number in FIRST..7 {
        assert_eq!(ask(&server, &name(1, number), &to).await.unwrap(), Taken::Written);
        assert_eq!(
            fs::read(&to).unwrap(),
            vec![content(segment(1, number)); SEGMENT as usize]
        );
    }
    assert_eq!(server.served().borrow().segments, 6);
    fs::remove_file(&to).unwrap();
    // It cannot be had: PostgreSQL must not take that for the end.
    let error = ask(&server, &name(1, 7), &to).await.unwrap_err();
    assert!(
        matches!(&error, TakeError::Refused(why) if why.contains(&name(1, 7)) && why.contains("it is missing")),
        "{error}"
    );
    let refused = server.served().borrow().refused.clone();
    assert!(refused.is_some_and(|why| why.contains(&name(1, 7))));
    assert!(
        !to.exists() && fs::read_dir(folder.path()).unwrap().count() == 1,
        "nothing is left"
    );
    // Back, as after a start again, and far on.
    for number in [3, 30, FIRST] {
        assert_eq!(ask(&server, &name(1, number), &to).await.unwrap(), Taken::Written);
    }
    // The last one is not whole: zeros are not log.
    assert_eq!(ask(&server, &name(2, 31), &to).await.unwrap(), Taken::Written);
    let last = fs::read(&to).unwrap();
    let (log, zeros) = last.split_at(SEGMENT as usize / 2);
    assert!(log.iter().all(|byte| *byte == content(segment(2, 31))));
    assert_eq!(zeros, vec![0; SEGMENT as usize / 2]);
    // The one that leads there, and one of another branch, whose number nobody else may take.
    for history in ["00000002.history", "00000005.history"] {
        assert_eq!(ask(&server, history, &to).await.unwrap(), Taken::Written);
    }
    assert_eq!(fs::read(&to).unwrap(), b"5 and what was before");
    let backup = format!("{}.00000028.backup", name(1, 1));
    for absent in [&name(2, 32), "00000003.history", &backup] {
        assert_eq!(ask(&server, absent, &to).await.unwrap(), Taken::Absent, "{absent}");
    }
    for wrong in ["../../etc/passwd", "", "00000001", "00000001000000000000000g"] {
        assert!(
            matches!(ask(&server, wrong, &to).await, Err(TakeError::Name(_))),
            "{wrong}"
        );
    }
    // No segment of this size has such a name.
    let foreign = ask(&server, "00000001000000000000FFFF", &to).await;
    assert!(matches!(foreign, Err(TakeError::Refused(_))), "{foreign:?}");
    // Whoever speaks the protocol without our client is refused as well.
    let mut stream = UnixStream::connect(server.socket()).await.unwrap();
    stream.write_all(&[b'x'; NAME_LIMIT]).await.unwrap();
    let mut told = Vec::new();
    stream.read_to_end(&mut told).await.unwrap();
    assert_eq!(told[0], Status::Refused.byte());

    let socket = server.socket().to_owned();
    drop(server);
    assert!(!socket.exists());
    let gone = tokio::task::spawn_blocking(move || take(&socket, &name(1, 1), &to))
        .await
        .unwrap();
    assert!(matches!(gone, Err(TakeError::Server { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_on_the_way_is_never_the_end_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut held = held(8);
    held.segments.remove(&segment(1, 4));
    let way = way_through(&held);
    assert_eq!(way.pieces.len(), 3);
    let server = Server::start(
        &folder.path().join("s"),
        None,
        way,
        Vec::new(),
        Arc::new(Shop::new(None, 1)),
        None,
    )
    .unwrap();
    let to = folder.path().join("RECOVERYXLOG");
    assert_eq!(ask(&server, &name(1, 3), &to).await.unwrap(), Taken::Written);
    for number in [4, 5] {
        let error = ask(&server, &name(1, number), &to).await.unwrap_err();
        assert!(
            matches!(&error, TakeError::Refused(why) if why.contains(&format!("missing is {}", name(1, 4)))),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_are_fetched_ahead_and_never_more_than_fit() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Arc::new(Shop::new(None, 3));
    let counted = shop.asked.subscribe();
    let server = Server::start(
        &folder.path().join("s"),
        None,
        way_through(&held(40)),
        Vec::new(),
        shop,
        None,
    )
    .unwrap();
    let to = folder.path().join("RECOVERYXLOG");
    for number in FIRST..=40 {
        assert_eq!(ask(&server, &name(1, number), &to).await.unwrap(), Taken::Written);
    }
    let (_, most) = *counted.borrow();
    assert!(most as u64 <= AHEAD.1 + 2, "{most} at one time");
    let served = server.served().borrow().clone();
    assert_eq!((served.segments, served.of, served.refused), (40, 41, None));
}

#[test]
fn a_server_that_is_something_else_is_believed_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("wal");
    let to = folder.path().join("file");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let head = |status: u8, length: u64| [&[status][..], &length.to_le_bytes()].concat();
    let answers = [
        head(b'F', FILE_LIMIT + 1),
        head(b'R', REASON_LIMIT as u64 + 1),
        head(b'A', 1),
        head(b'X', 0),
        // Ends early: half a file is no file.
        [head(b'F', 5), b"half".to_vec()].concat(),
        b"F".to_vec(),
    ];
    let count = answers.len();
    let serving = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut name = [0; 25];
            std::io::Read::read_exact(&mut stream, &mut name).unwrap();
            std::io::Write::write_all(&mut stream, &answer).unwrap();
        }
    });
    for at in 0..count {
        let error = take(&socket, &name(1, 1), &to).unwrap_err();
        assert!(
            matches!(error, TakeError::Foreign { .. } | TakeError::Server { .. }),
            "{at}: {error}"
        );
        assert!(!to.exists());
    }
    serving.join().unwrap();
}

#[tokio::test]
async fn what_was_written_ahead_is_the_askers_and_is_given_once() {
    let folder = tempfile::tempdir().unwrap();
    let wal = folder.path().join("pg_wal");
    fs::create_dir(&wal).unwrap();
    let (way, shop) = (way_through(&held(12)), Arc::new(Shop::new(None, 1)));
    let server = Server::start(&folder.path().join("s"), None, way, Vec::new(), shop, Some(wal.clone())).unwrap();
    let expected = |number| vec![content(segment(1, number)); SEGMENT as usize];
    for number in FIRST..10 {
        let to = wal.join(name(1, number));
        assert_eq!(ask(&server, &name(1, number), &to).await.unwrap(), Taken::Written);
        assert_eq!(fs::read(&to).unwrap(), expected(number));
        let metadata = fs::metadata(&to).unwrap();
        assert_eq!((metadata.permissions().mode() & 0o777, metadata.nlink()), (0o600, 1));
    }
    // What has its name is written over when PostgreSQL has no more use for it; what is asked for again is whole.
    let (taken, again) = (wal.join(name(1, 9)), wal.join("RECOVERYXLOG"));
    fs::write(&taken, b"another segment").unwrap();
    assert_eq!(ask(&server, &name(1, 9), &again).await.unwrap(), Taken::Written);
    assert_eq!(fs::read(&again).unwrap(), expected(9));
    // A name that is taken, for a file that was written ahead.
    assert_eq!(ask(&server, &name(1, 10), &again).await.unwrap(), Taken::Written);
    assert_eq!(fs::read(&again).unwrap(), expected(10));
    drop(server);
    let left = fs::read_dir(&wal).unwrap().count();
    assert_eq!(
        left as u64,
        10 - FIRST + 1,
        "the segments under their names, and the one that was asked for again"
    );
}
