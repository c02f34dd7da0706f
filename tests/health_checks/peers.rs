//! Checks of servers with TLS, and of servers that require a PROXY protocol header.

use std::fs;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, HandshakeKind, RootCertStore, ServerConfig};

use crate::common::backend::Backend;
use crate::common::client::Socket;
use crate::common::process::{Process, tool};
use crate::common::vestibule::{Vestibule, message};
use crate::common::{project, until};
use crate::{config, down};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

const CONNECT: &str = "health = { interval = \"100ms\", fall = 2, rise = 2 }\n";

fn roots() -> RootCertStore {
    let pem = fs::read(project("certs/ca.pem")).expect("the CA");
    let mut roots = RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut pem.as_slice()) {
        roots.add(certificate.expect("one")).expect("a CA");
    }
    roots
}

/// A server with the certificate for `localhost`.
fn acceptor(requires_certificates: bool) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().expect("some");
    let builder = match requires_certificates {
        true => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots().into(), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
        false => builder.with_no_client_auth(),
    };
    let pem = fs::read(project("certs/server.pem")).expect("a chain");
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        rustls_pemfile::certs(&mut pem.as_slice()).collect();
    let pem = fs::read(project("certs/server-key.pem")).expect("a key");
    let key = rustls_pemfile::private_key(&mut pem.as_slice()).expect("PEM");
    let key: PrivateKeyDer<'static> = key.expect("a key");
    let config = builder.with_single_cert(chain.expect("PEM"), key);
    Arc::new(config.expect("a pair")).into()
}

fn tls(ca: &str) -> String {
    let ca = project(ca);
    format!("{CONNECT}[backend.tls]\nserver_name = \"localhost\"\nca = [\"{ca}\"]\n")
}

#[tokio::test]
async fn a_check_with_tls_is_a_complete_handshake_that_ends_cleanly() {
    let backend = Backend::tcp().await;
    let to = backend.address();
    let (sender, mut seen) = mpsc::channel(64);
    let acceptor = acceptor(false);
    let _serving = backend.serve(move |socket| {
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        async move {
            let mut stream = acceptor.accept(socket).await.expect("a handshake");
            let kind = stream.get_ref().1.handshake_kind();
            // Without close_notify this is an error, and after a reset as well.
            let end = stream.read_to_end(&mut Vec::new()).await;
            let _ = sender.try_send((kind, end.map_err(|error| error.to_string())));
        }
    });
    let vestibule = Vestibule::start(&config(&to, &tls("certs/ca.pem"))).await;
    for _ in 0..6 {
        let (kind, end) = crate::soon("a check", seen.recv()).await.expect("a server");
        // A session that is resumed would show nothing of today's certificate.
        assert_ne!(kind, Some(HandshakeKind::Resumed));
        assert_eq!(end, Ok(0));
    }
    let log = vestibule.log();
    assert!(
        !log.iter()
            .any(|it| message(it).starts_with("backend address"))
    );
}

#[tokio::test]
async fn a_server_with_a_certificate_that_is_not_accepted_is_down_and_logged_once() {
    let backend = Backend::tcp().await;
    let to = backend.address();
    let checks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&checks);
    let acceptor = acceptor(false);
    let _serving = backend.serve(move |socket: Socket| {
        counted.fetch_add(1, Ordering::Relaxed);
        let acceptor = acceptor.clone();
        async move { drop(acceptor.accept(socket).await) }
    });
    let tls = tls("certs/ca.pem").replace("\"localhost\"", "\"other.example\"");
    let vestibule = Vestibule::start(&config(&to, &tls)).await;
    let event = down(&vestibule, 1).await;
    let error = event["error"].as_str().expect("an error");
    assert!(error.contains("other.example"), "{error}");
    let before = checks.load(Ordering::Relaxed);
    until("more checks", || {
        checks.load(Ordering::Relaxed) >= before + 5
    })
    .await;
    let log = vestibule.log();
    let warnings = log.iter().filter(|it| it["level"] == "WARN");
    let warnings: Vec<_> = warnings.filter(|it| it["backend"] == "app").collect();
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
}

#[tokio::test]
async fn a_server_that_requires_a_certificate_that_we_do_not_have_is_down() {
    let backend = Backend::tcp().await;
    let to = backend.address();
    let acceptor = acceptor(true);
    let _serving = backend.serve(move |socket| {
        let acceptor = acceptor.clone();
        async move { drop(acceptor.accept(socket).await) }
    });
    let vestibule = Vestibule::start(&config(&to, &tls("certs/ca.pem"))).await;
    let event = down(&vestibule, 1).await;
    let error = event["error"].as_str().expect("an error");
    assert!(error.contains("rejected our client certificate"), "{error}");
}

#[tokio::test]
async fn nginx_that_requires_a_header_and_tls_answers_checks_and_complains_of_none() {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let config_of_nginx = NGINX
        .replace("{dir}", &directory.path().display().to_string())
        .replace("{certs}", &project("certs"));
    fs::write(directory.path().join("nginx.conf"), config_of_nginx).expect("a file");
    let mut command = tool("nginx");
    command
        .arg("-p")
        .arg(directory.path())
        .args(["-e", "stderr", "-c", "nginx.conf"]);
    let mut nginx = Process::start(command);
    let socket = directory.path().join("nginx.sock");
    until("nginx listens", || {
        assert!(nginx.is_running(), "nginx ended: {:#?}", nginx.said().err);
        UnixStream::connect(&socket).is_ok()
    })
    .await;
    for version in ["v1", "v2"] {
        let health = "health = { interval = \"100ms\", fall = 1, rise = 1, \
                      send = \"GET /health HTTP/1.0\\r\\n\\r\\n\", expect = \" 200 OK\" }\n";
        let ca = project("certs/ca.pem");
        let tls = format!("[backend.tls]\nserver_name = \"localhost\"\nca = [\"{ca}\"]\n");
        let more = format!("proxy_protocol = \"{version}\"\n{health}{tls}");
        let config = config("unix:{dir}/nginx.sock", &more);
        let vestibule = Vestibule::start_in(Arc::clone(&directory), &config).await;
        let before = nginx.said().out.len();
        until("checks", || nginx.said().out.len() >= before + 5).await;
        let log = vestibule.log();
        let said = log
            .iter()
            .filter(|it| message(it).starts_with("backend address"));
        assert_eq!(
            said.collect::<Vec<_>>(),
            Vec::<&serde_json::Value>::new(),
            "{version}"
        );
        assert_eq!(vestibule.terminate().await, Some(0));
    }
    let said = nginx.said();
    assert!(
        said.out.iter().all(|line| line.contains("GET /health 200")),
        "{said:?}"
    );
    let complained = |of: &str| said.err.iter().filter(|line| line.contains(of)).count();
    assert_eq!(complained("SSL"), 0, "{said:?}");
    // The probe of this test has no header.
    assert_eq!(complained("broken header"), 1, "{said:?}");
}

const NGINX: &str = r#"
daemon off;
master_process off;
pid {dir}/nginx.pid;
error_log stderr info;
events {}
http {
    log_format check "$request_method $uri $status";
    access_log /dev/stdout check;
    client_body_temp_path {dir}/client;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server {
        listen unix:{dir}/nginx.sock ssl proxy_protocol;
        ssl_certificate {certs}/server.pem;
        ssl_certificate_key {certs}/server-key.pem;
        default_type text/plain;
        return 200 "well";
    }
}
"#;
