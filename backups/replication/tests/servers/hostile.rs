//! A server that is none: it says nonsense, lies about lengths, ends early, says too much, and wants to be told secrets.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use replication::{Address, BaseBackup, Connection, Error, Lsn, Timeline};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::{chain, soon};

const SECRET: &str = "tr0ub4dor";

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    bytes.put_u8(kind);
    bytes.put_u32(body.len() as u32 + 4);
    bytes.put_slice(body);
    bytes.to_vec()
}

/// That all is well: a trusting server of version 15.
fn welcome() -> Vec<u8> {
    let mut bytes = message(b'R', &[0; 4]);
    bytes.extend(message(b'S', b"server_version\x0015.6\0"));
    bytes.extend(message(b'K', &[0; 8]));
    bytes.extend(message(b'Z', b"I"));
    bytes
}

/// Says each part after it heard something, and then `endless` again and again; returns what it heard.
async fn serve(parts: Vec<Vec<u8>>, endless: Vec<u8>) -> (String, tokio::task::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        for part in parts {
            let mut buffer = vec![0; 65536];
            let Ok(count @ 1..) = stream.read(&mut buffer).await else {
                return heard;
            };
            heard.extend_from_slice(&buffer[..count]);
            if stream.write_all(&part).await.is_err() {
                return heard;
            }
        }
        while !endless.is_empty() && stream.write_all(&endless).await.is_ok() {}
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut heard).await;
        heard
    });
    (
        format!("host=127.0.0.1 port={port} user=me password={SECRET} sslmode=disable"),
        heard,
    )
}

async fn open(parts: Vec<Vec<u8>>) -> Result<Connection, Error> {
    open_endless(parts, Vec::new()).await
}

async fn open_endless(parts: Vec<Vec<u8>>, endless: Vec<u8>) -> Result<Connection, Error> {
    let (address, heard) = serve(parts, endless).await;
    let opened = soon(
        "an answer",
        Connection::open(&Address::parse(&address).unwrap(), "test"),
    )
    .await;
    if let Err(error) = &opened {
        let shown = format!("{} {error:?}", chain(error));
        assert!(!shown.contains(SECRET), "{shown}");
        assert!(shown.chars().all(|c| !c.is_control()), "{shown}");
        let heard = soon("the end of the connection", heard).await.unwrap();
        let said = String::from_utf8_lossy(&heard).into_owned();
        assert!(!said.contains(SECRET), "the password was told");
    }
    opened
}

#[tokio::test]
async fn nonsense_at_the_start_is_an_error() {
    let sasl = |names: &[u8]| message(b'R', &[&[0, 0, 0, 10], names].concat());
    let scram = sasl(b"SCRAM-SHA-256\0\0");
    let challenge = |text: &[u8]| message(b'R', &[&[0, 0, 0, 11], text].concat());
    let all_is_well = welcome();
    for (name, parts) in [
        ("another protocol", vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()]),
        ("zeros", vec![vec![0; 10_000]]),
        ("a huge length", vec![b"R\xff\xff\xff\xff".to_vec()]),
        ("a negative length", vec![b"R\x80\0\0\0".to_vec()]),
        ("a short length", vec![b"R\0\0\0\x03".to_vec()]),
        ("an early end", vec![b"R\0\0\0\x08\0\0".to_vec()]),
        ("nothing", vec![Vec::new()]),
        ("an empty question", vec![message(b'R', b"")]),
        (
            "a plain password",
            vec![message(b'R', &[0, 0, 0, 3]), all_is_well.clone()],
        ),
        (
            "a short salt",
            vec![message(b'R', &[0, 0, 0, 5, 1]), all_is_well.clone()],
        ),
        ("Kerberos", vec![message(b'R', &[0, 0, 0, 7])]),
        ("no kind of SASL", vec![sasl(b"\0")]),
        ("an unknown kind of SASL", vec![sasl(b"PLAIN\0\0")]),
        ("names without an end", vec![sasl(b"SCRAM-SHA-256")]),
        ("no proof at all", vec![scram.clone(), all_is_well.clone()]),
        ("no challenge", vec![scram.clone(), challenge(b"")]),
        (
            "a challenge for another",
            vec![scram.clone(), challenge(b"r=other,s=AAAA,i=4096")],
        ),
        (
            "endless work",
            vec![scram.clone(), challenge(b"r=x,s=AAAA,i=4294967295")],
        ),
        (
            "no version",
            vec![[message(b'R', &[0; 4]), message(b'Z', b"I")].concat()],
        ),
        (
            "a wrong version",
            vec![[message(b'R', &[0; 4]), message(b'S', b"server_version\0x\0")].concat()],
        ),
        (
            "half a parameter",
            vec![[message(b'R', &[0; 4]), message(b'S', b"server_version")].concat()],
        ),
        ("a row", vec![message(b'D', b"\0\0")]),
        ("an error without an end", vec![message(b'E', b"Mx")]),
        (
            "an error that moves the cursor",
            vec![message(b'E', b"SFATAL\0C28000\0M\x1b[2J\r\ngone\0\0")],
        ),
    ] {
        let opened = open(parts).await;
        assert!(opened.is_err(), "{name}");
    }
}

#[tokio::test]
async fn endless_talk_is_an_error() {
    for (kind, body) in [
        (b'S', &b"a\0b\0"[..]),
        (b'N', b"SNOTICE\0Mx\0\0"),
        (b'A', b"\0\0\0\0x\0\0"),
        (b'K', b"\0\0\0\0\0\0\0\0"),
    ] {
        let talk = message(kind, body).repeat(1000);
        let error = open_endless(vec![message(b'R', &[0; 4])], talk).await;
        assert!(!matches!(error, Err(Error::TimedOut { .. })), "{}", char::from(kind));
        assert!(error.is_err(), "{}", char::from(kind));
    }
}

/// The clock goes on by itself when everybody waits.
#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for mode in ["disable", "prefer", "require"] {
        let address = format!("host=127.0.0.1 port={port} user=me sslmode={mode} connect_timeout=3");
        let error = Connection::open(&Address::parse(&address).unwrap(), "test")
            .await
            .unwrap_err();
        let Error::TimedOut { limit, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(*limit, Duration::from_secs(3));
        assert!(error.is_unreachable());
    }
}

#[tokio::test]
async fn answers_that_are_none_are_errors() {
    let head = message(b'T', b"\0\0");
    let row = |body: &[u8]| message(b'D', body);
    let done = [message(b'C', b"X\0"), message(b'Z', b"I")].concat();
    let nulls = b"\0\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff";
    for (name, answer) in [
        ("no result", done.clone()),
        ("no row", [&head[..], &done].concat()),
        ("two rows", [&head[..], &row(nulls), &row(nulls), &done].concat()),
        ("nulls", [&head[..], &row(nulls), &done].concat()),
        ("a short row", [&head[..], &row(b"\0\0"), &done].concat()),
        ("a copy", message(b'H', b"\0\0\0")),
        ("an end", Vec::new()),
    ] {
        let mut connection = open(vec![welcome(), answer]).await.unwrap();
        assert!(soon(name, connection.identify()).await.is_err(), "{name}");
    }
    // A result that does not end.
    let rows = row(nulls).repeat(1000);
    let mut connection = open_endless(vec![welcome(), head.clone()], rows).await.unwrap();
    assert!(soon("the limit", connection.identify()).await.is_err());
    // An answer that was not read to its end is never taken for that to another question.
    let late = [&head[..], &row(b"\0\x01\0\0\0\x01x")].concat();
    let mut connection = open(vec![welcome(), late]).await.unwrap();
    let _ = soon("the first answer", connection.identify()).await;
    assert!(matches!(
        soon("the second", connection.show("x")).await,
        Err(Error::Protocol { .. })
    ));
}

#[tokio::test]
async fn a_gap_in_the_log_is_an_error() {
    let piece = |start: u64, data: &[u8]| {
        let mut body = BytesMut::from(&b"w"[..]);
        body.put_u64(start);
        body.put_u64(start);
        body.put_i64(i64::MIN);
        body.put_slice(data);
        message(b'd', &body)
    };
    let stream = |pieces: Vec<Vec<u8>>| async move {
        let answer = [message(b'W', b"\0\0\0"), pieces.concat()].concat();
        let connection = open(vec![welcome(), answer]).await.unwrap();
        connection.stream(None, Timeline(1), Lsn(0x100_0000)).await.unwrap()
    };
    for (name, sound, pieces) in [
        ("a gap", 1, vec![piece(0x100_0000, b"abc"), piece(0x100_0004, b"x")]),
        (
            "the same again",
            1,
            vec![piece(0x100_0000, b"abc"), piece(0x100_0000, b"abc")],
        ),
        ("another start", 0, vec![piece(0x200_0000, b"abc")]),
        ("a piece of another kind", 0, vec![message(b'd', b"z")]),
        ("an empty piece", 0, vec![message(b'd', b"")]),
        ("half a piece", 0, vec![message(b'd', b"w\0\0")]),
        (
            "an end without a next timeline",
            0,
            vec![message(b'c', b""), message(b'C', b"X\0"), message(b'Z', b"I")],
        ),
        (
            "a timeline that ends elsewhere",
            0,
            vec![
                message(b'c', b""),
                message(b'T', b"\0\0"),
                message(b'D', b"\0\x02\0\0\0\x012\0\0\0\x030/1"),
                message(b'C', b"X\0"),
                message(b'C', b"X\0"),
                message(b'Z', b"I"),
            ],
        ),
    ] {
        let mut stream = stream(pieces).await;
        for _ in 0..sound {
            soon(name, stream.next()).await.unwrap();
        }
        let error = soon(name, stream.next()).await.unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{name}: {error:?}");
    }
}

#[tokio::test]
async fn a_base_backup_is_whole_or_an_error() {
    let options = BaseBackup {
        label: "x".into(),
        checkpoint: replication::Checkpoint::Fast,
        ..BaseBackup::default()
    };
    let head = message(b'T', b"\0\0");
    let done = message(b'C', b"SELECT\0");
    let position = message(b'D', b"\0\x02\0\0\0\x090/1000028\0\0\0\x011");
    let main = message(b'D', b"\0\x03\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x011");
    let space = message(b'D', b"\0\x03\0\0\0\x0516385\0\0\0\x02/x\0\0\0\x011");
    let begin = |spaces: &[&[u8]]| [&head[..], &position, &done, &head, &spaces.concat(), &done].concat();
    let copy = |pieces: &[&[u8]]| {
        let pieces = pieces.iter().flat_map(|piece| message(b'd', piece));
        let pieces: Vec<u8> = pieces.collect();
        [&message(b'H', b"\0\0\0")[..], &pieces, &message(b'c', b"")].concat()
    };
    let end = [&head[..], &position, &done, &done, &message(b'Z', b"I")].concat();
    let base: &[u8] = b"nbase.tar\0\0";
    let whole: &[&[u8]] = &[base, b"dabc", b"p\0\0\0\0\0\0\0\0", b"m", b"d{}"];
    let take = |answer: Vec<u8>| {
        let options = options.clone();
        async move {
            let connection = open(vec![welcome(), answer]).await.unwrap();
            soon("the backup", async {
                connection.base_backup(&options).await?.finish().await.map(drop)
            })
            .await
        }
    };
    take([begin(&[&main]), copy(whole), end.clone()].concat())
        .await
        .unwrap();
    let earlier = message(b'D', b"\0\x02\0\0\0\x030/1\0\0\0\x011");
    for (name, answer) in [
        ("no tablespace", [begin(&[]), copy(whole), end.clone()].concat()),
        (
            "no main data directory",
            [begin(&[&space]), copy(whole), end.clone()].concat(),
        ),
        (
            "two main data directories",
            [begin(&[&main, &main]), copy(whole), end.clone()].concat(),
        ),
        (
            "an archive too few",
            [begin(&[&space, &main]), copy(whole), end.clone()].concat(),
        ),
        (
            "an archive twice",
            [begin(&[&main]), copy(&[base, base, b"m"]), end.clone()].concat(),
        ),
        (
            "an archive of another name",
            [begin(&[&main]), copy(&[b"n../x.tar\0\0", b"m"]), end.clone()].concat(),
        ),
        (
            "an archive after the manifest",
            [begin(&[&main]), copy(&[base, b"m", base]), end.clone()].concat(),
        ),
        (
            "no manifest",
            [begin(&[&main]), copy(&[base, b"dabc"]), end.clone()].concat(),
        ),
        (
            "data of nothing",
            [begin(&[&main]), copy(&[b"dabc", base, b"m"]), end.clone()].concat(),
        ),
        (
            "a piece of another kind",
            [begin(&[&main]), copy(&[base, b"x"]), end.clone()].concat(),
        ),
        (
            "an empty piece",
            [begin(&[&main]), copy(&[base, b""]), end.clone()].concat(),
        ),
        ("no copy", [begin(&[&main]), end.clone()].concat()),
        ("no end", [begin(&[&main]), copy(whole)].concat()),
        ("an end before its start", {
            let end = [&head[..], &earlier, &done, &done, &message(b'Z', b"I")].concat();
            [begin(&[&main]), copy(whole), end].concat()
        }),
        ("a refusal at the end", {
            let error = message(b'E', b"SERROR\0VERROR\0CXX001\0Mwrong checksums\0\0");
            let end = [&head[..], &position, &done, &error, &message(b'Z', b"I")].concat();
            [begin(&[&main]), copy(whole), end].concat()
        }),
    ] {
        assert!(take(answer).await.is_err(), "{name}");
    }
}
