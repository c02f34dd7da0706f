//! Opens a tunnel to a front: looks up its name, connects, performs the handshake, and begins HTTP/2.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::AlertDescription;

use crate::active_config::{ActiveJoin, TroubleKind};
use crate::address::Address;
use crate::backend::carrier::{Carrier, Refusal};
use crate::backend::dial::{Place, connect_tcp, connect_unix, look_up};
use crate::backend::dial_error::DialError;
use crate::deadline::Deadline;
use crate::sys::socket::Socket;
use crate::tls::connect_error::ConnectError;
use crate::tunnel::{CarrierError, Driver, Originated};

/// A tunnel to a front.
pub(super) struct Dialled {
    pub requests: Originated,
    pub driver: Driver<Carrier>,
    /// That the front refuses our certificate arrives after the handshake.
    pub refusal: Refusal,
}

/// Why there is no tunnel to a front.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoTunnel {
    #[error("its name cannot be looked up: {0}")]
    Nameless(io::Error),
    #[error("its name has no address")]
    Nowhere,
    #[error("cannot connect: {0}")]
    Unreachable(io::Error),
    #[error("this process or this machine has no free descriptor")]
    Exhausted,
    #[error("no answer within {}", humantime::format_duration(BUDGET))]
    Silent,
    #[error("its certificate is not accepted: {0}")]
    Untrusted(ConnectError),
    #[error(
        "it does not accept our certificate (`join.tls.certificate`; {0:?}); its listener has to have the authority \
         of the certificate in `client_ca`"
    )]
    RefusesUs(AlertDescription),
    #[error(
        "it denies access (AccessDenied): its listener needs `[listener.tunnel]` with `workers = true` and the ALPN of \
         `[join.tls]`, and must not have revoked our certificate"
    )]
    DeniesUs,
    #[error("no TLS connection: {0}")]
    Failed(ConnectError),
    #[error(
        "it speaks another protocol; its listener needs `[listener.tunnel]` with `workers = true` and the ALPN of \
         `[join.tls]`"
    )]
    OtherProtocol,
    // The alert by which a front refuses us may be lost with the connection.
    #[error("HTTP/2 cannot begin: {0}; see whether the front accepts our certificate")]
    Broken(CarrierError),
}

impl NoTunnel {
    /// By an alert of the front.
    pub(super) fn refused(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::AccessDenied => Self::DeniesUs,
            alert => Self::RefusesUs(alert),
        }
    }

    /// Whether another attempt fails as well until somebody changes a certificate or a configuration.
    pub(super) fn is_about_configuration(&self) -> bool {
        match self {
            Self::Untrusted(_) | Self::RefusesUs(_) | Self::DeniesUs | Self::OtherProtocol => true,
            Self::Nameless(_)
            | Self::Nowhere
            | Self::Unreachable(_)
            | Self::Exhausted
            | Self::Silent
            | Self::Failed(_)
            | Self::Broken(_) => false,
        }
    }

    /// Whether the front may have been about to give a reason: a restart cuts what is under way, and the alert by which
    /// a front refuses us may be lost.
    pub(super) fn is_unclear(&self) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Failed(error) => matches!(error, ConnectError::Closed | ConnectError::Failed(_)),
            Self::Nameless(_)
            | Self::Nowhere
            | Self::Unreachable(_)
            | Self::Exhausted
            | Self::Silent
            | Self::Untrusted(_)
            | Self::RefusesUs(_)
            | Self::DeniesUs
            | Self::OtherProtocol => false,
        }
    }

    pub(super) fn kind(&self) -> TroubleKind {
        match self {
            Self::Nameless(_) | Self::Nowhere => TroubleKind::Name,
            Self::Unreachable(_) | Self::Silent => TroubleKind::Away,
            Self::Exhausted => TroubleKind::Exhausted,
            Self::Untrusted(_) => TroubleKind::ItsCertificate,
            Self::RefusesUs(_) | Self::DeniesUs | Self::Broken(_) => TroubleKind::OurCertificate,
            Self::Failed(_) => TroubleKind::NoTls,
            Self::OtherProtocol => TroubleKind::Protocol,
        }
    }
}

/// Tries the addresses of the front one after the other, with an equal share of the time for each.
pub(super) async fn dial(
    join: Arc<ActiveJoin>,
    front: usize,
    unacknowledged: Option<Duration>,
) -> Result<Box<Dialled>, NoTunnel> {
    let address = &join.fronts[front].address;
    let deadline = Deadline::after(BUDGET);
    let places = match Place::of(address) {
        Some(place) => vec![place],
        None => match deadline.bound(look_up(address)).await {
            Ok(places) => places.map_err(NoTunnel::Nameless)?,
            Err(_) => return Err(NoTunnel::Silent),
        },
    };
    let mut last = NoTunnel::Nowhere;
    let count = places.len();
    for (index, place) in places.into_iter().enumerate() {
        let share = deadline
            .remaining()
            .map(|left| left / (count - index) as u32);
        let attempt = attempt(&join, address, &place, unacknowledged);
        match Deadline::after(share).bound(attempt).await {
            Ok(Ok(dialled)) => return Ok(dialled),
            Ok(Err(error)) => last = error,
            Err(_) => last = NoTunnel::Silent,
        }
    }
    Err(last)
}

async fn attempt(
    join: &ActiveJoin,
    address: &Address,
    place: &Place,
    unacknowledged: Option<Duration>,
) -> Result<Box<Dialled>, NoTunnel> {
    let socket = connect(place, unacknowledged).await?;
    // Boxed: it is large, and there once for each tunnel.
    let connected = Box::pin(join.connector.connect(address, socket)).await;
    let (connected, server) = connected.map_err(refused)?;
    if !server.has_agreed {
        return Err(NoTunnel::OtherProtocol);
    }
    let carrier =
        Carrier::new(connected).map_err(|error| NoTunnel::Failed(ConnectError::Failed(error)));
    let (carrier, refusal) = carrier?;
    let begun = Originated::begin(carrier, MOST_STREAMS as u32).await;
    let (requests, driver) = begun.map_err(|error| match refusal.get() {
        Some(alert) => NoTunnel::refused(*alert),
        None => NoTunnel::Broken(error),
    })?;
    Ok(Box::new(Dialled {
        requests,
        driver,
        refusal,
    }))
}

async fn connect(place: &Place, unacknowledged: Option<Duration>) -> Result<Socket, NoTunnel> {
    let connected = match place {
        Place::Unix(path) => connect_unix(path),
        Place::Tcp(address) => connect_tcp(*address, unacknowledged).await,
    };
    connected.map_err(|error| match error {
        DialError::Down(error) => NoTunnel::Unreachable(error),
        DialError::Exhausted => NoTunnel::Exhausted,
        _ => NoTunnel::Unreachable(io::ErrorKind::WouldBlock.into()),
    })
}

fn refused(error: ConnectError) -> NoTunnel {
    match error {
        ConnectError::RefusedUs(alert) => NoTunnel::refused(alert),
        ConnectError::NoProtocol => NoTunnel::OtherProtocol,
        error if error.is_about_trust() => NoTunnel::Untrusted(error),
        error => NoTunnel::Failed(error),
    }
}

/// From the look-up of the name to the end of the handshake.
const BUDGET: Duration = Duration::from_secs(10);
/// The streams of one tunnel, if the front allows as many: the windows of all are within that of the tunnel.
pub(super) const MOST_STREAMS: usize = 100;
