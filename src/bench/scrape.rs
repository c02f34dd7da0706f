//! A proxy with entries for connections, without the connections.

use crate::config::Config;
use crate::ledger::LedgerRecord;
use crate::metrics::MetricsFormat;
use crate::proxy::{Proxy, Running};

/// A proxy that counts this many open connections.
#[derive(Debug)]
pub struct Scraped {
    running: Running,
    _records: Vec<LedgerRecord>,
}

impl Scraped {
    /// Opens `count` connections, which go to a hundred backends.
    pub async fn new(count: u32) -> Self {
        let config: Config = CONFIG.parse().expect("a configuration");
        let proxy = Proxy::builder(config).bind().await.expect("a port");
        let running = proxy.start();
        let ledger = &running.entrance().state.ledger;
        let records = (0..count).map(|number| super::ledger::open(ledger, number));
        Self {
            _records: records.collect(),
            running,
        }
    }

    /// The length of the text of a scrape.
    pub fn scrape(&self) -> usize {
        self.running.metrics(MetricsFormat::OpenMetrics).len()
    }
}

const CONFIG: &str = "[[listener]]\nname = \"https\"\naddress = \"127.0.0.1:0\"\n\
     [[backend]]\nname = \"app-0\"\nto = \"echo\"\n";
