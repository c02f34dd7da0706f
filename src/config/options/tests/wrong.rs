//! Wrong options, and the part that each problem names.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

#[test]
fn a_wrong_value_is_reported_with_its_key_and_its_part() {
    let built = Config::builder()
        .limits(LimitOptions::default().connections(0).pending(usize::MAX))
        .timeouts(TimeoutOptions::default().idle(Duration::ZERO))
        .listener(front().mode(0o660))
        .listener(ListenerOptions::new("https", address("127.0.0.1:1")).tls(secure().alpn([""])))
        .listener(ListenerOptions::new("https", address("127.0.0.1:2")))
        .route(RouteOptions::to("app"))
        .route(RouteOptions::to("ap").from(["nowhere"]))
        .backend(BackendOptions::new("app", Vec::new()))
        .build();
    assert_eq!(
        problems(built),
        [
            "`limits.connections`: 0 is refused; \"unlimited\" turns it off",
            "`limits.pending`: expected a whole number from 1 to 4294967295, found \
             9223372036854775807; \"unlimited\" turns it off",
            "`timeouts.idle`: 0 is refused; \"unlimited\" turns it off",
            "listener \"front\": `listener.mode`: only for `unix:` addresses; leave it out",
            "listener \"https\": `listener.tls.alpn`: the name of a protocol must have 1 to 255 \
             bytes, found 0",
            "listener \"https\": the name \"https\" is used twice; change one of them",
            "route[1]: `route.backend`: no backend has the name \"ap\", did you mean \"app\"?",
            "route[1]: `route.from`: \"nowhere\": expected a network such as 192.0.2.0/24 or \
             2001:db8::/32, or one address",
            "backend \"app\": `backend.to`: expected at least one address",
        ]
    );
}

#[test]
fn missing_parts_are_reported_without_a_part() {
    assert_eq!(
        problems(Config::builder().build()),
        [
            "there is no `[[backend]]`; add one with `name` and `to`",
            "there is no `[[listener]]`; add one with `name` and `address`",
        ]
    );
    let other = BackendOptions::new("other", BackendTarget::Echo);
    let built = Config::builder()
        .listener(front())
        .backend(app())
        .backend(other);
    assert_eq!(
        problems(built.build()),
        ["with several backends, add `[[route]]` tables that choose between them"]
    );
}

#[test]
fn warnings_say_which_route_and_listener() {
    let nowhere = ListenerOptions::new("inside", address("unix:/nowhere/example.sock"));
    let elsewhere = ListenerOptions::new("elsewhere", address("192.0.2.1:80"));
    let config = Config::builder()
        .listener(front().tls(secure().crl([])))
        .listener(nowhere)
        .listener(elsewhere)
        .route(RouteOptions::to("app"))
        .route(RouteOptions::deny().sni(["a.example"]))
        .backend(app())
        .build()
        .expect("a configuration");
    let messages = |problems: &[crate::config::Problem]| -> Vec<String> {
        let places = problems.iter().map(|it| (it.line, it.column));
        assert!(places.into_iter().all(|place| place == (0, 0)));
        problems.iter().map(|it| it.message.clone()).collect()
    };
    let never = "route[1]: `route`: never matches, because route[0] matches first".to_owned();
    let warnings = messages(config.warnings());
    assert!(warnings.contains(&never), "{warnings:?}");
    let unready = messages(config.unready());
    let of = |part: &str| unready.iter().filter(|it| it.starts_with(part)).count();
    assert_eq!(
        (unready.len(), of("listener \"inside\": ")),
        (2, 1),
        "{unready:?}"
    );
    assert_eq!(
        of("listener \"elsewhere\": `listener.address`: "),
        1,
        "{unready:?}"
    );
}

#[test]
fn a_path_that_a_file_cannot_have_is_refused_with_its_key() {
    let odd = || PathBuf::from(OsStr::from_bytes(b"/run/\xff"));
    let built = Config::builder()
        .runtime(RuntimeOptions::default().directory(odd()))
        .listener(ListenerOptions::new("inside", Address::Unix(odd())))
        .backend(app().tls(BackendTlsOptions::default().ca([DataSource::file("\0x")])))
        .build();
    let must = "must be UTF-8 without NUL bytes";
    assert_eq!(
        problems(built),
        [
            format!("`runtime.directory`: the path \"/run/\\xFF\" {must}"),
            format!("listener \"inside\": `listener.address`: the path \"/run/\\xFF\" {must}"),
            format!("backend \"app\": `backend.tls.ca[0]`: the path \"\\0x\" {must}"),
        ]
    );
}

#[test]
fn strings_stay_strings() {
    // A word, a quote and a line of TOML inside a value do not end it.
    for name in [
        "\"",
        "a\"\nworkers = 1\n[x]",
        "unlimited\u{1b}",
        "'''",
        "\\",
    ] {
        let built = with(ListenerOptions::new(name, address("127.0.0.1:0")));
        let [problem] = &problems(built)[..] else {
            panic!("one problem of {name:?}");
        };
        assert!(
            problem.contains("`listener.name`: expected a name of 1 to 64"),
            "{problem}"
        );
    }
}
