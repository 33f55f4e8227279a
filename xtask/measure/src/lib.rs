//! How a call is measured: the processor time of its thread, in short batches, candidate after candidate in every round,
//! so that whatever else the machine does hits all of them alike. What is measured is the others' matter.

use std::future::Future;
use std::hint::{black_box, spin_loop};
use std::pin::pin;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// Rounds on one thread, and how long a batch is about.
const ROUNDS: usize = 100;
const BATCH: Duration = Duration::from_micros(800);
/// The same on all cores: longer, so that the threads are in it together.
const ROUNDS_TOGETHER: usize = 40;
const BATCH_TOGETHER: Duration = Duration::from_millis(3);
/// A round counts as undisturbed when every thread had its processor, and all were in it together, for at least this
/// share of the time.
const UNDISTURBED: f64 = 0.95;

/// Makes so many calls.
type Batch = Box<dyn FnMut(u64)>;

/// One thing to measure.
#[must_use]
pub struct Candidate {
    /// What is done; the same for all that are compared.
    what: String,
    /// Whose it is.
    who: &'static str,
    /// The batch of one thread, around state that all threads share.
    batch: Box<dyn Fn() -> Batch + Sync>,
    /// Done before each batch, outside of the measurement.
    before: Box<dyn Fn() + Sync>,
    /// Whether it is measured on all cores too.
    together: bool,
}

impl Candidate {
    /// `call` makes what one thread calls.
    pub fn new<F, C>(what: &str, who: &'static str, call: F) -> Self
    where
        F: Fn() -> C + Sync + 'static,
        C: FnMut() + 'static,
    {
        Self::in_batches(what, who, move || {
            let mut call = call();
            move |calls| (0..calls).for_each(|_| call())
        })
    }

    /// `batch` makes what makes so many calls in one thread, when something must be in place around all of them.
    pub fn in_batches<F, B>(what: &str, who: &'static str, batch: F) -> Self
    where
        F: Fn() -> B + Sync + 'static,
        B: FnMut(u64) + 'static,
    {
        Self {
            what: what.to_owned(),
            who,
            batch: Box::new(move || Box::new(batch())),
            before: Box::new(|| {}),
            together: true,
        }
    }

    /// The same for calls that are awaited one after the other by a task on a runtime, which wakes and polls it.
    pub fn on_runtime<F, C, R>(what: &str, who: &'static str, call: F) -> Self
    where
        F: Fn() -> C + Sync + 'static,
        C: FnMut() -> R + 'static,
        R: Future,
    {
        Self::in_batches(what, who, move || {
            let mut call = call();
            // With everything, as `#[tokio::main]` has it.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime can be built");
            move |calls| {
                runtime.block_on(async {
                    for _ in 0..calls {
                        black_box(call().await);
                    }
                });
            }
        })
    }

    /// What is done, and whose it is.
    pub fn name(&self) -> String {
        format!("{} {}", self.what, self.who)
    }

    /// Does this before each batch.
    pub fn before(mut self, before: impl Fn() + Sync + 'static) -> Self {
        self.before = Box::new(before);
        self
    }

    /// Is measured on one thread alone.
    pub fn alone(mut self) -> Self {
        self.together = false;
        self
    }
}

/// Polls a future to its end, with a waker that does nothing: no runtime's scheduler is measured.
pub fn finish<F: Future>(future: F) -> F::Output {
    let mut context = Context::from_waker(Waker::noop());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return black_box(output);
        }
    }
}

/// One batch on one thread; times are of the clocks that [`read`] reads.
#[derive(Debug, Clone, Copy)]
struct Run {
    calls: f64,
    cpu: Duration,
    begin: Duration,
    end: Duration,
}

impl Run {
    /// Nanoseconds of the processor's time a call.
    fn cost(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e9 / self.calls
    }
}

/// One round on all cores: nanoseconds a call.
#[derive(Debug, Clone, Copy)]
struct Round {
    cpu: f64,
    wall: f64,
    undisturbed: bool,
}

impl Round {
    fn of(runs: &[Run]) -> Self {
        let begin = runs.iter().map(|run| run.begin);
        let end = runs.iter().map(|run| run.end);
        let first = begin.clone().min().unwrap_or_default();
        let wall = end.clone().max().unwrap_or_default().saturating_sub(first);
        let shared = end
            .min()
            .unwrap_or_default()
            .saturating_sub(begin.max().unwrap_or_default());
        let enough = |part: Duration| part >= wall.mul_f64(UNDISTURBED);
        Self {
            cpu: runs.iter().map(Run::cost).fold(0.0, f64::max),
            wall: runs
                .iter()
                .map(|run| wall.as_secs_f64() * 1e9 / run.calls)
                .fold(0.0, f64::max),
            undisturbed: enough(shared) && runs.iter().all(|run| enough(run.cpu)),
        }
    }
}

/// A candidate's figures of one run.
#[derive(Debug, Default)]
struct Figures {
    alone: Vec<f64>,
    together: Vec<Round>,
}

impl Figures {
    /// The undisturbed round in the middle: the least would be the one in which the threads met least.
    fn typical(&self) -> Option<Round> {
        let mut rounds: Vec<Round> = self
            .together
            .iter()
            .copied()
            .filter(|round| round.undisturbed)
            .collect();
        rounds.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
        rounds.get(rounds.len() / 2).copied()
    }
}

/// Measures all of them on one thread, then on all cores; a JSON document.
pub fn measure(candidates: &[Candidate]) -> Value {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut figures: Vec<Figures> = candidates.iter().map(|_| Figures::default()).collect();
    let rates = on_thread(|batches| alone(candidates, batches, &mut figures), candidates);
    together(candidates, &rates, cores, &mut figures);
    let rows = candidates.iter().zip(&figures).map(|(candidate, figures)| {
        let together = figures.typical();
        json!({
            "what": candidate.what,
            "who": candidate.who,
            "ns": figures.alone.iter().copied().min_by(f64::total_cmp),
            "ns_together": together.map(|round| round.cpu),
            "wall_ns_together": together.map(|round| round.wall),
            "undisturbed_rounds": figures.together.iter().filter(|round| round.undisturbed).count(),
        })
    });
    json!({
        "cores": cores,
        "rounds": ROUNDS,
        "rounds_together": ROUNDS_TOGETHER,
        "figures": rows.collect::<Vec<_>>(),
    })
}

/// Runs `body` with the batches of a thread that has a timer, which is never driven: nothing here is waited for.
fn on_thread<R>(body: impl FnOnce(&mut [Batch]) -> R, candidates: &[Candidate]) -> R {
    let runtime = runtime();
    let _entered = runtime.enter();
    let mut batches: Vec<Batch> = candidates.iter().map(|candidate| (candidate.batch)()).collect();
    body(&mut batches)
}

fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime without I/O can be built")
}

/// All candidates on this thread; the calls a nanosecond of each.
fn alone(candidates: &[Candidate], batches: &mut [Batch], figures: &mut [Figures]) -> Vec<f64> {
    let rates: Vec<f64> = batches.iter_mut().map(calls_per_nanosecond).collect();
    for _ in 0..ROUNDS {
        for at in 0..candidates.len() {
            (candidates[at].before)();
            let run = timed(&mut batches[at], calls_in(BATCH, rates[at]));
            figures[at].alone.push(run.cost());
        }
    }
    rates
}

/// The candidates on all cores at once, round by round.
fn together(candidates: &[Candidate], rates: &[f64], cores: usize, figures: &mut [Figures]) {
    let barrier = Barrier::new(cores);
    let those = (0..candidates.len()).filter(|at| candidates[*at].together);
    let steps: Vec<usize> = (0..ROUNDS_TOGETHER).flat_map(|_| those.clone()).collect();
    let arrived: Vec<AtomicUsize> = steps.iter().map(|_| AtomicUsize::new(0)).collect();
    let one = &|first: bool| {
        on_thread(
            |batches| {
                let mut runs = Vec::with_capacity(steps.len());
                for (at, arrived) in steps.iter().zip(&arrived) {
                    if first {
                        (candidates[*at].before)();
                    }
                    barrier.wait();
                    // A barrier wakes one after the other; this lets nobody begin before all are awake.
                    arrived.fetch_add(1, Ordering::AcqRel);
                    while arrived.load(Ordering::Acquire) < cores {
                        spin_loop();
                    }
                    runs.push(timed(&mut batches[*at], calls_in(BATCH_TOGETHER, rates[*at])));
                    barrier.wait();
                }
                runs
            },
            candidates,
        )
    };
    let all: Vec<Vec<Run>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|index| scope.spawn(move || one(index == 0))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    for (step, at) in steps.iter().enumerate() {
        let runs: Vec<Run> = all.iter().map(|runs| runs[step]).collect();
        figures[*at].together.push(Round::of(&runs));
    }
}

fn timed(batch: &mut Batch, calls: u64) -> Run {
    let begin = read(ClockId::Monotonic);
    let cpu = read(ClockId::ThreadCPUTime);
    batch(calls);
    Run {
        calls: calls as f64,
        cpu: read(ClockId::ThreadCPUTime).saturating_sub(cpu),
        begin,
        end: read(ClockId::Monotonic),
    }
}

/// Tries growing batches until one is long enough to tell.
fn calls_per_nanosecond(batch: &mut Batch) -> f64 {
    let mut calls = 16;
    loop {
        let run = timed(batch, calls);
        if run.cpu > BATCH / 4 {
            return 1.0 / run.cost();
        }
        calls *= 2;
    }
}

fn calls_in(time: Duration, rate: f64) -> u64 {
    ((time.as_nanos() as f64 * rate) as u64).max(1)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
