use std::time::{Duration, SystemTime};

use super::*;
use crate::facts::{Endpoint, Facts};
use crate::outcome::Outcome;

fn stop(cut: usize) -> Event {
    Event::now(EventKind::Stop { cut })
}

fn cuts(events: &[Arc<Event>]) -> Vec<usize> {
    let cut = |event: &Arc<Event>| match event.kind {
        EventKind::Stop { cut } => cut,
        _ => panic!("another event"),
    };
    events.iter().map(cut).collect()
}

#[tokio::test]
async fn each_subscriber_gets_each_event_once_and_in_order() {
    let journal = Arc::new(Journal::default());
    journal.publish(stop(0));
    let mut subscriptions = ["one", "two"].map(|what| journal.subscribe(what, 8));
    (1..=3).for_each(|cut| journal.publish(stop(cut)));
    drop(journal);
    for subscription in &mut subscriptions {
        let mut events = Vec::new();
        assert_eq!(subscription.receive(&mut events, 2).await, 2);
        assert_eq!(subscription.receive(&mut events, 2).await, 1);
        assert_eq!(cuts(&events), [1, 2, 3]);
        assert_eq!(subscription.receive(&mut events, 2).await, 0);
    }
}

#[test]
fn a_full_queue_loses_and_counts_and_delays_no_other() {
    let journal = Arc::new(Journal::default());
    let mut slow = journal.subscribe("slow", 2);
    let mut quick = journal.subscribe("quick", 8);
    (1..=5).for_each(|cut| journal.publish(stop(cut)));
    let all =
        |it: &mut Subscription| -> Vec<_> { std::iter::from_fn(|| it.next_queued()).collect() };
    assert_eq!(cuts(&all(&mut slow)), [1, 2]);
    assert_eq!(cuts(&all(&mut quick)), [1, 2, 3, 4, 5]);
    assert_eq!((slow.dropped(), quick.dropped()), (3, 0));
    slow.lose(4);
    drop(slow);
    assert_eq!((journal.dropped("slow"), journal.dropped("quick")), (7, 0));
    assert_eq!(journal.dropped("nobody"), 0);
}

#[test]
fn a_subscription_ends_when_it_is_dropped() {
    let journal = Arc::new(Journal::default());
    assert!(!journal.is_observed());
    let [first, second] = ["a", "a"].map(|what| journal.subscribe(what, 1));
    drop(first);
    assert!(journal.is_observed());
    drop(second);
    assert!(!journal.is_observed());
    journal.publish(stop(1));
    assert_eq!(journal.dropped("a"), 0);
}

fn assert_json(kind: EventKind, expected: &str) {
    let event = Event {
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
        kind,
    };
    let json = serde_json::to_string(&event).expect("JSON");
    let head = r#"{"time":"1970-01-01T00:00:01.500Z","event":"#;
    assert_eq!(json, format!("{head}{expected}"));
}

#[test]
fn the_json_form_of_a_connection_is_as_documented() {
    let mut facts = Facts::new("api");
    facts.accepted_at = SystemTime::UNIX_EPOCH;
    let known = facts.to_json();
    let known = known.trim_start_matches('{');
    let facts = Arc::new(facts);
    let ended = || ConnectionEnd {
        outcome: Outcome::Idle,
        cause: "why".into(),
        bytes_in: 1,
        bytes_out: 2,
        seconds: 3.000_400_1,
        facts: Arc::clone(&facts),
    };
    let end = r#""outcome":"idle","cause":"why","bytes_in":1,"bytes_out":2,"seconds":3.0"#;
    let open = EventKind::Open(Arc::clone(&facts));
    assert_json(open, &format!(r#""open",{known}"#));
    let close = EventKind::Close(ended());
    assert_json(close, &format!(r#""close",{end},{known}"#));
    let refuse = EventKind::Refuse(ended());
    assert_json(refuse, &format!(r#""refuse",{end},{known}"#));
}

#[test]
fn the_json_form_of_other_events_is_as_documented() {
    let start = EventKind::Start {
        version: "1",
        pid: 2,
    };
    assert_json(start, r#""start","version":"1","pid":2}"#);
    assert_json(EventKind::Stop { cut: 3 }, r#""stop","cut":3}"#);
    let reload = |result, revoked, error| EventKind::Reload {
        result,
        revoked,
        error,
    };
    let good = reload("ok", Some(2), None);
    assert_json(good, r#""reload","result":"ok","revoked":2}"#);
    let failed = reload("failed", None, Some("why".into()));
    assert_json(failed, r#""reload","result":"failed","error":"why"}"#);
    let admin = EventKind::Admin {
        author: Author::Uid(0),
        action: "POST /v1/drain".into(),
        result: Some("202".into()),
    };
    let expected = r#""admin","uid":0,"action":"POST /v1/drain","result":"202"}"#;
    assert_json(admin, expected);
    let admin = EventKind::Admin {
        author: Author::Address(Endpoint::Tcp(([127, 0, 0, 1], 5).into())),
        action: "POST /v1/reload".into(),
        result: None,
    };
    let expected = r#""admin","address":"127.0.0.1:5","action":"POST /v1/reload"}"#;
    assert_json(admin, expected);
}
