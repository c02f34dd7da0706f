//! `vestibule join`: a worker of fronts elsewhere, for a local server.

use vestibule::options::{
    AdminOptions, BackendTlsOptions, CertificateOptions, DataSource, JoinOptions, RuntimeOptions,
};
use vestibule::{Address, Config, ConfigSource};

use super::args::JoinArgs;
use super::run::{absolute_path, serve};
use super::{Exit, Failure};

pub(super) fn join(args: &JoinArgs) -> Result<Exit, Failure> {
    let certificate =
        CertificateOptions::from_files(absolute_path(&args.cert)?, absolute_path(&args.key)?);
    let mut tls = BackendTlsOptions::default().certificate(certificate.clone());
    if let Some(ca) = &args.ca {
        tls = tls.ca([DataSource::file(absolute_path(ca)?)]);
    }
    if let Some(name) = &args.server_name {
        tls = tls.server_name(name);
    }
    if let Some(protocol) = &args.alpn {
        tls = tls.alpn([protocol]);
    }
    let (fronts, to) = (args.front.clone(), args.to.clone());
    let join = JoinOptions::new(&args.backend, fronts, to, certificate)
        .offers(args.offers)
        .tls(tls);
    let runtime = RuntimeOptions::default().log_format(args.log_format.unwrap_or_default());
    let mut config = Config::builder().join(join).runtime(runtime);
    if let Some(address) = &args.admin {
        config = config.admin(admin(address)?);
    }
    serve(ConfigSource::code(move || Ok(config.clone().build()?)))
}

fn admin(address: &str) -> Result<AdminOptions, Failure> {
    match address {
        "none" => Ok(AdminOptions::none()),
        address => match address.parse::<Address>() {
            Ok(address) => Ok(AdminOptions::default().address(address)),
            Err(error) => Err(Failure::usage(anyhow::anyhow!("--admin: {error}"))),
        },
    }
}
