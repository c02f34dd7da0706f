//! What is known of a connection once TLS is done, and its one-line JSON form.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::id::Id;
use crate::identity::Identity;

/// The facts of one connection: who connected, where, and how.
///
/// Every open connection keeps them, so texts that many have in common are shared.
///
/// The JSON form is fixed: the gate, the hello page and the audit log all show this one. A fact
/// that is not known is `null`.
///
/// ```
/// use vestibule::Facts;
///
/// let facts = Facts::new("app");
/// assert!(facts.to_json().contains(r#""backend":"app""#));
/// assert!(facts.to_json().contains(r#""tls":null"#));
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Facts {
    /// Names the connection; whoever knows it may claim it.
    pub id: Id,
    /// The configured name of the listener that accepted it.
    pub listener: Option<Arc<str>>,
    /// Where the client is.
    pub peer: Option<Endpoint>,
    /// Where the client connected to.
    pub local: Option<Endpoint>,
    /// The backend that a route chose.
    pub backend: String,
    /// When it was accepted; RFC 3339 with milliseconds in JSON.
    #[serde(serialize_with = "rfc3339_millis")]
    pub accepted_at: SystemTime,
    /// What TLS agreed on; `None` on a plaintext listener.
    pub tls: Option<TlsFacts>,
    /// Who the client proved to be with its certificate.
    pub identity: Option<Arc<Identity>>,
    /// Who the backend proved to be with its certificate, once it was reached. Left out of the JSON
    /// form where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_identity: Option<Arc<Identity>>,
}

impl Facts {
    /// Facts with a random id for a connection to `backend`, accepted now, and nothing else known.
    pub fn new(backend: impl Into<String>) -> Self {
        Self {
            backend: backend.into(),
            ..Self::of(Id::random())
        }
    }

    /// What is known of a connection accepted now: its id.
    pub(crate) fn of(id: Id) -> Self {
        Self {
            id,
            listener: None,
            peer: None,
            local: None,
            backend: String::new(),
            accepted_at: SystemTime::now(),
            tls: None,
            identity: None,
            backend_identity: None,
        }
    }

    /// One line of JSON, without the line's end.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("facts have string keys and no failing serializer")
    }

    /// The client's IP address, where it has one.
    pub fn peer_ip(&self) -> Option<IpAddr> {
        self.peer.as_ref().and_then(Endpoint::ip)
    }
}

/// What the handshake agreed on.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct TlsFacts {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// The cipher suite as rustls names it, as in `TLS13_AES_128_GCM_SHA256`.
    pub cipher: Option<&'static str>,
    /// The key exchange group, as in `X25519`.
    pub group: Option<&'static str>,
    /// The server name that the client asked for (RFC 6066 §3).
    pub sni: Option<Box<str>>,
    /// The application protocol that was agreed on (RFC 7301).
    pub alpn: Option<Box<str>>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Endpoint {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// The IP address, where there is one. An IPv4-mapped IPv6 address is shown as IPv4.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip().to_canonical()),
            Self::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => {
                SocketAddr::new(address.ip().to_canonical(), address.port()).fmt(f)
            }
            Self::Unix(path) => {
                f.write_str("unix:")?;
                // Whoever connects has chosen it, and no line of a log is theirs to write.
                let path = path.display().to_string();
                path.chars().try_for_each(|c| match c.is_control() {
                    true => write!(f, "{}", c.escape_default()),
                    false => f.write_char(c),
                })
            }
        }
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn rfc3339_millis<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_json_form_is_the_documented_one() {
        let mut facts = Facts::new("api");
        facts.listener = Some("https".into());
        facts.peer = Some(Endpoint::Tcp(
            "[::ffff:192.0.2.7]:51234".parse().expect("an address"),
        ));
        facts.local = Some(Endpoint::Unix("/run/front.sock".into()));
        facts.accepted_at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        facts.tls = Some(TlsFacts {
            version: "1.3",
            cipher: Some("TLS13_AES_128_GCM_SHA256"),
            group: Some("X25519"),
            sni: Some("api.example.com".into()),
            alpn: None,
            resumed: false,
        });
        let expected = format!(
            concat!(
                r#"{{"id":"{}","listener":"https","peer":"192.0.2.7:51234","#,
                r#""local":"unix:/run/front.sock","backend":"api","#,
                r#""accepted_at":"1970-01-01T00:00:01.500Z","#,
                r#""tls":{{"version":"1.3","cipher":"TLS13_AES_128_GCM_SHA256","group":"X25519","#,
                r#""sni":"api.example.com","alpn":null,"resumed":false}},"identity":null}}"#
            ),
            facts.id
        );
        assert_eq!(facts.to_json(), expected);
    }

    #[test]
    fn a_path_is_shown_without_what_a_terminal_would_do() {
        let peer = Endpoint::Unix("/tmp/a\nERROR all is lost\u{1b}[2Jé".into());
        let shown = r"unix:/tmp/a\nERROR all is lost\u{1b}[2Jé";
        assert_eq!(peer.to_string(), shown);
    }

    /// With the counts of its `Arc`, the size that the allocator has room for (jemalloc has 256, then
    /// 320): every idle connection has them.
    #[test]
    fn the_facts_of_a_connection_are_small() {
        assert!(size_of::<Facts>() <= 240, "{}", size_of::<Facts>());
    }

    #[test]
    fn a_fact_cannot_break_the_line() {
        let mut facts = Facts::new("a\nb");
        facts.listener = Some("x\r\n\"y".into());
        assert!(!facts.to_json().contains(['\n', '\r']));
    }
}
