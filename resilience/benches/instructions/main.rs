//! Calls one hot path so many times and does nothing else: `instructions PATH CALLS`. Two runs under callgrind with
//! different numbers tell what one call costs, whatever the start of the process costs. See xtask/src/instructions.rs.

#![expect(clippy::print_stderr, reason = "a misspelled path must be seen")]

use std::future::{Future, ready};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use resilience::{Breaker, BreakerBuilder, Kind, Pipeline, PipelineBuilder, Retry, Verdict};

type Failed = std::io::Error;

const HOUR: Duration = Duration::from_secs(3600);
/// A break whose end is known without a lock; see `NEAR` in src/breaker/word.rs.
const BREAK: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, path, calls] = &arguments[..] else {
        eprintln!("usage: instructions PATH CALLS");
        return ExitCode::FAILURE;
    };
    let Ok(calls) = calls.parse() else {
        eprintln!("`{calls}` is no number");
        return ExitCode::FAILURE;
    };
    // Timers are made in a runtime; this one is never driven, since nothing is waited for.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime without I/O can be built");
    let _entered = runtime.enter();
    match path.as_str() {
        "closed_breaker" => pass(plain(), calls),
        "closed_breaker_slow_calls" => pass(plain().slow_calls(HOUR, 0.5), calls),
        "open_breaker" => refuse(calls),
        "retry_first_try" => ready_calls(&pipeline(Pipeline::builder("retry").retry(Retry::default())), calls),
        "standard_ready" => ready_calls(&pipeline(Pipeline::standard("standard")), calls),
        "standard_pending_once" => pending_calls(&pipeline(Pipeline::standard("standard")), calls),
        _ => {
            eprintln!("there is no path `{path}`");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn plain() -> BreakerBuilder {
    Breaker::builder("payments")
}

fn pipeline(builder: PipelineBuilder) -> Pipeline {
    builder.build().expect("sound settings")
}

fn pass(builder: BreakerBuilder, calls: u64) {
    let breaker = builder.build().expect("sound settings");
    for _ in 0..calls {
        if let Ok(pass) = black_box(&breaker).try_acquire() {
            pass.record(Verdict::Success);
        }
    }
}

/// Opened by a failure, as it is in life: a forced one knows no time.
fn refuse(calls: u64) {
    let breaker = plain()
        .consecutive(1)
        .open(BREAK, BREAK)
        .build()
        .expect("sound settings");
    if let Ok(pass) = breaker.try_acquire() {
        pass.record(Verdict::Failure(Kind::Transient));
    }
    assert!(!breaker.is_healthy());
    for _ in 0..calls {
        let _ = black_box(black_box(&breaker).try_acquire());
    }
}

fn ready_calls(pipeline: &Pipeline, calls: u64) {
    for _ in 0..calls {
        finish(black_box(pipeline).call(|_| ready(Ok::<u64, Failed>(1))));
    }
}

fn pending_calls(pipeline: &Pipeline, calls: u64) {
    for _ in 0..calls {
        finish(black_box(pipeline).call(|_| Later { asked: false }));
    }
}

/// Polls a future to its end.
fn finish<F: Future>(future: F) {
    let mut context = Context::from_waker(Waker::noop());
    let mut future = pin!(future);
    while future.as_mut().poll(&mut context).is_pending() {}
}

/// An answer that is there when it is asked for the second time.
struct Later {
    asked: bool,
}

impl Future for Later {
    type Output = Result<u64, Failed>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if self.asked {
            return Poll::Ready(Ok(1));
        }
        self.asked = true;
        Poll::Pending
    }
}
