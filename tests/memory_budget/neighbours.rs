//! Clients that are in use while memory is short.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::common::client::Front;
use crate::common::soon;
use crate::{attempts, echo};

/// Clients that are never idle for long, and check every byte.
pub(crate) struct Neighbours {
    are_done: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Neighbours {
    pub(crate) async fn new(front: &Front) -> Self {
        let are_done = Arc::<AtomicBool>::default();
        let rounds = Arc::<AtomicUsize>::default();
        let mut tasks = JoinSet::new();
        for mut client in attempts(front, 5, 5).await {
            let (are_done, rounds) = (Arc::clone(&are_done), Arc::clone(&rounds));
            tasks.spawn(async move {
                let mut pace = interval(Duration::from_millis(50));
                while !are_done.load(Ordering::Relaxed) {
                    pace.tick().await;
                    let word = rounds.fetch_add(1, Ordering::Relaxed) as u8;
                    echo(&mut client, word).await.expect("an echo");
                }
                client.shutdown().await.expect("open");
                let read = client.read(&mut [0]).await;
                assert_eq!(read.expect("a clean end"), 0);
            });
        }
        assert_eq!(tasks.len(), 5);
        Self {
            are_done,
            rounds,
            tasks,
        }
    }

    pub(crate) async fn leave(self) {
        self.are_done.store(true, Ordering::Relaxed);
        // Panics if one of them has.
        soon("their ends", self.tasks.join_all()).await;
        assert!(self.rounds.load(Ordering::Relaxed) > 50);
    }
}
