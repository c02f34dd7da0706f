//! Takes the traffic secrets of TLS 1.3 (RFC 8446 §7.1) from rustls during a handshake.

use std::cell::RefCell;

use tokio_rustls::rustls::KeyLog;

use crate::record::{Secret, TrafficSecrets};

/// Takes the traffic secrets of the connection whose [`Watch`] is active.
///
/// A key log belongs to a configuration and not to a connection. But rustls calls it while it
/// processes a record, and the thread does nothing else meanwhile.
#[derive(Debug)]
pub(super) struct Handover;

impl KeyLog for Handover {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        // In TLS 1.2 rustls logs its one secret without asking `will_log`.
        if !self.will_log(label) {
            return;
        }
        WATCHED.with_borrow_mut(|watched| {
            let secrets = watched.get_or_insert_default();
            let kept = match label {
                CLIENT => &mut secrets.client,
                _ => &mut secrets.server,
            };
            *kept = Secret::new(secret.into());
        });
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, CLIENT | SERVER)
    }
}

/// While this is active, logged secrets belong to one connection.
pub(super) struct Watch(());

impl Watch {
    pub(super) fn begin() -> Self {
        WATCHED.set(None);
        Self(())
    }

    pub(super) fn end(self) -> Option<TrafficSecrets> {
        WATCHED.take()
    }
}

thread_local! {
    static WATCHED: RefCell<Option<TrafficSecrets>> = const { RefCell::new(None) };
}

const CLIENT: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER: &str = "SERVER_TRAFFIC_SECRET_0";
