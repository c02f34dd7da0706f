//! Messages at the start, and reasons for a failed start.

use crate::*;

#[tokio::test]
async fn the_start_is_logged_to_stderr_with_any_filter_and_in_both_formats() {
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
        process.line("admin API at unix:").await;
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
            assert_eq!(said.err.len(), 4, "the start alone: {:#?}", said.err);
        }
    }
}

#[tokio::test]
async fn the_log_has_colours_on_a_terminal_unless_no_color_is_set() {
    // The start fails, so that no process is left on the terminal after `script` has exited.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    for (name, value, has_colours) in [
        ("NO_COLOR", "", true),
        ("NO_COLOR", "1", false),
        ("TERM", "dumb", false),
        ("TERM", "xterm", true),
    ] {
        // `script` runs it on a pseudo terminal.
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
async fn the_development_certificate_causes_a_warning_on_non_loopback_listeners_only() {
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
async fn an_expired_certificate_on_the_command_line_is_served_with_a_warning() {
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
async fn a_failed_start_logs_its_reason_in_one_line_with_any_filter() {
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
