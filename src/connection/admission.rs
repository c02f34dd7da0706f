//! From a socket to a client whose facts are known and whose backend is chosen.

use std::sync::Arc;

use tokio_rustls::rustls::{self, AlertDescription};
use tracing::debug;

use super::origin::Introduction;
use crate::active_config::{ActiveConfig, Agreed, ListenerConfig, NotAdmitted, agree};
use crate::backend::Backend;
use crate::client::{self, Client};
use crate::deadline::Deadline;
use crate::facts::{Endpoint, Facts};
use crate::ledger::{Reason, Record};
use crate::limits::{Exceeded, IdentityShare, Permit, Place, Slot};
use crate::outcome::Outcome;
use crate::proxy_state::ProxyState;
use crate::residue;
use crate::route::{Expecting, Query, Refusal};
use crate::sys::socket::Socket;
use crate::tls::words::words;
use crate::tls::{self, HandshakeError, Hello, Peer, Protocol, TlsAcceptor};

/// A client that was let in, and to whom.
pub(super) struct Admitted {
    pub client: Client,
    pub backend: Arc<Backend>,
    /// Its place among the connections of whoever it is.
    pub share: Option<IdentityShare>,
    /// Its place among those that wait for a backend.
    pub pending: Slot,
}

/// Why a client was not let in.
pub(super) enum Refused {
    /// Before its first byte, and it has been closed.
    Introduction(Outcome),
    /// There was no handshake, or not to its end.
    Handshake(HandshakeError<Socket, Refusal>),
    /// Whoever it is may not come in.
    NotAdmitted(Client, NotAdmitted),
    /// Whoever it is has been let in too often.
    OverLimit(Client, Exceeded),
}

/// What it takes to let a client in, and what becomes known of it.
pub(super) struct Admission<'a> {
    pub deadline: Deadline,
    pub config: &'a Arc<ActiveConfig>,
    pub listener: &'a ListenerConfig,
    pub state: &'a ProxyState,
    pub facts: &'a mut Facts,
    pub permit: &'a mut Permit,
    pub place: Place,
    pub record: &'a mut Record,
}

impl Admission<'_> {
    pub(super) async fn admit(mut self, mut socket: Socket) -> Result<Admitted, Refused> {
        self.first_byte(&socket).await?;
        if self.listener.proxies.is_some() {
            socket = self.introduction().hear(socket).await?;
        }
        let Some(acceptor) = &self.listener.tls else {
            return match self.config.route(self.facts) {
                Ok(backend) => self.admitted(Client::plain(socket), backend, None),
                Err(reason) => Err(Refused::NotAdmitted(
                    Client::plain(socket),
                    NotAdmitted::Route(reason),
                )),
            };
        };
        let (client, peer) = self
            .secure(socket, acceptor)
            .await
            .map_err(Refused::Handshake)?;
        if let Some(Peer { identity, chain }) = peer {
            self.facts.identity = Some(identity);
            // Before the latest config is asked: a reload that comes between would find it there.
            self.record.identify(self.facts.clone(), chain);
        }
        self.welcome(client)
    }

    /// Waits until the client of a handshake says something: until then it may have to make room.
    async fn first_byte(&mut self, socket: &Socket) -> Result<(), Refused> {
        let Place::Handshaking(place) = &self.place else {
            return Ok(());
        };
        let spoken = tokio::select! {
            biased;
            spoken = self.deadline.bound(socket.first_byte()) => match spoken {
                // What became of the socket is heard where it is read.
                Ok(_) => place.speaks(),
                Err(_) => return Err(Refused::Introduction(Outcome::HandshakeTimeout)),
            },
            () = place.closed() => place.speaks(),
        };
        spoken.map_err(|limit| {
            debug!(limit = limit.key(), "connection closed to make room");
            self.record.because(Reason::OverLimit(limit.key()), None);
            Refused::Introduction(Outcome::OverLimit)
        })
    }

    fn introduction(&mut self) -> Introduction<'_> {
        Introduction {
            deadline: self.deadline,
            facts: self.facts,
            permit: self.permit,
            place: &mut self.place,
            record: self.record,
            limits: &self.state.limits,
            begins: self.listener.begins(),
        }
    }

    /// The handshake, which goes on only where a route could come to take the client.
    async fn secure(
        &mut self,
        socket: Socket,
        acceptor: &TlsAcceptor,
    ) -> Result<(Client, Option<Peer>), HandshakeError<Socket, Refusal>> {
        let local = self.facts.local.as_ref().and_then(Endpoint::ip);
        let of_address = acceptor.at(local);
        let acceptor = of_address.as_ref().unwrap_or(acceptor);
        let choose = |hello: &Hello<'_>| self.choose(hello, acceptor);
        let secured = acceptor.accept(socket, self.deadline, choose).await?;
        self.facts.tls = Some(secured.facts);
        let client = Client::secured(secured.session)
            .map_err(|socket| HandshakeError::Failed(tls::unknown_suite(), socket))?;
        residue::wipe();
        Ok((client, secured.peer))
    }

    /// The protocol that a route could serve the client with.
    fn choose(
        &self,
        hello: &Hello<'_>,
        acceptor: &TlsAcceptor,
    ) -> Result<Option<Protocol>, Refusal> {
        let query = Query {
            listener: &self.listener.name,
            sni: hello.server_name(),
            alpn: None,
            peer: self.facts.peer_ip(),
            identity: None,
        };
        let expecting = match acceptor.asks_for_certificates() {
            true => Expecting::Somebody,
            false => Expecting::Nobody,
        };
        let (alpn, routes) = (acceptor.alpn(), &self.config.routes);
        match agree(alpn, &hello.protocols(), routes, &query, expecting)? {
            Agreed::On(protocol) => Ok(Some(protocol)),
            // Of the two rustls knows which it is, and has the alert.
            Agreed::OnNone | Agreed::Nothing => Ok(None),
        }
    }

    /// Asks the latest config, and the limits, about a client whose handshake is done.
    fn welcome(self, client: Client) -> Result<Admitted, Refused> {
        let latest = self.state.config.load();
        let chain = self.record.known().map_or(&[][..], |known| &known.chain);
        // Of a listener that a reload has removed there are no later rules.
        let is_as_it_was = Arc::ptr_eq(&latest, self.config)
            || !latest.listeners.contains_key(&self.listener.name);
        let backend = match is_as_it_was {
            true => self.config.route(self.facts).map_err(NotAdmitted::Route),
            false => latest.admit(self.facts, chain),
        };
        let backend = match backend {
            Ok(backend) => backend,
            Err(unwelcome) => return Err(Refused::NotAdmitted(client, unwelcome)),
        };
        let identity = self.facts.identity.as_ref();
        let share = identity.map(|it| self.state.limits.admit_identity(it));
        match share.transpose() {
            Ok(share) => self.admitted(client, backend, share),
            Err(exceeded) => Err(Refused::OverLimit(client, exceeded)),
        }
    }

    /// A client that waits for its backend, if there is room.
    fn admitted(
        self,
        client: Client,
        backend: &Arc<Backend>,
        share: Option<IdentityShare>,
    ) -> Result<Admitted, Refused> {
        let pending = match self.place {
            Place::Pending(slot) => Ok(slot),
            Place::Handshaking(_) => self.state.limits.wait(),
        };
        let pending = match pending {
            Ok(pending) => pending,
            Err(exceeded) => return Err(Refused::OverLimit(client, exceeded)),
        };
        self.facts.backend = backend.name().to_owned();
        Ok(Admitted {
            client,
            backend: Arc::clone(backend),
            share,
            pending,
        })
    }
}

impl Refused {
    /// Ends the connection, with time for the alert to arrive, and says what that is called.
    pub(super) async fn outcome(self, record: &Record) -> Outcome {
        let (socket, outcome) = match self {
            Self::Introduction(outcome) => return outcome,
            Self::Handshake(HandshakeError::NotTls(socket)) => (socket, Outcome::NotTls),
            Self::Handshake(HandshakeError::Failed(cause, socket)) => {
                debug!(cause = %words(&cause), "handshake failed");
                record.because(reason(&cause), Some(&words(&cause)));
                (socket, Outcome::HandshakeFailed)
            }
            Self::Handshake(HandshakeError::Refused(refusal, socket)) => {
                (socket, NotAdmitted::Route(refusal).outcome())
            }
            Self::Handshake(HandshakeError::Gone) => return Outcome::ClientGone,
            Self::Handshake(HandshakeError::TimedOut) => return Outcome::HandshakeTimeout,
            Self::NotAdmitted(client, unwelcome) => {
                let alert = match &unwelcome {
                    NotAdmitted::Route(_) => AlertDescription::AccessDenied,
                    NotAdmitted::Certificate(cause) => {
                        debug!(cause = %words(cause), "certificate refused");
                        record.because(Reason::Certificate, Some(&words(cause)));
                        tls::alert(cause)
                    }
                };
                client.refuse(alert).await;
                return unwelcome.outcome();
            }
            Self::OverLimit(client, limit) => {
                debug!(limit = limit.key(), "connection refused");
                record.because(Reason::OverLimit(limit.key()), None);
                client.refuse(AlertDescription::AccessDenied).await;
                return Outcome::OverLimit;
            }
        };
        client::close(socket).await;
        outcome
    }
}

/// What a failed handshake is called in the log.
fn reason(cause: &rustls::Error) -> Reason {
    match cause {
        rustls::Error::InvalidCertificate(_)
        | rustls::Error::InvalidCertRevocationList(_)
        | rustls::Error::NoCertificatesPresented => Reason::Certificate,
        rustls::Error::AlertReceived(_) => Reason::ClientRefused,
        _ => Reason::Handshake,
    }
}
