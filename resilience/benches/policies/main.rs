//! What a call under each policy costs, beside what other crates ask for the same, in one run. Not a test: it judges
//! nothing and prints one JSON document, which `cargo xtask bench resilience` turns into a page.
//!
//! `cargo bench -p resilience --bench policies [-- WORD]`, with a word of what is to be measured alone.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

mod growth;
mod ours;
mod peers;

use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll};

use measure::Candidate;

fn main() {
    resilience::testing::production_clock();
    // Cargo hands `--bench` over.
    let word = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let mut candidates = vec![
        // How much of a slowdown on all cores is the machine's own.
        Candidate::new("arithmetic", "the machine", || {
            || _ = black_box(arithmetic(black_box(1)))
        }),
    ];
    candidates.extend(ours::candidates());
    candidates.extend(peers::candidates());
    candidates.extend(growth::candidates());
    candidates.retain(|candidate| {
        word.as_ref()
            .is_none_or(|word| candidate.name().contains(word.as_str()))
    });
    println!("{}", measure::measure(&candidates));
}

/// A hundred steps, each of which waits for the one before.
fn arithmetic(seed: u64) -> u64 {
    (0..100).fold(seed, |number, step| {
        number.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(step % 7)
    })
}

/// The error of all that is called here.
#[derive(Debug, Clone, thiserror::Error)]
#[error("it failed")]
struct Failed;

/// An answer that is there at once.
fn good() -> Ready<Result<u64, Failed>> {
    ready(Ok(1))
}

fn bad() -> Ready<Result<u64, Failed>> {
    ready(Err(Failed))
}

/// An answer that is there when it is asked for the second time.
#[derive(Debug, Default)]
struct Later {
    asked: bool,
}

impl Future for Later {
    type Output = Result<u64, Failed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.asked {
            return Poll::Ready(Ok(1));
        }
        self.asked = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
