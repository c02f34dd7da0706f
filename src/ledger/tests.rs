use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::id::Id;
use crate::identity::Identity;
use crate::journal::Subscription;

fn facts(listener: &str, peer: [u8; 4]) -> Facts {
    let mut facts = Facts::of(Id::random());
    facts.listener = Some(listener.into());
    facts.peer = Some(Endpoint::Tcp((peer, 4711).into()));
    facts
}

fn open(ledger: &Arc<Ledger>) -> LedgerRecord {
    ledger.open(facts("https", [192, 0, 2, 7]), Via::Direct)
}

fn alice() -> Identity {
    let mut alice = Identity::of_name("cn:alice").expect("a name");
    alice.dns.push("alice.example".into());
    alice.ou.push("ops".into());
    alice.sha256 = "ab".repeat(32);
    alice
}

fn ids(ledger: &Ledger, filter: &ConnectionFilter) -> Vec<Id> {
    let mut ids: Vec<Id> = ledger.find(filter).iter().map(|entry| entry.id).collect();
    ids.sort();
    ids
}

#[test]
fn a_connection_is_counted_once_with_its_own_outcome() {
    let ledger = Arc::new(Ledger::default());
    let record = open(&ledger);
    assert_eq!(ledger.open_connections(), 1);
    record.close(Outcome::Idle, Detail::default());
    assert_eq!(ledger.open_connections(), 0);
    let ended = Outcome::ALL.map(|outcome| ledger.ended(outcome));
    assert_eq!(ended.iter().sum::<u64>(), 1);
    assert_eq!(ledger.ended(Outcome::Idle), 1);
}

#[test]
fn a_panic_ends_its_connection_as_aborted() {
    let ledger = Arc::new(Ledger::default());
    let life = || {
        let _record = open(&ledger);
        panic!("in the middle of a connection");
    };
    assert!(catch_unwind(AssertUnwindSafe(life)).is_err());
    assert_eq!(ledger.open_connections(), 0);
    assert_eq!(ledger.ended(Outcome::Aborted), 1);
    assert!(ledger.find(&ConnectionFilter::all()).is_empty());
}

#[test]
fn a_connection_is_found_by_each_fact_as_soon_as_it_is_known() {
    let ledger = Arc::new(Ledger::default());
    let mut record = open(&ledger);
    let others: Vec<LedgerRecord> = (0..50)
        .map(|_| ledger.open(facts("plain", [198, 51, 100, 1]), Via::Direct))
        .collect();
    let id = record.entry().id;
    let peer: IpAddr = [192, 0, 2, 7].into();
    let all = ConnectionFilter::all;
    let is_found = |filter| ids(&ledger, &filter) == [id];

    assert!(is_found(all().id(id)));
    assert!(is_found(all().peer(peer)));
    assert!(is_found(all().listener("https")));
    let names = ["cn:alice", "dns:alice.example", "ou:ops"].map(str::to_owned);
    let names = [&names[..], &[format!("sha256:{}", "ab".repeat(32))]].concat();
    for name in &names {
        assert!(!is_found(all().identity(name)), "{name}");
    }
    record.identified(alice(), Vec::new());
    for name in &names {
        assert!(is_found(all().identity(name)), "{name}");
    }
    assert!(!is_found(all().identity("cn:ali")));
    assert!(!is_found(all().backend("app")));
    record.routed("app", "record");
    assert!(is_found(all().backend("app")));
    assert!(is_found(all().state(ConnectionState::Waiting)));
    assert!(is_found(all().backend("app").peer(peer).identity("ou:ops")));
    assert!(!is_found(all().backend("app").listener("plain")));
    assert_eq!(ids(&ledger, &all()).len(), 51);
    drop(others);
    assert!(is_found(all()));
    record.close(Outcome::Done, Detail::default());
    assert!(ids(&ledger, &all()).is_empty());
    assert!(ledger.index.is_empty(), "a name is left behind");
}

#[test]
fn a_connection_through_a_load_balancer_is_found_by_its_client() {
    let ledger = Arc::new(Ledger::default());
    let mut record = ledger.open(facts("https", [10, 0, 0, 1]), Via::Proxy);
    let (proxy, client) = ([10, 0, 0, 1].into(), [192, 0, 2, 7].into());
    let found = |ip: IpAddr| ids(&ledger, &ConnectionFilter::all().peer(ip)).len();
    assert_eq!((found(proxy), found(client)), (1, 0));
    let client_address = Endpoint::Tcp((client, 4711).into());
    record.readdressed(Some(client_address), None);
    assert_eq!((found(proxy), found(client)), (0, 1));
    drop(record);
    assert!(ledger.index.is_empty(), "a name is left behind");
}

#[test]
fn the_server_name_is_compared_without_regard_to_case() {
    let ledger = Arc::new(Ledger::default());
    let mut record = open(&ledger);
    record.secured(crate::facts::TlsFacts {
        sni: Some("Api.example.com".into()),
        ..Default::default()
    });
    let found = |name: &str| ids(&ledger, &ConnectionFilter::all().sni(name)).len();
    assert_eq!((found("api.EXAMPLE.com"), found("api.example")), (1, 0));
    drop(record);
}

#[test]
fn a_kill_does_not_count_connections_that_are_closing() {
    let ledger = Arc::new(Ledger::default());
    let mut record = open(&ledger);
    record.closing();
    assert_eq!(ledger.kill(&ConnectionFilter::all()), 0);
    drop(record);
}

#[test]
fn a_cut_ends_open_and_later_connections() {
    let ledger = Arc::new(Ledger::default());
    let before = open(&ledger);
    ledger.cut();
    let after = open(&ledger);
    for record in [before, after] {
        assert!(!record.entry().end(EndCause::Killed), "it had no cause");
    }
}

/// Unknown clients must not be able to make the ledger slow or large with the names that they
/// choose.
#[test]
fn ten_thousand_connections_leave_nothing_behind() {
    let ledger = Arc::new(Ledger::default());
    let open = |n: u16| {
        let [high, low] = n.to_be_bytes();
        let mut record = ledger.open(facts("https", [10, 0, high, low]), Via::Direct);
        record.routed(["app", "other"][usize::from(n % 2)], "record");
        record
    };
    let records: Vec<LedgerRecord> = (0..10_000).map(open).collect();
    let app = ConnectionFilter::all().backend("app");
    assert_eq!(ledger.find(&app).len(), 5_000);
    let one = ConnectionFilter::all().peer([10, 0, 1, 2].into());
    assert_eq!(ledger.find(&one).len(), 1);
    drop(records);
    assert!(ledger.index.is_empty());
    assert!(ledger.index.capacity() <= 64 * 16 * 2);
}

/// The words and outcomes of the events that are queued.
fn published(events: &mut Subscription) -> Vec<(&'static str, Option<Outcome>)> {
    let queued = std::iter::from_fn(|| events.next_queued());
    let told = queued.map(|event| {
        let outcome = match &event.kind {
            EventKind::Close(end) | EventKind::Refuse(end) => Some(end.outcome),
            _ => None,
        };
        (event.kind.as_str(), outcome)
    });
    told.collect()
}

#[test]
fn each_connection_is_published_as_one_refusal_or_as_opened_and_closed() {
    let ledger = Arc::new(Ledger::default());
    drop(open(&ledger));
    let mut events = ledger.journal.subscribe("test", 8);
    let mut admitted = open(&ledger);
    admitted.routed("app", "record");
    admitted.reached("plain", None);
    admitted.close(Outcome::Done, Detail::default());
    let closed = published(&mut events);
    assert_eq!(closed, [("open", None), ("close", Some(Outcome::Done))]);
    open(&ledger).close(Outcome::NotTls, Detail::default());
    drop(open(&ledger));
    ledger.denied(facts("https", [192, 0, 2, 7]));
    ledger.refused(&"https".into(), None, NoRoom::Limit("limits.connections"));
    let outcomes = [
        Outcome::NotTls,
        Outcome::Aborted,
        Outcome::Denied,
        Outcome::OverLimit,
    ];
    let refused = outcomes.map(|outcome| ("refuse", Some(outcome)));
    assert_eq!(published(&mut events), refused);
}

#[test]
fn an_end_is_published_with_its_cause_in_words() {
    let ledger = Arc::new(Ledger::default());
    let mut events = ledger.journal.subscribe("test", 8);
    let detail = |reason, cause: Option<&str>| Detail {
        reason,
        cause: cause.map(Into::into),
    };
    let limit = Reason::OverLimit("limits.pending");
    for (outcome, detail, expected) in [
        (Outcome::Done, detail(None, None), "both sides closed"),
        (
            Outcome::Expired,
            detail(None, Some("backend \"app\"")),
            "no worker took the connection within timeouts.backend: backend \"app\"",
        ),
        (
            Outcome::OverLimit,
            detail(Some(limit), None),
            "limits.pending is reached",
        ),
        (
            Outcome::HandshakeFailed,
            detail(Some(Reason::Handshake), Some("no shared cipher")),
            "the TLS handshake failed: no shared cipher",
        ),
    ] {
        open(&ledger).close(outcome, detail);
        let event = events.next_queued().expect("an end");
        match &event.kind {
            EventKind::Refuse(end) => assert_eq!(&*end.cause, expected),
            _ => panic!("{event:?}"),
        }
    }
}
