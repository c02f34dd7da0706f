//! The command line: exit codes, what goes to stdout and what to stderr, and one line for an error.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::backend::Backend;
use common::client::{self, Front};
use common::pki::{Authority, Subject};
use common::process::{Done, Process, output, tool, vestibule};
use common::{bytes, gate, project, soon};
use serde_json::Value;
use tempfile::{TempDir, tempdir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{self, ClientConfig};

#[tokio::test]
async fn what_was_asked_for_goes_to_stdout_and_nothing_else_anywhere() {
    let version = format!("vestibule {}", env!("CARGO_PKG_VERSION"));
    for (args, part) in [
        ("--version", version.as_str()),
        ("help", "Usage: vestibule"),
        ("--help", "Usage: vestibule"),
        ("help run", "Usage: vestibule run"),
        ("run --help", "Usage: vestibule run"),
        ("help claim", "Usage: vestibule claim"),
        ("completions bash", "complete -F _vestibule"),
        ("completions zsh", "#compdef vestibule"),
        ("completions fish", "complete -c vestibule"),
    ] {
        let done = output(command(args)).await;
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{args}");
        let out = String::from_utf8(done.out).expect("text");
        assert!(out.contains(part), "{args}: {out}");
    }
}

#[tokio::test]
async fn a_reader_that_has_enough_is_no_error() {
    let mut shell = Command::new("/bin/sh");
    let script = "{ \"$0\" completions zsh; echo \"code $?\" >&2; } | head -c 10";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_vestibule")]);
    let done = output(shell).await;
    assert_eq!((done.out.len(), done.err.as_str()), (10, "code 0\n"));
}

#[tokio::test]
async fn wrong_usage_is_one_line_that_says_what_and_exits_with_2() {
    let pair = format!(
        "--cert {} --key {}",
        cert("server.pem"),
        cert("server-key.pem")
    );
    let whole = format!("run --listen 127.0.0.1:0 {pair}");
    for (args, part) in [
        ("bogus".into(), "'bogus'"),
        ("--bogus".into(), "'--bogus'"),
        ("help bogus".into(), "'bogus'"),
        (
            "run".into(),
            "run needs -c FILE, or --listen, --cert, --key and --to",
        ),
        ("run x.toml".into(), "-c FILE"),
        ("check x.toml".into(), "-c FILE"),
        ("-c x.toml".into(), "`vestibule run`"),
        ("claim --gate /x --backend app cat".into(), "after `--`"),
        (
            "run --certificate x".into(),
            "; a similar argument exists: '--cert'",
        ),
        (format!("{whole} --to :9000"), "127.0.0.1:9000"),
        (format!("{whole} --to /run/app.sock"), "unix:/run/app.sock"),
        (
            format!("{whole} --to echo --to hello"),
            "cannot be combined",
        ),
        (format!("{whole} --to x:1 --to tls:x:2"), "all addresses"),
        (
            format!("{whole} --to echo --alpn HTTP/1.1"),
            "did you mean \"http/1.1\"?",
        ),
        (format!("{whole} --to echo --log-format yaml"), "json"),
        (
            "run --listen 127.0.0.1:0 --to tls:x:1 --to x:2".into(),
            "all addresses",
        ),
        ("run --listen 127.0.0.1:0".into(), "--to"),
        ("run --listen 127.0.0.1:0 --to echo".into(), "--cert"),
        (
            format!(
                "run --listen 127.0.0.1:0 --cert {} --to tls:x:1",
                cert("server.pem")
            ),
            "--key",
        ),
        (format!("{whole} --to tls:echo"), "tls:echo"),
        (
            format!("{whole} --to echo --backend-ca {}", cert("ca.pem")),
            "tls:",
        ),
        (
            format!("{whole} --to tls:x:1 --backend-ca /nope.pem"),
            "/nope.pem",
        ),
        (format!("run {pair} --to echo"), "--listen"),
        (
            format!("run --listen nonsense {pair} --to echo"),
            "nonsense",
        ),
        (
            format!("run --listen 127.0.0.1:65536 {pair} --to echo"),
            "65536",
        ),
        (whole.clone(), "--to"),
        (format!("{whole} --to"), "--to"),
        (format!("{whole} --to nonsense"), "nonsense"),
        (format!("{whole} --to 127.0.0.1:0"), "127.0.0.1:0"),
        (format!("{whole} --to echo extra"), "extra"),
        (format!("{whole} --to echo -c x.toml"), "--config"),
        (format!("{whole} --to echo --bogus"), "--bogus"),
        ("check".into(), "--config"),
        ("claim --gate /x --backend app".into(), "COMMAND"),
        (
            "claim --gate /x --backend app --max 0 -- cat".into(),
            "--max",
        ),
        ("completions csh".into(), "csh"),
    ] {
        assert_usage(&output(command(&args)).await, part, &args);
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_named_in_one_line() {
    let directory = tempdir().expect("a directory");
    let empty = directory.path().join("empty.pem").display().to_string();
    fs::write(&empty, "").expect("a file");
    let (chain, key) = (cert("server.pem"), cert("server-key.pem"));
    for (chain, key, named, why) in [
        (&cert("nope.pem"), &key, "nope.pem", "No such file"),
        (&chain, &cert("nope.pem"), "nope.pem", "No such file"),
        (&empty, &key, "empty.pem", "no certificate"),
        (&chain, &empty, "empty.pem", "no private key"),
        (&key, &chain, "server-key.pem", "no certificate"),
        (&chain, &chain, "server.pem", "no private key"),
        (
            &chain,
            &cert("client-key.pem"),
            "client-key.pem",
            "belongs to no certificate",
        ),
    ] {
        let args = format!("run --listen 127.0.0.1:0 --cert {chain} --key {key} --to echo");
        let done = output(command(&args)).await;
        assert_usage(&done, named, &args);
        assert!(done.err.contains(why), "{}", done.err);
    }
}

#[tokio::test]
async fn check_says_yes_to_a_good_file_and_everything_about_a_bad_one() {
    let directory = tempdir().expect("a directory");
    let good = write(&directory, "good.toml", GOOD);
    let done = output(command(&format!("check -c {good}"))).await;
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""));

    let bad = write(&directory, "bad.toml", BAD);
    let done = output(command(&format!("check -c {bad}"))).await;
    assert_eq!((done.code, done.err.as_str()), (Some(2), ""));
    assert_problems(&String::from_utf8(done.out).expect("text"), &bad);

    let done = output(command("check -c /nonexistent/vestibule.toml")).await;
    assert_eq!(done.code, Some(2));
    let out = String::from_utf8(done.out).expect("text");
    assert!(
        out.starts_with("/nonexistent/vestibule.toml:1:1: "),
        "{out}"
    );
}

#[tokio::test]
async fn run_with_a_bad_file_says_all_of_it_on_stderr_and_exits_with_2() {
    let directory = tempdir().expect("a directory");
    let bad = write(&directory, "bad.toml", BAD);
    let done = output(command(&format!("run -c {bad}"))).await;
    assert_eq!((done.code, done.out.len()), (Some(2), 0));
    assert_problems(&done.err, &bad);
}

#[tokio::test]
async fn check_finds_what_could_not_be_bound_or_would_lead_back() {
    let second = "[[listener]]\nname = \"two\"\naddress = \"ADDRESS\"\n[[backend]]";
    let with = |first: &str, address: &str| {
        GOOD.replace("127.0.0.1:0", first)
            .replace("[[backend]]", &second.replace("ADDRESS", address))
    };
    let directory = tempdir().expect("a directory");
    let long = format!("unix:/{}", "x".repeat(107));
    for (config, place, words) in [
        (
            with("[::]:8443", "0.0.0.0:8443"),
            "12:11",
            "`[::]` also serves IPv4",
        ),
        (
            with("0.0.0.0:8443", "127.0.0.1:8443"),
            "12:11",
            "another listener uses",
        ),
        (
            with("127.0.0.1:0", "unix:/nowhere/at/all.sock"),
            "12:11",
            "run `mkdir -p /nowhere/at`",
        ),
        (with("127.0.0.1:0", &long), "12:11", "limited to 107 bytes"),
        (
            GOOD.replace("127.0.0.1:0", "0.0.0.0:8443").replace(
                "\"echo\"\nto = \"echo\"",
                "\"echo\"\nto = \"localhost:8443\"",
            ),
            "12:6",
            "is the address of the listener \"tcp\"",
        ),
        (
            with("127.0.0.1:0", "unix:/tmp/a.sock\"\nmode = \"0999"),
            "13:8",
            "expected an octal mode from \"0000\" to \"0777\", such as \"0660\", found \"0999\"",
        ),
        (
            with("127.0.0.1:0", "unix:/tmp/a.sock\"\ngroup = \"no such group"),
            "13:9",
            "/etc has no group \"no such group\"",
        ),
    ] {
        let file = write(&directory, "vestibule.toml", &config);
        let done = output(command(&format!("check -c {file}"))).await;
        let said = String::from_utf8(done.out).expect("text");
        assert_eq!((done.code, said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.starts_with(&format!("{file}:{place}: ")), "{said}");
        assert!(said.contains(words), "{said}");
    }
    let done = output(run_command("unix:/tmp/a.sock", "unix:/tmp/a.sock", "")).await;
    assert_eq!(done.code, Some(2));
    assert!(
        done.err.contains("is the address of --listen"),
        "{}",
        done.err
    );
}

#[tokio::test]
async fn the_start_is_told_on_stderr_whatever_the_filter_and_in_both_formats() {
    for (log, format) in [
        ("off", "text"),
        ("off", "json"),
        ("", "json"),
        ("debug", "text"),
    ] {
        let directory = tempdir().expect("a directory");
        let config = GOOD
            .replace(
                "[runtime]",
                &format!("[runtime]\nlog_format = \"{format}\""),
            )
            .replace("to = \"echo\"", "to = \"gate\"");
        let file = write(&directory, "vestibule.toml", &config);
        let mut command = command(&format!("run -c {file}"));
        command.env("RUST_LOG", log);
        let process = Process::start(command);
        process.line("limits: ").await;
        let address = address_in(&process.line("listening on tcp:").await);
        assert_ne!(address.rsplit(':').next(), Some("0"), "the real port");
        process.line("gate at unix:").await;
        let limits = process.line("limits: ").await;
        for word in ["connections=77 ", "descriptors=", "memory=", "workers=2"] {
            assert!(limits.contains(word), "{word} in {limits}");
        }
        process.signal(rustix::process::Signal::TERM);
        let (status, said) = process.wait().await;
        assert_eq!(status.code(), Some(0));
        assert!(said.out.is_empty(), "{:?}", said.out);
        let is_json = |line: &String| serde_json::from_str::<Value>(line).is_ok();
        match format {
            "json" => assert!(said.err.iter().all(is_json), "{:#?}", said.err),
            _ => assert!(!said.err.iter().any(is_json), "{:#?}", said.err),
        }
        if log == "off" {
            assert_eq!(said.err.len(), 3, "the start alone: {:#?}", said.err);
        }
    }
}

#[tokio::test]
async fn flags_alone_run_every_kind_of_backend() {
    let directory = tempdir().expect("a directory");
    let tcp = Backend::tcp().await;
    let unix = Backend::unix(&directory.path().join("app.sock"));
    let (to_tcp, to_unix) = (tcp.address(), unix.address());
    let bare = to_tcp.trim_start_matches("tcp:").to_owned();
    let greet = |mut socket: client::Socket| async move {
        socket.write_all(b"hello, ").await.expect("open");
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest).await;
        let _ = socket.write_all(&rest).await;
    };
    let _serving = (tcp.serve(greet), unix.serve(greet));
    for to in ["echo", &to_tcp, &bare, &to_unix] {
        let said = talk(&run(to, "127.0.0.1:0"), b"friend").await;
        let expected = if to == "echo" {
            "friend"
        } else {
            "hello, friend"
        };
        assert_eq!(said, expected, "{to}");
    }
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let said = talk(&run("hello", "127.0.0.1:0"), request).await;
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
}

#[tokio::test]
async fn flags_alone_name_several_addresses_protocols_and_the_form_of_the_log() {
    let (one, two) = (Backend::tcp().await, Backend::tcp().await);
    let more = format!(
        "--to {} --alpn h2,http/1.1 --log-format json",
        two.address()
    );
    let process = Process::start(run_command(&one.address(), "127.0.0.1:0", &more));
    let line = process.line("listening on tcp:").await;
    assert!(serde_json::from_str::<Value>(&line).is_ok(), "{line}");
    let address = address_in(&line);
    let mut config = ClientConfig::clone(&client::config(rustls::ALL_VERSIONS));
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    let connect = async || {
        let socket = TcpStream::connect(&address).await.expect("a listener");
        let connector = TlsConnector::from(Arc::new(config.clone()));
        let name = "localhost".try_into().expect("a name");
        connector.connect(name, socket).await.expect("TLS")
    };
    // The first is open still when the second comes.
    let (first, second) = (connect().await, connect().await);
    soon("a dial", one.accept()).await.expect("a connection");
    soon("a dial", two.accept()).await.expect("a connection");
    for client in [first, second] {
        assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    }
}

#[tokio::test]
async fn a_port_alone_is_every_address_of_this_machine() {
    let process = run("echo", ":0");
    let address = address_in(&process.line("listening on tcp:").await);
    let port = address.strip_prefix("[::]:").expect("all addresses");
    for host in ["127.0.0.1", "[::1]"] {
        let connected = TcpStream::connect(format!("{host}:{port}")).await;
        connected.unwrap_or_else(|error| panic!("{host}: {error}"));
    }
}

#[tokio::test]
async fn a_log_filter_that_would_hide_everything_is_refused() {
    for filter in [
        "verbose",
        "info,verbose",
        "warning",
        "vestibule=loud",
        "debug info",
        "vestibule:debug",
        "info;vestibule=debug",
    ] {
        let mut command = run_command("echo", "127.0.0.1:0", "");
        command.env("RUST_LOG", filter);
        let done = output(command).await;
        assert_usage(
            &done,
            "the levels are off, error, warn, info, debug and trace",
            filter,
        );
        assert!(done.err.contains("RUST_LOG"), "{}", done.err);
    }
    for filter in [
        "",
        "info,",
        "INFO",
        "vestibule",
        "warn,vestibule::gate=debug",
        "3",
    ] {
        let mut command = run_command("echo", "127.0.0.1:0", "");
        command.env("RUST_LOG", filter);
        Process::start(command).line("limits: ").await;
    }
}

#[tokio::test]
async fn what_comes_from_others_is_printed_without_control_characters() {
    let directory = tempfile::tempdir().expect("a directory");
    let label = "\u{1b}[31mX\u{202e}\u{9b}";
    let text = format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
    let file = write(&directory, "odd.pem", &text);
    let key = cert("server-key.pem");
    let of_a_file = format!("run --listen 127.0.0.1:0 --cert {file} --key {key} --to echo");
    for args in [
        of_a_file,
        format!("run -c {label}"),
        format!("run {label}"),
        format!("run --listen {label}:0 --cert {file} --key {key} --to echo"),
    ] {
        let done = output(command(&args)).await;
        assert_eq!(done.code, Some(2), "{args}");
        assert!(done.err.contains("\\u{1b}[31mX"), "{:?}", done.err);
        let is_raw = |it: char| it != '\n' && it.is_control() || it == '\u{202e}';
        assert!(!done.err.contains(is_raw), "{:?}", done.err);
    }
}

#[tokio::test]
async fn a_terminal_has_colours_unless_somebody_minds() {
    // The start fails, so that nothing is left on the terminal once `script` has gone.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    for (name, value, has_colours) in [
        ("NO_COLOR", "", true),
        ("NO_COLOR", "1", false),
        ("TERM", "dumb", false),
        ("TERM", "xterm", true),
    ] {
        // `script` runs it on a terminal of its own.
        let (binary, chain, key) = (
            env!("CARGO_BIN_EXE_vestibule"),
            cert("server.pem"),
            cert("server-key.pem"),
        );
        let shell =
            format!("exec {binary} run --listen {address} --cert {chain} --key {key} --to echo");
        let mut command = tool("script");
        command
            .args(["-qefc", &shell, "/dev/null"])
            .env_remove("NO_COLOR")
            .env_remove("RUST_LOG")
            .env("TERM", "xterm")
            .env(name, value);
        let said = String::from_utf8(output(command).await.out).expect("text");
        let line = said.lines().find(|line| line.contains("ERROR"));
        let line = line.unwrap_or_else(|| panic!("no error: {said}"));
        assert_eq!(
            line.contains('\x1b'),
            has_colours,
            "{name}={value}: {line:?}"
        );
    }
}

#[tokio::test]
async fn a_start_that_fails_leaves_nothing_behind() {
    let directory = tempdir().expect("a directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let mut command = run_command("gate", &address, "");
    command
        .env("TMPDIR", directory.path())
        .env_remove("XDG_RUNTIME_DIR");
    let done = output(command).await;
    assert_eq!(done.code, Some(1), "{}", done.err);
    let left = fs::read_dir(directory.path()).expect("a directory");
    assert_eq!(left.count(), 0);
}

#[tokio::test]
async fn a_listener_on_a_unix_socket_needs_no_file_either() {
    let directory = tempdir().expect("a directory");
    let path = directory.path().join("front.sock");
    let process = run("echo", &format!("unix:{}", path.display()));
    process.line("listening on unix:").await;
    let mut client = Front::Unix(path.clone()).connect().await.expect("TLS");
    bytes::send(&mut client, 1, 100).await.expect("open");
    soon("the echo", bytes::expect(&mut client, 1, 100)).await;
    assert_eq!(process.terminate().await, Some(0));
    assert!(!path.exists());
}

#[tokio::test]
async fn a_gate_on_the_command_line_is_relative_to_where_the_command_was_given() {
    let directory = tempdir().expect("a directory");
    fs::create_dir(directory.path().join("sub")).expect("a directory");
    let absolute = directory.path().join("absolute.sock").display().to_string();
    for given in ["gate.sock", "./gate.sock", "sub/gate.sock", &absolute] {
        let mut command = run_command("gate", "127.0.0.1:0", &format!("--gate {given}"));
        command.current_dir(directory.path());
        let process = Process::start(command);
        let address = address_in(&process.line("listening on tcp:").await);
        process.line("limits: ").await;
        let path = directory.path().join(given);
        let mut client = client::connect(&address).await.expect("TLS");
        let (facts, mut worker) = soon("a connection", gate::accept(&path, "default")).await;
        assert_eq!(facts["listener"], "default");
        worker.write_all(b"served").await.expect("open");
        drop(worker);
        let mut said = String::new();
        let read = soon("a word", client.read_to_string(&mut said)).await;
        read.expect("a clean end");
        assert_eq!(said, "served");
        client.shutdown().await.expect("open");
        drop(client);
        assert_eq!(process.terminate().await, Some(0));
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn the_development_certificate_is_warned_of_beyond_this_machine_and_only_there() {
    let directory = tempdir().expect("a directory");
    let unix = format!("unix:{}/front.sock", directory.path().display());
    for (listen, warned) in [
        ("0.0.0.0:0", true),
        ("[::]:0", true),
        ("127.0.0.1:0", false),
        ("127.9.9.9:0", false),
        ("localhost:0", false),
        (&unix, false),
    ] {
        let process = run("echo", listen);
        process.line("limits: ").await;
        process.signal(rustix::process::Signal::TERM);
        let (status, said) = process.wait().await;
        assert_eq!(status.code(), Some(0), "{listen}");
        let warning = said.err.iter().find(|line| line.contains("WARN"));
        assert_eq!(warning.is_some(), warned, "{listen}: {:#?}", said.err);
        if let Some(warning) = warning {
            assert!(warning.contains("development certificate"), "{warning}");
        }
    }
}

#[tokio::test]
async fn a_certificate_on_the_command_line_that_has_expired_is_served_and_warned_of() {
    let directory = tempdir().expect("a directory");
    let expired = Subject {
        expired: true,
        ..Subject::host(&["localhost"])
    };
    let authority = Authority::root("everybody");
    authority.issue(&expired).write(directory.path(), "old");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (old, old_key) = (path("old.pem"), path("old-key.pem"));
    let (chain, key, ca) = (cert("server.pem"), cert("server-key.pem"), cert("ca.pem"));
    let towards = format!("--to tls:localhost:1 --backend-ca {ca}");
    for flags in [
        format!("--cert {old} --key {old_key} --to echo"),
        format!(
            "--cert {chain} --key {key} {towards} --backend-cert {old} --backend-key {old_key}"
        ),
    ] {
        let process = Process::start(command(&format!("run --listen 127.0.0.1:0 {flags}")));
        process.line("limits: ").await;
        process.signal(rustix::process::Signal::TERM);
        let (status, said) = process.wait().await;
        assert_eq!(status.code(), Some(0), "{flags}");
        let expected = format!("{old}: the certificate expired on 2002-01-01T00:00:00Z");
        let warned = said.err.iter().filter(|line| line.contains("WARN"));
        let warned: Vec<_> = warned.filter(|line| line.contains(&expected)).collect();
        assert_eq!(warned.len(), 1, "{flags}: {:#?}", said.err);
    }
}

#[tokio::test]
async fn why_it_cannot_start_is_one_line_whatever_the_filter() {
    let directory = tempdir().expect("a directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let mut command = run_command("echo", &address, "");
    command.env("RUST_LOG", "off");
    let done = output(command).await;
    assert_eq!((done.code, done.out.len()), (Some(1), 0));
    assert_eq!(done.err.lines().count(), 1, "{}", done.err);
    assert!(done.err.contains(&address), "{}", done.err);

    let missing = format!("unix:{}/missing/front.sock", directory.path().display());
    let done = output(run_command("echo", &missing, "")).await;
    assert_eq!(done.code, Some(1));
    assert_eq!(done.err.lines().count(), 1, "{}", done.err);
    assert!(done.err.contains("missing/front.sock"), "{}", done.err);
}

const GOOD: &str = r#"
[runtime]
workers = 2
directory = "run"
[limits]
connections = 77
[[listener]]
name = "tcp"
address = "tcp:127.0.0.1:0"
[[backend]]
name = "echo"
to = "echo"
"#;

/// Wrong in lines 3, 5, 6, 9 and 12.
const BAD: &str = r#"
[runtime]
workers = 0
[limits]
conections = 5
pending = "ten"
[[listener]]
name = "tcp"
address = "tcp:127.0.0.1"
[[backend]]
name = "echo"
to = "nowhere"
"#;

fn assert_problems(said: &str, file: &str) {
    let mut places = Vec::new();
    for line in said.lines() {
        let rest = line.strip_prefix(&format!("{file}:"));
        let mut parts = rest.unwrap_or_else(|| panic!("{line}")).splitn(3, ':');
        let mut number = || {
            parts
                .next()
                .expect("a part")
                .parse::<usize>()
                .expect("a number")
        };
        let (line_number, column) = (number(), number());
        assert!(column >= 1);
        let message = parts.next().expect("a message");
        assert!(message.starts_with(' ') && message.len() > 10, "{line}");
        places.push(line_number);
    }
    assert_eq!(places, [3, 5, 6, 9, 12], "{said}");
}

fn assert_usage(done: &Done, part: &str, args: &str) {
    assert_eq!((done.code, done.out.len()), (Some(2), 0), "{args}");
    assert_eq!(done.err.lines().count(), 1, "{args}: {}", done.err);
    assert!(done.err.starts_with("vestibule: "), "{args}: {}", done.err);
    assert!(done.err.contains(part), "{args}: {}", done.err);
}

fn command(args: &str) -> Command {
    let mut command = vestibule();
    command.args(args.split_whitespace()).env_remove("RUST_LOG");
    command
}

fn run_command(to: &str, listen: &str, more: &str) -> Command {
    let (chain, key) = (cert("server.pem"), cert("server-key.pem"));
    command(&format!(
        "run --listen {listen} --cert {chain} --key {key} --to {to} {more}"
    ))
}

fn run(to: &str, listen: &str) -> Process {
    Process::start(run_command(to, listen, ""))
}

/// One client: what it says, and all that it is answered.
async fn talk(process: &Process, say: &[u8]) -> String {
    let address = address_in(&process.line("listening on tcp:").await);
    let mut client = client::connect(&address).await.expect("TLS");
    client.write_all(say).await.expect("open");
    client.shutdown().await.expect("open");
    let mut said = String::new();
    let read = soon("an answer", client.read_to_string(&mut said)).await;
    read.expect("a clean end");
    said
}

/// The address in a line of the start, in either format.
fn address_in(line: &str) -> String {
    let (_, rest) = line.split_once("listening on tcp:").expect("an address");
    let end = rest.find(|c: char| c.is_whitespace() || c == '"');
    rest[..end.unwrap_or(rest.len())].to_owned()
}

fn cert(name: &str) -> String {
    project(&format!("certs/{name}"))
}

fn write(directory: &TempDir, name: &str, text: &str) -> String {
    let path = Path::new(directory.path()).join(name);
    fs::write(&path, text).expect("a file");
    path.display().to_string()
}
