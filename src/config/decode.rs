//! From TOML to a [`Config`]: the keys of the contract, their defaults, and what they must agree on.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::problem::Problem;
use super::reader::{Document, Table, Value};
use super::{Config, DRAIN, Listener, LogFormat, Runtime, UNACKNOWLEDGED};
use crate::address::Address;
use crate::backend::pool::{Balance, Health};
use crate::backend::{self, Park, To};
use crate::connection::Timeouts;
use crate::route::{Action, NamePattern, Routes, Rule};
use crate::tls::certs::{Certificate, CertificateError};
use crate::tls::{MinVersion, Tickets};
use crate::{gate, limits, tls};

/// Reads a configuration; relative paths in it are relative to `base`.
pub(super) fn decode(text: &str, base: &Path) -> Result<Config, Vec<Problem>> {
    let document = Document::new(text);
    let config = document.root().map(|root| Decoder { base }.config(root));
    match (config.flatten(), document.into_problems()) {
        (Some(config), problems) if problems.is_empty() => Ok(config),
        (_, problems) => Err(problems),
    }
}

/// What `to` may say: an address, or one of three words.
pub(super) fn to(text: &str) -> Result<To, String> {
    match text {
        "gate" => Ok(To::Gate),
        "hello" => Ok(To::Hello),
        "echo" => Ok(To::Echo),
        address => match address.parse::<Address>() {
            Ok(Address::Tcp { port: 0, .. }) => Err("a backend's port is not 0".into()),
            Ok(address) => Ok(To::Dialled(vec![address])),
            Err(error) => Err(format!("{error}; or one of the words gate, hello, echo")),
        },
    }
}

struct Decoder<'b> {
    base: &'b Path,
}

/// A name with its place, to be checked against the names that exist.
struct Named {
    name: String,
    offset: usize,
}

impl Decoder<'_> {
    /// `None` only with a problem that was reported.
    fn config(&self, mut root: Table<'_>) -> Option<Config> {
        let runtime = root
            .table("runtime")
            .map(|table| self.runtime(table))
            .unwrap_or_default();
        let limits = root.table("limits").map(limits).unwrap_or_default();
        let (timeouts, drain, unacknowledged) = match root.table("timeouts") {
            Some(table) => timeouts(table),
            None => (Timeouts::default(), Some(DRAIN), Some(UNACKNOWLEDGED)),
        };
        let gate = match root.table("gate") {
            Some(table) => gate(table),
            None => Some(gate::Settings::default()),
        };
        if let Some(mut admin) = root.table("admin") {
            admin.later("address", Some("none"));
            admin.later("allow_writes_over_tcp", None);
            admin.finish();
        }
        if let Some(mut audit) = root.table("audit") {
            audit.later("path", Some("none"));
            audit.read("rotate", |value| {
                value.parsed(str::parse::<bytesize::ByteSize>)
            });
            audit.read("keep", Value::count);
            audit.finish();
        }
        let (backends, backend_names) = self.backends(&mut root);
        let (mut listeners, listener_names) = self.listeners(&mut root);
        let routes = routes(&mut root, &backend_names, &listener_names);
        root.finish();

        let routes = routes?;
        for listener in &mut listeners {
            if let Some(tls) = &mut listener.tls
                && tls.alpn.is_empty()
            {
                tls.alpn = routes.protocols(&listener.name);
            }
        }
        Some(Config {
            runtime,
            limits,
            timeouts,
            drain,
            unacknowledged,
            gate,
            listeners,
            routes,
            backends,
        })
    }

    fn runtime(&self, mut table: Table<'_>) -> Runtime {
        let runtime = Runtime {
            workers: table.read("workers", Value::count),
            directory: table.read("directory", |value| Ok(self.base.join(value.string()?))),
            log: table.read("log", |value| value.string().map(str::to_owned)),
            log_format: table
                .read("log_format", |value| {
                    value.word(&[("text", LogFormat::Text), ("json", LogFormat::Json)])
                })
                .unwrap_or_default(),
        };
        table.later("max_memory", Some("none"));
        // There is one relay in this version, and both words mean it.
        table.read("relay", |value| value.word(&[("auto", ()), ("stream", ())]));
        table.finish();
        runtime
    }

    fn backends(&self, root: &mut Table<'_>) -> (Vec<backend::Settings>, Vec<String>) {
        let mut backends = Vec::new();
        let mut names = Vec::new();
        let tables = root.tables("backend");
        if tables.is_empty() {
            root.problem("there is no `[[backend]]`; it needs a `name` and a `to`".into());
        }
        for mut table in tables {
            let name = table.require("name", name);
            let to = table.require("to", addresses);
            let balance = table.read("balance", |value| {
                value.word(&[
                    ("least_connections", Balance::LeastConnections),
                    ("round_robin", Balance::RoundRobin),
                    ("source", Balance::Source),
                ])
            });
            let park = table.read("park", Value::boolean).unwrap_or(true);
            let health = table.table("health").map(health).unwrap_or_default();
            table.later("proxy_protocol", Some("none"));
            table.later("tls", None);
            if let Some(name) = &name {
                unique(&table, name, &mut names);
            }
            table.finish();
            if let (Some(name), Some(to)) = (name, to) {
                backends.push(backend::Settings {
                    name: name.name,
                    to,
                    balance: balance.unwrap_or(Balance::LeastConnections),
                    park: if park { Park::Hold } else { Park::Refuse },
                    health,
                });
            }
        }
        (backends, names)
    }

    fn listeners(&self, root: &mut Table<'_>) -> (Vec<Listener>, Vec<String>) {
        let mut listeners = Vec::new();
        let mut names = Vec::new();
        let tables = root.tables("listener");
        if tables.is_empty() {
            root.problem("there is no `[[listener]]`; it needs a `name` and an `address`".into());
        }
        for mut table in tables {
            let name = table.require("name", name);
            let address = table.require("address", |value| value.parsed(str::parse::<Address>));
            table.later("accept_proxy_protocol", Some("none"));
            table.later("trusted_proxies", None);
            // A table that has problems is there: the listener must not turn into a plain one.
            let tls = match table.table("tls") {
                Some(tls) => self.tls(tls).map(Some),
                None => Some(None),
            };
            if let Some(name) = &name {
                unique(&table, name, &mut names);
            }
            table.finish();
            if let (Some(name), Some(address), Some(tls)) = (name, address, tls) {
                listeners.push(Listener {
                    name: name.name,
                    address,
                    tls,
                });
            }
        }
        (listeners, names)
    }

    fn tls(&self, mut table: Table<'_>) -> Option<tls::Settings> {
        let mut certificates: Vec<Option<Certificate>> = Vec::new();
        let entries = table.tables("certificates");
        if entries.is_empty() {
            table.problem(
                "a TLS listener needs `certificates = [ { chain = \"…\", key = \"…\" } ]`".into(),
            );
        }
        for entry in entries {
            if !certificates.is_empty() {
                entry.problem("more than one certificate is not supported in this version".into());
            }
            certificates.push(self.certificate(entry));
        }
        let min_version = table.read("min_version", |value| {
            value.word(&[("1.2", MinVersion::Tls12), ("1.3", MinVersion::Tls13)])
        });
        let tickets = table.read("tickets", |value| {
            value.word(&[("rotate", Tickets::Rotate), ("none", Tickets::None)])
        });
        let alpn = table.read("alpn", protocols);
        table.later("unknown_sni", Some("first"));
        table.later("client_auth", Some("none"));
        table.later("client_ca", None);
        table.later("crl", None);
        table.finish();
        Some(tls::Settings {
            certificate: certificates.into_iter().next()??,
            alpn: alpn.unwrap_or_default(),
            min_version: min_version.unwrap_or(MinVersion::Tls12),
            tickets: tickets.unwrap_or(Tickets::Rotate),
        })
    }

    fn certificate(&self, mut entry: Table<'_>) -> Option<Certificate> {
        let path = |value: &Value<'_>| -> Result<(PathBuf, usize), String> {
            Ok((self.base.join(value.string()?), value.offset))
        };
        let chain = entry.require("chain", path);
        let key = entry.require("key", path);
        entry.later("ocsp", None);
        let loaded = match (chain, key) {
            (Some((chain, chain_offset)), Some((key, key_offset))) => {
                let loaded = Certificate::from_files(&chain, &key);
                if let Err(error) = &loaded {
                    let (file, offset) = if error.is_of_the_key() {
                        (&key, key_offset)
                    } else {
                        (&chain, chain_offset)
                    };
                    entry.problem_at(offset, certificate_problem(file, error));
                }
                loaded.ok()
            }
            _ => None,
        };
        entry.finish();
        loaded
    }
}

fn certificate_problem(file: &Path, error: &CertificateError) -> String {
    format!("{}: {error}", file.display())
}

fn limits(mut table: Table<'_>) -> limits::Settings {
    let default = limits::Settings::default();
    let mut limit = |key, default| {
        table
            .read(key, |value| value.or_off(Value::count))
            .unwrap_or(default)
    };
    let settings = limits::Settings {
        connections: limit("connections", default.connections),
        connections_per_ip: limit("connections_per_ip", default.connections_per_ip),
        pending: limit("pending", default.pending),
    };
    // No client has an identity in this version, so this one binds nobody.
    limit("connections_per_identity", None);
    table.later("handshakes_per_second", Some("unlimited"));
    table.later("handshakes_per_second_per_ip", Some("unlimited"));
    table.finish();
    settings
}

/// With `drain` and `unacknowledged`, which are not a connection's.
fn timeouts(
    mut table: Table<'_>,
) -> (
    Timeouts,
    Option<std::time::Duration>,
    Option<std::time::Duration>,
) {
    let mut timeouts = Timeouts::default();
    let mut timeout = |key, default| {
        table
            .read(key, |value| value.or_off(Value::duration))
            .unwrap_or(default)
    };
    timeouts.handshake = timeout("handshake", timeouts.handshake);
    timeouts.backend = timeout("backend", timeouts.backend);
    timeouts.relay.idle = timeout("idle", timeouts.relay.idle);
    timeouts.relay.half_close = timeout("half_close", timeouts.relay.half_close);
    timeouts.lifetime = timeout("lifetime", timeouts.lifetime);
    let drain = timeout("drain", Some(DRAIN));
    let unacknowledged = timeout("unacknowledged", Some(UNACKNOWLEDGED));
    table.finish();
    (timeouts, drain, unacknowledged)
}

/// `None` when the gate is switched off.
fn gate(mut table: Table<'_>) -> Option<gate::Settings> {
    let default = gate::Settings::default();
    let path = table.read("path", |value| match value.string()? {
        "none" => Ok(None),
        path => Ok(Some(PathBuf::from(path))),
    });
    let allow_uids = table.read("allow_uids", ids);
    let allow_gids = table.read("allow_gids", ids);
    let max_clients = table.read("max_clients", |value| value.or_off(Value::count));
    table.finish();
    Some(gate::Settings {
        path: path.unwrap_or(Some(default.path))?,
        allow_uids: allow_uids.unwrap_or_default(),
        allow_gids: allow_gids.unwrap_or_default(),
        max_clients: max_clients.unwrap_or(default.max_clients),
    })
}

fn health(mut table: Table<'_>) -> Health {
    let default = Health::default();
    table.later("interval", Some("none"));
    let fall = table
        .read("fall", Value::count)
        .map_or(default.fall, |count| count as u32);
    let rise = table
        .read("rise", Value::count)
        .map_or(default.rise, |count| count as u32);
    table.finish();
    Health { fall, rise }
}

/// `None` only with a problem that was reported.
fn routes(root: &mut Table<'_>, backends: &[String], listeners: &[String]) -> Option<Routes> {
    let tables = root.tables("route");
    if tables.is_empty() {
        return match backends {
            [only] => Some(Routes::new(vec![Rule {
                action: Action::Backend(only.clone()),
                ..Rule::default()
            }])),
            [] => None,
            _ => {
                root.problem(
                    "with several backends, `[[route]]`s say which connection goes where".into(),
                );
                None
            }
        };
    }
    let mut rules = Vec::new();
    for mut table in tables {
        let listener = table.read("listener", |value| {
            list(value, |value| known(value, "listener", listeners))
        });
        let sni = table.read("sni", |value| {
            list(value, |v| v.parsed(str::parse::<NamePattern>))
        });
        let alpn = table.read("alpn", protocols);
        let from = table.read("from", |value| list(value, network));
        table.later("identity", None);
        let backend = table.read("backend", |value| known(value, "backend", backends));
        let deny = table.read("deny", Value::boolean);
        let action = match (backend, deny) {
            (Some(backend), None | Some(false)) => Some(Action::Backend(backend)),
            (None, Some(true)) => Some(Action::Deny),
            _ => {
                table.problem("a route has either `backend = \"…\"` or `deny = true`".into());
                None
            }
        };
        table.finish();
        rules.push(action.map(|action| Rule {
            listener: listener.unwrap_or_default(),
            sni: sni.unwrap_or_default(),
            alpn: alpn.unwrap_or_default(),
            from: from.unwrap_or_default(),
            action,
        }));
    }
    rules.into_iter().collect::<Option<_>>().map(Routes::new)
}

/// A name for lines, labels and messages: short, and nothing that would need quoting.
fn name(value: &Value<'_>) -> Result<Named, String> {
    let text = value.string()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > LONGEST_NAME || !text.chars().all(plain) {
        return Err(format!(
            "expected a name of 1 to {LONGEST_NAME} letters, digits, `-`, `_` and `.`, found {text:?}"
        ));
    }
    Ok(Named {
        name: text.to_owned(),
        offset: value.offset,
    })
}

fn unique(table: &Table<'_>, named: &Named, names: &mut Vec<String>) {
    if names.contains(&named.name) {
        table.problem_at(named.offset, format!("the name {:?} is taken", named.name));
    } else {
        names.push(named.name.clone());
    }
}

fn known(value: &Value<'_>, what: &str, names: &[String]) -> Result<String, String> {
    let words: Vec<(&str, &String)> = names.iter().map(|name| (name.as_str(), name)).collect();
    match value.word(&words) {
        Ok(name) => Ok(name.clone()),
        Err(error) => Err(format!("no such {what}: {error}")),
    }
}

/// One or several addresses, or one word.
fn addresses(value: &Value<'_>) -> Result<To, String> {
    if !value.is_array() {
        return value.parsed(to);
    }
    let mut addresses = Vec::new();
    for element in value.elements() {
        match element.parsed(to)? {
            To::Dialled(one) => addresses.extend(one),
            To::Gate | To::Hello | To::Echo => {
                return Err("gate, hello and echo stand alone, as in `to = \"gate\"`".into());
            }
        }
    }
    if addresses.is_empty() {
        return Err("expected an address, or a list of at least one".into());
    }
    Ok(To::Dialled(addresses))
}

fn list<T>(
    value: &Value<'_>,
    read: impl Fn(&Value<'_>) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    if value.is_array() {
        value.elements().map(|element| read(&element)).collect()
    } else {
        read(value).map(|one| vec![one])
    }
}

fn protocols(value: &Value<'_>) -> Result<Vec<String>, String> {
    list(value, |value| match value.string()? {
        // RFC 7301 §3.1: 1 to 255 bytes.
        name if (1..=255).contains(&name.len()) => Ok(name.to_owned()),
        name => Err(format!(
            "a protocol's name has 1 to 255 bytes, found {}",
            name.len()
        )),
    })
}

fn network(value: &Value<'_>) -> Result<ipnet::IpNet, String> {
    value.parsed(|text| {
        let address = text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from);
        address
            .or_else(|_| text.parse::<ipnet::IpNet>())
            .map_err(|_| "expected a network such as 192.0.2.0/24 or 2001:db8::/32, or one address")
    })
}

fn ids(value: &Value<'_>) -> Result<HashSet<u32>, String> {
    list(value, |id| id.system_id()).map(HashSet::from_iter)
}

/// Names stand in the gate's lines, which are bounded, and in metric labels.
const LONGEST_NAME: usize = 64;
