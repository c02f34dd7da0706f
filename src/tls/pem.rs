//! Reads PEM as it is met: every block of a file, or an error that says which one is wrong, and where.
//!
//! Files are put together by hand, by `cat`, by Windows and by OpenSSL. The text is put in order here;
//! rustls-pemfile then takes each block apart by itself, so that none is passed over.

use std::fmt;

use rustls_pemfile::{Item, read_one_from_slice};
use tokio_rustls::rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
};

/// The blocks of one file, in order.
#[derive(Debug)]
pub(crate) struct Pem {
    blocks: Vec<Block>,
    /// What it may be where it is no text.
    binary: Option<Binary>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binary {
    Der,
    /// A chain and its key under a password (RFC 7292 §4).
    Pkcs12,
}

impl Binary {
    fn of(content: &[u8]) -> Option<Self> {
        let [DER_SEQUENCE, length, rest @ ..] = content else {
            return None;
        };
        let more_length = match length {
            0..0x80 => 0,
            more => usize::from(more & 0x7f),
        };
        // Certificates and lists begin with another sequence, this one with its version.
        match rest.get(more_length..) {
            Some([DER_INTEGER, 1, 3, ..]) => Some(Self::Pkcs12),
            _ => Some(Self::Der),
        }
    }
}

#[derive(Debug)]
struct Block {
    content: Content,
    /// From 1.
    line: usize,
}

#[derive(Debug)]
enum Content {
    Item(Item),
    EncryptedKey,
    /// Of another kind, such as `DH PARAMETERS`.
    Other(String),
}

/// Where something stands in a file: which of its kind it is, and in which line it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub nth: usize,
    pub line: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate {}, in line {},", self.nth, self.line)
    }
}

/// A certificate in a file.
pub(crate) type Located = (CertificateDer<'static>, Position);

impl Pem {
    /// # Errors
    ///
    /// There is a `-----BEGIN` of which nothing can be made.
    pub(crate) fn read(content: &[u8]) -> Result<Self, PemError> {
        let text = text(content);
        let mut rest = Rest {
            text: &text,
            at: 0,
            counted: (0, 1),
        };
        let mut blocks = Vec::new();
        while let Some(block) = rest.block()? {
            blocks.push(block);
        }
        Ok(Self {
            blocks,
            binary: Binary::of(content),
        })
    }

    /// Whether it may be a revocation list in DER.
    pub(crate) fn is_binary(&self) -> bool {
        self.blocks.is_empty() && self.binary == Some(Binary::Der)
    }

    pub(crate) fn certificates(&self) -> Vec<Located> {
        let certificates = self.blocks.iter().filter_map(|block| match &block.content {
            Content::Item(Item::X509Certificate(der)) => Some((der.clone(), block.line)),
            _ => None,
        });
        let place = |(index, (der, line))| {
            (
                der,
                Position {
                    nth: index + 1,
                    line,
                },
            )
        };
        certificates.enumerate().map(place).collect()
    }

    /// Its revocation lists; if there is none, `otherwise` is told what there is instead.
    pub(crate) fn lists_or(
        &self,
        otherwise: impl FnOnce(String),
    ) -> Vec<CertificateRevocationListDer<'static>> {
        let lists = self.blocks.iter().filter_map(|block| match &block.content {
            Content::Item(Item::Crl(der)) => Some(der.clone()),
            _ => None,
        });
        let lists: Vec<_> = lists.collect();
        if lists.is_empty() {
            otherwise(self.holds());
        }
        lists
    }

    pub(crate) fn keys(&self) -> Vec<PrivateKeyDer<'static>> {
        let keys = self.blocks.iter().filter_map(|block| match &block.content {
            Content::Item(Item::Pkcs1Key(key)) => Some(key.clone_key().into()),
            Content::Item(Item::Pkcs8Key(key)) => Some(key.clone_key().into()),
            Content::Item(Item::Sec1Key(key)) => Some(key.clone_key().into()),
            _ => None,
        });
        keys.collect()
    }

    /// The line of a key that takes a password.
    pub(crate) fn encrypted_key(&self) -> Option<usize> {
        let is_encrypted = |block: &&Block| matches!(block.content, Content::EncryptedKey);
        self.blocks
            .iter()
            .find(is_encrypted)
            .map(|block| block.line)
    }

    /// What the file holds, for people: that of its first block.
    pub(crate) fn holds(&self) -> String {
        match self.blocks.first().map(|block| &block.content) {
            None if self.binary == Some(Binary::Der) => {
                "DER (`openssl x509 -inform DER` makes PEM of a certificate in it)".into()
            }
            None if self.binary == Some(Binary::Pkcs12) => {
                "PKCS#12 (`openssl pkcs12 -nodes` makes PEM of it)".into()
            }
            None => "nothing that starts with -----BEGIN".into(),
            Some(Content::EncryptedKey) => "an encrypted private key".into(),
            Some(Content::Other(label)) => format!("{label:?}"),
            Some(Content::Item(item)) => match item {
                Item::X509Certificate(_) => "a certificate",
                Item::Pkcs1Key(_) | Item::Pkcs8Key(_) | Item::Sec1Key(_) => "a private key",
                Item::SubjectPublicKeyInfo(_) => "a public key",
                Item::Crl(_) => "a revocation list",
                Item::Csr(_) => "a request for a certificate",
                _ => "something else",
            }
            .into(),
        }
    }
}

/// What was not read yet.
struct Rest<'a> {
    text: &'a str,
    at: usize,
    /// A place, and its line: a large file is counted through once.
    counted: (usize, usize),
}

impl<'a> Rest<'a> {
    fn block(&mut self) -> Result<Option<Block>, PemError> {
        let text: &'a str = self.text;
        let rest = &text[self.at..];
        let begin = rest.find(BEGIN);
        // Its beginning was lost, or mistyped.
        if let Some(end) = rest[..begin.unwrap_or(rest.len())].find(END) {
            return Err(PemError::NoBegin(self.line(self.at + end)));
        }
        let Some(begin) = begin else {
            return Ok(None);
        };
        let line = self.line(self.at + begin);
        let (label, body) = label(&rest[begin + BEGIN.len()..]).ok_or(PemError::Begin(line))?;
        let unended = || PemError::NoEnd(line, label.to_owned());
        let end = body.find(END).ok_or_else(unended)?;
        if body[..end].contains(BEGIN) {
            return Err(unended());
        }
        let (body, behind) = (&body[..end], &body[end + END.len()..]);
        let (ended, behind) = self::label(behind).unwrap_or(("", behind));
        if ended != label {
            return Err(PemError::Mismatch(line, label.to_owned(), ended.to_owned()));
        }
        self.at = self.text.len() - behind.len();
        let content =
            content(label, body).map_err(|why| PemError::Content(line, label.to_owned(), why))?;
        Ok(Some(Block { content, line }))
    }

    fn line(&mut self, at: usize) -> usize {
        let (from, line) = self.counted;
        let line = line + self.text[from..at].matches('\n').count();
        self.counted = (at, line);
        line
    }
}

/// What stands between ` ` and `-----`, and what follows.
fn label(text: &str) -> Option<(&str, &str)> {
    let line = text.split('\n').next()?;
    let (label, _) = line.strip_prefix(' ')?.split_once(DASHES)?;
    let behind = &text[1 + label.len() + DASHES.len()..];
    Some((label.trim(), behind))
}

fn content(label: &str, body: &str) -> Result<Content, String> {
    let (headers, data) = headers(body);
    if label == "ENCRYPTED PRIVATE KEY" || headers.contains("ENCRYPTED") {
        return Ok(Content::EncryptedKey);
    }
    let usual = match label {
        "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => "CERTIFICATE",
        label => label,
    };
    let block = format!("{BEGIN} {usual}{DASHES}\n{data}\n{END} {usual}{DASHES}\n");
    let item = read_one_from_slice(block.as_bytes()).map_err(|error| match error {
        rustls_pemfile::Error::Base64Decode(why) => format!("is not base64 ({why})"),
        other => format!("cannot be read ({other:?})"),
    })?;
    Ok(match item {
        Some((Item::X509Certificate(der), _)) if label == "TRUSTED CERTIFICATE" => {
            Content::Item(Item::X509Certificate(without_trust(&der)))
        }
        Some((item, _)) => Content::Item(item),
        None => Content::Other(label.to_owned()),
    })
}

/// Headers (RFC 1421 §4.4) end with an empty line; data has no colon.
fn headers(body: &str) -> (String, String) {
    let mut lines = body.lines().map(str::trim).peekable();
    while lines.next_if(|line| line.is_empty()).is_some() {}
    let mut headers = String::new();
    let mut is_header = lines.peek().is_some_and(|line| line.contains(':'));
    let mut data = String::new();
    for line in lines {
        if is_header && line.is_empty() {
            is_header = false;
        } else if is_header {
            headers.push_str(line);
        } else {
            data.extend(line.split_whitespace());
        }
    }
    (headers, data)
}

/// OpenSSL puts behind such a certificate what it is trusted for.
fn without_trust(der: &CertificateDer<'_>) -> CertificateDer<'static> {
    use der::Reader;
    let first = der::SliceReader::new(der).and_then(|mut both| both.tlv_bytes());
    first.unwrap_or(der).to_vec().into()
}

/// With one kind of line end and without byte order marks, also those of files in the middle. Bag
/// attributes may be in any encoding.
fn text(content: &[u8]) -> String {
    let text = match content {
        [0xff, 0xfe, rest @ ..] => utf_16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf_16(rest, u16::from_be_bytes),
        _ => String::from_utf8_lossy(content).into_owned(),
    };
    text.replace("\r\n", "\n")
        .replace('\r', "\n")
        .replace('\u{feff}', "")
}

/// As PowerShell writes it.
fn utf_16(bytes: &[u8], unit: impl Fn([u8; 2]) -> u16) -> String {
    let units: Vec<u16> = bytes
        .chunks_exact(2)
        .map(|it| unit([it[0], it[1]]))
        .collect();
    String::from_utf16_lossy(&units)
}

/// Why not all of a file can be read. None of its content is in the words: it may be a key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PemError {
    #[error("line {0} has `-----BEGIN` and is no `-----BEGIN LABEL-----`")]
    Begin(usize),
    #[error("line {0} has `-----END` without a `-----BEGIN` before it")]
    NoBegin(usize),
    #[error(
        "the block in line {0} (-----BEGIN {1}-----) has no -----END {1}-----; is the file cut short?"
    )]
    NoEnd(usize, String),
    #[error("the block in line {0} begins as {1:?} and ends as {2:?}")]
    Mismatch(usize, String, String),
    #[error("the block in line {0} (-----BEGIN {1}-----) {2}; copy it again")]
    Content(usize, String, String),
}

const BEGIN: &str = "-----BEGIN";
const END: &str = "-----END";
const DASHES: &str = "-----";
/// What every certificate, key and list in DER starts with, and no text.
const DER_SEQUENCE: u8 = 0x30;
const DER_INTEGER: u8 = 0x02;

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: &str = include_str!("../../certs/server.pem");
    const KEY: &str = include_str!("../../certs/server-key.pem");

    fn certificates(text: impl AsRef<[u8]>) -> Vec<Located> {
        Pem::read(text.as_ref()).expect("PEM").certificates()
    }

    #[test]
    fn a_certificate_is_read_however_it_is_written() {
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
    fn blocks_that_were_glued_together_are_all_read() {
        let one = CHAIN.trim_end();
        for between in ["", "\n", "\u{feff}", " ", "\r\n\u{feff}"] {
            let text = [one, one, one].join(between);
            assert_eq!(certificates(&text).len(), 3, "{between:?}");
        }
    }

    #[test]
    fn where_a_certificate_stands_is_known() {
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
    fn what_cannot_be_read_is_an_error_with_its_line() {
        let begin = "-----BEGIN CERTIFICATE-----";
        let end = "-----END CERTIFICATE-----";
        for (text, line, why) in [
            (format!("{CHAIN}{begin}\nAAAA\n"), 0, "cut short"),
            (format!("{CHAIN}{begin}\nAAAA\n{CHAIN}"), 0, "cut short"),
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
                "ends as",
            ),
            (
                format!("{CHAIN}{begin}\nAAAA\n-----END CERT\n"),
                0,
                "ends as",
            ),
        ] {
            let error = Pem::read(text.as_bytes()).expect_err(&text).to_string();
            let line = CHAIN.lines().count() + 1 + line;
            assert!(error.contains(&format!("line {line} ")), "{error}\n{text}");
            assert!(error.contains(why), "{error}\n{text}");
        }
        // A file that was cut anywhere but in the text after its last block.
        for length in 12..CHAIN.trim_end().len() {
            assert!(Pem::read(&CHAIN.as_bytes()[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_key_that_takes_a_password_is_known_in_both_forms() {
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
    fn a_binary_file_is_called_what_it_is() {
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
}
