//! A message consumer: a queue as the broker, a service that is down for a while, and a message that nobody can handle.
//! A message is its number and which delivery it is. It ends by itself when every message is done or put aside.

use std::time::Duration;

use resilience::{Breaker, Consumer, Disposition, Kind, Pipeline, Poison, Verdict};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

enum Fault {
    Down,
    Unreadable,
}

fn meaning(result: Result<&(), &Fault>) -> Verdict {
    match result {
        Ok(()) => Verdict::Success,
        Err(Fault::Down) => Verdict::Failure(Kind::Transient),
        Err(Fault::Unreadable) => Verdict::Failure(Kind::Permanent),
    }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let breaker = Breaker::builder("mail").consecutive(2);
    let consumer = Consumer::new(Pipeline::builder("mail").breaker(breaker).build()?);
    let (queue, mut messages) = mpsc::unbounded_channel::<(u32, u32)>();
    (1..=10).try_for_each(|number| queue.send((number, 1)))?;
    let down_until = Instant::now() + Duration::from_secs(2);
    let (mut done, mut dead) = (Vec::new(), Vec::new());
    while done.len() + dead.len() < 10 {
        let Some((number, delivery)) = messages.recv().await else {
            break;
        };
        consumer.ready().await;
        let handle = |_| async move {
            match number {
                _ if Instant::now() < down_until => Err(Fault::Down),
                7 => Err(Fault::Unreadable),
                _ => Ok(()),
            }
        };
        match consumer.handle_with(&meaning, delivery, handle).await {
            Disposition::Ack => done.push(number),
            Disposition::DeadLetter { reason, .. } => dead.push((number, reason)),
            Disposition::Pause { .. } => queue.send((number, delivery))?,
            Disposition::Nack { delay, .. } => {
                let queue = queue.clone();
                tokio::spawn(async move {
                    sleep(delay).await;
                    queue.send((number, delivery + 1))
                });
            }
        }
    }
    assert_eq!((done.len(), dead), (9, vec![(7, Poison::Permanent)]));
    assert_eq!(consumer.snapshot().nacked, 2, "the breaker saved the other deliveries");
    Ok(())
}
