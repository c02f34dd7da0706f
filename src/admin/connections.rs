//! Lists open connections, a page at a time, and ends them.

use std::sync::Arc;
use std::time::SystemTime;

use hyper::StatusCode;
use serde::Serialize;

use super::answer::{Answer, Refusal, json};
use super::query;
use crate::facts::Facts;
use crate::id::Id;
use crate::ledger::{ConnectionFilter, Entry, Ledger, OpenConnection};
use crate::time_slice::in_slices;

/// A connection as the API shows it: its facts, and how it is now.
#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    facts: Arc<Facts>,
    state: &'static str,
    bytes_in: u64,
    bytes_out: u64,
    /// Seconds.
    age: f64,
    /// Seconds.
    idle: f64,
    /// Only of the connection that carries a tunnel: the open streams in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    streams: Option<u16>,
}

#[derive(Serialize)]
struct Page {
    connections: Vec<Row>,
    /// The number of all that match, on all pages.
    total: usize,
    /// `after` for the next page; `null` on the last one.
    next: Option<String>,
}

#[derive(Serialize)]
struct Killed {
    killed: usize,
}

/// One page of the connections that match.
pub(super) fn list(ledger: &Ledger, query: Option<&str>) -> Result<Answer, Refusal> {
    let mut parameters = query::parameters(query)?;
    let filter = query::filter(&mut parameters)?;
    let sort = match query::take(&mut parameters, "sort") {
        Some(word) => Sort::parse(&word)?,
        None => Sort::OLDEST,
    };
    let limit = match query::take(&mut parameters, "limit") {
        Some(number) => limit(&number)?,
        None => DEFAULT_LIMIT,
    };
    let after = query::take(&mut parameters, "after");
    let after = after.as_deref().map(Place::parse).transpose()?;
    query::none_left(&parameters)?;
    let found = ledger.find(&filter.unwrap_or_default());
    let page = page(found, sort, limit, after);
    Ok(json(StatusCode::OK, &page))
}

/// One connection.
pub(super) fn one(ledger: &Ledger, id: &str) -> Result<Answer, Refusal> {
    let filter = ConnectionFilter::all().id(parse_id(id)?);
    match ledger.find(&filter).first() {
        Some(entry) => Ok(json(StatusCode::OK, &Row::of(entry))),
        None => Err(not_open(id)),
    }
}

/// Ends one connection. The number is 0 if it was ending already.
pub(super) fn kill_one(ledger: &Ledger, id: &str) -> Result<(Answer, usize), Refusal> {
    let filter = ConnectionFilter::all().id(parse_id(id)?);
    if ledger.find(&filter).is_empty() {
        return Err(not_open(id));
    }
    Ok(killed(ledger.kill(&filter)))
}

/// Ends the connections that match. Without a filter, it ends none.
pub(super) fn kill(ledger: &Ledger, query: Option<&str>) -> Result<(Answer, usize), Refusal> {
    let mut parameters = query::parameters(query)?;
    let filter = query::filter(&mut parameters)?;
    query::none_left(&parameters)?;
    match filter {
        Some(filter) => Ok(killed(ledger.kill(&filter))),
        None => Err(Refusal::bad(
            "a filter is needed, such as `?identity=cn:alice`; to end all connections, drain",
        )),
    }
}

fn killed(killed: usize) -> (Answer, usize) {
    (json(StatusCode::OK, &Killed { killed }), killed)
}

fn page(found: Vec<Arc<Entry>>, sort: Sort, limit: usize, after: Option<Place>) -> Page {
    let total = found.len();
    let places = in_slices(found).map(|entry| (sort.place(&entry), entry));
    let mut rest: Vec<(Place, Arc<Entry>)> = places
        .filter(|(place, _)| after.is_none_or(|after| *place > after))
        .collect();
    let has_more = rest.len() > limit;
    if has_more {
        // Sorting all of them would take several times as long.
        rest.select_nth_unstable_by_key(limit, |(place, _)| *place);
        in_slices(rest.drain(limit..)).for_each(drop);
    }
    rest.sort_unstable_by_key(|(place, _)| *place);
    let last = rest.last().filter(|_| has_more);
    Page {
        total,
        next: last.map(|(place, _)| place.to_string()),
        connections: rest.iter().map(|(_, entry)| Row::of(entry)).collect(),
    }
}

impl Row {
    fn of(entry: &Entry) -> Self {
        let OpenConnection {
            facts,
            state,
            bytes_in,
            bytes_out,
            age,
            idle,
            streams,
        } = OpenConnection::of(entry);
        Self {
            facts,
            state: state.as_str(),
            bytes_in,
            bytes_out,
            age: age.as_secs_f64(),
            idle: idle.as_secs_f64(),
            streams,
        }
    }
}

fn parse_id(text: &str) -> Result<Id, Refusal> {
    let wrong = |_| Refusal::bad(format!("expected the UUID of a connection, found {text:?}"));
    text.parse().map_err(wrong)
}

fn not_open(id: &str) -> Refusal {
    let message = format!("no open connection has the id {id}");
    Refusal::new(StatusCode::NOT_FOUND, "not_found", message)
}

fn limit(text: &str) -> Result<usize, Refusal> {
    let number = text.parse().ok().filter(|it| (1..=MOST).contains(it));
    number.ok_or_else(|| {
        Refusal::bad(format!(
            "`limit`: expected a whole number from 1 to {MOST}, found {text:?}"
        ))
    })
}

/// The order of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sort {
    key: Key,
    order: Order,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Age,
    Idle,
    Bytes,
    BytesIn,
    BytesOut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Rising,
    Falling,
}

impl Sort {
    const OLDEST: Self = Self {
        key: Key::Age,
        order: Order::Falling,
    };

    fn parse(word: &str) -> Result<Self, Refusal> {
        let (order, name) = match word.strip_prefix('-') {
            Some(name) => (Order::Falling, name),
            None => (Order::Rising, word),
        };
        let key = match name {
            "age" => Key::Age,
            "idle" => Key::Idle,
            "bytes" => Key::Bytes,
            "bytes_in" => Key::BytesIn,
            "bytes_out" => Key::BytesOut,
            _ => {
                return Err(Refusal::bad(format!(
                    "`sort`: expected age, idle, bytes, bytes_in or bytes_out, with `-` before it \
                     for the largest first, found {word:?}"
                )));
            }
        };
        Ok(Self { key, order })
    }

    /// Where a connection is in the list. The id makes the places different.
    fn place(self, entry: &Entry) -> Place {
        let bytes_in = entry.traffic.from_client.get();
        let bytes_out = entry.traffic.to_client.get();
        let rising = match self.key {
            // By the time of the accept, which is the same on every page.
            Key::Age => u64::MAX - accepted(entry.facts().accepted_at),
            Key::Idle => u64::MAX - entry.traffic.last().rank(),
            Key::Bytes => bytes_in.saturating_add(bytes_out),
            Key::BytesIn => bytes_in,
            Key::BytesOut => bytes_out,
        };
        let rank = match self.order {
            Order::Rising => rising,
            Order::Falling => u64::MAX - rising,
        };
        Place { rank, id: entry.id }
    }
}

fn accepted(at: SystemTime) -> u64 {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A place in a sorted list, which the next page continues after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    rank: u64,
    id: Id,
}

impl Place {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let parts = text.split_once('.');
        let is_rank = |rank: &str| rank.len() == 16 && !rank.starts_with('+');
        let place = parts
            .filter(|(rank, _)| is_rank(rank))
            .and_then(|(rank, id)| {
                Some(Self {
                    rank: u64::from_str_radix(rank, 16).ok()?,
                    id: id.parse().ok()?,
                })
            });
        place.ok_or_else(|| Refusal::bad("`after`: expected the `next` of another page"))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}.{}", self.rank, self.id)
    }
}

const DEFAULT_LIMIT: usize = 100;
/// The page is written on the control thread: some milliseconds for this many.
const MOST: usize = 1000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ledger::{LedgerRecord, Via};

    fn open(ledger: &Arc<Ledger>, count: usize) -> Vec<LedgerRecord> {
        let open = |_| ledger.open(Facts::of(Id::random()), Via::Direct);
        (0..count).map(open).collect()
    }

    #[test]
    fn pages_have_each_connection_once_in_every_order() {
        let ledger = Arc::<Ledger>::default();
        let records = open(&ledger, 25);
        for (index, record) in records.iter().enumerate() {
            record.traffic().from_client.add(index % 5);
        }
        for sort in [
            "age",
            "-age",
            "idle",
            "-idle",
            "bytes",
            "-bytes",
            "bytes_in",
            "-bytes_out",
        ] {
            let sort = Sort::parse(sort).expect("a word");
            let mut seen = Vec::new();
            let mut after = None;
            loop {
                let page = page(ledger.find(&ConnectionFilter::all()), sort, 4, after);
                assert_eq!(page.total, 25);
                seen.extend(page.connections.iter().map(|it| (it.bytes_in, it.facts.id)));
                let Some(next) = page.next else { break };
                after = Some(Place::parse(&next).expect("a place"));
            }
            let ids: BTreeSet<Id> = seen.iter().map(|(_, id)| *id).collect();
            assert_eq!((seen.len(), ids.len()), (25, 25));
            if sort
                == (Sort {
                    key: Key::Bytes,
                    order: Order::Falling,
                })
            {
                assert!(seen.is_sorted_by(|one, next| one.0 >= next.0));
            }
        }
    }

    #[test]
    fn the_oldest_is_first_if_no_order_is_given() {
        let ledger = Arc::<Ledger>::default();
        let old = Facts {
            accepted_at: SystemTime::UNIX_EPOCH,
            ..Facts::of(Id::random())
        };
        let id = old.id;
        let _new = open(&ledger, 5);
        let _old = ledger.open(old, Via::Direct);
        let page = page(ledger.find(&ConnectionFilter::all()), Sort::OLDEST, 1, None);
        assert_eq!(page.connections[0].facts.id, id);
    }
}
