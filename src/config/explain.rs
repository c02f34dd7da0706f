//! Explains which certificate, route and backend a client would get.

use std::fmt::{self, Write};
use std::net::IpAddr;

use super::summary::{Shown, Target};
use super::{Config, Listener};
use crate::active_config::{Agreed, agree};
use crate::identity::Identity;
use crate::route::{Expecting, Query, RouteRefusal};
use crate::tls::AcceptorSettings;
use crate::tls::client_auth::{ClientAuth, Demand};

/// A hypothetical client, for [`Config::explain`].
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The name of the listener. `None` asks about every listener.
    pub listener: Option<String>,
    /// The server name (SNI). Clients that connect to an IP address send none.
    pub sni: Option<String>,
    /// The application protocol (ALPN) that the client offers.
    pub alpn: Option<String>,
    /// The client's IP address.
    pub from: Option<IpAddr>,
    /// A name in the client's certificate, such as `cn:alice`. `None`: the client shows no certificate.
    pub identity: Option<String>,
}

/// Why a [`Question`] cannot be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuestionError {
    /// The configuration has no such listener. The second string lists the known names.
    #[error("no listener has the name {0:?}; known: {1}")]
    Listener(String, String),
    /// The identity is not in the form of a certificate's name.
    #[error(
        "{0:?} is not a name in a certificate; write one that starts with `uri:`, `dns:`, `cn:`, \
         `ou:` or `sha256:`"
    )]
    Identity(String),
    /// The server name is an IP address; clients do not send those (RFC 6066 §3).
    #[error(
        "{0} is an IP address, and clients that connect to one send no server name; leave \
     --sni out"
    )]
    Sni(IpAddr),
}

impl Config {
    /// Explains which certificate, route and backend the client would get, in several lines of text.
    /// Their format may change.
    ///
    /// # Errors
    ///
    /// The question names an unknown listener, or an invalid name.
    pub fn explain(&self, question: &Question) -> Result<String, QuestionError> {
        // A handshake ignores an IP address as SNI, so an answer would mislead.
        if let Some(Ok(address)) = question.sni.as_deref().map(str::parse) {
            return Err(QuestionError::Sni(address));
        }
        let identity = match &question.identity {
            Some(name) => {
                Some(Identity::of_name(name).ok_or_else(|| QuestionError::Identity(name.clone()))?)
            }
            None => None,
        };
        let listeners: Vec<&Listener> = match &question.listener {
            None => self.listeners.iter().collect(),
            Some(name) => match self.listeners.iter().find(|it| it.name == *name) {
                Some(listener) => vec![listener],
                None => return Err(self.no_listener(name)),
            },
        };
        let mut text = String::new();
        for listener in listeners {
            // Writing to a String cannot fail.
            let _ = self.explain_listener(&mut text, listener, question, identity.as_ref());
        }
        Ok(text)
    }

    fn no_listener(&self, name: &str) -> QuestionError {
        let names: Vec<&str> = self.listeners.iter().map(|it| it.name.as_str()).collect();
        QuestionError::Listener(name.to_owned(), names.join(", "))
    }

    fn explain_listener(
        &self,
        text: &mut String,
        listener: &Listener,
        question: &Question,
        identity: Option<&Identity>,
    ) -> fmt::Result {
        writeln!(text, "listener {}: {}", listener.name, listener.address)?;
        let query = Query {
            listener: &listener.name,
            peer: question.from.map(|ip| ip.to_canonical()),
            ..Query::default()
        };
        match &listener.tls {
            None => self.explain_route(text, &query, None),
            Some(tls) => {
                let sni = question.sni.as_deref();
                let query = Query { sni, ..query };
                self.explain_handshake(text, tls, &query, question.alpn.as_deref(), identity)
            }
        }
    }

    /// Follows the order of a handshake: the certificate, the protocol, and then the client's identity.
    fn explain_handshake(
        &self,
        text: &mut String,
        tls: &AcceptorSettings,
        query: &Query<'_>,
        named: Option<&str>,
        identity: Option<&Identity>,
    ) -> fmt::Result {
        let Some(certificate) = tls.hosts.shown(query.sni) else {
            return writeln!(
                text,
                "  refused with unrecognized_name: no certificate has this name, and `unknown_sni` \
                 is \"refuse\""
            );
        };
        writeln!(text, "  certificate: {}", Shown(certificate))?;
        let theirs: Vec<&[u8]> = named.map(str::as_bytes).into_iter().collect();
        let demand = tls.client_auth.as_ref().map(ClientAuth::demand);
        let expecting = match demand {
            Some(_) => Expecting::Somebody,
            None => Expecting::Nobody,
        };
        let alpn = match agree(&tls.alpn, &theirs, &self.routes, query, expecting) {
            Ok(Agreed::On(protocol)) => Some(tls.alpn.name(protocol)),
            Ok(Agreed::OnNone) => None,
            Ok(Agreed::Nothing) => {
                return writeln!(
                    text,
                    "  refused with no_application_protocol: the client offers none of \
                     `listener.tls.alpn`"
                );
            }
            // The handshake ends before the client's identity is known.
            Err(refusal) => {
                let alpn = named;
                return self.explain_route(text, &Query { alpn, ..*query }, Some(refusal));
            }
        };
        if named.is_some() {
            writeln!(text, "  protocol: {}", alpn.unwrap_or("none"))?;
        }
        if demand == Some(Demand::Required) && identity.is_none() {
            return writeln!(
                text,
                "  refused with certificate_required: the client shows no certificate"
            );
        }
        let identity = identity.filter(|_| demand.is_some());
        let query = Query {
            alpn,
            identity,
            ..*query
        };
        self.explain_route(text, &query, None)
    }

    /// `refusal` is the result of the handshake, if the handshake ends with one.
    fn explain_route(
        &self,
        text: &mut String,
        query: &Query<'_>,
        refusal: Option<RouteRefusal>,
    ) -> fmt::Result {
        for (index, mismatch) in self.routes.trace(query).into_iter().enumerate() {
            match mismatch {
                Some(key) => writeln!(text, "  route {}: no, `{key}` does not match", index + 1)?,
                None => writeln!(text, "  route {}: yes", index + 1)?,
            }
        }
        match refusal.map_or_else(|| self.routes.choose(query), Err) {
            Ok(name) => {
                let backend = self.backends.iter().find(|it| it.name == name);
                let target = backend.map(|it| Target(it).to_string()).unwrap_or_default();
                writeln!(text, "  backend {name}: {target}")
            }
            Err(RouteRefusal::Denied) => {
                writeln!(text, "  refused with access_denied: `deny = true`")
            }
            Err(RouteRefusal::NoRoute) => {
                writeln!(text, "  refused with access_denied: no route matches")
            }
        }
    }
}
