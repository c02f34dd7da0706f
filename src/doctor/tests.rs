use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::machine::Machine;
use super::{Finding, Level, examine_on};

/// A machine on which all is well, except for the files that the test writes over.
struct Made {
    root: TempDir,
    machine: Machine,
}

const GOOD: &[(&str, &str)] = &[
    (
        "proc/self/limits",
        "Limit                     Soft Limit           Hard Limit           Units\n\
         Max open files            1024                 524288               files\n",
    ),
    ("proc/self/cgroup", "0::/system.slice/vestibule.service\n"),
    (
        "proc/meminfo",
        "MemTotal:       16384000 kB\nMemFree: 1 kB\n",
    ),
    ("proc/sys/net/core/somaxconn", "4096\n"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
    ("proc/sys/fs/inotify/max_user_instances", "128\n"),
    ("proc/sys/fs/inotify/max_user_watches", "65536\n"),
    ("proc/sys/kernel/osrelease", "6.8.0-31-generic\n"),
    ("sys/kernel/security/lsm", "lockdown,capability,landlock\n"),
];

impl Made {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let machine = Machine {
            root: root.path().to_owned(),
            now: SystemTime::now(),
            users_directory: None,
        };
        let made = Self { root, machine };
        for (path, text) in GOOD {
            made.write(path, text);
        }
        made
    }

    fn with(path: &str, text: &str) -> Self {
        let made = Self::new();
        made.write(path, text);
        made
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("ours");
        fs::write(path, text).expect("ours");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn examine(&self, file: Option<&Path>) -> Vec<Finding> {
        examine_on(&self.machine, file)
    }

    /// With `config` in a file.
    fn examine_with(&self, config: &str) -> Vec<Finding> {
        let root = self.root.path().display().to_string();
        self.write("vestibule.toml", &config.replace("{dir}", &root));
        self.examine(Some(&self.path("vestibule.toml")))
    }
}

#[track_caller]
fn one(findings: &[Finding], check: &str) -> Finding {
    let mut found = findings.iter().filter(|it| it.check == check);
    let one = found.next().unwrap_or_else(|| panic!("no {check}"));
    assert_eq!(found.next(), None);
    one.clone()
}

#[track_caller]
fn assert_bad(findings: &[Finding], check: &str, level: Level, words: &[&str]) {
    let finding = one(findings, check);
    let advice = finding.advice.clone().expect("something to do");
    let text = format!("{}\n{advice}", finding.message);
    assert_eq!(finding.level, level, "{text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

const ECHO: &str = "[[backend]]\nname = \"app\"\nto = \"echo\"\n";
const GATE: &str = "[[backend]]\nname = \"app\"\nto = \"gate\"\n";
const LISTENER: &str = "[[listener]]\nname = \"front\"\naddress = \"127.0.0.1:0\"\n";

#[test]
fn a_machine_on_which_all_is_well_has_one_good_finding_for_each_check() {
    let findings = Made::new().examine(None);
    let bad: Vec<_> = findings.iter().filter(|it| it.level != Level::Ok).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    let mut checks: Vec<&str> = findings.iter().map(|it| it.check).collect();
    checks.sort_unstable();
    let expected = "backlog, clock, configuration, descriptors, directories, inotify, landlock, \
                    memory, ports, socket paths";
    assert_eq!(checks.join(", "), expected);
    assert!(one(&findings, "landlock").message.contains("ABI 4"));
}

#[test]
fn too_few_descriptors_are_a_failure_and_almost_enough_a_warning() {
    let limits = |hard: &str| format!("Max open files            1024   {hard}   files\n");
    for (hard, level) in [
        ("1024", Level::Fail),
        ("18000", Level::Fail),
        ("20000", Level::Warn),
        ("20063", Level::Warn),
    ] {
        let findings = Made::with("proc/self/limits", &limits(hard)).examine(None);
        let words = [hard, "LimitNOFILE=20064", "limits.connections"];
        assert_bad(&findings, "descriptors", level, &words);
    }
    for hard in ["20064", "unlimited"] {
        let findings = Made::with("proc/self/limits", &limits(hard)).examine(None);
        assert_eq!(one(&findings, "descriptors").level, Level::Ok, "{hard}");
    }
    // A built-in backend needs no second descriptor.
    let made = Made::with("proc/self/limits", &limits("10064"));
    let findings = made.examine_with(&format!("{LISTENER}{ECHO}"));
    assert_eq!(one(&findings, "descriptors").level, Level::Ok);
    let unlimited = format!("[limits]\nconnections = \"unlimited\"\n{LISTENER}{ECHO}");
    let findings = made.examine_with(&unlimited);
    assert_bad(
        &findings,
        "descriptors",
        Level::Warn,
        &["unlimited", "10000"],
    );
}

#[test]
fn the_smallest_limit_of_memory_counts() {
    for (path, text, level) in [
        ("memory.max", "max\n", Level::Ok),
        ("memory.max", "1073741824\n", Level::Ok),
        ("system.slice/memory.max", "209715200\n", Level::Warn),
        (
            "system.slice/vestibule.service/memory.max",
            "67108864\n",
            Level::Fail,
        ),
    ] {
        let path = format!("sys/fs/cgroup/{path}");
        let finding = one(&Made::with(&path, text).examine(None), "memory");
        assert_eq!(finding.level, level, "{}", finding.message);
        assert_eq!(finding.advice.is_some(), level != Level::Ok);
    }
    let old = Made::with("proc/self/cgroup", "4:cpu:/\n5:memory:/app\n");
    let memory = "sys/fs/cgroup/memory";
    old.write(
        &format!("{memory}/memory.limit_in_bytes"),
        "9223372036854771712\n",
    );
    old.write(&format!("{memory}/app/memory.limit_in_bytes"), "33554432\n");
    let words = ["32.0 MiB", "cgroup", "limits.handshaking"];
    assert_bad(&old.examine(None), "memory", Level::Fail, &words);
}

#[test]
fn a_memory_budget_is_compared_with_the_limits_and_with_the_memory() {
    let made = Made::with("sys/fs/cgroup/memory.max", "1073741824\n");
    let examine = |max: &str, limits: &str| {
        let runtime = format!("[runtime]\nmax_memory = \"{max}\"\n");
        made.examine_with(&format!("{runtime}[limits]\n{limits}\n{LISTENER}{ECHO}"))
    };
    let findings = examine("2GiB", "");
    let words = ["2.0 GiB", "the cgroup", "max_memory to 819.2 MiB"];
    assert_bad(&findings, "memory budget", Level::Warn, &words);
    let findings = examine("128MiB", "");
    let words = ["90 %", "limits.connections", "max_memory to"];
    assert_bad(&findings, "memory budget", Level::Warn, &words);
    for (max, limits) in [("512MiB", ""), ("128MiB", "connections = \"unlimited\"")] {
        let finding = one(&examine(max, limits), "memory budget");
        assert_eq!(finding.level, Level::Ok, "{}", finding.message);
    }
}

#[test]
fn limits_of_the_kernel_that_are_too_small_say_which_key_to_set() {
    let cases: &[(&str, &str, &str, Level, &[&str])] = &[
        (
            "net/core/somaxconn",
            "128\n",
            "backlog",
            Level::Warn,
            &["128", "sysctl -w net.core.somaxconn=4096"],
        ),
        (
            "net/ipv4/ip_local_port_range",
            "50000\t52999\n",
            "ports",
            Level::Fail,
            &["3000 ephemeral ports", "net.ipv4.ip_local_port_range"],
        ),
        (
            "net/ipv4/ip_local_port_range",
            "50000\t59499\n",
            "ports",
            Level::Warn,
            &["9500 ephemeral ports"],
        ),
        (
            "fs/inotify/max_user_instances",
            "0\n",
            "inotify",
            Level::Warn,
            &["15 s", "fs.inotify.max_user_instances"],
        ),
        (
            "fs/inotify/max_user_watches",
            "0\n",
            "inotify",
            Level::Warn,
            &["15 s", "fs.inotify.max_user_watches"],
        ),
    ];
    for (key, text, check, level, words) in cases {
        let made = Made::with(&format!("proc/sys/{key}"), text);
        assert_bad(&made.examine(None), check, *level, words);
    }
    let made = Made::new();
    fs::remove_dir_all(made.path("proc")).expect("ours");
    let findings = made.examine(None);
    for check in ["descriptors", "memory", "ports", "backlog", "inotify"] {
        assert_bad(&findings, check, Level::Warn, &["cannot read /proc/"]);
    }
}

#[test]
fn an_inotify_instance_in_use_counts() {
    let made = Made::with("proc/sys/fs/inotify/max_user_instances", "1\n");
    assert_eq!(one(&made.examine(None), "inotify").level, Level::Ok);
    fs::create_dir_all(made.path("proc/17/fd")).expect("ours");
    symlink("anon_inode:inotify", made.path("proc/17/fd/3")).expect("ours");
    assert_bad(
        &made.examine(None),
        "inotify",
        Level::Warn,
        &["1 are in use"],
    );
}

#[test]
fn a_clock_that_cannot_be_right_is_a_failure() {
    let mut made = Made::new();
    for now in [
        SystemTime::UNIX_EPOCH,
        SystemTime::now() + Duration::from_secs(100 * 365 * 24 * 60 * 60),
    ] {
        made.machine.now = now;
        assert_bad(&made.examine(None), "clock", Level::Fail, &["NTP"]);
    }
}

#[test]
fn a_directory_that_others_can_change_is_a_failure_for_the_gate() {
    let made = Made::new();
    let config = format!("[runtime]\ndirectory = \"{{dir}}/run\"\n{GATE}{LISTENER}");
    let finding = one(&made.examine_with(&config), "directories");
    assert!(
        finding.message.contains("is created at the start"),
        "{finding:?}"
    );
    let directory = made.path("run");
    fs::create_dir(&directory).expect("ours");
    fs::set_permissions(&directory, Permissions::from_mode(0o700)).expect("ours");
    assert_eq!(
        one(&made.examine_with(&config), "directories").level,
        Level::Ok
    );
    fs::set_permissions(&directory, Permissions::from_mode(0o777)).expect("ours");
    let findings = made.examine_with(&config);
    assert_bad(&findings, "directories", Level::Fail, &["chmod go-w"]);
}

#[test]
fn a_default_path_that_is_too_long_for_a_socket_is_a_failure_for_the_gate() {
    let mut made = Made::new();
    made.machine.users_directory = Some(made.path(&"x".repeat(90)));
    let findings = made.examine_with(&format!("{GATE}{LISTENER}"));
    assert_bad(
        &findings,
        "socket paths",
        Level::Fail,
        &["107", "gate.path"],
    );
}

#[test]
fn the_directories_of_the_admin_socket_and_of_the_audit_log_are_checked() {
    let made = Made::new();
    for (name, mode) in [("own", 0o700), ("open", 0o777)] {
        fs::create_dir(made.path(name)).expect("ours");
        fs::set_permissions(made.path(name), Permissions::from_mode(mode)).expect("ours");
    }
    for (admin, audit, failures) in [
        ("own", "own", &[][..]),
        ("new", "own", &[]),
        ("open", "own", &["of the admin socket"]),
        ("own", "missing", &["the audit log cannot be written to"]),
    ] {
        let findings = made.examine_with(&format!(
            "[admin]\naddress = \"unix:{{dir}}/{admin}/admin.sock\"\n[audit]\n\
             path = \"{{dir}}/{audit}/audit.log\"\n{LISTENER}{ECHO}"
        ));
        let directories = findings.iter().filter(|it| it.check == "directories");
        let failed: Vec<String> = directories
            .filter(|it| it.level == Level::Fail)
            .map(|it| format!("{} -> {}", it.message, it.advice.as_deref().unwrap_or("")))
            .collect();
        assert_eq!(failed.len(), failures.len(), "{failed:?}");
        let told = |words: &&str| failed.iter().any(|it| it.contains(words));
        assert!(failures.iter().all(told), "{failed:?}");
    }
}

#[test]
fn a_wrong_configuration_is_a_failure_with_its_place() {
    let made = Made::new();
    let wrong = format!("[limits]\nconections = 1\npendig = 1\n{LISTENER}{ECHO}");
    let words = ["vestibule.toml:2:1: ", "and 1 more", "vestibule check"];
    assert_bad(
        &made.examine_with(&wrong),
        "configuration",
        Level::Fail,
        &words,
    );
    let findings = made.examine(Some(&made.path("missing.toml")));
    assert_bad(&findings, "configuration", Level::Fail, &["missing.toml"]);
}

#[test]
fn certificates_are_listed_with_the_days_that_are_left() {
    let certs = concat!(env!("CARGO_MANIFEST_DIR"), "/certs");
    let tls = format!(
        "[listener.tls]\ncertificates = [ {{ chain = \"{certs}/server.pem\", key = \
         \"{certs}/server-key.pem\" }} ]\n"
    );
    let findings = Made::new().examine_with(&format!("{LISTENER}{tls}{ECHO}"));
    let finding = one(&findings, "certificates");
    assert_eq!(finding.level, Level::Ok);
    assert!(finding.message.contains("listeners: 1, "), "{finding:?}");
    assert!(finding.message.contains(" days)"), "{finding:?}");
}
