//! [`Script`]: a dependency that answers as a test told it to, and remembers what it was asked. It knows no policies.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};
use tower_service::Service;

use crate::deadline::Deadline;
use crate::pipeline::Attempt;

/// Answers in the order in which it was told to. Clones are the same script.
///
/// Asked once more than it has answers, it panics: a test that is wrong about how often its dependency is asked fails.
pub struct Script<T, E> {
    state: Arc<Mutex<State<T, E>>>,
}

struct State<T, E> {
    answers: VecDeque<Answer<T, E>>,
    /// How the next answer that is told is delayed.
    after: Duration,
    /// Set when the last answer is given again and again: how to copy it.
    again: Option<Copy<Answer<T, E>>>,
    asked: Vec<Asked>,
    last: Option<Instant>,
}

type Copy<A> = fn(&A) -> A;

struct Answer<T, E> {
    after: Duration,
    /// Nothing for one that never comes.
    result: Option<Result<T, E>>,
}

/// What a script was asked once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Asked {
    /// Number of the attempt within its call; as a service, the number of the request.
    pub attempt: u32,
    /// When the asking policy would cut it off.
    pub deadline: Option<Deadline>,
    /// Time that was left until then.
    pub timeout: Option<Duration>,
    /// Time since the last question ended, or since it was asked if it has not ended; zero for the first.
    pub waited: Duration,
    /// What became of it.
    pub ended: Ended,
}

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It is under way.
    NotYet,
    /// It was answered.
    Answered,
    /// It was dropped before its answer: cut off, or not needed any more.
    Dropped,
}

impl<T, E> Clone for Script<T, E> {
    fn clone(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
        }
    }
}

impl<T, E> Default for Script<T, E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, E> fmt::Debug for Script<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Script")
            .field("left", &state.answers.len())
            .field("asked", &state.asked)
            .finish_non_exhaustive()
    }
}

impl<T, E> Script<T, E> {
    /// With no answer yet.
    pub fn new() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                answers: VecDeque::new(),
                after: Duration::ZERO,
                again: None,
                asked: Vec::new(),
                last: None,
            })),
        }
    }

    /// Then this value.
    #[must_use]
    pub fn ok(self, value: T) -> Self {
        self.then(Some(Ok(value)))
    }

    /// Then this error.
    #[must_use]
    pub fn err(self, error: E) -> Self {
        self.then(Some(Err(error)))
    }

    /// Then an answer that never comes.
    #[must_use]
    pub fn hang(self) -> Self {
        self.then(None)
    }

    /// The next answer that is told takes this long.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        self.state().after = time;
        self
    }

    fn then(self, result: Option<Result<T, E>>) -> Self {
        let mut state = self.state();
        let after = std::mem::take(&mut state.after);
        state.answers.push_back(Answer { after, result });
        drop(state);
        self
    }

    /// An operation for [`Pipeline::call`](crate::Pipeline::call) and its like.
    pub fn op(&self) -> impl FnMut(Attempt) -> ScriptFuture<T, E> + Clone + use<T, E> {
        let script = self.clone();
        move |attempt| script.ask(Some(attempt.number()), attempt.deadline())
    }

    /// A tower service for requests of every kind, always ready.
    pub fn service<Req>(&self) -> ScriptService<Req, T, E> {
        ScriptService {
            script: self.clone(),
            requests: PhantomData,
        }
    }

    /// How often it was asked.
    pub fn calls(&self) -> usize {
        self.state().asked.len()
    }

    /// What it was asked, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    /// Questions under way.
    pub fn running(&self) -> usize {
        let not_yet = |asked: &&Asked| asked.ended == Ended::NotYet;
        self.state().asked.iter().filter(not_yet).count()
    }

    /// Answers that were not given yet; one that is repeated counts once.
    pub fn left(&self) -> usize {
        self.state().answers.len()
    }

    fn ask(&self, attempt: Option<u32>, deadline: Option<Deadline>) -> ScriptFuture<T, E> {
        let now = Instant::now();
        let mut state = self.state();
        let number = state.asked.len();
        let answer = match (state.again, state.answers.front()) {
            (Some(copy), Some(last)) if state.answers.len() == 1 => Some(copy(last)),
            _ => state.answers.pop_front(),
        };
        let Some(Answer { after, result }) = answer else {
            drop(state);
            panic!("the script has {number} answers, and is asked once more");
        };
        let last = state.last.replace(now);
        state.asked.push(Asked {
            attempt: attempt.unwrap_or(number as u32 + 1),
            deadline,
            timeout: deadline.map(Deadline::remaining),
            waited: last.map_or(Duration::ZERO, |last| now - last),
            ended: Ended::NotYet,
        });
        drop(state);
        ScriptFuture {
            sleep: (!after.is_zero()).then(|| sleep(after)),
            result,
            number,
            script: self.clone(),
        }
    }

    /// Notes once how a question ended.
    fn end(&self, number: usize, ended: Ended) {
        let mut state = self.state();
        if state.asked[number].ended == Ended::NotYet {
            state.asked[number].ended = ended;
            state.last = Some(Instant::now());
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone, E: Clone> Script<T, E> {
    /// The last answer that was told, so many times in all.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        let mut state = self.state();
        let last = state.answers.pop_back().expect("an answer comes before `times`");
        state.answers.extend((0..times).map(|_| last.copy()));
        drop(state);
        self
    }

    /// The last of its answers again and again.
    #[must_use]
    pub fn repeat(self) -> Self {
        self.state().again = Some(Answer::copy);
        self
    }
}

impl<T: Clone, E: Clone> Answer<T, E> {
    fn copy(&self) -> Self {
        Self {
            after: self.after,
            result: self.result.clone(),
        }
    }
}

pin_project! {
    /// One answer of a [`Script`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ScriptFuture<T, E> {
        #[pin]
        sleep: Option<Sleep>,
        result: Option<Result<T, E>>,
        number: usize,
        script: Script<T, E>,
    }

    impl<T, E> PinnedDrop for ScriptFuture<T, E> {
        fn drop(this: Pin<&mut Self>) {
            this.script.end(this.number, Ended::Dropped);
        }
    }
}

impl<T, E> fmt::Debug for ScriptFuture<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptFuture")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl<T, E> Future for ScriptFuture<T, E> {
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(sleep) = this.sleep.as_pin_mut() {
            ready!(sleep.poll(context));
        }
        match this.result.take() {
            Some(result) => {
                this.script.end(*this.number, Ended::Answered);
                Poll::Ready(result)
            }
            None => Poll::Pending,
        }
    }
}

/// A [`Script`] as a tower service; made by [`Script::service`].
pub struct ScriptService<Req, T, E> {
    script: Script<T, E>,
    requests: PhantomData<fn(Req) -> Infallible>,
}

impl<Req, T, E> Clone for ScriptService<Req, T, E> {
    fn clone(&self) -> Self {
        self.script.service()
    }
}

impl<Req, T, E> fmt::Debug for ScriptService<Req, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ScriptService").field(&self.script).finish()
    }
}

impl<Req, T, E> Service<Req> for ScriptService<Req, T, E> {
    type Response = T;
    type Error = E;
    type Future = ScriptFuture<T, E>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Req) -> Self::Future {
        self.script.ask(None, Deadline::current())
    }
}
