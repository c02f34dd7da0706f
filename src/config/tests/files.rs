//! Whole files: everything that is wrong in one go, and nothing that makes the reader fall.

use std::os::unix::net::UnixListener;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

#[test]
fn every_problem_is_reported_in_the_order_of_the_file() {
    let text = r#"lisener = 3
[runtime]
workers = 0
[limits]
conections = 5
[[listener]]
name = "https"
address = "?:1"
[[listener]]
name = "https"
adress = "127.0.0.1:1"
[[route]]
listener = ["htps", "gopher"]
backend = "app"
[[backend]]
name = "api"
to = ["x", "a:0"]
[[backend]]
"#;
    assert_eq!(
        problems(text),
        [
            "1:1: unknown key `lisener`, did you mean `listener`?",
            "3:11: `runtime.workers`: expected a whole number from 1 to 1024, found 0",
            "5:1: unknown key `limits.conections`, did you mean `connections`?",
            "8:11: `listener.address`: \"?:1\": the host must be a name or an IP address, as in `localhost:8443` or `[::1]:8443`",
            "9:1: `listener` needs the key `address`",
            "10:8: the name \"https\" is used twice",
            "11:1: unknown key `listener.adress`, did you mean `address`?",
            "13:13: `route.listener`: no listener has the name \"htps\", did you mean \"https\"?",
            "13:21: `route.listener`: no listener has the name \"gopher\"; known: https",
            "14:11: `route.backend`: no backend has the name \"app\", did you mean \"api\"?",
            "17:7: `backend.to`: \"x\": the port is missing; write `127.0.0.1:8443`, or `unix:/path` for a Unix socket; or write gate, hello or echo",
            "17:12: `backend.to`: \"a:0\": the port of a backend must not be 0",
            "18:1: `backend` needs the key `name`",
            "18:1: `backend` needs the key `to`",
        ]
    );
}

#[test]
fn unknown_keys_are_told_in_every_table() {
    for (part, expected) in [
        (
            "limit = 1",
            "1:1: unknown key `limit`, did you mean `limits`?",
        ),
        (
            "gopher = 1",
            "1:1: unknown key `gopher`; known here: runtime, limits, timeouts, gate, admin, \
             audit, backend, listener, route",
        ),
        (
            "[runtime]\nwrokers = 1",
            "2:1: unknown key `runtime.wrokers`, did you mean `workers`?",
        ),
        (
            "[limits]\nconctions = 1",
            "2:1: unknown key `limits.conctions`, did you mean `connections`?",
        ),
        (
            "[gate]\ngopher = 1",
            "2:1: unknown key `gate.gopher`; known here: path, allow_uids, allow_gids, max_clients",
        ),
        (
            "[admin]\nadress = \"none\"",
            "2:1: unknown key `admin.adress`, did you mean `address`?",
        ),
        (
            "[timeouts.idle]\nx = 1",
            "1:1: `timeouts.idle`: expected a duration such as \"10s\", \"500ms\" or \"1h\", \
             found a table; \"unlimited\" turns it off",
        ),
    ] {
        assert_eq!(problems(&with(part)), [expected]);
    }
    assert_eq!(
        problems(&with("").replace("to =", "health = { fal = 1 }\nto =")),
        ["7:12: unknown key `backend.health.fal`, did you mean `fall`?"]
    );
}

#[test]
fn what_is_not_there_is_asked_for() {
    const NO_LISTENER: &str = "1:1: there is no `[[listener]]`; add one with `name` and `address`";
    const NO_BACKEND: &str = "1:1: there is no `[[backend]]`; add one with `name` and `to`";
    assert_eq!(problems(""), [NO_BACKEND, NO_LISTENER]);
    assert_eq!(
        problems("listener = []\nbackend = []"),
        [NO_BACKEND, NO_LISTENER]
    );
    assert_eq!(problems(LISTENER), [NO_BACKEND]);
    assert_eq!(problems(BACKEND), [NO_LISTENER]);
    let two = format!("{LISTENER}{BACKEND}{}", BACKEND.replace("app", "api"));
    assert_eq!(
        problems(&two),
        ["1:1: with several backends, add `[[route]]` tables that choose between them"]
    );
    let routes = "[[route]]\nlistener = \"x\"\nbackend = \"y\"\n";
    assert_eq!(
        problems(routes),
        [NO_BACKEND, NO_LISTENER],
        "names are not held against nothing"
    );
}

#[test]
fn a_wrong_type_is_one_problem_and_not_the_lack_of_it_too() {
    for (text, expected) in [
        (
            format!("limits = 5\n{LISTENER}{BACKEND}"),
            "1:10: `limits`: expected a table, as under `[limits]`, found an integer",
        ),
        (
            format!("{LISTENER}{}", BACKEND.replace("[[backend]]", "[backend]")),
            "4:1: `backend`: expected a list of tables, as under `[[backend]]`, found a table",
        ),
        (
            format!("listener = [ 5 ]\n{BACKEND}"),
            "1:14: `listener`: expected a table, as under `[[listener]]`, found an integer",
        ),
        (
            format!("{LISTENER}{BACKEND}[route]\nbackend = \"app\"\n"),
            "7:1: `route`: expected a list of tables, as under `[[route]]`, found a table",
        ),
    ] {
        assert_eq!(problems(&text), [expected]);
    }
}

#[test]
fn names_are_unique_among_their_kind() {
    let namesake = LISTENER.replace("8443", "8444");
    let text = format!("{LISTENER}{namesake}{}", BACKEND.replace("app", "front"));
    assert_eq!(problems(&text), ["5:8: the name \"front\" is used twice"]);
    let route = "[[route]]\nbackend = \"app\"\n";
    let text = format!("{LISTENER}{BACKEND}{BACKEND}{route}");
    assert_eq!(problems(&text), ["8:8: the name \"app\" is used twice"]);
}

#[test]
fn a_name_has_at_most_64_bytes() {
    let longest = "n".repeat(64);
    parse(&with("").replace("front", &longest));
    let problem = problems(&with("").replace("front", &format!("{longest}n")));
    assert!(problem[0].starts_with("3:8: `listener.name`: expected a name of 1 to 64"));
}

#[test]
fn what_is_not_toml_is_said_with_its_place() {
    for (text, place) in [
        ("[limits]\nconnections = \n", "2:15: not TOML: "),
        ("[limits\n", "1:8: not TOML: "),
        (
            "[limits]\npending = 1\npending = 2\n",
            "3:1: not TOML: duplicate key",
        ),
        ("e = \"ü\" x\n", "1:9: not TOML: "),
        ("a = 1\r\nb = \"\r\n", "2:"),
        ("\0", "1:1: not TOML: "),
    ] {
        let problems = problems(text);
        assert!(problems[0].starts_with(place), "{text:?}: {problems:?}");
        let about_toml = |problem: &String| problem.contains("not TOML: ");
        assert!(problems.iter().all(about_toml), "{text:?}: {problems:?}");
    }
}

#[test]
fn columns_count_characters() {
    assert_eq!(
        problems(&with("audit = { path = \"none\", keep = 1, \"ü日\" = 1 }")),
        ["1:36: unknown key `audit.ü日`; known here: path, rotate, keep"]
    );
    assert_eq!(
        problems(&with("gate = { path = \"ü日\", max_clients = 0 }")),
        ["1:37: `gate.max_clients`: 0 is refused; \"unlimited\" turns it off"]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem() {
    let directory = tempfile::tempdir().expect("a directory");
    let missing = directory.path().join("vestibule.toml");
    let error = Config::from_file(&missing).expect_err("no file");
    let expected = "1:1: cannot read the configuration: No such file or directory (os error 2)";
    assert_eq!(
        error.to_string(),
        format!("{}:{expected}", missing.display())
    );

    fs::write(&missing, b"log = \"\xff\"").expect("a file");
    let error = Config::from_file(&missing).expect_err("not UTF-8");
    assert!(
        error
            .to_string()
            .ends_with("stream did not contain valid UTF-8")
    );
}

/// Each way to name a file, and each kind of thing that may be there instead.
#[test]
fn what_is_no_regular_file_or_has_no_end_is_a_problem() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let fifo = path("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
    let _socket = UnixListener::bind(path("socket")).expect("a socket");
    for (name, size) in [("most", 64 * MIB), ("more", 64 * MIB + 1)] {
        let file = fs::File::create(path(name)).expect("a file");
        file.set_len(size).expect("a size");
    }
    for (file, why) in [
        (directory.path().to_owned(), "it is not a regular file"),
        (fifo, "it is not a regular file"),
        (path("socket"), "it is not a regular file"),
        ("/dev/null".into(), "it is not a regular file"),
        ("/dev/zero".into(), "it is not a regular file"),
        (path("more"), "it is larger than 64 MiB"),
    ] {
        let shown = file.display();
        let error = Config::from_file(&file).expect_err("not a configuration");
        let expected = format!("{shown}:1:1: cannot read the configuration: {why}");
        assert_eq!(error.to_string(), expected);

        let text = format!("{LISTENER}[listener.tls]\nclient_ca = {file:?}\n");
        let expected = format!("5:13: `listener.tls.client_ca`: cannot read {shown}: {why}");
        let problems = problems(&text);
        assert!(problems.contains(&expected), "{problems:?}");
    }
    let error = Config::from_file(path("most")).expect_err("not a configuration");
    assert!(!error.to_string().contains("cannot read"), "{error}");
}

const MIB: u64 = 1024 * 1024;

#[test]
fn a_file_that_ends_anywhere_is_read_or_refused_with_a_word() {
    let whole = meaning::EVERYTHING;
    assert_eq!(problems(whole), [""; 0]);
    let mut refused = 0;
    for (end, _) in whole.char_indices() {
        refused += usize::from(!problems(&whole[..end]).is_empty());
    }
    assert!(refused > whole.len() / 2);
}

#[test]
fn a_file_with_any_one_character_changed_is_read_or_refused_with_a_word() {
    let whole = meaning::EVERYTHING;
    for (index, c) in whole.char_indices() {
        for other in ['"', '[', '\n', 'ü'] {
            let rest = &whole[index + c.len_utf8()..];
            problems(&format!("{}{other}{rest}", &whole[..index]));
        }
    }
}

#[test]
fn the_examples_are_valid_and_the_reference_shows_the_defaults() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut seen = 0;
    for entry in fs::read_dir(&examples).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            Config::from_file(&path).unwrap_or_else(|problems| panic!("{problems}"));
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen} examples");

    let reference = Config::from_file(examples.join("reference.toml")).expect("just read");
    let default = Config::demo();
    assert_eq!(reference.limits, default.limits);
    assert_eq!(
        format!("{:?}", reference.timeouts),
        format!("{:?}", default.timeouts)
    );
    assert_eq!(reference.drain, default.drain);
    assert_eq!(reference.unacknowledged, default.unacknowledged);
    assert_eq!(reference.gate, Some(gate::Settings::default()));
    assert_eq!(reference.backends[0].balance, default.backends[0].balance);
    assert_eq!(reference.backends[0].park, default.backends[0].park);
    assert_eq!(reference.backends[0].health, default.backends[0].health);
    assert_eq!(reference.backends[0].proxy_protocol, None);
    assert_eq!(reference.listeners[0].proxies, None);
}

#[test]
fn a_rule_about_identities_that_nobody_has_is_warned_of() {
    let listener = |name: &str, client_auth: &str| {
        format!(
            "[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\n[listener.tls]\n\
             certificates = [ {{ chain = \"certs/server.pem\", key = \"certs/server-key.pem\" }} ]\n\
             {client_auth}\n"
        )
    };
    let asks = listener(
        "asks",
        "client_auth = \"optional\"\nclient_ca = \"certs/ca.pem\"",
    );
    let silent = listener("silent", "");
    let route =
        |more: &str| format!("[[route]]\n{more}identity = \"cn:alice\"\nbackend = \"app\"\n");
    for (text, expected) in [
        (format!("{asks}{silent}{}", route("")), 0),
        (
            format!("{asks}{silent}{}", route("listener = \"asks\"\n")),
            0,
        ),
        (
            format!("{asks}{silent}{}", route("listener = \"silent\"\n")),
            1,
        ),
        (format!("{silent}{}", route("")), 1),
    ] {
        let config = parse(&format!("{text}{BACKEND}"));
        assert_eq!(config.warnings().len(), expected, "{text}");
    }
}

#[test]
fn a_route_behind_one_that_takes_everything_is_warned_of() {
    for (earlier, later, expected) in [
        ("", "", true),
        ("", "sni = \"a.example\"", true),
        ("", "from = \"10.0.0.0/8\"\nalpn = \"h2\"", true),
        ("listener = \"front\"", "listener = \"front\"", true),
        ("listener = \"front\"", "", false),
        ("alpn = [\"h2\", \"http/1.1\"]", "alpn = \"h2\"", true),
        ("alpn = \"h2\"", "alpn = [\"h2\", \"http/1.1\"]", false),
        ("alpn = \"h2\"", "", false),
        ("sni = \"a.example\"", "", false),
        ("from = \"10.0.0.0/8\"", "", false),
        ("identity = \"cn:web\"", "", false),
    ] {
        let route = |keys: &str| format!("[[route]]\n{keys}\nbackend = \"app\"\n");
        let text = format!("{LISTENER}{}{}{BACKEND}", route(earlier), route(later));
        let line = 4 + route(earlier).lines().count();
        let config = parse(&text);
        let warned = config.warnings().iter();
        let warned: Vec<_> = warned
            .filter(|warning| warning.message.starts_with("`route`"))
            .map(|warning| (warning.line, &*warning.message))
            .collect();
        let warning = "`route`: never matches, because the route in line 4 matches first";
        let expected = expected.then_some((line, warning));
        assert_eq!(warned, Vec::from_iter(expected), "{text}");
    }
}

#[test]
fn two_listeners_with_one_address_are_a_problem_before_they_are_bound() {
    let second = |address: &str| {
        format!("{LISTENER}[[listener]]\nname = \"second\"\naddress = \"{address}\"\n{BACKEND}")
    };
    let text = second("tcp:127.0.0.1:8443");
    assert_eq!(
        problems(&text),
        ["6:11: another listener already uses tcp:127.0.0.1:8443"]
    );
    parse(&second("tcp:127.0.0.1:8444"));
    // The system chooses another port for each.
    parse(&second("tcp:127.0.0.1:0").replace("8443", "0"));
}

#[test]
fn a_listener_with_the_address_of_the_gate_is_a_problem_before_it_is_bound() {
    let beside = |runtime: &str, gate: &str| {
        let listener = LISTENER.replace("tcp:127.0.0.1:8443", "unix:/run/v/gate.sock");
        format!("runtime = {{ {runtime} }}\ngate = {{ {gate} }}\n{listener}{BACKEND}")
    };
    for (runtime, gate, is_taken) in [
        ("", "path = \"/run/v/gate.sock\"", true),
        ("directory = \"/run/v\"", "path = \"gate.sock\"", true),
        ("directory = \"/run/v\"", "", true),
        ("directory = \"/run/w\"", "", false),
        ("directory = \"/run/v\"", "path = \"none\"", false),
        ("", "path = \"/run/v/other.sock\"", false),
        ("", "", false),
    ] {
        let expected = is_taken.then_some("5:11: the gate already uses unix:/run/v/gate.sock");
        let text = beside(runtime, gate);
        assert_eq!(problems(&text), Vec::from_iter(expected), "{text}");
    }
}

#[test]
fn what_a_refused_file_has_named_is_known_also_where_it_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vestibule.toml");
    let refused = || Config::from_file(&path).expect_err("refused");
    let named = |error: &ConfigError| -> Vec<PathBuf> {
        let files = error.files().iter();
        files.map(|file| file.path().to_owned()).collect()
    };
    assert_eq!(named(&refused()), [path.as_path()]);
    let tls = "tls.certificates = [ { chain = \"late.pem\", key = \"late-key.pem\" } ]\n";
    fs::write(&path, format!("{LISTENER}{tls}{BACKEND}")).unwrap();
    let certificate = ["late.pem", "late-key.pem"].map(|file| directory.path().join(file));
    assert_eq!(named(&refused())[..2], certificate);
    assert_eq!(named(&refused())[2..], [path.as_path()]);
}

#[test]
fn what_is_only_read_while_clients_are_asked_for_certificates_is_warned_of_otherwise() {
    let directory = tempfile::tempdir().expect("a directory");
    let list = directory.path().join("crl.pem");
    fs::write(&list, revocation_list()).expect("a file");
    let crl = format!("crl = \"{}\"", list.display());
    let ca = "client_ca = \"certs/ca.pem\"";
    for (lines, expected) in [
        (String::new(), None),
        ("crl = []\nclient_ca = []".into(), None),
        // By none of them.
        (
            format!("client_auth = \"required\"\n{ca}\n{crl}"),
            Some((8, 7)),
        ),
        (ca.to_owned(), Some((6, 13))),
        (crl.clone(), Some((6, 7))),
        (format!("client_auth = \"none\"\n{crl}"), Some((6, 15))),
        (format!("{crl}\n{ca}"), Some((7, 13))),
    ] {
        let config = parse(&format!(
            "{LISTENER}[listener.tls]\ncertificates = [ {{ chain = \"certs/server.pem\", key = \
             \"certs/server-key.pem\" }} ]\n{lines}\n{BACKEND}"
        ));
        let warned: Vec<_> = (config.warnings().iter())
            .map(|warning| (warning.line, warning.column))
            .collect();
        assert_eq!(warned, Vec::from_iter(expected), "{lines}");
    }
}

#[test]
fn authorities_that_cannot_be_read_do_not_hide_what_is_wrong_with_a_revocation_list() {
    let text = asking("certs/none.pem", "certs/ca.pem");
    let problems = problems(&text);
    let [bundle, list] = &problems[..] else {
        panic!("two problems, found {problems:?}");
    };
    assert!(bundle.starts_with("7:13: `listener.tls.client_ca`: cannot read"));
    assert!(list.starts_with("8:7: certs/ca.pem: not a certificate revocation list"));
}

/// What is passed over is not in force.
#[test]
fn a_revocation_list_is_never_passed_over() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("crl.pem");
    let (good, ca) = (
        revocation_list(),
        fs::read_to_string("certs/ca.pem").expect("a file"),
    );
    let relabelled = |label: &str| revocation_list().replace("X509 CRL", label).into_bytes();
    let der = rustls_pemfile::crls(&mut good.as_bytes()).next();
    let der = der.expect("a list").expect("PEM").to_vec();
    for (beside, why) in [
        (relabelled("CRL"), "unknown label"),
        (relabelled("CERTIFICATE"), "the CERTIFICATE block in line"),
        (der, "DER beside PEM"),
    ] {
        for content in [
            [good.as_bytes(), &beside].concat(),
            [&beside, &b"\n"[..], good.as_bytes()].concat(),
        ] {
            fs::write(&path, content).expect("a file");
            let problems = problems(&asking("certs/ca.pem", &path.display().to_string()));
            assert!(
                problems.len() == 1 && problems[0].contains(why),
                "{problems:?}"
            );
        }
    }
    // Nor is one among authorities, unless the same file is in `crl`.
    fs::write(&path, format!("{ca}{good}")).expect("a file");
    let both = path.display().to_string();
    let problems = problems(&asking(&both, ""));
    let expected = "begins a revocation list, which has no effect in a file of authorities";
    assert!(
        problems.len() == 1 && problems[0].contains(expected),
        "{problems:?}"
    );
    parse(&asking(&both, &both));
    fs::write(
        &path,
        format!("{ca}{good}{}", good.replace("-----\nM", "-----\nN")),
    )
    .expect("a file");
    let problems = self::problems(&asking("certs/ca.pem", &both));
    assert!(problems[0].contains("list 2 in line "), "{problems:?}");
}

/// Asks for certificates of these authorities, less those of these lists.
fn asking(client_ca: &str, crl: &str) -> String {
    let crl = match crl {
        "" => String::new(),
        crl => format!("crl = \"{crl}\"\n"),
    };
    format!(
        "{LISTENER}[listener.tls]\ncertificates = [ {{ chain = \"certs/server.pem\", key = \
         \"certs/server-key.pem\" }} ]\nclient_auth = \"required\"\nclient_ca = \"{client_ca}\"\n\
         {crl}{BACKEND}"
    )
}

/// Of nobody, in PEM.
fn revocation_list() -> String {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign];
    let issuer = rcgen::CertifiedIssuer::self_signed(params, key).expect("an issuer");
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2026, 1, 1),
        next_update: rcgen::date_time_ymd(2100, 1, 1),
        crl_number: rcgen::SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&issuer).expect("a list");
    list.pem().expect("PEM")
}
