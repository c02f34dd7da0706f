//! What is known of a connection after its handshake, and its JSON form.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::id::Id;
use crate::identity::Identity;

/// The facts of one connection: the client, its addresses, TLS, and the chosen backend.
///
/// Every open connection keeps its facts in memory, so texts that many connections have in common
/// are shared.
///
/// The JSON form is stable and is the same at the gate, on the hello page and in the audit log. A
/// fact that is not known is `null`.
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
    /// The connection's id, which is also a capability: a worker that knows it may claim the
    /// connection.
    pub id: Id,
    /// The configured name of the listener that accepted the connection.
    pub listener: Option<Arc<str>>,
    /// The client's address. Behind a load balancer with PROXY protocol, the address in its header.
    pub peer: Option<Endpoint>,
    /// The address that the client connected to.
    pub local: Option<Endpoint>,
    /// The name of the backend that a route chose; empty, and `null` in JSON, until one did.
    #[serde(serialize_with = "null_if_empty")]
    pub backend: String,
    /// The time of the accept; RFC 3339 with milliseconds in JSON.
    #[serde(serialize_with = "rfc3339_millis")]
    pub accepted_at: SystemTime,
    /// The result of the TLS handshake; `None` on a plaintext listener.
    pub tls: Option<TlsFacts>,
    /// The client's identity from its verified certificate.
    pub identity: Option<Arc<Identity>>,
    #[serde(flatten)]
    pub(crate) rare: Option<Box<RareFacts>>,
}

/// Facts that most connections have not. The JSON form leaves out those that are not known.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct RareFacts {
    /// From the backend's verified certificate, once it is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_identity: Option<Arc<Identity>>,
    #[serde(flatten)]
    stream: Option<StreamFacts>,
}

/// What is known of a connection that is a stream in a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct StreamFacts {
    /// The connection that carries the stream.
    pub tunnel: Id,
    /// The host and port that the client asks for.
    pub authority: Box<str>,
}

impl Facts {
    /// Facts of a connection to `backend`, accepted now, with a random id. Everything else is
    /// unknown.
    pub fn new(backend: impl Into<String>) -> Self {
        Self {
            backend: backend.into(),
            ..Self::of(Id::random())
        }
    }

    /// Facts of a connection accepted now. Only the id is known.
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
            rare: None,
        }
    }

    /// The backend's identity from its verified certificate, once it is connected. If it is not known, the JSON
    /// form leaves it out.
    pub fn backend_identity(&self) -> Option<&Arc<Identity>> {
        self.rare.as_ref()?.backend_identity.as_ref()
    }

    /// Of a stream in a tunnel, the id of the connection that carries it. Otherwise the JSON form leaves it out.
    pub fn tunnel(&self) -> Option<Id> {
        Some(self.stream()?.tunnel)
    }

    /// Of a stream in a tunnel, the host and port that the client asks for, as in `db.example:5432`. Otherwise the
    /// JSON form leaves it out.
    pub fn authority(&self) -> Option<&str> {
        Some(&self.stream()?.authority)
    }

    pub(crate) fn set_backend_identity(&mut self, identity: Arc<Identity>) {
        self.rare.get_or_insert_default().backend_identity = Some(identity);
    }

    pub(crate) fn set_stream(&mut self, stream: StreamFacts) {
        self.rare.get_or_insert_default().stream = Some(stream);
    }

    fn stream(&self) -> Option<&StreamFacts> {
        self.rare.as_ref()?.stream.as_ref()
    }

    /// One line of JSON, without a newline at the end.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("facts have string keys and no failing serializer")
    }

    /// The client's IP address; `None` if the client connected through a Unix socket.
    pub fn peer_ip(&self) -> Option<IpAddr> {
        self.peer.as_ref().and_then(Endpoint::ip)
    }
}

/// The result of a TLS handshake.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct TlsFacts {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// The name of the cipher suite in rustls, for example `TLS13_AES_128_GCM_SHA256`.
    pub cipher: Option<&'static str>,
    /// The key exchange group, for example `X25519`.
    pub group: Option<&'static str>,
    /// The server name that the client asked for (SNI, RFC 6066 §3).
    pub sni: Option<Box<str>>,
    /// The agreed application protocol (ALPN, RFC 7301).
    pub alpn: Option<Box<str>>,
    /// Whether the handshake resumed an earlier session (RFC 8446 §2.2).
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
    /// The IP address; `None` for a Unix socket. An IPv4-mapped IPv6 address is returned as IPv4.
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
                // The peer chooses this path, and must not be able to forge log lines with it.
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

fn null_if_empty<S: Serializer>(name: &str, serializer: S) -> Result<S::Ok, S::Error> {
    (!name.is_empty()).then_some(name).serialize(serializer)
}

fn rfc3339_millis<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_json_form_is_as_documented() {
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
    fn a_backend_that_no_route_has_chosen_is_null() {
        let json = Facts::new("").to_json();
        assert!(json.contains(r#""backend":null"#), "{json}");
    }

    #[test]
    fn a_path_is_shown_without_control_characters() {
        let peer = Endpoint::Unix("/tmp/a\nERROR all is lost\u{1b}[2Jé".into());
        let shown = r"unix:/tmp/a\nERROR all is lost\u{1b}[2Jé";
        assert_eq!(peer.to_string(), shown);
    }

    /// Every idle connection has its facts, in an `Arc`. With the two counts of the `Arc` the size
    /// must fit a size class of the allocator (jemalloc has 256 and then 320 bytes).
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
