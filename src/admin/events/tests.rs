//! What clients of the stream get, and when they are cut.

use std::future::poll_fn;
use std::pin::pin;

use hyper::body::Body as _;
use tokio::time::{advance, timeout};

use super::*;
use crate::facts::Facts;
use crate::journal::ConnectionEnd;
use crate::outcome::Outcome;

/// A hub that is run, and its journal.
fn start() -> (Arc<Journal>, Events, tokio::task::JoinSet<()>) {
    let journal = Arc::<Journal>::default();
    let (events, hub) = hub(&journal);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(hub.run());
    (journal, events, tasks)
}

fn refusal(outcome: Outcome) -> Event {
    Event::now(EventKind::Refuse(ConnectionEnd {
        outcome,
        cause: "why".into(),
        bytes_in: 0,
        bytes_out: 0,
        seconds: 0.0,
        facts: Arc::new(Facts::new("")),
    }))
}

fn open() -> Event {
    Event::now(EventKind::Open(Arc::new(Facts::new("app"))))
}

async fn frame(stream: &mut EventStream) -> Option<String> {
    let mut stream = pin!(stream);
    let frame = poll_fn(|context| stream.as_mut().poll_frame(context)).await?;
    let Ok(frame) = frame;
    let bytes = frame.into_data().expect("data");
    Some(String::from_utf8(bytes.to_vec()).expect("UTF-8"))
}

/// A stream after its greeting.
async fn follow(events: &Events, query: &str) -> (EventStream, Arc<Progress>) {
    let progress = Arc::<Progress>::default();
    let mut stream = events.open(Some(query), &progress).expect("a place");
    assert_eq!(frame(&mut stream).await.as_deref(), Some("retry: 2000\n\n"));
    (stream, progress)
}

#[tokio::test]
async fn a_client_gets_the_kinds_that_it_wants_and_each_with_an_id() {
    let (journal, events, _tasks) = start();
    assert!(!journal.is_observed());
    let (mut all, _) = follow(&events, "").await;
    let (mut some, _) = follow(&events, "kinds=reload,limit").await;
    assert!(journal.is_observed());
    journal.publish(open());
    journal.publish(Event::now(EventKind::Stop { cut: 0 }));
    journal.publish(Event::now(EventKind::Reload {
        result: "ok",
        revoked: Some(0),
        error: None,
    }));
    let first = frame(&mut all).await.expect("open");
    assert!(first.starts_with("id: 1\nevent: open\ndata: {"), "{first}");
    assert!(first.ends_with("}\n\n") && first.matches('\n').count() == 4);
    for stream in [&mut all, &mut some] {
        let next = frame(stream).await.expect("reload");
        assert!(next.starts_with("id: 2\nevent: reload\n"), "{next}");
    }
    for wrong in ["kinds=", "kinds=opne", "kinds=open,", "kind=open"] {
        let refused = events.open(Some(wrong), &Arc::default());
        assert!(refused.is_err(), "{wrong}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_refusals_of_a_second_are_one_event_for_each_outcome() {
    let (journal, events, _tasks) = start();
    let (mut stream, _) = follow(&events, "").await;
    for _ in 0..1000 {
        journal.publish(refusal(Outcome::NotTls));
    }
    journal.publish(refusal(Outcome::NoRoute));
    for (outcome, clients) in [("no_route", 1), ("not_tls", 1000)] {
        let text = frame(&mut stream).await.expect("an event");
        let data = text.split("data: ").nth(1).expect("data");
        let event: serde_json::Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(
            (&event["event"], &event["outcome"]),
            (&"refuse".into(), &outcome.into())
        );
        assert_eq!(
            (&event["clients"], &event["cause"]),
            (&clients.into(), &"why".into())
        );
        assert!(event["id"].is_string());
    }
    assert!(timeout(INTERVAL, frame(&mut stream)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_cut_and_counted_and_others_are_not() {
    let (journal, events, _tasks) = start();
    let (mut reader, alive) = follow(&events, "kinds=open").await;
    let (_slow, slow) = follow(&events, "kinds=open").await;
    for _ in 0..=QUEUE {
        journal.publish(open());
        frame(&mut reader).await.expect("an event");
    }
    let cut = timeout(PING, slow.is_cut()).await;
    cut.expect("its queue was full");
    assert_eq!(journal.dropped("events"), QUEUE as u64 + 1);

    // With little to read, two pings find it.
    let (_silent, silent) = follow(&events, "").await;
    journal.publish(open());
    frame(&mut reader).await.expect("an event");
    let mut pings = 0;
    while timeout(Duration::ZERO, silent.is_cut()).await.is_err() {
        assert_eq!(frame(&mut reader).await.as_deref(), Some(": ping\n\n"));
        pings += 1;
        assert!(pings < 10, "it is never cut");
    }
    assert_eq!(pings, 2);
    advance(PING * 3).await;
    assert!(timeout(Duration::ZERO, alive.is_cut()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn places_are_bounded_and_come_back_and_the_journal_rests_without_clients() {
    let (journal, events, _tasks) = start();
    let mut streams = Vec::new();
    for _ in 0..MOST_STREAMS {
        streams.push(follow(&events, "").await);
    }
    assert!(events.open(None, &Arc::default()).is_err());
    streams.pop();
    let (_last, _) = follow(&events, "").await;
    streams.clear();
    drop(_last);
    let rest = async {
        while journal.is_observed() {
            tokio::time::sleep(PING).await;
        }
    };
    timeout(PING * 10, rest).await.expect("no subscription");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_just_before_a_ping_is_not_cut_for_it() {
    let (_journal, events, _tasks) = start();
    let (_first, _) = follow(&events, "").await;
    // The hub has both to do when it runs next: the newcomer, and the ping.
    advance(PING).await;
    let progress = Arc::<Progress>::default();
    let mut stream = events.open(None, &progress).expect("a place");
    for expected in ["retry: 2000\n\n", ": ping\n\n"] {
        assert_eq!(frame(&mut stream).await.as_deref(), Some(expected));
    }
    assert!(timeout(Duration::ZERO, progress.is_cut()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn clients_that_come_and_go_between_two_pings_leave_nothing_behind() {
    let (_journal, events, _tasks) = start();
    let mut gone = Vec::new();
    for _ in 0..10 * MOST_STREAMS {
        let (stream, progress) = follow(&events, "kinds=reload").await;
        drop(stream);
        gone.push(progress);
    }
    let (_last, _) = follow(&events, "kinds=reload").await;
    let is_kept = |it: &&Arc<Progress>| Arc::strong_count(it) > 1;
    assert_eq!(gone.iter().filter(is_kept).count(), 0);
}
