//! A service for tests: listens on `HTTP_ADDR` and answers every request with 200. It links nothing of ours.
//!
//! `--die` ends at once with status 3, `--never-ready` answers 503, `--hold FILE` keeps a file open.

#![expect(clippy::print_stdout, reason = "what a service prints is its log")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| args.iter().any(|arg| arg == word);
    if has("--die") {
        println!("there is no database");
        std::process::exit(3);
    }
    let _held = args
        .iter()
        .position(|arg| arg == "--hold")
        .map(|at| std::fs::File::open(&args[at + 1]).expect("a file to hold"));
    let address = std::env::var("HTTP_ADDR").expect("HTTP_ADDR says where to listen");
    let status = if has("--never-ready") {
        "503 Service Unavailable"
    } else {
        "200 OK"
    };
    let listener = TcpListener::bind(&address).expect("a free address");
    println!("listening on {address}");
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || answer(&stream, status));
    }
}

fn answer(mut stream: &TcpStream, status: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(line) = lines.next().transpose()? {
        if line.is_empty() {
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 3\r\n\r\nok\n")?;
        }
    }
    Ok(())
}
