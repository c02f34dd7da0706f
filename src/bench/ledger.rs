//! A ledger with entries for connections, without the connections.

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::facts::{Endpoint, Facts};
use crate::id::Id;
use crate::identity::Identity;
use crate::ledger::{ConnectionFilter, Ledger, LedgerRecord, Via};

/// Open connections. Each has its own peer address, shares its identity with nine others, and goes to
/// one of a hundred backends.
#[derive(Debug)]
pub struct OpenConnections {
    ledger: Arc<Ledger>,
    records: Vec<LedgerRecord>,
}

impl OpenConnections {
    /// Opens `count` connections.
    pub fn new(count: u32) -> Self {
        let ledger = Arc::new(Ledger::default());
        let records = (0..count).map(|number| open(&ledger, number)).collect();
        Self { ledger, records }
    }

    /// Opens one more connection and closes it.
    pub fn open_and_close(&self) {
        let number = u32::MAX;
        drop(open(&self.ledger, number));
    }

    /// Filters that match one connection.
    pub fn one(&self) -> [(&'static str, ConnectionFilter); 2] {
        let number = self.records.len() as u32 / 2;
        let id = self.records[number as usize].entry().id;
        [
            ("id", ConnectionFilter::all().id(id)),
            ("peer", ConnectionFilter::all().peer(address(number).into())),
        ]
    }

    /// Filters that match several connections.
    pub fn some(&self) -> [(&'static str, ConnectionFilter); 2] {
        [
            (
                "identity, 10",
                ConnectionFilter::all().identity("cn:user-7"),
            ),
            ("backend, 100", ConnectionFilter::all().backend("app-7")),
        ]
    }

    /// The number of connections that match `filter`.
    pub fn find(&self, filter: &ConnectionFilter) -> usize {
        self.ledger.find(filter).len()
    }
}

pub(super) fn open(ledger: &Arc<Ledger>, number: u32) -> LedgerRecord {
    let mut facts = Facts::of(Id::random());
    facts.listener = Some("https".into());
    facts.peer = Some(Endpoint::Tcp((address(number), 4711).into()));
    let mut record = ledger.open(facts, Via::Direct);
    let user = format!("cn:user-{}", number / 10);
    let identity = Identity::of_name(&user).expect("a name");
    record.identified(identity, Vec::new());
    record.routed(&format!("app-{}", number % 100), "record");
    record
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 | (number & 0x00ff_ffff))
}
