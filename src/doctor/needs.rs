//! What a configuration needs of the machine.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::address::Address;
use crate::backend::To;
use crate::config::{AdminAddress, Config};
use crate::limits::AdmissionSettings;

/// The needs of a configuration, or of the defaults. A limit that is `None` is unlimited.
#[derive(Clone, Debug)]
pub(super) struct Needs {
    pub connections: Option<u64>,
    pub handshaking: Option<u64>,
    pub pending: Option<u64>,
    /// Bytes.
    pub max_memory: Option<u64>,
    /// Descriptors of one connection.
    pub descriptors_each: u64,
    /// The number of addresses that are dialled over TCP.
    pub tcp_backends: u64,
    pub has_gate: bool,
    pub runtime_directory: Option<PathBuf>,
    /// Where the gate is, if that is not in the runtime directory.
    pub gate: Option<PathBuf>,
    /// The gate in the runtime directory.
    pub gate_name: PathBuf,
    /// The socket of the admin API, and the audit log, if they are not in the runtime directory.
    pub admin: Option<PathBuf>,
    pub audit: Option<PathBuf>,
    /// Names and paths.
    pub unix_listeners: Vec<(String, PathBuf)>,
    /// The number of directories to watch for changes.
    pub watched: u64,
}

impl Needs {
    pub(super) fn of(config: Option<&Config>) -> Self {
        let Some(config) = config else {
            return Self::of_defaults();
        };
        let to = || config.backends.iter().map(|it| &it.to);
        let dialled = to().filter_map(|to| match to {
            To::Dialled(addresses) => Some(addresses),
            To::Gate | To::Hello | To::Echo => None,
        });
        let joined = config.joins.iter().map(|it| &it.to);
        let is_tcp = |it: &&Address| matches!(it, Address::Tcp { .. });
        let gate = config.gate.as_ref().map(|gate| gate.path.clone());
        let unix = config.listeners.iter().filter_map(|it| match &it.address {
            Address::Unix(path) => Some((it.name.clone(), path.clone())),
            Address::Tcp { .. } => None,
        });
        let directories = config.files().iter().map(|it| it.path().parent());
        let directories: BTreeSet<_> = directories.collect();
        Self {
            descriptors_each: match to().all(To::is_built_in) && config.joins.is_empty() {
                true => 1,
                false => 2,
            },
            tcp_backends: dialled.chain(joined).flatten().filter(is_tcp).count() as u64,
            has_gate: config.is_claimed() && gate.is_some(),
            runtime_directory: config.runtime.directory.clone(),
            gate: gate.clone().filter(|it| it.is_absolute()),
            gate_name: gate.filter(|it| it.is_relative()).unwrap_or(GATE.into()),
            admin: config
                .admin
                .as_ref()
                .and_then(|admin| match &admin.address {
                    AdminAddress::Unix(path) => path.is_absolute().then(|| path.clone()),
                    AdminAddress::Tcp { .. } => None,
                }),
            audit: (config.audit.as_ref())
                .filter(|audit| audit.directory.is_none())
                .map(|audit| audit.path.clone()),
            unix_listeners: unix.collect(),
            watched: directories.len() as u64,
            max_memory: config.runtime.max_memory,
            ..Self::of_limits(&config.limits)
        }
    }

    fn of_defaults() -> Self {
        Self::of_limits(&AdmissionSettings::default())
    }

    /// Everything but the limits is that of a sidecar in front of one TCP server.
    fn of_limits(limits: &AdmissionSettings) -> Self {
        let count = |limit: Option<usize>| limit.map(|it| it as u64);
        Self {
            connections: count(limits.connections),
            handshaking: count(limits.handshaking),
            pending: count(limits.pending),
            max_memory: None,
            descriptors_each: 2,
            tcp_backends: 1,
            has_gate: false,
            runtime_directory: None,
            gate: None,
            gate_name: GATE.into(),
            admin: None,
            audit: None,
            unix_listeners: Vec::new(),
            watched: 1,
        }
    }
}

const GATE: &str = "gate.sock";
