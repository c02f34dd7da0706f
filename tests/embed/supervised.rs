//! A supervisor of which more is asked than it can do, and one that is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::duplex;
use tokio::task::JoinSet;
use vestibule::{
    Config, ConfigSource, ConnectionFilter, Outcome, Proxy, ReloadFailure, Reloaded, ServeError,
    Supervisor, SupervisorHandle,
};

use crate::common::{soon, until};

/// A supervisor whose configuration is code, and how often that has run.
async fn supervisor() -> (Supervisor, Arc<AtomicUsize>) {
    let times = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&times);
    let source = ConfigSource::code(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let text = "[[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n\
                    [[backend]]\nname = \"echo\"\nto = \"echo\"\n";
        Ok(text.parse::<Config>().expect("a configuration"))
    });
    let config = source.read().expect("a configuration");
    let proxy = Proxy::builder(config).bind().await.expect("bound");
    (Supervisor::start(proxy, source), times)
}

type Answer = Result<Reloaded, ReloadFailure>;

/// More than are kept for it.
fn ask_for_many(handle: &SupervisorHandle) -> JoinSet<Answer> {
    let mut asking = JoinSet::new();
    for _ in 0..50 {
        let handle = handle.clone();
        asking.spawn(async move { handle.reload().await });
    }
    asking
}

async fn all_are_refused(asking: JoinSet<Answer>) {
    for answer in soon("the answers", asking.join_all()).await {
        assert!(matches!(answer, Err(ReloadFailure::Draining)), "{answer:?}");
    }
}

#[tokio::test]
async fn whoever_asks_for_a_reload_has_an_answer_however_many_ask() {
    let (supervisor, times) = supervisor().await;
    let handle = supervisor.handle();
    let mut running = JoinSet::new();
    running.spawn(supervisor.run());
    let asking = ask_for_many(&handle);
    (0..1000).for_each(|_| handle.request_reload());
    for answer in soon("the answers", asking.join_all()).await {
        assert!(answer.is_ok(), "{answer:?}");
    }
    assert!(times.load(Ordering::Relaxed) > 50);

    // And when the end comes among them.
    let asking = ask_for_many(&handle);
    let (_client, ours) = duplex(64);
    let mut serving = JoinSet::new();
    serving.spawn(handle.serve("plain", ours, None));
    let open = || handle.connections(&ConnectionFilter::all()).len();
    until("it is open", || open() == 1).await;
    handle.drain();
    handle.cut();
    handle.request_reload();
    assert_eq!(handle.kill(&ConnectionFilter::all()), 1);
    let drained = soon("the end", running.join_next()).await.expect("one");
    assert!(drained.expect("no panic").cut <= 1);
    for answer in soon("the answers", asking.join_all()).await {
        let is_expected = matches!(answer, Ok(_) | Err(ReloadFailure::Draining));
        assert!(is_expected, "{answer:?}");
    }
    let outcome = serving.join_next().await.expect("one").expect("no panic");
    // The first cause stands.
    assert_eq!(outcome, Ok(Outcome::Killed));
    all_are_refused(ask_for_many(&handle)).await;
}

#[tokio::test]
async fn a_supervisor_that_was_dropped_refuses_what_it_is_asked_for() {
    for is_run in [false, true] {
        let (supervisor, _) = supervisor().await;
        let handle = supervisor.handle();
        let asking = ask_for_many(&handle);
        if is_run {
            let mut running = JoinSet::new();
            running.spawn(supervisor.run());
            tokio::task::yield_now().await;
            running.shutdown().await;
            for answer in soon("the answers", asking.join_all()).await {
                let is_expected = matches!(answer, Ok(_) | Err(ReloadFailure::Draining));
                assert!(is_expected, "{answer:?}");
            }
        } else {
            drop(supervisor);
            all_are_refused(asking).await;
        }
        all_are_refused(ask_for_many(&handle)).await;
        let late = handle.serve("plain", duplex(64).0, None).await;
        assert_eq!(late, Err(ServeError::Draining));
        assert!(handle.connections(&ConnectionFilter::all()).is_empty());
        handle.drain();
        handle.cut();
    }
}
