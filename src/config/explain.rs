//! Where a client would get to, and why.

use std::fmt::{self, Write};
use std::net::IpAddr;

use super::summary::{Shown, Target};
use super::{Config, Listener};
use crate::active_config::{Agreed, agree};
use crate::identity::Identity;
use crate::route::{Expecting, Query, RouteRefusal};
use crate::tls::AcceptorSettings;
use crate::tls::client_auth::{ClientAuth, Demand};

/// A client that might come.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The listener's name; `None` asks about each.
    pub listener: Option<String>,
    /// The server name that it asks for; who connects to an IP address asks for none.
    pub sni: Option<String>,
    /// The application protocol that it names.
    pub alpn: Option<String>,
    /// Its address.
    pub from: Option<IpAddr>,
    /// A name in its certificate, as in `cn:alice`; `None` shows none.
    pub identity: Option<String>,
}

/// What is wrong with a [`Question`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuestionError {
    /// There is no such listener.
    #[error("no listener has the name {0:?}; known: {1}")]
    Listener(String, String),
    /// It is no name that a certificate has.
    #[error(
        "{0:?} is not a name in a certificate; write one that starts with `uri:`, `dns:`, `cn:`, \
         `ou:` or `sha256:`"
    )]
    Identity(String),
    /// Its server name is an IP address (RFC 6066 §3).
    #[error(
        "{0} is an IP address, and clients that connect to one send no server name; leave \
     --sni out"
    )]
    Sni(IpAddr),
}

impl Config {
    /// Says where a client would get to, in several lines; their form may change.
    ///
    /// # Errors
    ///
    /// The question names what there is not.
    pub fn explain(&self, question: &Question) -> Result<String, QuestionError> {
        // A handshake goes on as if it was not said.
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
            // A String takes whatever is written.
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

    /// In the order of a handshake: the certificate, the protocol, and then who the client is.
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
            // Before it is known who it is.
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

    /// With what the handshake has ended with, if it has.
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
