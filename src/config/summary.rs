//! The summary of a configuration, for people.

use std::fmt;
use std::time::{Duration, SystemTime};

use bytesize::ByteSize;

use super::forecast;
use super::{Config, Listener};
use crate::address::Address;
use crate::backend::{self, To};
use crate::printable::line as printable;
use crate::tls::certs::Certificate;
use crate::tls::chain::{self, Beyond};
use crate::tls::client_auth::{ClientAuth, Demand};
use crate::tls::revocation::List;
use crate::tls::time::Date;
use crate::tls::{AcceptorSettings, MinVersion};

/// The listeners of a configuration with their certificates, and its backends. Displayed as several
/// lines; the format may change.
#[derive(Clone, Copy, Debug)]
pub struct Summary<'a>(&'a Config);

impl<'a> Summary<'a> {
    pub(super) fn of(config: &'a Config) -> Self {
        Self(config)
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(config) = self;
        for listener in &config.listeners {
            write_listener(f, listener)?;
        }
        for settings in &config.backends {
            writeln!(f, "backend {}: {}", settings.name, Target(settings))?;
        }
        for join in &config.joins {
            let fronts: Vec<String> = join.fronts.iter().map(ToString::to_string).collect();
            let to: Vec<String> = join.to.iter().map(ToString::to_string).collect();
            let (fronts, to) = (fronts.join(", "), to.join(", "));
            writeln!(f, "join {fronts}: worker of {}, {to}", join.backend)?;
        }
        write_tunnels(f, config)?;
        match config.runtime.max_memory {
            Some(max) => writeln!(f, "max_memory: {}", ByteSize(max)),
            None => Ok(()),
        }
    }
}

/// How many tables have to do with tunnels, if any has.
fn write_tunnels(f: &mut fmt::Formatter<'_>, config: &Config) -> fmt::Result {
    let tunnels = || config.listeners.iter().filter_map(|it| it.tunnel.as_ref());
    let (of_clients, of_workers) = (tunnels().count(), tunnels().filter(|it| it.workers).count());
    let backends = config.backends.iter();
    let to_backends = backends.clone().filter(|it| it.tunnel.is_some()).count();
    let served = backends.filter(|it| !it.workers.is_empty()).count();
    let joins = config.joins.len();
    let parts = [
        (
            of_clients,
            format!("from clients at {}", counted(of_clients, "listener")),
        ),
        (
            to_backends,
            format!("to {}", counted(to_backends, "backend")),
        ),
        (
            of_workers + served,
            format!(
                "network workers at {} for {}",
                counted(of_workers, "listener"),
                counted(served, "backend")
            ),
        ),
        (joins, counted(joins, "join")),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter_map(|(count, text)| (count > 0).then_some(text))
        .collect();
    match parts.is_empty() {
        true => Ok(()),
        false => writeln!(f, "tunnels: {}", parts.join("; ")),
    }
}

fn counted(count: usize, name: &str) -> String {
    match count {
        1 => format!("1 {name}"),
        count => format!("{count} {name}s"),
    }
}

fn write_listener(f: &mut fmt::Formatter<'_>, listener: &Listener) -> fmt::Result {
    let Listener { name, address, .. } = listener;
    let Some(tls) = &listener.tls else {
        writeln!(f, "listener {name}: {address}, without TLS")?;
        return write_in_use(f, address);
    };
    let least = match tls.min_version {
        MinVersion::Tls12 => "TLS 1.2 and 1.3",
        MinVersion::Tls13 => "TLS 1.3",
    };
    writeln!(f, "listener {name}: {address}, {least}, {}", asks(tls))?;
    write_in_use(f, address)?;
    for certificate in tls.hosts.certificates() {
        writeln!(f, "  certificate: {}", Shown(certificate))?;
        if let Some(beyond) = chain::beyond(certificate.chain()) {
            write_beyond(f, &beyond)?;
        }
    }
    let lists = tls.client_auth.iter().flat_map(ClientAuth::lists);
    for list in lists {
        writeln!(f, "  revocation list: {}", Listed(list))?;
    }
    Ok(())
}

/// Not a warning: before a reload, the running Vestibule is expected to use the address.
fn write_in_use(f: &mut fmt::Formatter<'_>, address: &Address) -> fmt::Result {
    match forecast::in_use(address) {
        Some(who) => writeln!(
            f,
            "  in use now: {who}; a reload of that process works, a new start fails until it has \
             stopped"
        ),
        None => Ok(()),
    }
}

/// A private root and a missing intermediate certificate look the same.
fn write_beyond(f: &mut fmt::Formatter<'_>, beyond: &Beyond) -> fmt::Result {
    let issuer = printable(&beyond.name);
    write!(
        f,
        "    the last certificate of the chain is signed by {issuer}: clients must trust this authority"
    )?;
    match beyond.is_root_here {
        true => writeln!(f, ", a root that this machine trusts"),
        false => writeln!(
            f,
            "; if it is an intermediate authority, append its certificate to this file"
        ),
    }
}

fn asks(tls: &AcceptorSettings) -> &'static str {
    match tls.client_auth.as_ref().map(ClientAuth::demand) {
        None => "no client certificates",
        Some(Demand::Optional) => "client certificates optional",
        Some(Demand::Required) => "client certificates required",
    }
}

/// Displays a certificate on one line.
pub(super) struct Shown<'a>(pub &'a Certificate);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(certificate) = self;
        let names = certificate.names();
        match names {
            [] => write!(f, "no names")?,
            names => {
                let few = &names[..names.len().min(MOST_NAMES)];
                write!(f, "{}", printable(&few.join(", ")))?;
                if names.len() > few.len() {
                    write!(f, " and {} more", names.len() - few.len())?;
                }
            }
        }
        let validity = certificate.validity();
        let until = validity.end();
        write!(f, "; {}; until {}", certificate.key_type(), Date(*until))?;
        f.write_str(&left(*until))
    }
}

/// The time that is left, in days.
fn left(until: SystemTime) -> String {
    match until.duration_since(SystemTime::now()) {
        Ok(left) => format!(" ({} days)", left.as_secs() / DAY.as_secs()),
        Err(_) => " (expired)".into(),
    }
}

/// Displays a revocation list on one line.
struct Listed<'a>(&'a List);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(list) = self;
        write!(f, "{}; ", printable(list.issuer()))?;
        match list.entries() {
            1 => write!(f, "1 entry; ")?,
            entries => write!(f, "{entries} entries; ")?,
        }
        match list.next_update() {
            Some(next) => write!(f, "next update {}{}", Date(next), left(next)),
            None => write!(f, "no next update"),
        }
    }
}

/// Displays the target of a backend.
pub(super) struct Target<'a>(pub &'a backend::BackendSettings);

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.to {
            To::Dialled(addresses) => {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                f.write_str(&addresses.join(", "))?;
                match &self.0.tunnel {
                    Some(tunnel) => write!(f, ", through tunnels, as {}", tunnel.authority),
                    None => Ok(()),
                }
            }
            To::Gate => f.write_str("workers at the gate"),
            To::Hello => f.write_str("the built-in hello page"),
            To::Echo => f.write_str("the built-in echo"),
        }
    }
}

const MOST_NAMES: usize = 6;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
