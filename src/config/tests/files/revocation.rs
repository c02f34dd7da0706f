//! Revocation lists are read with their authorities, and never ignored.

use super::*;

#[test]
fn client_ca_and_crl_without_client_auth_get_a_warning() {
    let directory = tempfile::tempdir().expect("a directory");
    let list = directory.path().join("crl.pem");
    fs::write(&list, revocation_list()).expect("a file");
    let crl = format!("crl = \"{}\"", list.display());
    let ca = "client_ca = \"certs/ca.pem\"";
    for (lines, expected) in [
        (String::new(), None),
        ("crl = []\nclient_ca = []".into(), None),
        // No authority signed it.
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
fn problems_of_authorities_do_not_hide_those_of_a_revocation_list() {
    let text = asking("certs/none.pem", "certs/ca.pem");
    let problems = problems(&text);
    let [bundle, list] = &problems[..] else {
        panic!("two problems, found {problems:?}");
    };
    assert!(bundle.starts_with("7:13: `listener.tls.client_ca`: cannot read"));
    assert!(list.starts_with("8:7: certs/ca.pem: not a certificate revocation list"));
}

/// An ignored list would not be in force.
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
    // A list among the authorities is not ignored either, unless the same file is in `crl`.
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

/// A listener that asks for certificates of these authorities, with these revocation lists.
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

/// A revocation list in PEM whose issuer is unknown.
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
