//! Certificates, keys, lists and secrets in memory.

use std::fs;

use super::*;

fn bytes(name: &str) -> Vec<u8> {
    fs::read(name).expect("a file of certs/")
}

fn ca() -> DataSource {
    DataSource::memory(bytes("certs/ca.pem"))
}

fn server() -> CertificateOptions {
    CertificateOptions::from_pem(bytes(CHAIN), bytes(KEY))
}

#[test]
fn bytes_in_memory_work_like_files() {
    let tls = ListenerTlsOptions::new(server())
        .client_auth(ClientAuthMode::Required)
        .client_ca([ca()])
        .tickets(SessionTickets::Secret(DataSource::memory([7; 32])));
    let client =
        CertificateOptions::from_pem(bytes("certs/client.pem"), bytes("certs/client-key.pem"));
    let towards = BackendTlsOptions::default().ca([ca()]).certificate(client);
    let api = BackendOptions::new("api", address("localhost:9000")).tls(towards);
    let config = Config::builder()
        .listener(front().tls(tls))
        .backend(api)
        .build();
    let config = config.expect("a configuration");
    assert!(config.files().is_empty(), "there are no files to watch");

    let of_files = secure()
        .client_auth(ClientAuthMode::Required)
        .client_ca([DataSource::file("certs/ca.pem")]);
    let of_files = with(front().tls(of_files)).expect("a configuration");
    let summary = |config: &Config| config.summary().to_string();
    let certificate =
        |config: &Config| format!("{:?}", config.listeners[0].tls.as_ref().map(|it| &it.hosts));
    assert_eq!(certificate(&config), certificate(&of_files));
    assert!(
        summary(&config).contains("localhost"),
        "{}",
        summary(&config)
    );
}

#[test]
fn wrong_bytes_are_reported_by_their_key() {
    let broken = || DataSource::memory(*b"-----BEGIN CERTIFICATE-----\nAAAA\n");
    let swapped = CertificateOptions::from_pem(bytes(KEY), bytes(CHAIN));
    let tls = ListenerTlsOptions::new(server())
        .certificate(swapped)
        .certificate(CertificateOptions::new(broken(), DataSource::file(KEY)))
        .certificate(server().ocsp(DataSource::memory(*b"staple")))
        .client_auth(ClientAuthMode::Required)
        .client_ca([ca(), broken()])
        .crl([broken()])
        .tickets(SessionTickets::Secret(DataSource::memory([7; 31])));
    let found = problems(with(front().tls(tls)));
    let expected = [
        "certificates[1].chain` contains a private key and no certificate; check",
        "certificates[2].chain`: the certificate chain is not PEM: ",
        "certificates[3].ocsp`: ",
        "client_ca[1]`: ",
        "crl[0]`: ",
        "tickets.secret_file`: a ticket secret needs 32 random bytes or more",
    ];
    for part in expected {
        let start = format!("listener \"front\": `listener.tls.{part}");
        assert!(
            found.iter().any(|it| it.starts_with(&start)),
            "{start}\n{found:#?}"
        );
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    let secret = String::from_utf8(bytes(KEY)).expect("PEM");
    let line = secret.lines().nth(1).expect("a line of the key");
    assert!(found.iter().all(|it| !it.contains(line)));
}

#[test]
fn a_missing_file_is_reported_with_its_key() {
    let tls = ListenerTlsOptions::new(CertificateOptions::from_files("nowhere.pem", KEY));
    assert_eq!(
        problems(with(front().tls(tls))),
        [
            "listener \"front\": `listener.tls.certificates.chain`: cannot read nowhere.pem: \
          No such file or directory (os error 2)"
        ]
    );
}

#[test]
fn debug_shows_no_key() {
    let key = DataSource::memory(*b"the key");
    let options = front().tls(ListenerTlsOptions::new(CertificateOptions::new(ca(), key)));
    let shown = format!("{options:?}");
    assert!(shown.contains("7 bytes in memory"), "{shown}");
    assert!(
        !shown.contains("the key") && !shown.contains("116, 104, 101"),
        "{shown}"
    );
}

/// The string that represents bytes in memory has no meaning in a file.
#[test]
fn a_file_cannot_name_bytes_in_memory() {
    let text = text_of(
        Config::builder()
            .listener(front().tls(ListenerTlsOptions::new(server())))
            .backend(app()),
    );
    assert!(text.contains("\\u0000"), "{text}");
    let error = text.parse::<Config>().expect_err("no such files");
    assert_eq!(error.problems().len(), 2, "{error}");
}
