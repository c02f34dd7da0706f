//! PEM files as they are written, and as they are damaged.

use super::*;

const CHAIN: &str = include_str!("../../../certs/server.pem");
const KEY: &str = include_str!("../../../certs/server-key.pem");

fn certificates(text: impl AsRef<[u8]>) -> Vec<Located> {
    Pem::read(text.as_ref()).expect("PEM").certificates()
}

#[test]
fn a_certificate_is_read_in_every_common_form() {
    let [(expected, _)] = &certificates(CHAIN)[..] else {
        panic!("one certificate");
    };
    let relabelled = |label: &str| CHAIN.replace("CERTIFICATE", label);
    let one_line: String = {
        let body: String = CHAIN.lines().filter(|it| !it.contains("---")).collect();
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----")
    };
    let utf_16 = |bytes: fn(u16) -> [u8; 2]| {
        let marked = format!("\u{feff}{CHAIN}");
        marked.encode_utf16().flat_map(bytes).collect::<Vec<u8>>()
    };
    let bags = "Bag Attributes\n    friendlyName: me\n    localKeyID: 01 02\nsubject=CN = me\n";
    for text in [
        CHAIN.as_bytes().to_vec(),
        format!("\u{feff}{CHAIN}").into_bytes(),
        utf_16(u16::to_le_bytes),
        utf_16(u16::to_be_bytes),
        CHAIN.replace('\n', "\r\n").into_bytes(),
        CHAIN.replace('\n', "\r").into_bytes(),
        CHAIN.replace('\n', "\n    ").into_bytes(),
        format!("    {}", CHAIN.replace('\n', " \t\n  ")).into_bytes(),
        relabelled("X509 CERTIFICATE").into_bytes(),
        relabelled("TRUSTED CERTIFICATE").into_bytes(),
        one_line.into_bytes(),
        format!("{bags}{CHAIN}").into_bytes(),
        [b"friendlyName: Zo\xeb\n", CHAIN.as_bytes()].concat(),
        CHAIN.trim_end().as_bytes().to_vec(),
        format!("{KEY}{CHAIN}").into_bytes(),
        format!("{}{CHAIN}", KEY.trim_end()).into_bytes(),
    ] {
        let found = certificates(&text);
        let shown = String::from_utf8_lossy(&text);
        assert_eq!(found.len(), 1, "{shown}");
        assert_eq!(found[0].0, *expected, "{shown}");
    }
}

#[test]
fn concatenated_blocks_without_line_breaks_are_all_read() {
    let one = CHAIN.trim_end();
    for between in ["", "\n", "\u{feff}", " ", "\r\n\u{feff}"] {
        let text = [one, one, one].join(between);
        assert_eq!(certificates(&text).len(), 3, "{between:?}");
    }
}

#[test]
fn the_position_of_a_certificate_is_known() {
    let lines = CHAIN.lines().count();
    let found = certificates(format!("# mine\n{KEY}{CHAIN}{CHAIN}"));
    let second = Position {
        nth: 2,
        line: 2 + KEY.lines().count() + lines,
    };
    assert_eq!(found[1].1, second);
}

#[test]
fn what_openssl_trusts_a_certificate_for_is_left_out() {
    let mut command = std::process::Command::new("openssl");
    command.args(["x509", "-trustout", "-addtrust", "clientAuth"]);
    command.args([
        "-in",
        concat!(env!("CARGO_MANIFEST_DIR"), "/certs/server.pem"),
    ]);
    let trusted = command.output().expect("openssl").stdout;
    assert!(trusted.starts_with(b"-----BEGIN TRUSTED CERTIFICATE"));
    assert_eq!(certificates(trusted)[0].0, certificates(CHAIN)[0].0);
}

#[test]
fn an_unreadable_block_is_an_error_with_its_line() {
    let begin = "-----BEGIN CERTIFICATE-----";
    let end = "-----END CERTIFICATE-----";
    for (text, line, why) in [
        (format!("{CHAIN}{begin}\nAAAA\n"), 0, "is complete"),
        (format!("{CHAIN}{begin}\nAAAA\n{CHAIN}"), 0, "is complete"),
        (
            format!("{CHAIN}-----BEGIN CERTIFICATE----\nAAAA\n{end}\n"),
            0,
            "BEGIN LABEL",
        ),
        (
            format!("{CHAIN}-----BEGINCERTIFICATE-----\nAAAA\n{end}\n"),
            0,
            "BEGIN LABEL",
        ),
        (
            format!("{CHAIN}----BEGIN CERTIFICATE-----\nAAAA\n{end}\n"),
            2,
            "without",
        ),
        (format!("{CHAIN}{begin}\nAA!A\n{end}\n"), 0, "base64"),
        (format!("{CHAIN}{begin}\nAAAAA\n{end}\n"), 0, "base64"),
        (
            format!("{CHAIN}{begin}\nAAAA\n-----END PRIVATE KEY-----\n"),
            0,
            "ends with",
        ),
        (
            format!("{CHAIN}{begin}\nAAAA\n-----END CERT\n"),
            0,
            "ends with",
        ),
    ] {
        let error = Pem::read(text.as_bytes()).expect_err(&text).to_string();
        let line = CHAIN.lines().count() + 1 + line;
        assert!(error.contains(&format!("line {line} ")), "{error}\n{text}");
        assert!(error.contains(why), "{error}\n{text}");
    }
    // A file that is cut anywhere, except in the text after its last block.
    for length in 12..CHAIN.trim_end().len() {
        assert!(Pem::read(&CHAIN.as_bytes()[..length]).is_err(), "{length}");
    }
}

#[test]
fn an_encrypted_key_is_recognized_in_both_forms() {
    let of = |label: &str, headers: &str| {
        format!("-----BEGIN {label}-----\n{headers}AAAA\n-----END {label}-----\n")
    };
    let old = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n";
    for text in [
        of("ENCRYPTED PRIVATE KEY", ""),
        of("RSA PRIVATE KEY", old),
        of("EC PRIVATE KEY", &old.replace('\n', "\r\n")),
    ] {
        let pem = Pem::read(format!("# mine\n{text}").as_bytes()).expect("PEM");
        assert_eq!(pem.encrypted_key(), Some(2), "{text}");
        assert!(pem.keys().is_empty());
    }
    let parameters = of("EC PARAMETERS", "");
    let pem = Pem::read(format!("{parameters}{KEY}").as_bytes()).expect("PEM");
    assert_eq!((pem.keys().len(), pem.encrypted_key()), (1, None));
}

#[test]
fn a_binary_file_is_named_by_its_kind() {
    for (content, what) in [
        (&[0x30, 0x82, 1, 2, 0x30, 0x82][..], "DER"),
        (&[0x30, 0x82, 9, 1, 2, 1, 3, 0x30], "PKCS#12"),
        (&[0x30, 5, 2, 1, 3, 0, 0], "PKCS#12"),
        (&[0x30, 0x80], "DER"),
        (&[0x30], "nothing that starts"),
    ] {
        let holds = Pem::read(content).expect("no blocks").holds();
        assert!(holds.starts_with(what), "{holds}");
    }
}

/// Each of these was once skipped, and with it a certificate or a revocation list.
#[test]
fn text_that_looks_like_a_damaged_block_is_an_error_with_its_line() {
    let body: String = CHAIN.lines().filter(|it| !it.contains("---")).collect();
    let der = certificates(CHAIN)[0].0.to_vec();
    let relabelled = |label: &str| CHAIN.replace("CERTIFICATE", label).into_bytes();
    for (spoiled, why) in [
        (relabelled("CERTIFCATE"), "unknown label"),
        (relabelled("CRL"), "X509 CRL"),
        (relabelled("PKCS7"), "openssl pkcs7"),
        (relabelled("certificate"), "unknown label"),
        (CHAIN.replace("-----B", "----- B").into_bytes(), "without a"),
        (CHAIN.replace("-----", "----").into_bytes(), "five dashes"),
        (CHAIN.replace("-----", "— ").into_bytes(), "five dashes"),
        (CHAIN.replace("-----", "–––––").into_bytes(), "five dashes"),
        (body.into_bytes(), "-----BEGIN line is missing"),
        (der, "DER beside PEM"),
    ] {
        let line = CHAIN.lines().count() + 1;
        let behind = [CHAIN.as_bytes(), &spoiled].concat();
        let error = Pem::read(&behind).expect_err(why).to_string();
        let is_at_its_begin = error.contains(&format!("line {line} "));
        assert!(
            is_at_its_begin || why == "without a" || why.contains("DER"),
            "{error}"
        );
        assert!(error.contains(why), "no {why:?} in {error}");
        let before = [&spoiled, &b"\n"[..], CHAIN.as_bytes()].concat();
        let error = Pem::read(&before).expect_err(why).to_string();
        assert!(error.contains(why), "no {why:?} in {error}");
    }
}

#[test]
fn comments_between_blocks_are_ignored() {
    let fingerprint = "9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08";
    for between in [
        "GlobalSign Root CA\n==================\n",
        " 0 s:CN = me\n   i:CN = ca\n---\nServer certificate\n",
        "# --- BEGIN of the intermediate ones ---\n",
        "-----------------------------------------------------------------------\n",
        "subject=C = US, O = Let's Encrypt, CN = E5\n    localKeyID: 01 00 2B\n",
        "friendlyName: \u{1b}[1mme\n",
        &format!("{fingerprint}\n"),
        "        00:c1:7a:38:a7:5b:3b:c5:1f:5d:ce:b0:2c:99:6e:05:9c:0a:8d:42:21:3c:\n",
    ] {
        let text = format!("{between}{CHAIN}{between}{CHAIN}{between}");
        assert_eq!(certificates(text).len(), 2, "{between}");
    }
    let parameters = "-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n";
    assert_eq!(certificates(format!("{CHAIN}{parameters}")).len(), 1);
}
