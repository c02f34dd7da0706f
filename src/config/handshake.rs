//! The `[listener.tls]` tables.

use std::sync::Arc;
use std::time::SystemTime;

use tokio_rustls::rustls::RootCertStore;

use super::files::{File, Files};
use super::foreign;
use super::table::Table;
use super::validity::{of_chain, of_list, of_roots};
use super::value::found;
use super::words::protocol;
use crate::tls::certs::{Certificate, Fault, Role};
use crate::tls::chain;
use crate::tls::client_auth::{self, ClientAuth, Demand};
use crate::tls::hosts::{Hosts, UnknownSni};
use crate::tls::ocsp::{Stale, Staple};
use crate::tls::revocation::{List, lists_in};
use crate::tls::roots::Roots;
use crate::tls::tickets::TicketSecret;
use crate::tls::time::Date;
use crate::tls::{AcceptorSettings, Alpn, Engine, MinVersion, Tickets};

/// `None` only after a problem was reported.
pub(super) fn handshake(mut table: Table<'_>, files: &Files<'_>) -> Option<AcceptorSettings> {
    let entries = table.tables_such_as("certificates", CERTIFICATE);
    if entries.as_ref().is_some_and(Vec::is_empty) {
        table.problem(
            "a TLS listener needs a certificate: `certificates = [ { chain = \"…\", key = \"…\" } ]`".into(),
        );
    }
    let entries = entries.unwrap_or_default();
    let mut staple = staple_beside(&mut table, &entries, files);
    let certificates: Vec<Option<Certificate>> = entries
        .into_iter()
        .map(|entry| certificate(entry, staple.take(), files))
        .collect();
    let unknown_sni = table.read("unknown_sni", |value| {
        value.word(&[("first", UnknownSni::First), ("refuse", UnknownSni::Refuse)])
    });
    let min_version = table.read("min_version", |value| {
        value.word(&[("1.2", MinVersion::Tls12), ("1.3", MinVersion::Tls13)])
    });
    let alpn = table.list("alpn", protocol);
    foreign::handshake(&mut table);
    let client_auth = client_auth(&mut table, files);
    let tickets = tickets(&mut table, files);
    table.finish();
    let certificates: Vec<Certificate> = certificates.into_iter().collect::<Option<_>>()?;
    if certificates.is_empty() {
        return None;
    }
    Some(AcceptorSettings {
        hosts: Arc::new(Hosts::new(
            certificates,
            unknown_sni.unwrap_or(UnknownSni::First),
        )),
        client_auth: client_auth?,
        alpn: match alpn {
            Some(protocols) if !protocols.is_empty() => Alpn::Offered(protocols),
            _ => Alpn::OfRoutes(Vec::new()),
        },
        min_version: min_version.unwrap_or(MinVersion::Tls12),
        tickets: tickets?,
        engine: Engine::default(),
    })
}

const CERTIFICATE: &str = "as in `certificates = [ { chain = \"chain.pem\", key = \"key.pem\" } ]`";

/// The staple that the table itself names, for its only certificate.
fn staple_beside(table: &mut Table<'_>, entries: &[Table<'_>], files: &Files<'_>) -> Option<File> {
    let place = table.place("ocsp")?;
    let file = table.read("ocsp", |value| files.read(value))?;
    match entries {
        [one] if one.place("ocsp").is_none() => return Some(file),
        [] | [_] => table.problem_at(
            place,
            "`listener.tls.ocsp`: the certificate has its own `ocsp`; remove one of the two".into(),
        ),
        _ => table.problem_at(
            place,
            "`listener.tls.ocsp`: there are several certificates; move `ocsp` into the entry of \
             its certificate: { chain = \"…\", key = \"…\", ocsp = \"…\" }"
                .into(),
        ),
    }
    None
}

/// Uses the staple of the entry, or else the one `beside` it. `None` only after a problem was reported.
fn certificate(
    mut entry: Table<'_>,
    beside: Option<File>,
    files: &Files<'_>,
) -> Option<Certificate> {
    let certificate = chain_and_key(&mut entry, files, Role::Server);
    let staple = entry.read("ocsp", |value| files.read(value)).or(beside);
    let certificate = match (certificate, staple) {
        (Some(certificate), Some(staple)) => stapled(&certificate, staple, &entry),
        (certificate, _) => certificate,
    };
    if let Some(certificate) = &certificate
        && !certificate.is_stapled()
        && chain::must_staple(&certificate.chain()[0])
    {
        entry.warn_at(entry.start(), MUST_STAPLE.into());
    }
    entry.finish();
    certificate
}

/// `None` only after a problem was reported.
pub(super) fn chain_and_key(
    entry: &mut Table<'_>,
    files: &Files<'_>,
    role: Role,
) -> Option<Certificate> {
    let chain = entry.require("chain", |value| files.read(value));
    let key = entry.require("key", |value| files.read(value));
    let (chain, key) = (chain?, key?);
    match Certificate::from_pem(&chain.content, &key.content, role) {
        Ok(certificate) => {
            chain.say_all(entry, of_chain(&certificate, role));
            if !certificate.is_for_development() {
                files.warn_if_exposed(&key, entry);
            }
            Some(certificate)
        }
        Err(error) => {
            match error.fault() {
                Fault::Chain => chain.problem(entry, &error),
                Fault::Key => key.problem(entry, &error),
                Fault::Swap => chain.states(entry, &error),
            }
            None
        }
    }
}

/// `None` only after a problem was reported.
fn stapled(certificate: &Certificate, file: File, entry: &Table<'_>) -> Option<Certificate> {
    let staple = match Staple::new(file.content.to_vec(), certificate.chain()) {
        Ok(staple) => staple,
        Err(error) => {
            file.problem(entry, &error);
            return None;
        }
    };
    // Only a warning: some clients ignore a stale staple, as they ignore an expired certificate.
    let date = Date;
    match staple.is_stale(SystemTime::now()) {
        None => {}
        Some(Stale::Since(next)) => file.warn(
            entry,
            &format!(
                "the OCSP response is stale since {}; replace it",
                date(next)
            ),
        ),
        Some(Stale::Until(from)) => file.warn(
            entry,
            &format!("the OCSP response is not valid before {}", date(from)),
        ),
    }
    Some(certificate.with_staple(staple))
}

/// `None` only after a problem was reported. `Some(None)`: clients are not asked for certificates.
fn client_auth(table: &mut Table<'_>, files: &Files<'_>) -> Option<Option<ClientAuth>> {
    let keys = ["client_auth", "client_ca", "crl"];
    let place = keys.into_iter().find_map(|key| table.place(key));
    let has_demand = table.place("client_auth").is_some();
    let demand = table.read("client_auth", |value| {
        value.word(&[
            ("none", None),
            ("optional", Some(Demand::Optional)),
            ("required", Some(Demand::Required)),
        ])
    });
    let is_wrong = demand.is_none() && has_demand;
    let has_bundles = table.place("client_ca").is_some();
    let bundles = table.list("client_ca", |value| files.read(value));
    let lists = table.list("crl", |value| files.read(value));
    let lists = lists.unwrap_or_default();
    let authorities = match bundles {
        None if has_bundles => None,
        bundles => authorities(&bundles.unwrap_or_default(), &lists, table),
    };
    // Checked even if the authorities have problems, so that all problems are reported at once.
    let known = authorities.as_ref().and_then(Option::as_ref);
    let revoked = revoked(&lists, known, table);
    let (authorities, revoked) = (authorities?, revoked?);
    if is_wrong {
        return None;
    }
    let Some(demand) = demand.flatten() else {
        if let Some(place) = place.filter(|_| authorities.is_some() || !revoked.is_empty()) {
            table.warn_at(
                place,
                "`client_ca` and `crl` have no effect while `client_auth` is \"none\"".into(),
            );
        }
        return Some(None);
    };
    let Some(authorities) = authorities else {
        table.problem_at(
            place.unwrap_or_default(),
            "`client_auth` needs `client_ca = [\"…\"]`, the authorities of the client certificates"
                .into(),
        );
        return None;
    };
    for (list, file) in revoked.iter().filter(|(list, _)| !list.is_matched()) {
        file.warn(table, &of_nobody(list));
    }
    let settings = client_auth::ClientAuthSettings {
        demand,
        authorities,
        revoked: revoked.into_iter().map(|(list, _)| list).collect(),
    };
    match ClientAuth::new(settings) {
        Ok(client_auth) => Some(Some(client_auth)),
        Err(error) => {
            table.problem_at(place.unwrap_or_default(), format!("`client_auth`: {error}"));
            None
        }
    }
}

/// `None` only after a problem was reported. `Some(None)`: there is no authority.
pub(super) fn authorities(
    bundles: &[File],
    lists: &[File],
    table: &Table<'_>,
) -> Option<Option<Roots>> {
    let parse = |file: &File| match lists.iter().any(|list| *list.content == *file.content) {
        true => Roots::beside_lists(&file.content),
        false => Roots::from_pem(&file.content),
    };
    let read = |file: &File| match parse(file) {
        Ok(roots) => {
            file.say_all(table, of_roots(&roots));
            Some(roots)
        }
        Err(error) => {
            file.problem(table, &error);
            None
        }
    };
    let bundles: Vec<Option<Roots>> = bundles.iter().map(read).collect();
    Some(Roots::union(bundles.into_iter().collect::<Option<_>>()?))
}

/// Revocation lists: several PEM blocks in a file, or one list in DER. `None` only after a problem was
/// reported.
fn revoked<'f>(
    lists: &'f [File],
    authorities: Option<&Roots>,
    table: &Table<'_>,
) -> Option<Vec<(List, &'f File)>> {
    // If the authorities have a problem, it was reported already, and the lists are still checked.
    let none = || Arc::new(RootCertStore::empty());
    let authorities = authorities.map_or_else(none, Roots::store);
    let mut revoked = Vec::new();
    let mut is_well = true;
    for file in lists {
        let found = match lists_in(&file.content) {
            Ok(found) => found,
            Err(why) => {
                is_well = false;
                file.problem(table, &why);
                continue;
            }
        };
        let several = found.len() > 1;
        for (index, (list, line)) in found.into_iter().enumerate() {
            match List::new(list, &authorities) {
                Ok(list) => {
                    file.say(table, of_list(&list));
                    revoked.push((list, file));
                }
                Err(error) if several => {
                    is_well = false;
                    let nth = index + 1;
                    file.problem(table, &format!("list {nth} in line {line}: {error}"));
                }
                Err(error) => {
                    is_well = false;
                    file.problem(table, &error);
                }
            }
        }
    }
    is_well.then_some(revoked)
}

fn of_nobody(list: &List) -> String {
    format!(
        "no authority in `client_ca` signed the revocation list of {0}; it applies only to clients \
         that send the certificate of {0}",
        list.issuer()
    )
}

/// `None` only after a problem was reported.
fn tickets(table: &mut Table<'_>, files: &Files<'_>) -> Option<Tickets> {
    let Some(value) = table.take("tickets") else {
        return Some(Tickets::Rotate);
    };
    if value.is_table() {
        let mut fleet = Table::of(value)?;
        let file = fleet.require("secret_file", |value| files.read(value));
        let tickets = file.and_then(|file| match TicketSecret::new(&file.content) {
            Ok(secret) => Some(Tickets::Fleet(secret)),
            Err(error) => {
                file.problem(&fleet, &error);
                None
            }
        });
        fleet.finish();
        return tickets;
    }
    match value.word(&[("rotate", true), ("none", false)]) {
        Ok(true) => Some(Tickets::Rotate),
        Ok(false) => Some(Tickets::None),
        Err(_) => {
            let given = match value.string() {
                Ok(text) => format!("{text:?}"),
                Err(_) => found(&value.value).to_owned(),
            };
            value.problem(&format!(
                "expected \"rotate\", \"none\" or {{ secret_file = \"PATH\" }}, found {given}"
            ));
            None
        }
    }
}

/// Also used for the configuration by flags.
pub(super) const MUST_STAPLE: &str = "the certificate requires an OCSP response (must-staple), and \
 `ocsp` is missing; clients may refuse it";
