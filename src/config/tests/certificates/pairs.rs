//! A chain and its key must belong together, and a problem points at the file at fault.

use super::*;

#[test]
fn the_file_at_fault_is_pointed_at() {
    let directory = directory("chain.pem", "key.pem");
    let path = directory.path();
    let (chain, key) = (read("server.pem"), read("server-key.pem"));
    for (chain, key, expected) in [
        (
            String::new(),
            key.clone(),
            chain_at(
                "DIR/chain.pem: the chain file has no certificate, which starts with -----BEGIN CERTIFICATE-----; the file contains nothing that \
                 starts with -----BEGIN",
            ),
        ),
        (
            key.clone(),
            key.clone(),
            chain_at(
                "DIR/chain.pem contains a private key and no certificate; check whether chain and key are swapped",
            ),
        ),
        (
            garbage("CERTIFICATE"),
            key.clone(),
            chain_at("DIR/chain.pem: the certificate chain is not PEM: "),
        ),
        (
            VERSION_1.into(),
            key.clone(),
            chain_at("DIR/chain.pem: the first certificate of the chain has version 1, which no"),
        ),
        (
            chain.clone(),
            String::new(),
            key_at(
                "DIR/key.pem: the key file has no private key; it needs an unencrypted PKCS#8, PKCS#1 or SEC1 key",
            ),
        ),
        (
            chain.clone(),
            garbage("PRIVATE KEY"),
            key_at("DIR/key.pem: the private key is not PEM: "),
        ),
        (
            chain.clone(),
            NOT_A_KEY.into(),
            key_at("DIR/key.pem: the private key is damaged"),
        ),
        (
            chain.clone(),
            read("client-key.pem"),
            key_at("DIR/key.pem: the private key belongs to no certificate of the chain"),
        ),
    ] {
        fs::write(path.join("chain.pem"), chain).expect("a file");
        fs::write(path.join("key.pem"), key).expect("a file");
        let [(line, column, message)] = &problems(path)[..] else {
            panic!("one problem, found {:?}", problems(path));
        };
        assert_eq!((*line, *column), (expected.0, expected.1), "{message}");
        assert!(message.starts_with(&expected.2), "{message}");
    }
}

#[test]
fn the_matching_key_of_several_in_a_file_is_used() {
    let directory = directory("chain.pem", "key.pem");
    let path = directory.path();
    let key = read("server-key.pem");
    fs::write(path.join("chain.pem"), read("server.pem")).expect("a file");
    openssl(path, "ecparam -genkey -noout -name secp256k1 -out odd.pem");
    openssl(
        path,
        "genpkey -algorithm ed25519 -aes256 -pass pass:x -out secret.pem",
    );
    let of = |name: &str| fs::read_to_string(path.join(name)).expect("a file");
    let (odd, secret, other) = (of("odd.pem"), of("secret.pem"), read("client-key.pem"));
    for (keys, why) in [
        (format!("{odd}{secret}{other}{key}"), None),
        (format!("{odd}{other}"), Some("supported are RSA of 2048")),
        (format!("{other}{secret}"), Some("is encrypted; decrypt it")),
        (key.clone(), None),
    ] {
        fs::write(path.join("key.pem"), keys).expect("a file");
        match why {
            None => assert!(load(path).is_ok(), "{:?}", problems(path)),
            Some(why) => {
                let problems = problems(path);
                assert!(problems[0].2.contains(why), "{problems:?}");
            }
        }
    }
}

fn chain_at(message: &str) -> (usize, usize, String) {
    (5, CHAIN, message.to_owned())
}

fn key_at(message: &str) -> (usize, usize, String) {
    (5, CHAIN + 19, message.to_owned())
}

fn garbage(label: &str) -> String {
    format!("-----BEGIN {label}-----\n!!!\n-----END {label}-----\n")
}

const NOT_A_KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(CERTS).join(name)).expect("a file")
}

#[test]
fn a_chain_in_the_wrong_order_says_which_certificate_comes_first() {
    let directory = directory("chain.pem", "key.pem");
    let path = directory.path();
    let (own, above, key) = chain_of_two();
    let (_, _, other) = chain_of_two();
    fs::write(path.join("chain.pem"), format!("{above}{own}")).expect("a file");
    fs::write(path.join("key.pem"), &key).expect("a file");
    let [(5, CHAIN, message)] = &problems(path)[..] else {
        panic!("one problem of the chain, found {:?}", problems(path));
    };
    let expected = "the private key belongs to certificate 2 of the chain (CN=below)";
    assert!(message.contains(expected), "{message}");
    // Of several keys, the one that fits is used.
    fs::write(path.join("chain.pem"), format!("{own}{above}")).expect("a file");
    fs::write(path.join("key.pem"), format!("{other}{key}")).expect("a file");
    load(path).expect("a configuration");
    // Everything in one file.
    for name in ["chain.pem", "key.pem"] {
        fs::write(path.join(name), format!("{key}{own}{above}")).expect("a file");
    }
    load(path).expect("a configuration");
}

#[test]
fn an_encrypted_key_is_refused_with_the_command_that_decrypts_it() {
    let directory = directory("chain.pem", "key.pem");
    let path = directory.path();
    let (own, _, key) = chain_of_two();
    fs::write(path.join("chain.pem"), own).expect("a file");
    fs::write(path.join("plain.pem"), key).expect("a file");
    for form in ["pkcs8 -topk8", "ec -aes256"] {
        openssl(
            path,
            &format!("{form} -in plain.pem -passout pass:secret -out key.pem"),
        );
        let [(5, 46, message)] = &problems(path)[..] else {
            panic!("one problem of the key, found {:?}", problems(path));
        };
        assert!(
            message.contains("is encrypted; decrypt it with `openssl pkey "),
            "{message}"
        );
    }
}

#[test]
fn no_private_key_is_in_a_message() {
    let directory = directory("chain.pem", "key.pem");
    let path = directory.path();
    let key = fs::read_to_string(Path::new(CERTS).join("server-key.pem")).expect("a file");
    let secret = key.lines().nth(1).expect("a line");
    for (chain, key) in [(&key, &key), (&key, &key.replace("KEY", "KEX"))] {
        fs::write(path.join("chain.pem"), chain).expect("a file");
        fs::write(path.join("key.pem"), key).expect("a file");
        let error = load(path).expect_err("a problem").to_string();
        assert!(!error.contains(&secret[..8]), "{error}");
    }
}

#[test]
fn missing_keys_of_a_certificate_entry_are_reported() {
    let entry = |entry: &str| format!("{LISTENER}[listener.tls]\n{entry}\n{BACKEND}");
    let one = "{ chain = \"certs/server.pem\", key = \"certs/server-key.pem\" }";
    for (text, expected) in [
        (
            entry(""),
            vec![
                "4:1: a TLS listener needs a certificate: `certificates = [ { chain = \"…\", key = \"…\" } ]`",
            ],
        ),
        (
            entry("certificates = []"),
            vec![
                "4:1: a TLS listener needs a certificate: `certificates = [ { chain = \"…\", key = \"…\" } ]`",
            ],
        ),
        (
            entry("certificates = [{}]"),
            vec![
                "5:17: `listener.tls.certificates` needs the key `chain`",
                "5:17: `listener.tls.certificates` needs the key `key`",
            ],
        ),
        (
            entry("certificates = [{ chain = \"\", key = 5 }]"),
            vec![
                "5:27: `listener.tls.certificates.chain`: expected a path, found an empty string",
                "5:37: `listener.tls.certificates.key`: expected a string, found an integer",
            ],
        ),
        (entry(&format!("certificates = [\n{one},\n{one}]")), vec![]),
        (
            entry(&format!("certificates = [{one}]\nocsp = 5")),
            vec!["6:8: `listener.tls.ocsp`: expected a string, found an integer"],
        ),
    ] {
        assert_eq!(super::super::problems(&text), expected, "{text}");
    }
}

/// A certificate as `openssl x509 -req` makes it without extensions.
const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBGDCBvwIUQpiYIJ8C6fW+I6KGnOrrEsC0TJAwCgYIKoZIzj0EAwIwDjEMMAoG
A1UEAwwDb2xkMCAXDTI2MTEyNTA3NDQ0NFoYDzIxMjYxMTAxMDc0NDQ0WjAOMQww
CgYDVQQDDANvbGQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQR1c2H++JdYGfp
WInCaXMRi4afMPO47bC8Wnn9GU0hjsf8MvEzKWC2jksZ74wIMvEak7udLQhek+F5
n3R4VZU+MAoGCCqGSM49BAMCA0gAMEUCIAF5IsFIIIWZbFTlEQ+H2mLEhpe2mza1
wt2hspb4qEowAiEAmoiprsNVJsQWRw1o2IHiAEFtZPZ3wRbQfsvcLHnRMQk=
-----END CERTIFICATE-----
";
