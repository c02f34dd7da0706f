//! The table `[backend.tunnel]`.

use crate::authority::Authority;
use crate::backend::To;
use crate::backend::tunnels::OriginateSettings;
use crate::config::table::Table;
use crate::tls::connector::ConnectorSettings;

/// Reads the table for a backend with this `to`, and adds the protocol to `tls`: `None` after a problem there,
/// `Some(None)` without `[backend.tls]`. Returns `Some(None)` without the table, and `None` only after a problem was
/// reported.
pub(super) fn originate(
    backend: &mut Table<'_>,
    to: Option<&To>,
    tls: Option<Option<&mut ConnectorSettings>>,
) -> Option<Option<OriginateSettings>> {
    let Some(place) = backend.place("tunnel") else {
        return Some(None);
    };
    let has_tls = !matches!(tls, Some(None));
    let mut table = backend.table("tunnel")?;
    let authority = table.require("authority", |value| value.parsed(str::parse::<Authority>));
    let connections = table.read("connections", |value| value.count_to(MOST_CONNECTIONS));
    let streams = table.read("streams", |value| value.count_to(MOST_STREAMS));
    table.finish();
    if !has_tls {
        backend.problem_at(place, NO_TLS.into());
    }
    let is_dialled = to.is_none_or(|to| matches!(to, To::Dialled(_)));
    if !is_dialled {
        backend.problem_at(place, NO_ADDRESS.into());
    }
    if let Some(tls) = tls.flatten()
        && tls.alpn.is_empty()
    {
        tls.alpn.push(ALPN.into());
    }
    let settings = OriginateSettings {
        authority: authority?,
        connections: connections.unwrap_or(CONNECTIONS),
        streams: streams.map_or(STREAMS, |streams| streams as u32),
        idle: None,
    };
    (has_tls && is_dialled).then_some(Some(settings))
}

const NO_TLS: &str = "`backend.tunnel` needs `[backend.tls]`: a tunnel is a TLS connection in which both sides have \
 a certificate";
const NO_ADDRESS: &str = "`backend.tunnel` needs addresses in `to`: workers at the gate and built-in backends are \
 not reached through tunnels";

/// HTTP/2 (RFC 9113 §3.1).
const ALPN: &str = "h2";
const CONNECTIONS: usize = 2;
const STREAMS: u32 = 100;
/// Each worker has as many, to each address.
const MOST_CONNECTIONS: u32 = 100;
/// With the window of each stream, the window of the tunnel is within what HTTP/2 allows.
const MOST_STREAMS: u32 = 8190;
