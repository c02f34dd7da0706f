use std::future::pending;
use std::os::unix::net::UnixListener;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::*;
use crate::address::Address;
use crate::backend::claimer::Claimer;
use crate::backend::{AddressState, BackendSettings, Park, Surroundings, To};
use crate::drain::Drain;
use crate::facts::Facts;
use crate::ledger::{Ledger, Via};
use crate::rendezvous::Rendezvous;

/// An idle connection consists of these two and the future of its relay (src/client.rs). A size
/// above the bounds means that a connection holds something that it does not need. For a size
/// below them, lower the bounds.
#[test]
fn a_connection_is_a_small_value_and_a_small_future() {
    fn size<A, B, F>(_: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }
    let sizes = (size_of::<Established>(), size(serve));
    assert!((280..=304).contains(&sizes.0), "{sizes:?} bytes");
    assert!((104..=128).contains(&sizes.1), "{sizes:?} bytes");
}

/// A backend with one address, which answers.
struct Site {
    address: Address,
    backend: ActiveBackend,
    ledger: Arc<Ledger>,
    _listener: UnixListener,
    _directory: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("app.sock");
        let listener = UnixListener::bind(&path).expect("a listener");
        let address = Address::Unix(path);
        let settings = BackendSettings {
            park: Park::Refuse,
            ..BackendSettings::new("app", To::Dialled(vec![address.clone()]))
        };
        let around = Surroundings {
            unacknowledged: None,
            half_close: None,
            drain: &Drain::default(),
            own: &Arc::default(),
            journal: &Arc::default(),
            census: &Arc::default(),
        };
        Self {
            address,
            backend: ActiveBackend::new(&settings, None, &around),
            ledger: Arc::default(),
            _listener: listener,
            _directory: directory,
        }
    }

    async fn dial(&self) -> (LedgerRecord, Lease) {
        let mut record = self.ledger.open(Facts::new(""), Via::Direct);
        record.routed("app", "plain");
        let rendezvous = Rendezvous::confirmed_by(Claimer::tell);
        let deadline = Deadline::after(Duration::from_secs(5));
        let facts = record.facts();
        let obtained = (self.backend).obtain(&facts, deadline, &rendezvous, pending());
        let served = obtained.await.map_err(drop).expect("an address");
        (record, served.lease.expect("a dialled address"))
    }

    /// Orders a state. Returns the number of connections that were told to end.
    fn order(&self, state: AddressState) -> usize {
        let ordered = self.backend.order(&self.address, state);
        let numbers = ordered.expect("a known address").numbers;
        match state {
            AddressState::Down => self.ledger.end_at("app", &numbers),
            AddressState::Up | AddressState::Drain => 0,
        }
    }
}

fn cause(record: &LedgerRecord) -> Option<EndCause> {
    match pin!(record.ended()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(cause) => Some(cause),
        Poll::Pending => None,
    }
}

#[tokio::test]
async fn a_connection_that_was_dialled_before_its_address_was_put_down_ends_when_it_is_established()
{
    let site = Site::new();
    let (mut record, lease) = site.dial().await;
    assert_eq!(
        site.order(AddressState::Down),
        0,
        "the ledger has it nowhere"
    );
    // Also if the address is back by then.
    site.order(AddressState::Up);
    settle(&mut record, &lease);
    assert_eq!(cause(&record), Some(EndCause::AddressDown));
}

#[tokio::test]
async fn an_established_connection_ends_when_its_address_is_put_down() {
    let site = Site::new();
    let (mut record, lease) = site.dial().await;
    settle(&mut record, &lease);
    site.order(AddressState::Drain);
    assert_eq!(cause(&record), None);
    assert_eq!(site.order(AddressState::Down), 1);
    assert_eq!(cause(&record), Some(EndCause::AddressDown));
}
