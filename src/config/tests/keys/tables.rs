//! The tables that exist once.

use super::*;

#[test]
fn runtime() {
    check("runtime", RUNTIME_RIGHT, RUNTIME_WRONG);
}

const RUNTIME_RIGHT: &[&str] = &[
    "workers = 1",
    "workers = 0x10",
    "workers = 1024",
    "directory = \"run\"",
    "log = \"vestibule=debug,info\"",
    "log_format = \"text\"",
    "log_format = \"json\"",
    "access_log = \"failures\"",
    "access_log = \"connections\"",
    "max_memory = \"none\"",
    "max_memory = \"unlimited\"",
    "max_memory = \"512MiB\"",
    "relay = \"auto\"",
    "relay = \"stream\"",
    "core_dumps = false",
    "core_dumps = true",
    "heartbeat = \"beat\"",
    "heartbeat = \"none\"",
    "idle_exit = \"10m\"",
    "idle_exit = \"none\"",
    "idle_exit = \"unlimited\"",
];

const RUNTIME_WRONG: &[Wrong] = &[
    (
        "workers = 0",
        11,
        "`runtime.workers`: expected a whole number from 1 to 1024, found 0",
    ),
    (
        "workers = 1025",
        11,
        "`runtime.workers`: expected a whole number from 1 to 1024, found 1025",
    ),
    (
        "workers = 4294967296",
        11,
        "`runtime.workers`: expected a whole number from 1 to 1024, found 4294967296",
    ),
    (
        "workers = \"two\"",
        11,
        "`runtime.workers`: expected a whole number from 1 to 1024, found a string",
    ),
    (
        "directory = \"\"",
        13,
        "`runtime.directory`: expected a path, found an empty string",
    ),
    (
        "directory = true",
        13,
        "`runtime.directory`: expected a string, found a boolean",
    ),
    (
        "log = 3",
        7,
        "`runtime.log`: expected a string, found an integer",
    ),
    (
        "log = \"vestibule=loud\"",
        7,
        "`runtime.log`: \"vestibule=loud\": expected a log filter such as \"info\" or \
         \"info,vestibule=debug\"; the levels are off, error, warn, info, debug and trace",
    ),
    (
        "log = \"verbose\"",
        7,
        "`runtime.log`: \"verbose\": expected a log filter such as \"info\" or \
         \"info,vestibule=debug\"; the levels are off, error, warn, info, debug and trace",
    ),
    (
        "log_format = \"jsn\"",
        14,
        "`runtime.log_format`: unknown value \"jsn\", did you mean \"json\"?",
    ),
    (
        "log_format = \"yaml\"",
        14,
        "`runtime.log_format`: unknown value \"yaml\"; one of: text, json",
    ),
    (
        "max_memory = \"half\"",
        14,
        "`runtime.max_memory`: expected a size such as \"64KiB\" or \"512MiB\", found \"half\"; \"unlimited\" turns it off",
    ),
    (
        "relay = \"record\"",
        9,
        "`runtime.relay`: unknown value \"record\"; one of: auto, stream",
    ),
    (
        "access_log = \"all\"",
        14,
        "`runtime.access_log`: unknown value \"all\"; one of: failures, connections",
    ),
    (
        "heartbeat = \"\"",
        13,
        "`runtime.heartbeat`: expected a path, found an empty string",
    ),
    (
        "idle_exit = \"0s\"",
        13,
        "`runtime.idle_exit`: 0 is refused; \"unlimited\" turns it off",
    ),
    (
        "core_dumps = \"none\"",
        14,
        "`runtime.core_dumps`: expected true or false, found a string",
    ),
];

#[test]
fn limits() {
    check("limits", LIMITS_RIGHT, LIMITS_WRONG);
}

const LIMITS_RIGHT: &[&str] = &[
    "connections = 1",
    "connections = 4294967295",
    "connections = 10_000",
    "connections = \"unlimited\"",
    "connections_per_ip = 5",
    "connections_per_ip = \"none\"",
    "connections_per_identity = 1000",
    "connections_per_identity = \"unlimited\"",
    "pending = 5",
    "handshaking = 5",
    "handshaking = \"unlimited\"",
    "pending = \"unlimited\"",
    "handshakes_per_second = 1",
    "handshakes_per_second = 4294967295",
    "handshakes_per_second = \"unlimited\"",
    "handshakes_per_second_per_ip = 10",
    "handshakes_per_second_per_ip = \"none\"",
];

const LIMITS_WRONG: &[Wrong] = &[
    (
        "connections = 0",
        15,
        "`limits.connections`: 0 is refused; \"unlimited\" turns it off",
    ),
    (
        "connections = 4294967296",
        15,
        "`limits.connections`: expected a whole number from 1 to 4294967295, found \
         4294967296; \"unlimited\" turns it off",
    ),
    (
        "connections_per_ip = -1",
        22,
        "`limits.connections_per_ip`: expected a whole number from 1 to 4294967295, found \
         -1; \"unlimited\" turns it off",
    ),
    (
        "connections_per_identity = 0",
        28,
        "`limits.connections_per_identity`: 0 is refused; \"unlimited\" turns it off",
    ),
    (
        "pending = 1.5",
        11,
        "`limits.pending`: expected a whole number from 1 to 4294967295, found a float; \
         \"unlimited\" turns it off",
    ),
    (
        "pending = \"off\"",
        11,
        "`limits.pending`: expected a whole number from 1 to 4294967295, found a string; \
         \"unlimited\" turns it off",
    ),
    (
        "handshakes_per_second = 0",
        25,
        "`limits.handshakes_per_second`: 0 is refused; \"unlimited\" turns it off",
    ),
    (
        "handshakes_per_second = 4294967296",
        25,
        "`limits.handshakes_per_second`: expected a whole number from 1 to 4294967295, \
         found 4294967296; \"unlimited\" turns it off",
    ),
    (
        "handshakes_per_second_per_ip = \"10/s\"",
        32,
        "`limits.handshakes_per_second_per_ip`: expected a whole number from 1 to \
         4294967295, found a string; \"unlimited\" turns it off",
    ),
];

#[test]
fn timeouts() {
    for key in [
        "handshake",
        "backend",
        "idle",
        "half_close",
        "lifetime",
        "drain",
        "unacknowledged",
    ] {
        for right in ["10s", "500ms", "1h 30m", "unlimited", "none"] {
            parse(&file("timeouts", &format!("{key} = \"{right}\"")));
        }
        for (wrong, found) in [
            ("\"10 parsecs\"", "\"10 parsecs\""),
            ("\"\"", "\"\""),
            ("\"-1s\"", "\"-1s\""),
            ("\"off\"", "\"off\""),
            ("1.5", "a float"),
            ("12:00:00", "a date"),
            ("[\"1s\"]", "an array"),
        ] {
            let line = format!("{key} = {wrong}");
            let expected = format!(
                "2:{}: `timeouts.{key}`: expected a duration such as \"10s\", \"500ms\" or \
                 \"1h\", found {found}; \"unlimited\" turns it off",
                key.len() + 4
            );
            assert_eq!(problems(&file("timeouts", &line)), [expected]);
        }
        for (wrong, meant) in [
            ("0", "0 is refused"),
            ("0.0", "0 is refused"),
            ("\"0\"", "0 is refused"),
            ("\"0s\"", "0 is refused"),
            ("\"0 ms\"", "0 is refused"),
            ("30", "30 has no unit; write \"30s\""),
            ("\"30\"", "30 has no unit; write \"30s\""),
        ] {
            let line = format!("{key} = {wrong}");
            let place = key.len() + 4;
            let expected =
                format!("2:{place}: `timeouts.{key}`: {meant}; \"unlimited\" turns it off");
            assert_eq!(problems(&file("timeouts", &line)), [expected]);
        }
    }
    const RANGE: &str = "`timeouts.unacknowledged`: expected a duration from \"1ms\" to \
                         \"24days\"; \"unlimited\" turns it off";
    check(
        "timeouts",
        &["unacknowledged = \"1ms\"", "unacknowledged = \"24days\""],
        &[
            ("unacknowledged = \"999us\"", 18, RANGE),
            ("unacknowledged = \"25days\"", 18, RANGE),
        ],
    );
}

#[test]
fn gate() {
    check(
        "gate",
        &[
            "path = \"gate.sock\"",
            "path = \"/run/vestibule/gate.sock\"",
            "path = \"none\"",
            "allow_uids = []",
            "allow_uids = [0, 1000]",
            "allow_uids = 1000",
            "allow_gids = [33]",
            "max_clients = 1",
            "max_clients = \"unlimited\"",
        ],
        &[
            (
                "path = \"\"",
                8,
                "`gate.path`: expected a path, found an empty string",
            ),
            (
                "path = 5",
                8,
                "`gate.path`: expected a string, found an integer",
            ),
            (
                "allow_uids = [\"www-data\"]",
                15,
                "`gate.allow_uids`: expected a numeric id from 0 to 4294967295, found a string",
            ),
            (
                "allow_gids = [1, -1]",
                18,
                "`gate.allow_gids`: expected a numeric id from 0 to 4294967295, found -1",
            ),
            (
                "max_clients = 0",
                15,
                "`gate.max_clients`: 0 is refused; \"unlimited\" turns it off",
            ),
        ],
    );
}

#[test]
fn the_admin_api_has_a_socket_or_a_port() {
    check(
        "admin",
        &[
            "address = \"none\"",
            "address = \"unix:admin.sock\"",
            "address = \"unix:/run/admin.sock\"",
            "address = \"tcp:127.0.0.1:0\"",
            "allow_writes_over_tcp = true",
        ],
        &[
            (
                "address = \"unix:\"",
                11,
                "`admin.address`: expected a path after `unix:`, found none",
            ),
            (
                "address = \"9901\"",
                11,
                "`admin.address`: \"9901\": the port is missing; write `127.0.0.1:8443`, or \
                 `unix:/path` for a Unix socket; write \"unix:admin.sock\", \
                 \"tcp:127.0.0.1:9901\" or \"none\"",
            ),
            (
                "allow_writes_over_tcp = 1",
                25,
                "`admin.allow_writes_over_tcp`: expected true or false, found an integer",
            ),
        ],
    );
}

#[test]
fn the_audit_log() {
    check(
        "audit",
        &[
            "path = \"none\"",
            "path = \"/var/log/audit.log\"",
            "rotate = \"64MiB\"",
            "rotate = \"none\"",
            "keep = 10",
        ],
        &[
            (
                "path = \"\"",
                8,
                "`audit.path`: expected a path, found an empty string",
            ),
            (
                "rotate = \"0B\"",
                10,
                "`audit.rotate`: 0 is refused; \"unlimited\" turns it off",
            ),
            (
                "rotate = \"64 stones\"",
                10,
                "`audit.rotate`: expected a size such as \"64KiB\" or \"512MiB\", found \
                 \"64 stones\"; \"unlimited\" turns it off",
            ),
            (
                "rotate = 64",
                10,
                "`audit.rotate`: 64 has no unit; write \"64B\"; \"unlimited\" turns it off",
            ),
            (
                "keep = 0",
                8,
                "`audit.keep`: expected a whole number from 1 to 4294967295, found 0",
            ),
        ],
    );
}
