//! The name of every metric, with its help: its unit, and what an operator does about it.

use prometheus_client::registry::{Metric, Registry};

/// Adds a metric under a name from [`HELP`].
pub(crate) fn register(registry: &mut Registry, name: &'static str, metric: impl Metric) {
    let help = HELP.iter().find(|(known, _)| *known == name);
    let (_, help) = help.expect("the tests register every name");
    registry.register(name, *help, metric);
}

/// Names without `vestibule_`, and without the `_total` and `_info` that the format adds. The format
/// also adds the full stop at the end.
pub(super) const HELP: [(&str, &str); 38] = [
    (
        "connections",
        "Connections that have ended, by outcome. If a failure grows, the log says why clients were \
         not served",
    ),
    (
        "connections_open",
        "Open connections. The backend is empty until a route has chosen one. If many stay in the \
         state waiting, add backends or workers",
    ),
    (
        "tunnels",
        "Open tunnels, by role: server from clients, worker from network workers, client to backends, \
         join to fronts. Each is one TLS connection. If none has the role worker, no network worker \
         is there to take connections",
    ),
    (
        "tunnel_streams",
        "Streams in tunnels, by role. Those of server are open connections of clients: if they come near \
         limits.connections, raise it. Those of worker do not count as connections",
    ),
    (
        "listener_tunnels",
        "Open tunnels that clients and network workers have brought to the listener. If it is 0 while \
         they should be there, see their logs",
    ),
    (
        "listener_tunnel_streams",
        "Streams in the tunnels of the listener, of clients and of network workers. If there are as many \
         as listener.tunnel.streams in each tunnel, raise it",
    ),
    (
        "backend_tunnels",
        "Open tunnels to the address. If it changes often, the tunnels break: see the log at level debug",
    ),
    (
        "backend_tunnel_streams",
        "Streams in the tunnels to the address. If it stays at streams times connections times worker \
         threads of backend.tunnel, connections wait for a place: raise them",
    ),
    (
        "backend_workers_waiting",
        "Workers of the backend that wait for a connection: local at the gate, network as offers in \
         tunnels. If both are 0 while connections wait, start workers",
    ),
    (
        "join_front_up",
        "1 while this worker has joined the front, 0 otherwise. If it stays 0, vestibule status says why",
    ),
    (
        "join_offers",
        "Offers to the front that wait for a connection. If it is 0 while the front is up, all offers \
         are in use: raise join.offers",
    ),
    (
        "join_connections",
        "Connections that the front has given to this worker. A reload that changes the table begins at \
         0. If it does not grow while others do, see whether the front has clients",
    ),
    (
        "join_server_up",
        "1 while the local server of the join answers, 0 while it does not and nothing is offered. If it \
         is 0, start the server",
    ),
    (
        "pending",
        "Connections without a backend: handshaking or waiting. If it stays near limits.pending or \
         limits.handshaking, backends or CPUs are too slow",
    ),
    (
        "bytes",
        "Bytes of payload that the receiving side has taken; the direction in is from clients. Use \
         it to plan capacity",
    ),
    (
        "handshakes",
        "TLS handshakes with clients that have ended, by result. If results other than ok grow, see \
         the log; if few are resumed, see tickets in docs/tls.md",
    ),
    (
        "handshake_seconds",
        "Seconds from the first byte to the end of a successful handshake. If it grows while the \
         network is well, add workers or limit handshakes_per_second",
    ),
    (
        "rendezvous_wait_seconds",
        "Seconds from the choice of a backend until it has the connection or the wait has ended. If \
         it grows, add backends or workers",
    ),
    (
        "rendezvous",
        "Waits for a backend that have ended, by resolution. If expired grows, no backend or worker \
         comes within timeouts.backend",
    ),
    (
        "gate_clients",
        "Workers at the gate: accept waits for a connection, watch gets events, register serves by \
         its address. If accept is 0 while connections wait, start workers",
    ),
    (
        "connection_seconds",
        "Seconds from accept to close. Use it to choose timeouts.idle and timeouts.drain",
    ),
    (
        "backend_up",
        "1 if the address answers, 0 if it is down. The address registered stands for all that \
         workers have registered. If it is 0, start the backend",
    ),
    (
        "backend_connections",
        "Open connections to the address, including attempts. If addresses differ much, see balance",
    ),
    (
        "backend_dial_seconds",
        "Seconds of a successful dial: look-up, connect, PROXY protocol header and TLS. If it grows, \
         the backend or the network is too slow",
    ),
    (
        "certificate_expiry_timestamp_seconds",
        "Unix time at which a certificate expires, in seconds; name is its first name, and other \
         stands for all after the first 200. Renew it before",
    ),
    (
        "crl_next_update_timestamp_seconds",
        "Unix time until which a revocation list is current, in seconds. Fetch the next one before; \
         clients are still checked against an old one",
    ),
    (
        "memory_bytes",
        "Bytes of memory in use: of the cgroup if it has a limit and runtime.max_memory is set, \
         otherwise of the process. If it nears the maximum, lower limits.connections or raise the maximum",
    ),
    (
        "memory_max_bytes",
        "The value of runtime.max_memory in bytes; absent if there is none. Keep it below the limit of \
         the container",
    ),
    (
        "memory_pressure",
        "0 if memory is well below runtime.max_memory, 1 from 80 %, 2 from 90 %: new connections are \
         closed, 3 from 95 %: idle ones too. If it is not 0, lower limits.connections or raise the maximum",
    ),
    (
        "memory_kind_bytes",
        "Bytes of memory by kind. Connections, handshakes and waiting are estimates, a number times a \
         usual size. If other is large, clients or backends do not read what is sent to them",
    ),
    (
        "open_fds",
        "Open file descriptors of the process. If it nears the limit descriptors, raise LimitNOFILE \
         or lower limits.connections",
    ),
    (
        "limit",
        "The maximum of a limit under [limits], or of descriptors; absent if unlimited. Raise it if \
         it is reached in normal use",
    ),
    (
        "limit_used",
        "What is in use of a limit. If it is near the limit, clients will be refused as over_limit",
    ),
    (
        "limit_peak",
        "The most that was in use of a limit since the start. Use it to choose the limit",
    ),
    (
        "dropped",
        "Items for observers that were dropped because nobody took them in time: lines of the log and \
         of the audit log, events of the admin API, and watchers of the gate. Find out who reads too \
         slowly, or which disk is full",
    ),
    (
        "reloads",
        "Reloads by result. After failed the old configuration stays; the log names every problem",
    ),
    (
        "worker_busy_ratio",
        "Share of time that a worker thread was not idle, 0 to 1, over the last 10 to 20 seconds or \
         since the scrape before. Near 1, add workers or machines",
    ),
    (
        "build",
        "Always 1; the labels are the version and the commit of the program. Compare them after an \
         upgrade",
    ),
];
