//! A configuration from command-line flags: one listener and one backend.

use std::io;
use std::path::{Path, PathBuf};

use super::admin::AdminSettings;
use super::document::Findings;
use super::handshake::MUST_STAPLE;
use super::lines::Place;
use super::problem::Problem;
use super::validity::{Validity, of_chain, of_roots};
use super::{Config, DEFAULT, LogFormat, proxy_protocol, words};
use crate::address::Address;
use crate::backend::To;
use crate::proxy_protocol::ProxyProtocol;
use crate::route::{Action, Routes, Rule};
use crate::sys::file;
use crate::tls::certs::{Certificate, Fault, Role};
use crate::tls::chain as tls_chain;
use crate::tls::client_auth::{self, ClientAuth, Demand};
use crate::tls::connector;
use crate::tls::roots::Roots;
use crate::tls::{Alpn, Engine};
use crate::watch::FileState;
use crate::{gate, identity};

/// The settings of one listener and one backend, as given on a command line.
#[derive(Clone, Debug)]
pub struct Sidecar {
    /// The address where clients connect.
    pub listen: Address,
    /// The files of the certificate chain and the private key, in PEM. `None` listens without TLS.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The file of the authorities for client certificates, in PEM. If it is set, every client must
    /// show a certificate.
    pub client_ca: Option<PathBuf>,
    /// Which identities to allow, such as `uri:spiffe://corp/ns/*/sa/web`. Empty: every client with a
    /// valid certificate. On a listener without TLS: the identities of the server.
    pub allow: Vec<String>,
    /// The protocols (ALPN) to offer to clients, in order. Empty: none. On a listener without TLS: to
    /// offer to the server.
    pub alpn: Vec<String>,
    /// The addresses of the backend, each with a `tls:` prefix to use TLS; or one of the words `gate`,
    /// `hello` and `echo`.
    pub to: Vec<String>,
    /// The PROXY protocol header that the backend gets first. `None`: no header.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The file of the authorities for a `tls:` backend, in PEM. `None`: those of this machine.
    pub backend_ca: Option<PathBuf>,
    /// The files of the client certificate's chain and private key for a `tls:` backend, in PEM.
    pub backend_certificate: Option<(PathBuf, PathBuf)>,
    /// The path of the gate; absolute, or relative to the runtime directory. `None`: the default path
    /// if `to` is `gate`, otherwise no gate.
    pub gate: Option<PathBuf>,
    /// The address of the admin API, as `admin.address` in a file. `None`: its default.
    pub admin: Option<String>,
    /// The format of log lines.
    pub log_format: LogFormat,
}

/// Why a [`Sidecar`] is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SidecarError {
    /// The chain or the key cannot be used.
    #[error("{}: {}", .0.display(), .1)]
    Certificate(PathBuf, String),
    /// The files of the chain and the key are swapped.
    #[error("{} {}", .0.display(), .1)]
    Swapped(PathBuf, String),
    /// An entry of `to` is not a backend.
    #[error("backend {0:?}: {1}")]
    Backend(String, String),
    /// The backend has the address of the listener.
    #[error("--to {0} is the address of --listen; give one of the two another address")]
    LeadsBack(Address),
    /// The authorities for the backend's certificate cannot be read, or there are none.
    #[error("{0}")]
    Roots(String),
    /// An entry of `allow` is not a rule.
    #[error("rule {0:?}: {1}")]
    Allow(String, String),
    /// `allow` is set, but neither clients nor the server show certificates.
    #[error("--allow needs --client-ca, or `--to tls:HOST:PORT`")]
    AllowWhom,
    /// An entry of `alpn` is not a protocol.
    #[error("{0}")]
    Protocol(String),
    /// The address of the admin API cannot be used.
    #[error("--admin: {0}")]
    Admin(String),
    /// `alpn` is set, but neither side uses TLS.
    #[error("--alpn needs --cert and --key, or `--to tls:HOST:PORT`")]
    AlpnWithoutTls,
    /// `client_ca` is set, but the listener has no TLS.
    #[error("--client-ca needs --cert and --key")]
    ClientsWithoutTls,
    /// Settings of TLS to the backend are set, but the backend does not use TLS.
    #[error("--backend-ca, --backend-cert and --backend-key need `--to tls:HOST:PORT`")]
    WithoutTls,
}

impl Config {
    /// A configuration with one listener and one backend, both named `default`. `vestibule run --listen
    /// … --to …` runs it. Blocks on the file system.
    ///
    /// # Errors
    ///
    /// What is wrong, and how to correct it.
    pub fn sidecar(sidecar: &Sidecar) -> Result<Self, SidecarError> {
        let chains = [&sidecar.certificate, &sidecar.backend_certificate];
        let pairs = chains.into_iter().flatten();
        let files = pairs.flat_map(|(chain, key)| [chain, key]);
        let files = files.chain(&sidecar.backend_ca).chain(&sidecar.client_ca);
        let files = files.map(FileState::of).collect();
        let mut findings = Findings::default();
        let certificate = certificate(sidecar.certificate.as_ref(), Role::Server, &mut findings)?;
        let client_auth = client_auth(sidecar, &mut findings)?;
        let allow = allow(sidecar)?;
        let alpn = protocols(sidecar)?;
        let (to, tls) = backend(sidecar, &allow, &alpn, &mut findings)?;
        if let To::Dialled(addresses) = &to
            && let Some(address) = addresses.iter().find(|it| sidecar.listen.is_reached_by(it))
        {
            return Err(SidecarError::LeadsBack(address.clone()));
        }
        if sidecar.gate.is_some() && to != To::Gate {
            let unused = "--gate has no effect without `--to gate`";
            findings.warnings.push(Problem::at(Place::START, unused));
        }
        let gate = match (&sidecar.gate, &to) {
            (Some(path), _) => Some(gate::GateSettings {
                path: path.clone(),
                ..Default::default()
            }),
            (None, To::Gate) => Some(gate::GateSettings::default()),
            (None, To::Dialled(_) | To::Hello | To::Echo) => None,
        };
        proxy_protocol::check(sidecar.proxy_protocol.map(|_| &to))
            .map_err(|error| SidecarError::Backend(sidecar.to.join(", "), error.into()))?;
        let mut config = Self::of_one(sidecar.listen.clone(), certificate, to, gate);
        config.runtime.log_format = sidecar.log_format;
        if let Some(address) = &sidecar.admin {
            config.admin = AdminSettings::at(address).map_err(SidecarError::Admin)?;
        }
        if let Some(tls) = config.listeners.iter_mut().find_map(|it| it.tls.as_mut()) {
            tls.client_auth = client_auth;
            if !alpn.is_empty() {
                tls.alpn = Alpn::Offered(alpn);
            }
            config.routes = Routes::new(vec![Rule {
                identity: allow,
                action: Action::Backend(DEFAULT.into()),
                ..Rule::default()
            }]);
        }
        for backend in &mut config.backends {
            backend.tls.clone_from(&tls);
            backend.proxy_protocol = sidecar.proxy_protocol;
        }
        Ok(Self {
            files,
            warnings: findings.warnings,
            expired: findings.expired,
            ..config
        })
    }
}

/// The backend, and the TLS settings for it.
fn backend(
    sidecar: &Sidecar,
    allow: &[identity::Rule],
    alpn: &[String],
    findings: &mut Findings,
) -> Result<(To, Option<connector::ConnectorSettings>), SidecarError> {
    let wrong = |to: &str, why: &str| SidecarError::Backend(to.into(), why.into());
    let (first, is_alone) = match &sidecar.to[..] {
        [first, rest @ ..] => (first, rest.is_empty()),
        [] => return Err(wrong("", "expected at least one address")),
    };
    let has_tls = first.starts_with("tls:");
    let mut addresses = Vec::new();
    for to in &sidecar.to {
        let address = to.strip_prefix("tls:");
        if address.is_some() != has_tls {
            return Err(wrong(
                to,
                "write `tls:` before all addresses or before none",
            ));
        }
        match words::to(address.unwrap_or(to)).map_err(|error| wrong(to, &error))? {
            To::Dialled(found) if has_tls && !has_names(&found) => {
                return Err(wrong(
                    to,
                    "the host must be a name or an IP address, as in `tls:api.internal:443`",
                ));
            }
            To::Dialled(found) => addresses.extend(found),
            _ if has_tls => {
                let why = "write a host and port after `tls:`, as in `tls:api.internal:443`";
                return Err(wrong(to, why));
            }
            word if is_alone => return Ok((word, without_tls(sidecar)?)),
            To::Gate | To::Hello | To::Echo => {
                return Err(wrong(
                    to,
                    "gate, hello and echo cannot be combined with other backends",
                ));
            }
        }
    }
    let tls = match has_tls {
        true => Some(towards_backend(sidecar, allow, alpn, findings)?),
        false => without_tls(sidecar)?,
    };
    Ok((To::Dialled(addresses), tls))
}

/// Refuses settings of TLS for a backend without TLS.
fn without_tls<T>(sidecar: &Sidecar) -> Result<Option<T>, SidecarError> {
    if sidecar.backend_ca.is_some() || sidecar.backend_certificate.is_some() {
        return Err(SidecarError::WithoutTls);
    }
    if sidecar.certificate.is_none() && !sidecar.alpn.is_empty() {
        return Err(SidecarError::AlpnWithoutTls);
    }
    Ok(None)
}

fn protocols(sidecar: &Sidecar) -> Result<Vec<String>, SidecarError> {
    let names = sidecar.alpn.iter();
    let names = names.map(|name| words::protocol_name(name).map_err(SidecarError::Protocol));
    names.collect()
}

fn certificate(
    files: Option<&(PathBuf, PathBuf)>,
    role: Role,
    findings: &mut Findings,
) -> Result<Option<Certificate>, SidecarError> {
    let Some((chain, key)) = files else {
        return Ok(None);
    };
    let read = |path: &PathBuf, what: &str| {
        let refused = |error: io::Error| format!("cannot read the {what}: {error}");
        file::read(path).map_err(|error| SidecarError::Certificate(path.clone(), refused(error)))
    };
    let chain_pem = read(chain, "certificate chain")?;
    let key_pem = read(key, "private key")?;
    match Certificate::from_pem(&chain_pem, &key_pem, role) {
        Ok(certificate) => {
            findings.add(chain, of_chain(&certificate, role));
            if role == Role::Server && tls_chain::must_staple(&certificate.chain()[0]) {
                findings.add(chain, vec![Validity::Warning(MUST_STAPLE.into())]);
            }
            if !certificate.is_for_development() {
                let exposed = file::exposed(key).map(Validity::Warning);
                findings.add(key, exposed.into_iter().collect());
            }
            Ok(Some(certificate))
        }
        Err(error) => {
            let why = error.to_string();
            Err(match error.fault() {
                Fault::Chain => SidecarError::Certificate(chain.clone(), why),
                Fault::Key => SidecarError::Certificate(key.clone(), why),
                Fault::Swap => SidecarError::Swapped(chain.clone(), why),
            })
        }
    }
}

impl Findings {
    fn add(&mut self, file: &Path, all: Vec<Validity>) {
        // A command line has no lines, so the place is the start.
        let problem = |words| Problem::at(Place::START, &format!("{}: {words}", file.display()));
        for validity in all {
            match validity {
                Validity::Good => {}
                Validity::Warning(warning) => self.warnings.push(problem(warning)),
                Validity::Invalid(error) => self.expired.push(problem(error)),
            }
        }
    }
}

/// Clients that are allowed by name must show a certificate.
fn client_auth(
    sidecar: &Sidecar,
    findings: &mut Findings,
) -> Result<Option<ClientAuth>, SidecarError> {
    let Some(path) = &sidecar.client_ca else {
        return Ok(None);
    };
    if sidecar.certificate.is_none() {
        return Err(SidecarError::ClientsWithoutTls);
    }
    let wrong = |error: String| SidecarError::Certificate(path.clone(), error);
    let pem = file::read(path).map_err(|error| {
        wrong(format!(
            "cannot read the authorities of --client-ca: {error}"
        ))
    })?;
    let authorities = Roots::from_pem(&pem).map_err(|error| wrong(error.to_string()))?;
    findings.add(path, of_roots(&authorities));
    let settings = client_auth::ClientAuthSettings {
        demand: Demand::Required,
        authorities,
        revoked: Vec::new(),
    };
    let client_auth = ClientAuth::new(settings).map_err(|error| wrong(error.to_string()))?;
    Ok(Some(client_auth))
}

fn allow(sidecar: &Sidecar) -> Result<Vec<identity::Rule>, SidecarError> {
    let is_about_clients = sidecar.client_ca.is_some();
    let is_about_the_server =
        sidecar.certificate.is_none() && sidecar.to.iter().any(|to| to.starts_with("tls:"));
    if !sidecar.allow.is_empty() && !is_about_clients && !is_about_the_server {
        return Err(SidecarError::AllowWhom);
    }
    let rules = sidecar.allow.iter().map(|text| {
        let rule = text.parse::<identity::Rule>();
        rule.map_err(|error| SidecarError::Allow(text.clone(), error.to_string()))
    });
    rules.collect()
}

fn towards_backend(
    sidecar: &Sidecar,
    allow: &[identity::Rule],
    alpn: &[String],
    findings: &mut Findings,
) -> Result<connector::ConnectorSettings, SidecarError> {
    let roots = match &sidecar.backend_ca {
        None => Roots::of_platform().map_err(|error| SidecarError::Roots(error.to_string()))?,
        Some(path) => file::read(path)
            .map_err(|error| format!("cannot read the authorities of --backend-ca: {error}"))
            .and_then(|pem| Roots::from_pem(&pem).map_err(|error| error.to_string()))
            .map_err(|error| SidecarError::Roots(format!("{}: {error}", path.display())))?,
    };
    if let Some(path) = &sidecar.backend_ca {
        findings.add(path, of_roots(&roots));
    }
    Ok(connector::ConnectorSettings {
        server_name: None,
        roots,
        certificate: certificate(sidecar.backend_certificate.as_ref(), Role::Client, findings)?,
        // If the listener has a certificate, these settings are for clients.
        alpn: match sidecar.certificate {
            None => alpn.to_vec(),
            Some(_) => Vec::new(),
        },
        allow: match sidecar.certificate {
            None => allow.to_vec(),
            Some(_) => Vec::new(),
        },
        engine: Engine::default(),
    })
}

/// Whether each address tells which name the certificate must have.
fn has_names(addresses: &[Address]) -> bool {
    addresses.iter().all(|address| match address {
        Address::Unix(_) => false,
        Address::Tcp { host, .. } => connector::server_name(host).is_some(),
    })
}
