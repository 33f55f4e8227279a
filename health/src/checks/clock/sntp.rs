//! One question of SNTP and what makes its answer worth believing. RFC 4330 section 5 (the checks), RFC 5905 section 8
//! (offset and delay) and 7.3 (the packet), and draft-ietf-ntp-data-minimization (what a question should not tell).

use jiff::Timestamp;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::Measured;
use crate::check::{Failure, Reason};

/// Length of a packet without extensions.
const LENGTH: usize = 48;
/// No leap warning, version 4, mode 3: client. All else stays zero but the transmit timestamp.
const QUESTION: u8 = 0b00_100_011;
/// Mode of an answer to a client.
const SERVER: u8 = 4;
/// Leap indicator of a server whose own clock is not set.
const UNSYNCHRONISED: u8 = 3;
/// Seconds from NTP's first era, which began in 1900, to Unix' time.
const UNIX_EPOCH: i64 = 2_208_988_800;
/// Distance from the root of time, in seconds, above which RFC 5905 does not believe a server (MAXDIST and what one
/// poll interval of dispersion adds).
const MOST_ROOT_DISTANCE: f64 = 1.5;

/// Asks `server` once.
pub(super) async fn ask(server: &str, now: fn() -> Timestamp) -> Result<Measured, Failure> {
    let addresses = tokio::net::lookup_host(server).await;
    let mut addresses = addresses.map_err(|error| Failure::new(Reason::Dns, error.to_string()))?;
    let address = addresses
        .next()
        .ok_or_else(|| Failure::new(Reason::Dns, "no address"))?;
    let local = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(local).await?;
    // A connected socket takes packets from that address alone, and hears that nothing listens there.
    socket.connect(address).await?;
    // A random number instead of our time: it tells nobody our clock, and nobody off the path can answer it.
    let nonce: u64 = rand::random();
    let mut question = [0; LENGTH];
    question[0] = QUESTION;
    question[40..].copy_from_slice(&nonce.to_be_bytes());
    let (sent, began) = (now(), Instant::now());
    socket.send(&question).await?;
    let mut packet = [0; LENGTH * 4];
    loop {
        let length = socket.recv(&mut packet).await?;
        let took = began.elapsed();
        let received = sent + took;
        // An answer to an older question, or one that somebody made up: the right one may still come.
        if length < LENGTH || packet[24..32] != nonce.to_be_bytes() {
            continue;
        }
        return Answer::read(&packet)?.measure(sent, received);
    }
}

/// The fields of an answer that count.
#[derive(Debug)]
struct Answer {
    receive: u64,
    transmit: u64,
    root_distance: f64,
}

impl Answer {
    fn read(packet: &[u8]) -> Result<Self, Failure> {
        let word = |at: usize| u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
        let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
        let wrong = |detail: String| Err(Failure::new(Reason::Protocol, detail));
        let (leap, version, mode) = (packet[0] >> 6, packet[0] >> 3 & 7, packet[0] & 7);
        let stratum = packet[1];
        if mode != SERVER || !(1..=4).contains(&version) {
            return wrong(format!("mode {mode}, version {version}"));
        }
        if stratum == 0 {
            // A kiss o' death: the server says with four letters why it gives no time.
            let code = String::from_utf8_lossy(&packet[12..16]).into_owned();
            let reason = match code.as_str() {
                "RATE" => Reason::Saturated,
                "DENY" | "RSTR" => Reason::Auth,
                _ => Reason::Protocol,
            };
            return Err(Failure::new(
                reason,
                format!("the server refuses: {}", code.escape_default()),
            ));
        }
        if leap == UNSYNCHRONISED || stratum > 15 {
            return wrong(format!("the server's own clock is not set (stratum {stratum})"));
        }
        let answer = Self {
            receive: long(32),
            transmit: long(40),
            // Two numbers of 16.16 bits.
            root_distance: f64::from(word(4)) / 65_536.0 / 2.0 + f64::from(word(8)) / 65_536.0,
        };
        if answer.transmit == 0 || answer.receive == 0 {
            return wrong("an answer without a time".to_owned());
        }
        if answer.root_distance > MOST_ROOT_DISTANCE {
            let distance = answer.root_distance;
            return wrong(format!("the server may itself be {distance:.1} s off"));
        }
        Ok(answer)
    }

    fn measure(&self, sent: Timestamp, received: Timestamp) -> Result<Measured, Failure> {
        let offset = f64::midpoint(apart(self.receive, sent), apart(self.transmit, received));
        let delay = (received.duration_since(sent)).as_secs_f64() - seconds(self.transmit.wrapping_sub(self.receive));
        if delay < -0.001 {
            return Err(Failure::new(
                Reason::Protocol,
                "the server says that it took longer than it did",
            ));
        }
        Ok(Measured {
            offset_seconds: offset,
            doubt_seconds: delay.max(0.0) / 2.0 + self.root_distance,
        })
    }
}

/// Seconds from `ours` to `theirs`. The difference wraps, so that it is right across NTP's eras (the next begins in 2036)
/// as long as the clocks are less than 68 years apart.
fn apart(theirs: u64, ours: Timestamp) -> f64 {
    seconds(theirs.wrapping_sub(of_time(ours)))
}

/// A time in NTP's 32.32 bits.
fn of_time(time: Timestamp) -> u64 {
    let nanoseconds = time.as_nanosecond() + i128::from(UNIX_EPOCH) * 1_000_000_000;
    // Eras drop out of the lower 64 bits.
    ((nanoseconds << 32) / 1_000_000_000) as u64
}

/// A difference of NTP times in seconds.
fn seconds(difference: u64) -> f64 {
    difference.cast_signed() as f64 / 4_294_967_296.0
}
