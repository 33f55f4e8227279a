//! A writer that commits rows 1, 2, 3, … and remembers what the server acknowledged: what a restore is held against.

use std::time::{Duration, SystemTime};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_postgres::Client;

/// How long anything of the writer is waited for.
const PATIENCE: Duration = Duration::from_mins(2);

/// The writer. Each row is a transaction of its own, and the next one begins after the server has acknowledged it: there is never more
/// than one row of which nobody knows whether it was committed. Dropping it ends it.
#[derive(Debug)]
pub struct Numbered {
    writing: JoinHandle<()>,
    state: watch::Receiver<State>,
    stop: watch::Sender<bool>,
}

/// A row that the server said is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// Its number.
    pub number: u64,
    /// The server's clock just before its commit and, since rows follow each other, after the commit of the one before.
    pub at: SystemTime,
}

#[derive(Debug, Default)]
struct State {
    /// In order, without gaps.
    acknowledged: Vec<Acknowledged>,
    attempted: u64,
    ended: Option<String>,
}

impl Numbered {
    /// Makes the table `numbered (n bigint primary key, at timestamptz)` if it is not there, and goes on after its last row.
    pub(super) async fn start(client: Client, per_second: u32) -> Result<Self, tokio_postgres::Error> {
        client
            .batch_execute("create table if not exists numbered (n bigint primary key, at timestamptz not null)")
            .await?;
        let last = client
            .query_one("select coalesce(max(n), 0) from numbered", &[])
            .await?;
        let first: i64 = last.try_get::<_, i64>(0)? + 1;
        let insert = "insert into numbered values ($1, clock_timestamp()) returning at";
        let insert = client.prepare(insert).await?;
        let (told, state) = watch::channel(State::default());
        let (stop, stopped) = watch::channel(false);
        let mut beat = interval(Duration::from_secs(1) / per_second.max(1));
        beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let writing = tokio::spawn(async move {
            for number in first.. {
                beat.tick().await;
                if *stopped.borrow() {
                    break;
                }
                told.send_modify(|state| state.attempted = number.cast_unsigned());
                let answer = client.query_one(&insert, &[&number]).await;
                match answer.and_then(|row| row.try_get(0)) {
                    Ok(at) => told.send_modify(|state| {
                        let number = number.cast_unsigned();
                        state.acknowledged.push(Acknowledged { number, at });
                    }),
                    Err(error) => {
                        let error = crate::server::chain(&error);
                        told.send_modify(|state| state.ended = Some(error));
                        return;
                    }
                }
            }
            told.send_modify(|state| state.ended = Some("it was stopped".to_owned()));
        });
        Ok(Self { writing, state, stop })
    }

    /// The last row that the server acknowledged until now.
    pub fn last(&self) -> Option<Acknowledged> {
        self.state.borrow().acknowledged.last().copied()
    }

    /// Every row that the server acknowledged to this writer until now, in order.
    pub fn acknowledged(&self) -> Vec<Acknowledged> {
        self.state.borrow().acknowledged.clone()
    }

    /// The last row that was sent, acknowledged or not: a cluster can hold no later one.
    pub fn attempted(&self) -> u64 {
        self.state.borrow().attempted
    }

    /// Waits until the row `number` is acknowledged, and returns it.
    ///
    /// # Panics
    /// When the writer ends before, or after two minutes.
    pub async fn reaches(&self, number: u64) -> Acknowledged {
        let mut state = self.state.clone();
        let there =
            |state: &State| state.ended.is_some() || state.acknowledged.last().is_some_and(|row| row.number >= number);
        let Ok(Ok(state)) = timeout(PATIENCE, state.wait_for(there)).await else {
            panic!("row {number} is not acknowledged; the last is {:?}", self.last());
        };
        let found = state.acknowledged.iter().find(|row| row.number == number);
        *found.unwrap_or_else(|| panic!("row {number} is not acknowledged: {:?}", state.ended))
    }

    /// Waits until the writer has ended because the server is gone, and returns what it was told.
    ///
    /// # Panics
    /// When it still writes after two minutes.
    pub async fn fails(&self) -> String {
        let mut state = self.state.clone();
        let Ok(Ok(state)) = timeout(PATIENCE, state.wait_for(|state| state.ended.is_some())).await else {
            panic!("it still writes: {:?}", self.last());
        };
        state.ended.clone().unwrap_or_default()
    }

    /// Ends it after the row that is on its way, and returns the last one that was acknowledged.
    ///
    /// # Panics
    /// As [`fails`](Self::fails).
    pub async fn stop(self) -> Option<Acknowledged> {
        self.rest().await;
        self.last()
    }

    /// The same, and what it knows can be asked for still.
    ///
    /// # Panics
    /// As [`fails`](Self::fails).
    pub async fn rest(&self) {
        // It may have ended already.
        let _ = self.stop.send(true);
        self.fails().await;
    }
}

impl Drop for Numbered {
    fn drop(&mut self) {
        self.writing.abort();
    }
}
