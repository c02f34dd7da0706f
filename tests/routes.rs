//! Which backend a client gets, and what a client without a route is told.

mod common;

use common::process::{Done, curl, output, run, s_client, tool};
use common::vestibule::Vestibule;
use serde_json::Value;

/// Every backend answers with the facts, which contain its name.
fn backends(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("[[backend]]\nname = \"{name}\"\nto = \"hello\"\n"))
        .collect()
}

#[tokio::test]
async fn a_client_without_a_route_gets_the_alert_access_denied() {
    let routes = "
        [[route]]
        sni = [\"welcome.example\"]
        backend = \"hello\"
        [[route]]
        sni = [\"*.evil.example\", \"evil.example\"]
        deny = true
    ";
    let vestibule = Vestibule::start(&(routes.to_owned() + &backends(&["hello"]))).await;
    for (version, name, outcome, count) in [
        ("-tls1_2", "unknown.example", "no_route", 1),
        ("-tls1_3", "unknown.example", "no_route", 2),
        ("-tls1_2", "evil.example", "denied", 1),
        ("-tls1_3", "a.evil.example", "denied", 2),
        ("-tls1_3", "a.b.evil.example", "no_route", 3),
    ] {
        let done = openssl(&vestibule, &[version, "-servername", name]).await;
        assert_ne!(done.code, Some(0), "{name}");
        assert!(done.err.contains("access denied"), "{name}: {}", done.err);
        assert!(done.err.contains("SSL alert number 49"), "{}", done.err);
        vestibule.ended(outcome, count).await;
    }
    // A client without SNI.
    let mut command = tool("openssl");
    command.args(["s_client", "-noservername", "-connect", &vestibule.tcp()]);
    let done = output(command).await;
    assert!(done.err.contains("access denied"), "{}", done.err);
    vestibule.ended("no_route", 4).await;
    // The log says what the client has asked for.
    for (outcome, asked) in [
        (
            "no_route",
            "the client asks for the server name \"unknown.example\"",
        ),
        (
            "denied",
            "the client asks for the server name \"a.evil.example\"",
        ),
        ("no_route", "the client sends no server name (SNI)"),
    ] {
        let closed = vestibule.closed();
        let mut causes = closed.iter().filter(|it| it["outcome"] == outcome);
        let is_said = |it: &Value| it["cause"].as_str().is_some_and(|it| it.contains(asked));
        assert!(causes.any(is_said), "{asked}: {closed:?}");
    }
    // curl reports it as a failed TLS connection.
    let mut command = curl();
    command.arg(format!("https://{}/", vestibule.tcp()));
    assert_eq!(output(command).await.code, Some(35));
    vestibule.ended("no_route", 5).await;

    assert_eq!(
        ask(&vestibule, "welcome.example", &[]).await["backend"],
        "hello"
    );
    vestibule.ended("done", 1).await;
    assert_eq!(vestibule.outcomes().len(), 3, "{:?}", vestibule.outcomes());
}

#[tokio::test]
async fn a_name_chooses_the_backend_and_the_first_route_that_matches_wins() {
    let routes = "
        [[route]]
        sni = [\"api.example.com\", \"rpc.example.com\"]
        backend = \"api\"
        [[route]]
        sni = [\"*.example.com\"]
        backend = \"one\"
        [[route]]
        sni = [\"**.example.com\"]
        backend = \"more\"
        [[route]]
        backend = \"rest\"
    ";
    let backends = backends(&["api", "one", "more", "rest"]);
    let vestibule = Vestibule::start(&format!("{routes}{backends}")).await;
    for (name, backend) in [
        ("api.example.com", "api"),
        ("rpc.example.com", "api"),
        ("API.Example.COM", "api"),
        ("www.example.com", "one"),
        ("a.b.example.com", "more"),
        ("a.api.example.com", "more"),
        ("example.com", "rest"),
        ("api.example.com.evil", "rest"),
        ("apiXexample.com", "rest"),
    ] {
        let facts = ask(&vestibule, name, &[]).await;
        assert_eq!(facts["backend"], backend, "{name}");
    }
}

#[tokio::test]
async fn a_protocol_chooses_the_backend_and_is_the_one_agreed_on() {
    let routes = "
        [[route]]
        alpn = [\"h2\"]
        backend = \"h2\"
        [[route]]
        alpn = [\"http/1.1\", \"http/1.0\"]
        backend = \"http\"
        [[route]]
        backend = \"rest\"
    ";
    let vestibule =
        Vestibule::start(&format!("{routes}{}", backends(&["h2", "http", "rest"]))).await;
    for (arguments, backend, alpn) in [
        (&["--http1.1"][..], "http", "http/1.1".into()),
        (&["--http1.0"], "http", "http/1.0".into()),
        (&["--no-alpn"], "rest", Value::Null),
    ] {
        let facts = ask(&vestibule, "localhost", arguments).await;
        assert_eq!(facts["backend"], backend, "{arguments:?}");
        assert_eq!(facts["tls"]["alpn"], alpn, "{arguments:?}");
    }
    // A client is not refused for offering a protocol that no route names, if a route matches it.
    let mut command = s_client(&vestibule.tcp());
    command.args(["-quiet", "-alpn", "foreign"]);
    let answer = run(command, REQUEST).await.text();
    let (_, facts) = answer.split_once("\r\n\r\n").expect("an answer");
    let facts: Value = serde_json::from_str(facts).expect("JSON");
    assert_eq!(
        (&facts["backend"], &facts["tls"]["alpn"]),
        (&"rest".into(), &Value::Null)
    );
    // The order of the routes counts, not the client's: RFC 7301 leaves the choice to the server.
    for (offer, backend, agreed) in [
        ("h2", "h2", "h2"),
        ("http/1.1,h2", "h2", "h2"),
        ("foreign,http/1.0", "http", "http/1.0"),
    ] {
        let mut command = s_client(&vestibule.tcp());
        command.args(["-quiet", "-alpn", offer]);
        let answer = run(command, REQUEST).await.text();
        let (_, facts) = answer.split_once("\r\n\r\n").expect("an answer");
        let facts: Value = serde_json::from_str(facts).expect("JSON");
        assert_eq!(facts["backend"], backend, "{offer}");
        assert_eq!(facts["tls"]["alpn"], agreed, "{offer}");
        let done = openssl(&vestibule, &["-alpn", offer]).await;
        let said = String::from_utf8_lossy(&done.out).into_owned();
        assert!(said.contains(&format!("ALPN protocol: {agreed}")), "{said}");
    }
}

const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nhost: localhost\r\naccept: application/json\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn an_address_and_a_listener_choose_the_backend() {
    let routes = "
        [[route]]
        listener = [\"unix\"]
        backend = \"local\"
        [[route]]
        from = [\"127.0.0.2/32\", \"2001:db8::/32\"]
        backend = \"two\"
        [[route]]
        from = [\"127.3.0.0/16\"]
        listener = [\"tcp\"]
        backend = \"net\"
        [[route]]
        from = [\"127.4.0.0/16\"]
        listener = [\"unix\"]
        backend = \"local\"
    ";
    let backends = backends(&["local", "two", "net"]);
    let vestibule = Vestibule::start(&format!("{routes}{backends}")).await;
    for (from, backend) in [
        ("127.0.0.2", "two"),
        ("127.3.0.1", "net"),
        ("127.3.255.254", "net"),
    ] {
        let facts = ask(&vestibule, "localhost", &["--interface", from]).await;
        assert_eq!(facts["backend"], backend, "{from}");
        let peer = facts["peer"].as_str().expect("an address");
        assert!(peer.starts_with(&format!("{from}:")), "{facts}");
    }
    let socket = vestibule.path("front.sock").display().to_string();
    let facts = ask(&vestibule, "localhost", &["--unix-socket", &socket]).await;
    assert_eq!(facts["backend"], "local");
    // Every key must match: neighbouring networks do not, nor does the right network at another
    // listener.
    for (before, from) in ["127.0.0.3", "127.2.0.1", "127.4.0.1"]
        .into_iter()
        .enumerate()
    {
        let done = openssl(&vestibule, &["-bind", from]).await;
        assert!(done.err.contains("access denied"), "{from}: {}", done.err);
        vestibule.ended("no_route", before + 1).await;
    }
}

#[tokio::test]
async fn a_client_without_an_address_is_in_no_network() {
    let routes = "[[route]]\nfrom = [\"0.0.0.0/0\", \"::/0\"]\nbackend = \"hello\"\n";
    let vestibule = Vestibule::start(&format!("{routes}{}", backends(&["hello"]))).await;
    assert_eq!(ask(&vestibule, "localhost", &[]).await["backend"], "hello");
    let mut command = tool("openssl");
    command
        .args(["s_client", "-unix"])
        .arg(vestibule.path("front.sock"));
    let done = output(command).await;
    assert!(done.err.contains("access denied"), "{}", done.err);
    vestibule.ended("no_route", 1).await;
}

/// The facts that the backend sends to curl. curl asks for `name` and does not verify the
/// certificate, which is for `localhost`.
async fn ask(vestibule: &Vestibule, name: &str, arguments: &[&str]) -> Value {
    let address = vestibule.tcp();
    let port = address.rsplit(':').next().expect("a port");
    let mut command = curl();
    command
        .args(["--insecure", "-H", "accept: application/json"])
        .args(["--connect-to", &format!("::{address}")])
        .args(arguments)
        .arg(format!("https://{name}:{port}/"));
    serde_json::from_slice(&output(command).await.ok()).expect("JSON")
}

async fn openssl(vestibule: &Vestibule, arguments: &[&str]) -> Done {
    let mut command = s_client(&vestibule.tcp());
    command.args(arguments);
    output(command).await
}

#[tokio::test]
async fn without_a_common_protocol_the_log_has_what_both_sides_have() {
    let vestibule = Vestibule::start(
        "[[listener]]\nname = \"strict\"\naddress = \"127.0.0.1:0\"\n[listener.tls]\nalpn = [\"h2\", \"http/1.1\"]\n\
         certificates = [ { chain = \"{certs}/server.pem\", key = \"{certs}/server-key.pem\" } ]\n\
         [[backend]]\nname = \"hello\"\nto = \"hello\"\n",
    )
    .await;
    let mut command = s_client(&vestibule.address("strict"));
    command.args(["-servername", "a.example", "-alpn", "foreign,odd"]);
    assert_ne!(output(command).await.code, Some(0));
    vestibule.ended("handshake_failed", 1).await;
    let closed = vestibule.closed();
    let cause = closed[0]["cause"].as_str().expect("a cause");
    let asked = "the client asks for the server name \"a.example\" and offers foreign, odd; the listener has h2, http/1.1";
    assert!(cause.contains("no common protocol (ALPN)"), "{cause}");
    assert!(cause.contains(asked), "{cause}");
}
