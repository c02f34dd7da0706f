//! The PROXY protocol: which listeners accept it, and which version a backend gets.

use super::table::Table;
use super::words::network;
use crate::address::Address;
use crate::backend::To;
use crate::proxy_protocol::{ProxyProtocol, Trusted};

/// The peers whose headers a listener requires. `None` if the keys are missing, or after a problem was
/// reported.
pub(super) fn accepted(table: &mut Table<'_>, address: Option<&Address>) -> Option<Trusted> {
    let place = table.place("accept_proxy_protocol");
    let accept = table.read("accept_proxy_protocol", |value| {
        value.word(&[("none", false), ("required", true)])
    });
    let given = table.place("trusted_proxies");
    let networks = table.list("trusted_proxies", network);
    // If one of the two keys has a problem, it was reported, and the other alone means nothing.
    if accept.is_some() != place.is_some() || networks.is_some() != given.is_some() {
        return None;
    }
    let networks = networks.unwrap_or_default();
    if accept == Some(true) {
        let has_peers_with_addresses = !matches!(address, Some(Address::Unix(_)));
        if networks.is_empty() && has_peers_with_addresses {
            let message = "`listener.accept_proxy_protocol` needs `trusted_proxies`, the networks \
             of the load balancers, as in `trusted_proxies = [\"10.0.0.0/8\"]`";
            table.problem_at(place?, message.into());
        }
        return Some(Trusted::new(networks));
    }
    if !networks.is_empty() {
        let message = "`listener.trusted_proxies` has no effect without `accept_proxy_protocol = \
         \"required\"`; add it, or remove `trusted_proxies`";
        table.problem_at(given?, message.into());
    }
    None
}

/// The version that a backend gets. `None` if the key is missing, or after a problem was reported.
pub(super) fn sent(table: &mut Table<'_>, to: Option<&To>) -> Option<ProxyProtocol> {
    let place = table.place("proxy_protocol")?;
    let words = [
        ("none", None),
        ("v1", Some(ProxyProtocol::V1)),
        ("v2", Some(ProxyProtocol::V2)),
    ];
    let sent = table.read("proxy_protocol", |value| value.word(&words))??;
    if let Err(message) = check(to) {
        table.problem_at(place, format!("`backend.proxy_protocol`: {message}"));
        return None;
    }
    Some(sent)
}

/// Refuses the header for built-in backends, which do not read it.
pub(super) fn check(to: Option<&To>) -> Result<(), &'static str> {
    match to {
        Some(To::Hello | To::Echo) => {
            Err("hello and echo are built in and read no PROXY protocol header; leave it out")
        }
        Some(To::Dialled(_) | To::Gate) | None => Ok(()),
    }
}
