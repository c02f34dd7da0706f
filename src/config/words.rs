//! Reads names, addresses, protocols and networks.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::value::{Expected, Value};
use crate::address::Address;
use crate::backend::To;
use crate::log_filter;

/// Reads an entry of `to`: an address, or one of three words.
pub(super) fn to(text: &str) -> Result<To, Expected> {
    match text {
        "gate" => Ok(To::Gate),
        "hello" => Ok(To::Hello),
        "echo" => Ok(To::Echo),
        port if port.strip_prefix("tcp:").unwrap_or(port).starts_with(':') => {
            Err("the address of a backend needs a host, as in `127.0.0.1:9000`".into())
        }
        address => match address.parse::<Address>() {
            Ok(Address::Tcp { port: 0, .. }) => Err("the port of a backend must not be 0".into()),
            Ok(address) => Ok(To::Dialled(vec![address])),
            Err(_) if address.starts_with("tls:") => Err(
                "for TLS to the backend, write `to = \"tcp:host:port\"` and a table `[backend.tls]`"
                    .into(),
            ),
            Err(error) => Err(format!("{error}; or write gate, hello or echo")),
        },
    }
}

/// A name with its place, to be checked against the existing names.
pub(super) struct Named {
    pub name: String,
    pub offset: usize,
}

/// A name for protocol lines, labels and messages: short, and without characters that need quotes.
pub(super) fn name(value: &Value<'_>) -> Result<Named, Expected> {
    let text = value.string()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > LONGEST_NAME || !text.chars().all(plain) {
        return Err(format!(
            "expected a name of 1 to {LONGEST_NAME} letters, digits, `-`, `_` and `.`, found {text:?}"
        ));
    }
    Ok(Named {
        name: text.to_owned(),
        offset: value.offset,
    })
}

/// A log filter in the syntax of `RUST_LOG`.
pub(super) fn log_filter(value: &Value<'_>) -> Result<String, Expected> {
    let is_filter = |text: &str| {
        let complete = log_filter::complete(text);
        complete.is_some_and(|filter| is_taken(&filter))
    };
    value.parsed(|text| match is_filter(text) {
        true => Ok(text.to_owned()),
        false => Err(
            "expected a log filter such as \"info\" or \"info,vestibule=debug\"; the levels are \
             off, error, warn, info, debug and trace",
        ),
    })
}

/// The command line's subscriber decides whether it accepts a filter.
#[cfg(feature = "cli")]
fn is_taken(filter: &str) -> bool {
    let filter = tracing_subscriber::EnvFilter::builder().parse(filter);
    filter.is_ok()
}

/// A program that embeds the library sets up its own log.
#[cfg(not(feature = "cli"))]
fn is_taken(_: &str) -> bool {
    true
}

pub(super) fn protocol(value: &Value<'_>) -> Result<String, Expected> {
    protocol_name(value.string()?)
}

/// A protocol name of ALPN, which is compared byte by byte (RFC 7301 §6).
pub(super) fn protocol_name(name: &str) -> Result<String, Expected> {
    // RFC 7301 §3.1: 1 to 255 bytes.
    if !(1..=255).contains(&name.len()) {
        return Err(format!(
            "the name of a protocol must have 1 to 255 bytes, found {}",
            name.len()
        ));
    }
    if name.contains([',', ' ', '\t']) {
        return Err(format!(
            "{name:?} has a comma or a space; write several protocols as a list, as in \"h2\", \
             \"http/1.1\""
        ));
    }
    let lower = name.to_ascii_lowercase();
    // In shorter names, a difference of one character is no evidence of a typing error.
    let is_near = |it: &&&str| it.len() > 5 && strsim::damerau_levenshtein(&lower, it) == 1;
    let meant = match lower.as_str() {
        "http/2" | "http/2.0" | "http2" => "h2",
        "http" | "http/1" | "http1" | "http1.1" | "h1" => "http/1.1",
        "http/3" | "http3" => "h3",
        "postgres" => "postgresql",
        // The registered names use lower-case letters, except a few that are rarely typed.
        lower if PROTOCOLS.contains(&lower) => lower,
        _ => match PROTOCOLS.iter().find(is_near) {
            Some(meant) => meant,
            None => return Ok(name.to_owned()),
        },
    };
    if meant == name {
        return Ok(name.to_owned());
    }
    Err(format!(
        "unknown protocol {name:?}, did you mean {meant:?}?"
    ))
}

/// The names of the IANA registry "TLS Application-Layer Protocol Negotiation (ALPN) Protocol IDs" for
/// protocols that run over TLS and streams.
const PROTOCOLS: [&str; 18] = [
    "acme-tls/1",
    "coap",
    "dot",
    "ftp",
    "h2",
    "h3",
    "http/1.0",
    "http/1.1",
    "imap",
    "irc",
    "managesieve",
    "mqtt",
    "nntp",
    "pop3",
    "postgresql",
    "tds/8.0",
    "xmpp-client",
    "xmpp-server",
];

pub(super) fn network(value: &Value<'_>) -> Result<IpNet, Expected> {
    value.parsed(|text| {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        let network = address.or_else(|_| text.parse::<IpNet>()).map_err(
            |_| "expected a network such as 192.0.2.0/24 or 2001:db8::/32, or one address",
        );
        canonical(network?)
    })
}

/// Converts an IPv4-mapped network to IPv4, because client addresses are converted too. Otherwise it
/// would match no client.
fn canonical(network: IpNet) -> Result<IpNet, &'static str> {
    let IpNet::V6(written) = network else {
        return Ok(network);
    };
    let Some(address) = written.addr().to_ipv4_mapped() else {
        return Ok(network);
    };
    let prefix = written.prefix_len().checked_sub(MAPPED);
    prefix
        .and_then(|prefix| IpNet::new(address.into(), prefix).ok())
        .ok_or("an IPv4-mapped IPv6 network needs a prefix from 96 to 128")
}

/// A timeout in the range of the kernel's TCP_USER_TIMEOUT: from one millisecond to `i32::MAX` of them.
pub(super) fn tcp_timeout(value: &Value<'_>) -> Result<Duration, Expected> {
    let timeout = value.duration()?;
    if (1..=i32::MAX as u128).contains(&timeout.as_millis()) {
        Ok(timeout)
    } else {
        Err("expected a duration from \"1ms\" to \"24days\"".into())
    }
}

/// The bits before the IPv4 address in ::ffff:0:0/96 (RFC 4291 §2.5.5.2).
const MAPPED: u8 = 96;

/// Names appear in the lines of the gate, which are bounded, and in metric labels.
const LONGEST_NAME: usize = 64;
