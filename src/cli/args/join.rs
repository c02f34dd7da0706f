//! The arguments of `vestibule join`.

use std::path::PathBuf;

use clap::Args as ArgGroup;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use vestibule::{Address, LogFormat};

#[derive(Debug, ArgGroup)]
#[command(after_help = JOIN_EXAMPLES)]
pub(in crate::cli) struct JoinArgs {
    /// A front: the address of a Vestibule whose `[listener.tunnel]` has `workers = true`. May be repeated.
    #[arg(long, value_name = "ADDRESS", required = true)]
    pub front: Vec<Address>,

    /// The certificate chain of this worker (PEM), by which the fronts know it.
    #[arg(long, value_name = "CHAIN.pem")]
    pub cert: PathBuf,

    /// The private key of the certificate (PEM).
    #[arg(long, value_name = "KEY.pem")]
    pub key: PathBuf,

    /// The certificate authorities of the fronts (PEM). Default: those that this machine trusts.
    #[arg(long, value_name = "CA.pem")]
    pub ca: Option<PathBuf>,

    /// The name that a front's certificate must have. Default: the host of its address.
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,

    /// The protocol (ALPN) of the fronts' tunnels. Default: h2.
    #[arg(long, value_name = "PROTOCOL")]
    pub alpn: Option<String>,

    /// The backend at the fronts. Its `workers` must name this worker.
    #[arg(long, value_name = "NAME")]
    pub backend: String,

    /// The local server: HOST:PORT or unix:/PATH. May be repeated.
    #[arg(long, value_name = "ADDRESS", required = true)]
    pub to: Vec<Address>,

    /// The number of connections to wait for at each front.
    #[arg(long, value_name = "N", default_value = "8")]
    pub offers: usize,

    /// Where the admin API listens: unix:/PATH, 127.0.0.1:PORT, or `none`. Default: admin.sock in the
    /// runtime directory.
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<String>,

    /// The format of log lines.
    #[arg(long, value_name = "FORMAT")]
    #[arg(value_parser = PossibleValuesParser::new(["text", "json"]).map(|format| {
        if format == "json" { LogFormat::Json } else { LogFormat::Text }
    }))]
    pub log_format: Option<LogFormat>,
}

const JOIN_EXAMPLES: &str = "\
Examples:
  vestibule join --front front.example:15008 --backend app --to 127.0.0.1:8080 \\
        --cert worker.pem --key worker-key.pem --ca ca.pem
      Publish the server on port 8080 at the front, also from behind NAT
  vestibule join --front a.example:15008 --front b.example:15008 --backend app \\
        --to unix:/run/app.sock --offers 32 --cert worker.pem --key worker-key.pem
      At two fronts, with 32 connections awaited at each

If a connection to a front ends, `vestibule join` connects again, after 0.1 s at first and 10 s at
most. If a front refuses it, the log says why, and it tries again: a reload of the front may admit
it. While the local server does not answer, it takes no connections. SIGTERM, SIGINT and SIGQUIT
drain: no new connections; open ones have 30 s to end. A second signal cuts them at once.";
