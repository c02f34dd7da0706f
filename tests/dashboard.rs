//! The dashboard in a browser: headless Chromium, which tests/dashboard/run.mjs drives.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::admin::send;
use common::pki::{Authority, Subject};
use common::process::{Process, run_within, tool};
use common::project;
use common::vestibule::{Vestibule, message};
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Whether the page may end connections.
#[derive(Clone, Copy)]
enum Writes {
    Allowed,
    Refused,
}

fn config(port: &str, writes: Writes) -> String {
    let writes = matches!(writes, Writes::Allowed);
    format!(
        r#"
[admin]
address = "tcp:127.0.0.1:{port}"
allow_writes_over_tcp = {writes}
[limits]
connections = 40
[[listener]]
name = "https"
address = "tcp:127.0.0.1:0"
[listener.tls]
certificates = [ {{ chain = "{{certs}}/server.pem", key = "{{certs}}/server-key.pem" }} ]
client_auth = "optional"
client_ca = ["{{dir}}/ca.pem"]
[[listener]]
name = "plain"
address = "tcp:127.0.0.1:0"
[[route]]
sni = ["missing.example"]
backend = "missing"
[[route]]
backend = "echo"
[[backend]]
name = "echo"
to = "echo"
[[backend]]
name = "missing"
to = "unix:{{dir}}/missing.sock"
"#
    )
}

/// A directory with a client whose name is HTML.
fn directory() -> Arc<tempfile::TempDir> {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::root("clients");
    let client = authority.issue(&Subject::named("<img src=x onerror=window.hit=1>"));
    for (name, text) in [
        ("ca.pem", &authority.pem()),
        ("client.pem", &client.chain),
        ("client-key.pem", &client.key),
    ] {
        fs::write(directory.path().join(name), text).expect("a file");
    }
    Arc::new(directory)
}

async fn start(writes: Writes) -> Vestibule {
    Vestibule::start_whole(directory(), &config("0", writes)).await
}

/// `127.0.0.1:PORT` of the admin API.
async fn admin(vestibule: &Vestibule) -> String {
    let line = vestibule
        .event(|event| message(event).starts_with("admin API at "))
        .await;
    let address = message(&line).trim_start_matches("admin API at tcp:");
    address.to_owned()
}

async fn node(vestibule: &Vestibule, scenario: &str) -> Command {
    let modules = project("tests/dashboard/node_modules/playwright-core");
    assert!(
        Path::new(&modules).is_dir(),
        "{modules} is missing; run `npm ci --prefix tests/dashboard`"
    );
    // It says what installs it.
    drop(tool("chromium"));
    let mut command = tool("node");
    command
        .args([&project("tests/dashboard/run.mjs"), scenario])
        .env("ADMIN", admin(vestibule).await)
        .env("TLS", vestibule.address("https"))
        .env("PLAIN", vestibule.address("plain"))
        .env("CERTS", project("certs"))
        .env("STRANGER", vestibule.path("client"))
        .env("SCREENSHOTS", project("target/screenshots"));
    command
}

async fn drive(scenario: &str, writes: Writes) {
    let vestibule = start(writes).await;
    let command = node(&vestibule, scenario).await;
    run_within(BROWSER, command, b"").await.ok();
}

#[tokio::test]
async fn it_shows_what_is_open_now_and_what_happens() {
    drive("updates", Writes::Allowed).await;
}

#[tokio::test]
async fn the_table_is_sorted_filtered_and_paged() {
    drive("sorts_filters_and_pages", Writes::Allowed).await;
}

#[tokio::test]
async fn a_connection_is_killed_after_a_confirmation_and_never_without() {
    drive("kills", Writes::Allowed).await;
}

#[tokio::test]
async fn without_writes_nothing_offers_to_end_a_connection() {
    drive("hides", Writes::Refused).await;
}

#[tokio::test]
async fn a_hidden_page_asks_nothing() {
    drive("pauses", Writes::Allowed).await;
}

#[tokio::test]
async fn the_names_of_clients_are_text_and_no_html() {
    drive("hostile", Writes::Allowed).await;
}

#[tokio::test]
async fn a_page_of_another_origin_reads_nothing_and_ends_nothing() {
    drive("foreign", Writes::Allowed).await;
}

#[tokio::test]
async fn addresses_out_of_service_idle_times_and_short_memory_are_shown() {
    drive("orders", Writes::Allowed).await;
}

#[tokio::test]
async fn it_fits_and_is_accessible_at_360_and_1600_pixels_in_light_and_dark() {
    drive("looks", Writes::Allowed).await;
}

#[tokio::test]
async fn a_lost_server_is_shown_and_the_page_connects_again() {
    let vestibule = start(Writes::Allowed).await;
    let port = admin(&vestibule).await;
    let port = port.trim_start_matches("127.0.0.1:");
    let (browser, mut answers) = Process::start_listening(node(&vestibule, "lost").await);
    browser.line("please stop").await;
    let directory = vestibule.kill().await;
    answers.write_all(b"stop\n").await.expect("it waits");
    browser.line("please start").await;
    let vestibule = Vestibule::start_whole(directory, &config(port, Writes::Allowed)).await;
    answers.write_all(b"start\n").await.expect("it waits");
    browser.line("please reload").await;
    vestibule.signal(Signal::HUP);
    answers.write_all(b"reload\n").await.expect("it waits");
    let (status, said) = browser.wait().await;
    assert!(status.success(), "{said:#?}");
}

#[tokio::test]
async fn the_page_is_one_answer_with_a_tag_and_a_strict_policy() {
    let vestibule = start(Writes::Refused).await;
    let url = format!("http://{}/", admin(&vestibule).await);
    let told = format!("dashboard at {url}");
    vestibule.event(|event| message(event) == told).await;
    let page = send(&[], &url).await;
    assert_eq!(page.status, 200);
    for header in [
        "content-type: text/html; charset=utf-8",
        "cache-control: no-cache",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "content-security-policy: default-src 'none'; script-src 'sha256-",
        "frame-ancestors 'none'",
    ] {
        assert!(page.headers.contains(header), "{header}: {}", page.headers);
    }
    assert!(!page.headers.contains("unsafe"), "{}", page.headers);
    assert!(!page.headers.contains("access-control"), "{}", page.headers);
    let tag = page
        .headers
        .lines()
        .find_map(|it| it.strip_prefix("etag: "));
    let known = format!("If-None-Match: {}", tag.expect("a tag"));
    let again = send(&["-H", &known], &url).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    let other = send(&["-H", "Host: vestibule.example"], &url).await;
    assert_eq!((other.status, &*other.code()), (421, "misdirected"));
}

/// A browser starts, and does what a few people do in a minute.
const BROWSER: Duration = Duration::from_secs(180);
