//! `[backend.tls]`: TLS to the addresses of a backend.

use super::files::Files;
use super::foreign;
use super::handshake::{authorities, chain_and_key};
use super::table::Table;
use super::value::{Expected, Value};
use super::words::protocol;
use crate::address::Address;
use crate::backend::To;
use crate::identity::Rule;
use crate::tls::Engine;
use crate::tls::certs::Role;
use crate::tls::connector::{self, ConnectorSettings, ServerName};
use crate::tls::roots::Roots;

/// Reads the table for a backend with this `to`. Returns `Some(None)` without the table. Returns `None`
/// only after it has reported a problem: then the backend must not turn into one without TLS.
pub(super) fn client_mode(
    files: &Files<'_>,
    backend: &mut Table<'_>,
    to: Option<&To>,
) -> Option<Option<ConnectorSettings>> {
    let Some(place) = backend.place("tls") else {
        return Some(None);
    };
    let mut table = backend.table("tls")?;
    let has_name = table.place("server_name").is_some();
    let server_name = table.read("server_name", server_name);
    let ca = roots(files, &mut table);
    let has_certificate = table.place("certificate").is_some();
    let entry = table.table("certificate");
    // Without a staple: servers do not ask clients for one.
    let certificate = entry.and_then(|mut entry| {
        let certificate = chain_and_key(&mut entry, files, Role::Client);
        entry.finish();
        certificate
    });
    let alpn = table.list("alpn", protocol);
    let allow = allow(&mut table);
    foreign::client_mode(&mut table);
    let is_sound = match to.and_then(unnamed) {
        Some(Unnamed::BuiltIn) => {
            backend.problem_at(place, BUILT_IN.into());
            false
        }
        Some(Unnamed::Needed(why)) if !has_name => {
            backend.problem_at(
                place,
                format!("`{}tls` needs the key `server_name`: {why}", backend.path()),
            );
            false
        }
        Some(Unnamed::Needed(_)) | None => true,
    };
    table.finish();
    let roots = ca?;
    (is_sound && has_certificate == certificate.is_some()).then_some(Some(ConnectorSettings {
        server_name,
        roots,
        certificate,
        alpn: alpn.unwrap_or_default(),
        allow: allow.unwrap_or_default(),
        engine: Engine::default(),
    }))
}

/// Why the addresses do not tell which name the certificate must have.
enum Unnamed {
    BuiltIn,
    Needed(String),
}

fn unnamed(to: &To) -> Option<Unnamed> {
    match to {
        To::Hello | To::Echo => Some(Unnamed::BuiltIn),
        To::Gate => Some(Unnamed::Needed(
            "a worker may register a `unix:` address, which has no name".into(),
        )),
        To::Dialled(addresses) => {
            let unnamed = addresses.iter().find(|address| match address {
                Address::Unix(_) => true,
                Address::Tcp { host, .. } => connector::server_name(host).is_none(),
            })?;
            Some(Unnamed::Needed(format!(
                "the certificate of `{unnamed}` cannot be checked without a name"
            )))
        }
    }
}

fn server_name(value: &Value<'_>) -> Result<ServerName<'static>, Expected> {
    value.parsed(|text| {
        connector::server_name(text)
            .ok_or("expected a DNS name or an IP address, as in `api.internal` or `10.0.0.1`")
    })
}

/// `None` if the key is missing, or after a problem was reported.
fn allow(table: &mut Table<'_>) -> Option<Vec<Rule>> {
    let place = table.place("allow")?;
    let rules = table.list("allow", |value| value.parsed(str::parse::<Rule>))?;
    if rules.is_empty() {
        let message = format!(
            "`{}allow`: an empty list allows no server; leave the key out to allow every server with \
             a valid certificate",
            table.path()
        );
        table.problem_at(place, message);
        return None;
    }
    Some(rules)
}

/// `None` only after a problem was reported.
fn roots(files: &Files<'_>, table: &mut Table<'_>) -> Option<Roots> {
    let Some(place) = table.place("ca") else {
        return match Roots::of_platform() {
            Ok(roots) => Some(roots),
            Err(error) => {
                table.problem(format!(
                    "`{}ca`: {error} with `ca = [\"ca.pem\"]`",
                    table.path()
                ));
                None
            }
        };
    };
    let bundles = table.list("ca", |value| files.read(value))?;
    let roots = authorities(&bundles, &[], table)?;
    if bundles.is_empty() {
        let message = format!(
            "`{}ca`: an empty list trusts no authority; leave the key out to trust the authorities of \
             this machine",
            table.path()
        );
        table.problem_at(place, message);
    }
    roots
}

const BUILT_IN: &str = "`backend.tls`: hello and echo are built in and use no TLS; leave the table \
 out";
