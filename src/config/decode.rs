//! Decodes TOML into a [`Config`]: the keys, their defaults, and checks across keys.

mod audit;
mod backends;
mod halves;
mod health;
mod joins;
mod listeners;
mod originate;
mod tunnel;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::backends::backends;
use super::admin::admin;
use super::document::{Document, Findings};
use super::files::Files;
use super::problem::Problem;
use super::routes::routes;
use super::table::Table;
use super::unready::Unready;
use super::value::Value;
use super::words::{Named, log_filter, tcp_timeout};
use super::{Config, DRAIN, Listener, LogFormat, Runtime, UNACKNOWLEDGED};
use super::{forecast, foreign};
use crate::active_config::Timeouts;
use crate::address::{Address, LONGEST_UNIX_PATH};
use crate::backend::{BackendSettings, To};
use crate::ledger::AccessLog;
use crate::route::Routes;
use crate::tls::{Alpn, Engine};
use crate::{gate, limits};

/// Decodes a configuration. It reads files through `files`, which records them.
pub(super) fn decode(document: Document<'_>, files: &Files<'_>) -> Result<Config, Vec<Problem>> {
    let root = Table::root(&document);
    let decoder = Decoder {
        files,
        dialled: RefCell::default(),
        joined: RefCell::default(),
        workers: halves::Workers::default(),
        only_joins: root.as_ref().is_some_and(joins::are_alone),
    };
    let config = root.and_then(|root| decoder.config(root));
    let Findings {
        problems,
        warnings,
        expired,
        unready,
    } = document.into_findings();
    match config {
        Some(config) if problems.is_empty() => Ok(Config {
            warnings,
            expired,
            unready,
            ..config
        }),
        _ => Err(problems),
    }
}

pub(super) struct Decoder<'b> {
    files: &'b Files<'b>,
    /// The addresses of the backends, with their places in the text.
    dialled: RefCell<Vec<(Address, usize)>>,
    /// The local servers of joins, likewise.
    joined: RefCell<Vec<(Address, usize)>>,
    workers: halves::Workers,
    /// Nothing is accepted here: there are no listeners and no backends.
    only_joins: bool,
}

impl Decoder<'_> {
    /// `None` only after a problem was reported.
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
        let (gate, gate_path) = match root.table("gate") {
            Some(table) => gate_with_place(table, runtime.directory.as_deref()),
            None => (Some(gate::GateSettings::default()), None),
        };
        let of_gate = gate.as_ref().and_then(|gate| address_of(gate, &runtime));
        let admin = admin(root.table("admin"), runtime.directory.as_deref());
        let audit = root.table("audit");
        let audit = audit.and_then(|table| audit::audit(table, runtime.directory.as_deref()));
        let (mut backends, backend_names) = backends(self, &mut root);
        let (mut listeners, listener_names) = self.listeners(&mut root, of_gate.clone());
        let of_gate = of_gate.filter(|_| backends.iter().any(|it| it.to == To::Gate));
        forecast_gate(&root, gate_path, of_gate.as_ref());
        let identifying = identifying(&listeners);
        let routes = match self.only_joins {
            true => Some(Routes::new(Vec::new())),
            false => routes(&mut root, &backend_names, &listener_names, &identifying),
        };
        let mut joins = self.joins(&mut root);
        self.ensure_no_loop(&root, &listeners, of_gate.as_ref());
        self.workers.warn_if_half(&root);
        foreign::root(&mut root);
        root.finish();

        let routes = routes?;
        for listener in &mut listeners {
            complete(listener, &routes, runtime.engine);
        }
        for backend in &mut backends {
            complete_backend(backend, &timeouts, runtime.engine);
        }
        joins
            .iter_mut()
            .for_each(|it| it.tls.engine = runtime.engine);
        Some(Config {
            runtime,
            limits,
            timeouts,
            drain,
            unacknowledged,
            gate,
            admin,
            audit,
            listeners,
            routes,
            backends,
            joins,
            base: PathBuf::new(),
            files: Vec::new(),
            warnings: Vec::new(),
            expired: Vec::new(),
            unready: Unready::default(),
        })
    }

    fn runtime(&self, mut table: Table<'_>) -> Runtime {
        let runtime = Runtime {
            workers: table.read("workers", |value| value.count_to(MOST_WORKERS)),
            directory: table.read("directory", |value| Ok(self.files.beside(value.path()?))),
            log: table.read("log", log_filter),
            log_format: table
                .read("log_format", |value| {
                    value.word(&[("text", LogFormat::Text), ("json", LogFormat::Json)])
                })
                .unwrap_or_default(),
            access_log: table
                .read("access_log", |value| {
                    let (failures, connections) = (AccessLog::Failures, AccessLog::Connections);
                    value.word(&[("failures", failures), ("connections", connections)])
                })
                .unwrap_or_default(),
            engine: table
                .read("relay", |value| {
                    value.word(&[("auto", Engine::Record), ("stream", Engine::Stream)])
                })
                .unwrap_or_default(),
            core_dumps: table
                .read("core_dumps", |value| value.boolean())
                .unwrap_or_default(),
            heartbeat: table
                .read("heartbeat", |value| match value.string()? {
                    "none" => Ok(None),
                    _ => Ok(Some(self.files.beside(value.path()?))),
                })
                .flatten(),
            idle_exit: table
                .read("idle_exit", |value| value.or_off(Value::duration))
                .flatten(),
            max_memory: table
                .read("max_memory", |value| value.or_off(Value::size))
                .flatten(),
        };
        table.finish();
        runtime
    }

    /// Reports backends, and local servers of joins, at an address where Vestibule itself listens: a connection would loop.
    fn ensure_no_loop(&self, root: &Table<'_>, listeners: &[Listener], gate: Option<&Address>) {
        let (dialled, joined) = (self.dialled.borrow(), self.joined.borrow());
        let dialled = dialled.iter().map(|it| ("backend.to", it));
        let joined = joined.iter().map(|it| ("join.to", it));
        for (key, (address, offset)) in dialled.chain(joined) {
            let listener = listeners
                .iter()
                .find(|it| it.address.is_reached_by(address));
            let who = match (listener, gate) {
                (Some(listener), _) => format!("the listener {:?}", listener.name),
                (None, Some(gate)) if gate.is_reached_by(address) => "the gate".into(),
                (None, _) => continue,
            };
            let message = format!(
                "`{key}`: {address} is the address of {who} of this configuration; change one \
                 of the two"
            );
            root.problem_at(*offset, message);
        }
    }
}

/// The names of the listeners that ask clients for certificates.
fn identifying(listeners: &[Listener]) -> Vec<String> {
    let asks = |it: &&Listener| it.tls.as_ref().is_some_and(|tls| tls.client_auth.is_some());
    let found = listeners.iter().filter(asks);
    found.map(|it| it.name.clone()).collect()
}

/// Adds what other tables say about the TLS of a listener.
fn complete(listener: &mut Listener, routes: &Routes, engine: Engine) {
    let Some(tls) = &mut listener.tls else {
        return;
    };
    tls.engine = engine;
    if let Alpn::OfRoutes(protocols) = &mut tls.alpn {
        *protocols = routes.protocols(&listener.name);
    }
    if let Some(tunnel) = &listener.tunnel {
        tls.alpn.add(&tunnel.alpn);
    }
}

/// Adds what other tables say about the connections to a backend.
fn complete_backend(backend: &mut BackendSettings, timeouts: &Timeouts, engine: Engine) {
    if let Some(tunnel) = &mut backend.tunnel {
        tunnel.idle = timeouts.relay.idle;
    }
    if let Some(tls) = &mut backend.tls {
        tls.engine = engine;
    }
}

fn limits(mut table: Table<'_>) -> limits::AdmissionSettings {
    let default = limits::AdmissionSettings::default();
    let mut limit = |key, default| {
        table
            .read(key, |value| value.or_off(Value::count))
            .unwrap_or(default)
    };
    let settings = limits::AdmissionSettings {
        connections: limit("connections", default.connections),
        connections_per_ip: limit("connections_per_ip", default.connections_per_ip),
        connections_per_identity: limit(
            "connections_per_identity",
            default.connections_per_identity,
        ),
        pending: limit("pending", default.pending),
        handshaking: limit("handshaking", default.handshaking),
        handshakes_per_second: limit("handshakes_per_second", default.handshakes_per_second),
        handshakes_per_second_per_ip: limit(
            "handshakes_per_second_per_ip",
            default.handshakes_per_second_per_ip,
        ),
    };
    foreign::limits(&mut table);
    table.finish();
    settings
}

/// Also returns `drain` and `unacknowledged`, which are not timeouts of one connection.
fn timeouts(mut table: Table<'_>) -> (Timeouts, Option<Duration>, Option<Duration>) {
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
    let unacknowledged = table
        .read("unacknowledged", |value| value.or_off(tcp_timeout))
        .unwrap_or(Some(UNACKNOWLEDGED));
    timeouts.relay.unacknowledged = unacknowledged;
    foreign::timeouts(&mut table);
    table.finish();
    (timeouts, drain, unacknowledged)
}

/// With the place of its path, if that is absolute: then no other key says where the gate is.
fn gate_with_place(
    table: Table<'_>,
    directory: Option<&Path>,
) -> (Option<gate::GateSettings>, Option<usize>) {
    let place = table.place("path");
    let gate = gate(table, directory);
    let place = place.filter(|_| gate.as_ref().is_some_and(|it| it.path.is_absolute()));
    (gate, place)
}

/// Says what keeps the gate from being opened, if a backend is claimed there.
fn forecast_gate(root: &Table<'_>, place: Option<usize>, gate: Option<&Address>) {
    if let (Some(place), Some(Address::Unix(path))) = (place, gate) {
        forecast::gate(root, place, path);
    }
}

/// `None` if the gate is switched off.
fn gate(mut table: Table<'_>, directory: Option<&Path>) -> Option<gate::GateSettings> {
    let default = gate::GateSettings::default();
    let path = table.read("path", |value| match value.string()? {
        "none" => Ok(None),
        _ => {
            let path = value.path()?;
            // A directory that is not configured has a short path.
            match directory
                .unwrap_or(Path::new(""))
                .join(path)
                .as_os_str()
                .len()
            {
                ..=LONGEST_UNIX_PATH => Ok(Some(path.to_owned())),
                length => Err(format!(
                    "the path of a Unix socket is limited to {LONGEST_UNIX_PATH} bytes; with \
                     `runtime.directory`, this one has {length}"
                )),
            }
        }
    });
    let allow_uids = table.list("allow_uids", Value::system_id);
    let allow_gids = table.list("allow_gids", Value::system_id);
    let max_clients = table.read("max_clients", |value| value.or_off(Value::count));
    foreign::gate(&mut table);
    table.finish();
    Some(gate::GateSettings {
        path: path.unwrap_or(Some(default.path))?,
        allow_uids: allow_uids.into_iter().flatten().collect(),
        allow_gids: allow_gids.into_iter().flatten().collect(),
        max_clients: max_clients.unwrap_or(default.max_clients),
    })
}

/// `None` if the directory is known only at the start.
fn address_of(gate: &gate::GateSettings, runtime: &Runtime) -> Option<Address> {
    let directory = runtime.directory.as_deref().unwrap_or(Path::new(""));
    let path = directory.join(&gate.path);
    path.is_absolute().then_some(Address::Unix(path))
}

fn unique(table: &Table<'_>, named: &Named, names: &mut Vec<String>) {
    if names.contains(&named.name) {
        table.problem_at(
            named.offset,
            format!(
                "the name {:?} is used twice; change one of them",
                named.name
            ),
        );
    } else {
        names.push(named.name.clone());
    }
}

/// Each worker is a thread with its own socket at every listener. A number far above the CPUs of any
/// machine is a typing error, and would use up the memory.
const MOST_WORKERS: u32 = 1024;
