//! From a stream to a client with known facts and a chosen backend.

use std::sync::Arc;
use std::time::Instant;

use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::asked::asked_for;
use super::measures;
use super::proxy_header::{ReadError, read};
use super::teardown::Remains;
use super::termination::{Rejection, Termination, Wanted};
use super::{Accepted, Admitted, Carrier, Failed, Reserved};
use crate::active_config::{ActiveConfig, Agreed, ListenerConfig, NotAdmitted, agree};
use crate::backend::ActiveBackend;
use crate::client::{Client, Transport};
use crate::deadline::Deadline;
use crate::facts::{Endpoint, Facts};
use crate::ledger::LedgerRecord;
use crate::limits::{FirstStage, Place};
use crate::proxy_protocol::Origin;
use crate::proxy_state::ProxyState;
use crate::residue;
use crate::route::{Expecting, Query, RouteRefusal};
use crate::tls::{self, Beginning, HandshakeError, Hello, Peer, Protocol, Secured, TlsAcceptor};
use crate::tunnel::TunnelSettings;

/// A client that was admitted.
pub(super) enum Entered {
    /// It waits for its backend.
    Client(Box<Admitted>),
    /// It brings a tunnel.
    Carrier(Box<Carrier>),
}

/// Admits a client, unless its connection is ended meanwhile.
pub(super) async fn admit(
    accepted: Box<Accepted>,
    state: &ProxyState,
) -> Result<Entered, Box<Failed>> {
    let (mut admission, transport) = Admission::of(accepted, state);
    let entry = Arc::clone(admission.record.entry());
    let admitted = tokio::select! {
        biased;
        admitted = Box::pin(admission.admit(transport)) => {
            admitted.map_err(|(remains, rejection)| (remains, Termination::Rejected(rejection)))
        }
        cause = entry.ended() => Err((Remains::Nothing, Termination::Ended(cause))),
    };
    let Admission {
        config,
        listener,
        lifetime,
        place,
        reserved,
        mut record,
        ..
    } = admission;
    match admitted {
        Ok((mut client, Destination::Backend(backend))) => {
            record.routed(backend.name(), client.side_name());
            Ok(Entered::Client(Box::new(Admitted {
                client,
                backend,
                timeouts: config.timeouts,
                lifetime,
                _place: place,
                reserved,
                record,
            })))
        }
        Ok((client, Destination::Streams(settings))) => {
            record.carries();
            Ok(Entered::Carrier(Box::new(Carrier {
                io: client.into_carrier(),
                settings,
                config,
                listener,
                lifetime,
                reserved,
                record,
            })))
        }
        Err((remains, termination)) => Err(Box::new(Failed {
            remains,
            termination,
            reserved,
            record,
        })),
    }
}

/// The state of an admission in progress.
struct Admission<'a> {
    state: &'a ProxyState,
    config: Arc<ActiveConfig>,
    listener: Arc<ListenerConfig>,
    lifetime: Deadline,
    deadline: Deadline,
    place: Place,
    reserved: Reserved,
    record: LedgerRecord,
}

/// Where a client goes.
enum Destination {
    Backend(Arc<ActiveBackend>),
    /// It brings a tunnel, and each of its streams has a backend of its own.
    Streams(TunnelSettings),
}

/// What is left of a client that was not admitted, and why.
type Rejected = (Remains, Rejection);

impl<'a> Admission<'a> {
    // Moving out of a boxed argument in place would keep the box until the client is admitted.
    fn of(accepted: Box<Accepted>, state: &'a ProxyState) -> (Self, Transport) {
        let Accepted {
            config,
            listener,
            transport,
            permit,
            place,
            record,
        } = *accepted;
        let lifetime = Deadline::of_lifetime(config.timeouts.lifetime);
        let admission = Self {
            state,
            lifetime,
            deadline: Deadline::after(config.timeouts.handshake).earlier(lifetime),
            config,
            listener,
            place,
            reserved: Reserved {
                permit,
                _share: None,
                _lease: None,
            },
            record,
        };
        (admission, transport)
    }

    async fn admit(&mut self, mut transport: Transport) -> Result<(Client, Destination), Rejected> {
        let nothing_is_left = |rejection| (Remains::Nothing, rejection);
        let listener = Arc::clone(&self.listener);
        let received = self.first_bytes(&mut transport, &listener).await;
        let received = received.map_err(nothing_is_left)?;
        let is_stream = matches!(transport, Transport::Tunnel(_));
        if listener.proxies.is_some() && !is_stream {
            match self.introduce(&mut transport).await {
                Err(rejection @ Rejection::Header(_)) => {
                    return Err((Remains::Transport(transport), rejection));
                }
                introduced => introduced.map_err(nothing_is_left)?,
            }
        }
        let client = match &listener.tls {
            Some(acceptor) if !is_stream => self.secure(transport, received, acceptor).await?,
            Some(_) | None => Client::plain(transport),
        };
        let destination = match listener.tunnel(&self.record.facts()) {
            Some(settings) => self.welcome_carrier(settings.clone()),
            None => self.welcome().map(Destination::Backend),
        };
        match destination {
            Ok(destination) => Ok((client, destination)),
            Err(rejection) => Err((Remains::Client(client), rejection)),
        }
    }

    /// Waits for the first byte of a handshake. Until then the connection may be closed to make
    /// room for others. Returns what was read, if the handshake can begin with that.
    async fn first_bytes(
        &mut self,
        transport: &mut Transport,
        listener: &ListenerConfig,
    ) -> Result<Vec<u8>, Rejection> {
        let Place::Handshaking(place) = &self.place else {
            return Ok(Vec::new());
        };
        let most = match (&listener.tls, &listener.proxies) {
            (Some(acceptor), None) => acceptor.reads_ahead(),
            _ => None,
        };
        let mut received = Vec::new();
        let spoken = tokio::select! {
            biased;
            first = self.deadline.bound(transport.first_bytes(most)) => match first {
                Ok(first) => {
                    // If this is an error, the handshake meets the end and reports it.
                    received = first.unwrap_or_default();
                    place.speaks()
                }
                Err(_) => return Err(Rejection::TimedOut(self.deadline.scope())),
            },
            () = place.closed() => place.speaks(),
        };
        spoken.map_err(Rejection::OverLimit)?;
        Ok(received)
    }

    /// Takes the PROXY protocol header off the stream, and counts the connection for the client
    /// that it names.
    async fn introduce(&mut self, transport: &mut Transport) -> Result<(), Rejection> {
        let origin = match self.deadline.bound(read(transport)).await {
            Ok(Ok(origin)) => origin,
            Ok(Err(ReadError::Refused(cause))) => return Err(Rejection::Header(cause)),
            Ok(Err(ReadError::Gone)) => return Err(Rejection::Gone),
            Err(_) => return Err(Rejection::TimedOut(self.deadline.scope())),
        };
        if let Origin::Client {
            source,
            destination,
        } = origin
        {
            self.record.readdressed(source, destination);
        }
        self.record.introduced();
        let ip = self.record.facts().peer_ip();
        let (permit, first) = (&mut self.reserved.permit, self.listener.first_stage());
        let counted = self.state.limits.count(permit, &mut self.place, ip, first);
        counted.map_err(Rejection::OverLimit)
    }

    /// Performs the handshake. It goes on only if a route may accept the client. `received` is what
    /// was read of it already.
    async fn secure(
        &mut self,
        transport: Transport,
        received: Vec<u8>,
        acceptor: &TlsAcceptor,
    ) -> Result<Client, Rejected> {
        let facts = self.record.facts();
        let beginning = Beginning {
            io: transport,
            received,
            local: facts.local.as_ref().and_then(Endpoint::ip),
        };
        // Set if nobody has what the client asks for.
        let mut asked = None;
        let choose = |hello: &Hello<'_>| self.choose(hello, &facts, acceptor, &mut asked);
        let began = Instant::now();
        let secured = acceptor.accept_from(beginning, self.deadline, choose).await;
        drop(facts);
        let metrics = &self.state.ledger.metrics;
        measures::shaken(metrics, &self.listener.name, &secured, began.elapsed());
        let secured = secured.map_err(|error| self.rejected(error, asked))?;
        let Secured {
            facts,
            peer,
            session,
        } = secured;
        let client = Client::secured(session).map_err(|transport| {
            let unknown = Rejection::Handshake(tls::unknown_suite());
            (Remains::Transport(transport), unknown)
        })?;
        residue::wipe();
        self.record.secured(facts);
        if let Some(Peer { identity, chain }) = peer {
            self.record.identified(identity, chain);
        }
        Ok(client)
    }

    fn rejected(
        &self,
        error: HandshakeError<Transport, RouteRefusal>,
        asked: Option<Box<str>>,
    ) -> Rejected {
        let asked = asked.unwrap_or_default();
        match error {
            HandshakeError::NotTls(transport) => (Remains::Transport(transport), Rejection::NotTls),
            HandshakeError::Failed(rustls::Error::NoApplicationProtocol, transport) => {
                let refused = Rejection::Hello(Wanted::Protocol, asked);
                (Remains::Transport(transport), refused)
            }
            HandshakeError::Failed(cause, transport) => {
                (Remains::Transport(transport), Rejection::Handshake(cause))
            }
            HandshakeError::Refused(refusal, transport) => {
                let refused = Rejection::Hello(Wanted::Route(refusal), asked);
                (Remains::Transport(transport), refused)
            }
            HandshakeError::Gone => (Remains::Nothing, Rejection::Gone),
            HandshakeError::TimedOut => {
                let timed_out = Rejection::TimedOut(self.deadline.scope());
                (Remains::Nothing, timed_out)
            }
        }
    }

    /// Selects the protocol (ALPN) for which a route exists.
    fn choose(
        &self,
        hello: &Hello<'_>,
        facts: &Facts,
        acceptor: &TlsAcceptor,
        asked: &mut Option<Box<str>>,
    ) -> Result<Option<Protocol>, RouteRefusal> {
        let query = Query {
            listener: &self.listener.name,
            sni: hello.server_name(),
            alpn: None,
            peer: facts.peer_ip(),
            identity: None,
            authority: None,
        };
        let expecting = match acceptor.asks_for_certificates() {
            true => Expecting::Somebody,
            false => Expecting::Nobody,
        };
        let (alpn, routes) = (acceptor.alpn(), &self.config.routes);
        // Each stream of a tunnel has its own route.
        let of_tunnel = self.listener.tunnel.as_ref();
        let of_tunnel = of_tunnel.and_then(|it| alpn.agreed(&it.alpn, &hello.protocols()));
        if of_tunnel.is_some() {
            return Ok(of_tunnel);
        }
        let agreed = agree(alpn, &hello.protocols(), routes, &query, expecting);
        if matches!(agreed, Err(_) | Ok(Agreed::Nothing)) {
            *asked = Some(asked_for(hello, alpn));
        }
        match agreed? {
            Agreed::On(protocol) => Ok(Some(protocol)),
            // rustls can tell these two apart, and sends the alert.
            Agreed::OnNone | Agreed::Nothing => Ok(None),
        }
    }

    /// Checks a client that brings a tunnel. From now on its streams count against the limits, and it counts among
    /// the tunnels, which have limits of the same size.
    fn welcome_carrier(&mut self, settings: TunnelSettings) -> Result<Destination, Rejection> {
        let (facts, chain) = (self.record.facts(), self.record.entry().chain());
        let chain = chain.as_deref().unwrap_or_default();
        let latest = self.state.config.load();
        if !Arc::ptr_eq(&latest, &self.config) && latest.has_listener(&facts) {
            let verified = latest.verify(&facts, chain);
            verified.map_err(|error| Rejection::NotAdmitted(NotAdmitted::Certificate(error)))?;
        }
        self.is_not_revoked(&facts, chain)?;
        let tunnels = &self.state.tunnels;
        let admitted = tunnels.admit(facts.peer_ip(), FirstStage::Backend);
        let (permit, place) = admitted.map_err(Rejection::OverLimit)?;
        let identity = facts.identity.as_ref();
        let share = identity.map(|it| tunnels.admit_identity(it));
        let share = share.transpose().map_err(Rejection::OverLimit)?;
        drop(place);
        self.place = Place::None;
        self.reserved = Reserved {
            permit,
            _share: share,
            _lease: None,
        };
        Ok(Destination::Streams(settings))
    }

    /// Checks a client whose facts are complete against the latest configuration and the limits.
    fn welcome(&mut self) -> Result<Arc<ActiveBackend>, Rejection> {
        // The ledger has the facts before the latest configuration is loaded: a reload in between
        // finds them there.
        let (facts, chain) = (self.record.facts(), self.record.entry().chain());
        let chain = chain.as_deref().unwrap_or_default();
        let latest = self.state.config.load();
        // If a reload has removed the listener, the rules that it was accepted with remain valid.
        let is_as_it_was = Arc::ptr_eq(&latest, &self.config)
            || !latest.listeners.contains_key(&self.listener.name);
        let backend = match is_as_it_was {
            true => self.config.route(&facts).map_err(NotAdmitted::Route),
            false => latest.admit(&facts, chain),
        };
        let backend = Arc::clone(backend.map_err(Rejection::NotAdmitted)?);
        let limits = &self.state.limits;
        let identity = facts.identity.as_ref();
        self.is_not_revoked(&facts, chain)?;
        let share = identity.map(|it| limits.admit_identity(it));
        self.reserved._share = share.transpose().map_err(Rejection::OverLimit)?;
        if let Place::Handshaking(_) = self.place {
            self.place = Place::Pending(limits.wait().map_err(Rejection::OverLimit)?);
        }
        Ok(backend)
    }
    /// Asked after the ledger has the identity, where a revocation looks for it.
    fn is_not_revoked(
        &self,
        facts: &Facts,
        chain: &[CertificateDer<'static>],
    ) -> Result<(), Rejection> {
        let identity = facts.identity.as_ref();
        match identity.and_then(|it| self.state.revocations.find(it, chain)) {
            Some(revoked) => Err(Rejection::Revoked(revoked)),
            None => Ok(()),
        }
    }
}
