//! The table `[listener.tunnel]`.

use super::halves::Workers;
use crate::config::table::Table;
use crate::config::value::Value;
use crate::config::words::protocol;
use crate::tls::AcceptorSettings;
use crate::tls::client_auth::Demand;
use crate::tunnel::TunnelSettings;

/// Reads the table, and adds its protocol to those of the listener.
///
/// `None` if there is no table, or after a problem in it. `tls` is `None` after a problem there, and `Some(None)` on a
/// plaintext listener.
pub(super) fn tunnel(
    listener: &mut Table<'_>,
    tls: Option<Option<&AcceptorSettings>>,
    halves: &Workers,
) -> Option<TunnelSettings> {
    let mut table = listener.table("tunnel")?;
    let alpn = table.read("alpn", protocol);
    let streams = table.read("streams", |value| value.count_to(MOST_STREAMS));
    let place = table.place("workers");
    let workers = table.read("workers", Value::boolean);
    halves.come_to_listener(place.filter(|_| workers == Some(true)));
    // After a problem in the other table, it is not known what that table says.
    let demand = |tls: Option<&AcceptorSettings>| Some(tls?.client_auth.as_ref()?.demand());
    if tls.is_some_and(|tls| demand(tls) != Some(Demand::Required)) {
        table.problem(
            "`listener.tunnel` needs `client_auth = \"required\"` in `[listener.tls]`: its \
             streams count for the identity of the client that brings it"
                .into(),
        );
    }
    table.finish();
    Some(TunnelSettings {
        alpn: alpn.unwrap_or_else(|| ALPN.to_owned()),
        streams: streams.map_or(STREAMS, |streams| streams as u32),
        workers: workers.unwrap_or(false),
    })
}

/// HTTP/2 (RFC 9113 §3.1).
const ALPN: &str = "h2";
const STREAMS: u32 = 100;
/// With the window of each stream, the window of the tunnel is within what HTTP/2 allows.
const MOST_STREAMS: u32 = 8190;
