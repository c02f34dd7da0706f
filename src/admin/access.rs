//! Who may use the admin API, and what a request needs to change anything.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use hyper::StatusCode;
use hyper::header::HOST;
use hyper::http::request::Parts;
use tokio::net::unix::UCred;

use super::answer::Refusal;
use crate::config::WritesOverTcp;
use crate::journal;

/// Who sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Author {
    /// A process of this user, over the Unix socket.
    User(u32),
    /// Somebody at this address, over TCP.
    Address(SocketAddr),
}

/// Whether an author may change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writes {
    Allowed,
    Refused,
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => write!(f, "uid:{uid}"),
            Self::Address(address) => write!(f, "tcp:{address}"),
        }
    }
}

impl From<Author> for journal::Author {
    fn from(author: Author) -> Self {
        match author {
            Author::User(uid) => Self::Uid(uid),
            Author::Address(address) => Self::Address(address.into()),
        }
    }
}

impl Author {
    /// The user at the other end of a Unix socket, if it is root or our own.
    pub(super) fn admitted(peer: &UCred) -> Option<Self> {
        let uid = peer.uid();
        let is_ours = uid == 0 || uid == rustix::process::geteuid().as_raw();
        is_ours.then_some(Self::User(uid))
    }

    /// Checks that a request over TCP was meant for this machine. A web page whose name resolves to
    /// 127.0.0.1 (DNS rebinding) can send requests too, but only with its own name as the host.
    pub(super) fn check_host(self, head: &Parts) -> Result<(), Refusal> {
        if matches!(self, Self::User(_)) {
            return Ok(());
        }
        let mut hosts = head.headers.get_all(HOST).iter();
        let named = hosts.next().and_then(|it| it.to_str().ok());
        let is_meant = named.is_some_and(is_loopback)
            && hosts.next().is_none()
            && head
                .uri
                .authority()
                .is_none_or(|it| is_loopback(it.as_str()));
        match is_meant {
            true => Ok(()),
            false => Err(Refusal::new(
                StatusCode::MISDIRECTED_REQUEST,
                "misdirected",
                "the Host header must be a loopback name: localhost, 127.0.0.1 or [::1]",
            )),
        }
    }

    /// Whether this author may change something.
    pub(super) fn writes(self, over_tcp: WritesOverTcp) -> Writes {
        match (self, over_tcp) {
            (Self::Address(_), WritesOverTcp::Refused) => Writes::Refused,
            (Self::User(_), _) | (_, WritesOverTcp::Allowed) => Writes::Allowed,
        }
    }

    /// Checks that a request may change something.
    pub(super) fn check_write(self, head: &Parts, over_tcp: WritesOverTcp) -> Result<(), Refusal> {
        let forbidden = |message| Refusal::new(StatusCode::FORBIDDEN, "forbidden", message);
        if self.writes(over_tcp) == Writes::Refused {
            return Err(forbidden(
                "over TCP this API only reads; use its Unix socket, or set \
                 `admin.allow_writes_over_tcp = true`",
            ));
        }
        // A web page cannot set this header for another site without a CORS preflight, which no
        // answer here allows.
        match head.headers.get(WRITE).is_some_and(|value| value == "1") {
            true => Ok(()),
            false => Err(forbidden(
                "send the header `Vestibule-Admin: 1` to change anything",
            )),
        }
    }
}

const WRITE: &str = "vestibule-admin";

/// Whether a host, with or without a port, is a loopback name.
fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((ip, port)) => (ip, port),
            None => return false,
        },
        None => match host.find(':') {
            Some(at) => host.split_at(at),
            None => (host, ""),
        },
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let has_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    let is_name = name.eq_ignore_ascii_case("localhost");
    let is_ip = || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    has_port && (is_name || is_ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_hosts() {
        for host in [
            "localhost",
            "LocalHost:9901",
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]",
            "[::1]:9901",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.com",
            "localhost.example.com",
            "localhost:x",
            "localhost:1:2",
            "127.0.0.1.nip.io",
            "192.0.2.1",
            "[::1",
            "[::2]",
            "user@localhost",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
