//! Each key with valid values, and with wrong values and the exact message.

mod backend;
mod client_mode;
mod foreign;
mod listener;
mod route;
mod tables;
mod tunnel;

use super::*;

/// A file with `line` in `section`; only that line may be wrong.
fn file(section: &str, line: &str) -> String {
    let unless_given = |keys: &[&str], text: &str| {
        if keys.iter().any(|key| line.starts_with(&format!("{key} ="))) {
            String::new()
        } else {
            format!("{text}\n")
        }
    };
    let listener = |line: &str| {
        let name = unless_given(&["name"], "name = \"front\"");
        let address = unless_given(&["address"], "address = \"127.0.0.1:0\"");
        format!("[[listener]]\n{name}{address}{line}\n")
    };
    let certificates =
        "certificates = [ { chain = \"certs/server.pem\", key = \"certs/server-key.pem\" } ]";
    match section {
        "listener" => format!("{}{BACKEND}", listener(line)),
        "listener.tls" => {
            let rest = unless_given(&["certificates"], certificates);
            format!("{LISTENER}[listener.tls]\n{rest}{line}\n{BACKEND}")
        }
        "listener.tunnel" => {
            let tls = "client_auth = \"required\"\nclient_ca = \"certs/ca.pem\"";
            format!(
                "{LISTENER}[listener.tls]\n{certificates}\n{tls}\n[listener.tunnel]\n{line}\n{BACKEND}"
            )
        }
        "route" => {
            let rest = unless_given(&["backend", "deny"], "backend = \"app\"");
            format!("{LISTENER}{BACKEND}[[route]]\n{rest}{line}\n")
        }
        "backend" => {
            let name = unless_given(&["name"], "name = \"app\"");
            let to = unless_given(&["to"], "to = \"echo\"");
            format!("{LISTENER}[[backend]]\n{name}{to}{line}\n")
        }
        "backend.tls" => {
            let ca = unless_given(&["ca"], "ca = \"certs/ca.pem\"");
            format!("{LISTENER}{BACKEND}[backend.tls]\n{ca}{line}\n")
        }
        "backend.tunnel" => {
            let to = "to = \"a:1\"";
            let authority = unless_given(&["authority"], "authority = \"db:5432\"");
            format!(
                "{LISTENER}[[backend]]\nname = \"app\"\n{to}\n[backend.tls]\nca = \"certs/ca.pem\"\n[backend.tunnel]\n{authority}{line}\n"
            )
        }
        table => with(&format!("[{table}]\n{line}")),
    }
}

type Wrong = (&'static str, usize, &'static str);

/// Checks each line in its section: the right ones are accepted, and each wrong one has exactly one
/// problem, with this column and message.
fn check(section: &str, right: &[&str], wrong: &[Wrong]) {
    for line in right {
        let text = file(section, line);
        assert_eq!(problems(&text), [""; 0], "{text}");
    }
    for (line, column, message) in wrong {
        let text = file(section, line);
        let number = text.lines().position(|l| l == *line).expect("a line") + 1;
        let expected = format!("{number}:{column}: {message}");
        assert_eq!(problems(&text), [expected], "{text}");
    }
}
