//! Wrong usage, and what is printed to which stream.

use crate::*;

#[tokio::test]
async fn requested_output_goes_to_stdout_and_nothing_to_stderr() {
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
async fn a_closed_stdout_is_no_error() {
    let mut shell = Command::new("/bin/sh");
    let script = "{ \"$0\" completions zsh; echo \"code $?\" >&2; } | head -c 10";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_vestibule")]);
    let done = output(shell).await;
    assert_eq!((done.out.len(), done.err.as_str()), (10, "code 0\n"));
}

#[tokio::test]
async fn wrong_usage_is_an_error_of_one_line_and_exits_with_2() {
    let pair = "--cert {certs}/server.pem --key {certs}/server-key.pem";
    for (args, part) in WRONG_USAGE {
        let args = args
            .replace("{whole}", "run --listen 127.0.0.1:0 {pair}")
            .replace("{pair}", pair)
            .replace("{certs}", &project("certs"));
        assert_usage(&output(command(&args)).await, part, &args);
    }
}

/// Arguments, and the words that the error must contain.
const WRONG_USAGE: &[(&str, &str)] = &[
    ("bogus", "'bogus'"),
    ("--bogus", "'--bogus'"),
    ("help bogus", "'bogus'"),
    (
        "run",
        "run needs -c FILE, or --listen, --cert, --key and --to",
    ),
    ("run x.toml", "-c FILE"),
    ("check x.toml", "-c FILE"),
    ("-c x.toml", "`vestibule run`"),
    ("claim --gate /x --backend app cat", "after `--`"),
    (
        "run --certificate x",
        "; a similar argument exists: '--cert'",
    ),
    ("{whole} --to :9000", "127.0.0.1:9000"),
    ("{whole} --to /run/app.sock", "unix:/run/app.sock"),
    ("{whole} --to echo --to hello", "cannot be combined"),
    ("{whole} --to x:1 --to tls:x:2", "all addresses"),
    (
        "{whole} --to echo --alpn HTTP/1.1",
        "did you mean \"http/1.1\"?",
    ),
    ("{whole} --to echo --log-format yaml", "json"),
    (
        "run --listen 127.0.0.1:0 --to tls:x:1 --to x:2",
        "all addresses",
    ),
    ("run --listen 127.0.0.1:0", "--to"),
    ("run --listen 127.0.0.1:0 --to echo", "--cert"),
    (
        "run --listen 127.0.0.1:0 --cert {certs}/server.pem --to tls:x:1",
        "--key",
    ),
    ("{whole} --to tls:echo", "tls:echo"),
    ("{whole} --to echo --backend-ca {certs}/ca.pem", "tls:"),
    ("{whole} --to tls:x:1 --backend-ca /nope.pem", "/nope.pem"),
    ("run {pair} --to echo", "--listen"),
    ("run --listen nonsense {pair} --to echo", "nonsense"),
    ("run --listen 127.0.0.1:65536 {pair} --to echo", "65536"),
    ("{whole}", "--to"),
    ("{whole} --to", "--to"),
    ("{whole} --to nonsense", "nonsense"),
    ("{whole} --to 127.0.0.1:0", "127.0.0.1:0"),
    ("{whole} --to echo extra", "extra"),
    ("{whole} --to echo -c x.toml", "--config"),
    ("{whole} --to echo --bogus", "--bogus"),
    ("check", "--config"),
    ("claim --gate /x --backend app", "COMMAND"),
    ("claim --gate /x --backend app --max 0 -- cat", "--max"),
    ("completions csh", "csh"),
];

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
async fn untrusted_text_is_printed_without_control_characters() {
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

fn assert_usage(done: &Done, part: &str, args: &str) {
    assert_eq!((done.code, done.out.len()), (Some(2), 0), "{args}");
    assert_eq!(done.err.lines().count(), 1, "{args}: {}", done.err);
    assert!(done.err.starts_with("vestibule: "), "{args}: {}", done.err);
    assert!(done.err.contains(part), "{args}: {}", done.err);
}
