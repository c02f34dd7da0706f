//! What a front says of a connection that it offers. It may say anything: what is not as it should be is not known.

use std::net::SocketAddr;

use hyper::HeaderMap;
use serde_json::Value;

use crate::facts::{Endpoint, TlsFacts};
use crate::identity::Identity;

/// What a front has said of a connection.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The connection's id at the front, shortened: whole, it is a capability there.
    pub id: Option<String>,
    pub peer: Option<Endpoint>,
    pub local: Option<Endpoint>,
    pub tls: Option<TlsFacts>,
    pub identity: Option<Identity>,
}

impl Told {
    /// `None` if the answer is not that of a front.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let facts: Value = serde_json::from_slice(headers.get(FACTS)?.as_bytes()).ok()?;
        facts.is_object().then(|| Self {
            id: text(&facts["id"]).map(|id| id.chars().take(SHORT).collect()),
            peer: text(&facts["peer"]).and_then(endpoint),
            local: text(&facts["local"]).and_then(endpoint),
            tls: tls(&facts["tls"]),
            identity: identity(&facts["identity"]),
        })
    }
}

fn endpoint(text: &str) -> Option<Endpoint> {
    match text.strip_prefix("unix:") {
        Some(path) => Some(Endpoint::Unix(path.into())),
        None => text.parse::<SocketAddr>().ok().map(Endpoint::Tcp),
    }
}

fn tls(facts: &Value) -> Option<TlsFacts> {
    let known = |name: &Value, all: &[&'static str]| {
        let name = name.as_str()?;
        all.iter().copied().find(|it| *it == name)
    };
    Some(TlsFacts {
        version: known(&facts["version"], &VERSIONS)?,
        cipher: known(&facts["cipher"], &CIPHERS),
        group: known(&facts["group"], &GROUPS),
        sni: text(&facts["sni"]).map(Into::into),
        alpn: text(&facts["alpn"]).map(Into::into),
        resumed: facts["resumed"].as_bool().unwrap_or(false),
    })
}

fn identity(facts: &Value) -> Option<Identity> {
    let digest = text(&facts["sha256"])?;
    let is_digit = |c: char| matches!(c, '0'..='9' | 'a'..='f');
    if digest.len() != 64 || !digest.chars().all(is_digit) {
        return None;
    }
    let all = |names: &Value| {
        let names = names.as_array().into_iter().flatten();
        names.filter_map(text).map(str::to_owned).collect()
    };
    Some(Identity {
        uri: all(&facts["uri"]),
        dns: all(&facts["dns"]),
        cn: text(&facts["cn"]).map(str::to_owned),
        ou: all(&facts["ou"]),
        sha256: digest.to_owned(),
    })
}

/// Without control characters, which could forge lines of a log.
fn text(value: &Value) -> Option<&str> {
    value
        .as_str()
        .filter(|text| !text.contains(char::is_control))
}

const FACTS: &str = "vestibule-facts";
/// As [`Id::short`](crate::id::Id::short).
const SHORT: usize = 8;
const VERSIONS: [&str; 2] = ["1.2", "1.3"];
/// The suites and groups of rustls with AWS-LC.
const CIPHERS: [&str; 9] = [
    "TLS13_AES_256_GCM_SHA384",
    "TLS13_AES_128_GCM_SHA256",
    "TLS13_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];
const GROUPS: [&str; 6] = [
    "X25519",
    "secp256r1",
    "secp384r1",
    "X25519MLKEM768",
    "secp256r1MLKEM768",
    "MLKEM768",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Facts;

    fn told(json: &str) -> Option<Told> {
        let mut headers = HeaderMap::new();
        headers.insert(FACTS, json.parse().expect("a header"));
        Told::of(&headers)
    }

    #[test]
    fn the_facts_of_a_front_are_read_as_it_has_written_them() {
        let mut facts = Facts::new("app");
        facts.peer = Some(Endpoint::Tcp("192.0.2.7:51234".parse().expect("one")));
        facts.local = Some(Endpoint::Unix("/run/front.sock".into()));
        facts.tls = Some(TlsFacts {
            version: "1.3",
            cipher: Some(CIPHERS[0]),
            group: Some("X25519"),
            sni: Some("app.example".into()),
            alpn: Some("h2".into()),
            resumed: true,
        });
        let identity = Identity {
            uri: vec!["spiffe://corp/web".into()],
            cn: Some("web".into()),
            sha256: "ab".repeat(32),
            ..Identity::default()
        };
        facts.identity = Some(identity.clone().into());
        let told = told(&facts.to_json()).expect("facts");
        let written = Told {
            id: Some(facts.id.to_string()[..8].to_owned()),
            peer: facts.peer,
            local: facts.local,
            tls: facts.tls,
            identity: Some(identity),
        };
        assert_eq!(format!("{told:?}"), format!("{written:?}"));
    }

    #[test]
    fn what_a_front_says_wrongly_is_not_known() {
        for json in ["", "[]", "null", "7", "{", "\"facts\""] {
            assert!(told(json).is_none(), "{json}");
        }
        assert!(Told::of(&HeaderMap::new()).is_none());
        let deep = format!("{}{}", "[".repeat(8000), "]".repeat(8000));
        assert!(told(&deep).is_none());
        let nothing = format!("{:?}", Told::default());
        for json in [
            "{}",
            r#"{"id":7,"peer":{},"local":[],"tls":true,"identity":"alice"}"#,
            r#"{"peer":"nowhere","local":"1.2.3.4","tls":{"version":"9"},"identity":{"cn":"a"}}"#,
            r#"{"peer":"unix:/a\nb","id":"a\u001bb","identity":{"sha256":"AB"}}"#,
        ] {
            let told = told(json).expect("an object");
            assert_eq!(format!("{told:?}"), nothing, "{json}");
        }
    }
}
