//! What only openssl makes: other keys and certificates than rcgen does, and what it says of both.

use std::fs;
use std::path::Path;

use super::{Authority, Issued, Status, replace};

impl Authority {
    /// What `openssl ocsp` says about a certificate, signed by `signer`, in DER.
    pub fn answer(&self, about: u64, status: Status, signer: &Issued) -> Vec<u8> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        // The index of `openssl ca`; serial numbers have an even number of digits there.
        let serial = format!("{about:X}");
        let serial = format!("{}{serial}", &"0"[..serial.len() % 2]);
        let entry = match status {
            Status::Good => {
                format!("V\t21000101000000Z\t\t{serial}\tunknown\t/CN=it\n")
            }
            Status::Revoked => {
                format!("R\t21000101000000Z\t260101000000Z\t{serial}\tunknown\t/CN=it\n")
            }
            Status::Unknown => String::new(),
        };
        replace(&path("index"), &entry);
        replace(&path("issuer.pem"), &self.pem());
        signer.write(directory.path(), "signer");
        let mut openssl = std::process::Command::new("openssl");
        openssl.args(["ocsp", "-index", "index", "-CA", "issuer.pem"]);
        openssl.args(["-issuer", "issuer.pem", "-serial", &format!("0x{serial}")]);
        openssl.args(["-rsigner", "signer.pem", "-rkey", "signer-key.pem"]);
        openssl.args(["-respout", "response", "-noverify", "-ndays", "7"]);
        let done = openssl.current_dir(&directory).output().expect("openssl");
        assert!(done.status.success(), "{done:?}");
        fs::read(path("response")).expect("a response")
    }

    /// As [`Self::revocations`], by `openssl ca`, which makes them of version 1 if it is not told of
    /// extensions; `options` say how it is signed.
    pub fn revocations_by_openssl(
        &self,
        extensions: &str,
        options: &[&str],
        serials: &[u64],
    ) -> String {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let mut index = String::new();
        for serial in serials {
            let number = format!("{serial:X}");
            let number = format!("{}{number}", &"0"[..number.len() % 2]);
            index += &format!("R\t21000101000000Z\t260101000000Z\t{number}\tunknown\t/CN=it\n");
        }
        replace(&path("index"), &index);
        replace(
            &path("config"),
            &format!(
                "[ca]\ndefault_ca = it\n[it]\ndatabase = index\ndefault_md = sha256\n\
                 default_crl_days = 36500\n{extensions}\n[crl]\nauthorityKeyIdentifier = keyid\n"
            ),
        );
        self.signer().write(directory.path(), "ca");
        let mut openssl = std::process::Command::new("openssl");
        openssl.args([
            "ca",
            "-gencrl",
            "-config",
            "config",
            "-keyfile",
            "ca-key.pem",
        ]);
        openssl
            .args(["-cert", "ca.pem", "-out", "list.pem"])
            .args(options);
        let done = openssl.current_dir(&directory).output().expect("openssl");
        assert!(done.status.success(), "{done:?}");
        fs::read_to_string(path("list.pem")).expect("a list")
    }
}

/// A certificate that its own key has signed, with extensions as `openssl req -addext` takes them; of version 1
/// without any, and RSA where that is wanted.
pub fn self_signed(directory: &Path, name: &str, key: &[&str], extensions: &[&str]) {
    let (pem, key_file) = (format!("{name}.pem"), format!("{name}-key.pem"));
    let subject = format!("/CN={name}");
    let mut request = vec![
        "req", "-new", "-nodes", "-subj", &subject, "-keyout", &key_file,
    ];
    request.extend(["-newkey"].iter().chain(key));
    if extensions.is_empty() {
        openssl(directory, &[&request[..], &["-out", "it.csr"]].concat());
        let sign = [
            "x509", "-req", "-in", "it.csr", "-signkey", &key_file, "-out", &pem,
        ];
        return openssl(directory, &sign);
    }
    request.extend(["-x509", "-out", &pem]);
    for extension in extensions {
        request.extend(["-addext", extension]);
    }
    openssl(directory, &request);
}

/// A client's certificate by one of [`self_signed`], with extensions as lines of openssl's configuration.
pub fn issued_by(directory: &Path, authority: &str, name: &str, extensions: &str) {
    let lines = format!("extendedKeyUsage=clientAuth\n{extensions}");
    replace(&directory.join("extensions"), &lines);
    let (pem, key_file) = (format!("{name}.pem"), format!("{name}-key.pem"));
    let (ca, ca_key) = (format!("{authority}.pem"), format!("{authority}-key.pem"));
    let subject = format!("/CN={name}");
    let mut request = vec![
        "req", "-new", "-nodes", "-subj", &subject, "-keyout", &key_file,
    ];
    request.extend([
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-out",
        "it.csr",
    ]);
    openssl(directory, &request);
    let mut sign = vec![
        "x509", "-req", "-in", "it.csr", "-CA", &ca, "-CAkey", &ca_key,
    ];
    sign.extend(["-days", "2", "-extfile", "extensions", "-out", &pem]);
    openssl(directory, &sign);
}

fn openssl(directory: &Path, words: &[&str]) {
    let mut command = std::process::Command::new("openssl");
    let done = command.args(words).current_dir(directory).output();
    let done = done.expect("openssl");
    assert!(done.status.success(), "{words:?}: {done:?}");
}

pub(super) fn rsa_key() -> String {
    let mut openssl = std::process::Command::new("openssl");
    openssl.args([
        "genpkey",
        "-quiet",
        "-algorithm",
        "RSA",
        "-pkeyopt",
        "rsa_keygen_bits:2048",
    ]);
    let done = openssl.output().expect("openssl");
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).expect("PEM")
}
