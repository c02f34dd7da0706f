//! Whole files: all problems are reported at once, and no input makes the reader panic.

mod agreement;
mod revocation;

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
            "10:8: the name \"https\" is used twice; change one of them",
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
             audit, backend, listener, route, join",
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
fn missing_keys_and_tables_are_reported() {
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
fn a_wrong_type_is_reported_once_and_not_as_missing_too() {
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
fn a_name_has_at_most_64_bytes() {
    let longest = "n".repeat(64);
    parse(&with("").replace("front", &longest));
    let problem = problems(&with("").replace("front", &format!("{longest}n")));
    assert!(problem[0].starts_with("3:8: `listener.name`: expected a name of 1 to 64"));
}

#[test]
fn invalid_toml_is_reported_with_its_place() {
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

/// Each way to name a file, and each kind of file that may be there instead.
#[test]
fn irregular_and_endless_files_are_problems() {
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
fn a_truncated_file_is_read_or_refused_with_a_message() {
    let whole = meaning::EVERYTHING;
    assert_eq!(problems(whole), [""; 0]);
    let mut refused = 0;
    for (end, _) in whole.char_indices() {
        refused += usize::from(!problems(&whole[..end]).is_empty());
    }
    assert!(refused > whole.len() / 2);
}

#[test]
fn a_file_with_one_changed_character_is_read_or_refused_with_a_message() {
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
    assert_eq!(reference.gate, Some(gate::GateSettings::default()));
    assert_eq!(reference.backends[0].balance, default.backends[0].balance);
    assert_eq!(reference.backends[0].park, default.backends[0].park);
    assert_eq!(reference.backends[0].health, default.backends[0].health);
    assert_eq!(reference.backends[0].proxy_protocol, None);
    assert_eq!(reference.listeners[0].proxies, None);
}

#[test]
fn the_files_of_a_refused_configuration_are_known_even_if_missing() {
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
