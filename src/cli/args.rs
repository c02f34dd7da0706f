//! The arguments of the command line, and their help texts.

mod admin;
mod join;
mod revoke;

use std::ffi::OsString;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args as ArgGroup, Parser, Subcommand};
use clap_complete::Shell;
use vestibule::{Address, LogFormat, ProxyProtocol};

pub(super) use self::admin::{ConnectionsArgs, Filters, KillArgs, StatusArgs, Target};
pub(super) use self::join::JoinArgs;
pub(super) use self::revoke::RevokeArgs;
use super::log::args::LogArgs;

/// Terminates TLS and hands each connection, as a plain socket, to the program that serves it.
///
/// Without a command, it runs the demo: TLS on 127.0.0.1:8443 with a development certificate, and a
/// page that shows what Vestibule knows of your connection.
#[derive(Debug, Parser)]
#[command(name = "vestibule", version, after_help = EXAMPLES, max_term_width = 100)]
pub(super) struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run with a configuration file, or with flags only.
    Run(RunArgs),
    /// Check a configuration file and print every problem.
    Check(CheckArgs),
    /// Serve each connection with a command: its stdin and stdout are the connection.
    Claim(ClaimArgs),
    /// Serve the connections of a front elsewhere with a local server, also from behind NAT.
    Join(JoinArgs),
    /// Show the state of a running Vestibule.
    Status(StatusArgs),
    /// List the open connections of a running Vestibule.
    Connections(ConnectionsArgs),
    /// End connections of a running Vestibule.
    Kill(KillArgs),
    /// Refuse clients of a running Vestibule by their identity.
    Revoke(RevokeArgs),
    /// Drain a running Vestibule, and wait until it has ended.
    Drain(Target),
    /// Reload the configuration of a running Vestibule, and print the result.
    Reload(Target),
    /// Watch a running Vestibule in the terminal: load, backends, limits, and connections to sort,
    /// filter and end.
    Top(Target),
    /// Check what this machine allows, and say what to change.
    Doctor(DoctorArgs),
    /// Print the audit log, newest first.
    Log(LogArgs),
    /// Print a completion script for a shell.
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Debug, ArgGroup)]
#[command(override_usage = RUN_USAGE, after_help = RUN_EXAMPLES)]
pub(super) struct RunArgs {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["listen", "cert", "key", "to", "proxy_protocol", "gate", "client_ca", "allow", "backend_ca", "backend_cert", "alpn", "log_format", "admin"])]
    pub config: Option<PathBuf>,

    /// Where clients connect: HOST:PORT, [IPv6]:PORT, :PORT for all addresses of this machine, or
    /// unix:/PATH.
    #[arg(long, value_name = "ADDRESS", requires = "to")]
    pub listen: Option<Address>,

    /// The certificate chain (PEM), the server's own certificate first. With `--to tls:…`, the
    /// chain and the key may be left out: clients then connect without TLS.
    #[arg(long, value_name = "CHAIN.pem", requires_all = ["listen", "key"])]
    pub cert: Option<PathBuf>,

    /// The private key of the certificate (PEM).
    #[arg(long, value_name = "KEY.pem", requires_all = ["listen", "cert"])]
    pub key: Option<PathBuf>,

    /// The certificate authorities for client certificates (PEM). Every client must then show a
    /// certificate.
    #[arg(long, value_name = "CA.pem", requires_all = ["listen", "cert"])]
    pub client_ca: Option<PathBuf>,

    /// Allow clients whose certificate has this name (uri:, dns:, cn:, ou:, sha256:). May be
    /// repeated. Without --cert: names for the certificate of a `tls:` backend.
    #[arg(long, value_name = "RULE", requires = "listen")]
    pub allow: Vec<String>,

    /// The backend: HOST:PORT, unix:/PATH, tls:HOST:PORT, or `gate`, `hello`, `echo`. Repeat `--to`
    /// for several addresses.
    #[arg(long, value_name = "BACKEND", requires = "listen")]
    pub to: Vec<String>,

    /// The protocols (ALPN) to offer to clients, in order, as in `--alpn h2,http/1.1`. Without
    /// --cert: to offer to a `tls:` backend.
    #[arg(
        long,
        value_name = "PROTOCOL",
        requires = "listen",
        value_delimiter = ','
    )]
    pub alpn: Vec<String>,

    /// Send a PROXY protocol header to the backend first. It has the client's address; v2 also has
    /// the TLS version, SNI, ALPN and the connection's UUID. The backend must expect it.
    #[arg(long, value_name = "VERSION", requires = "listen")]
    #[arg(value_parser = PossibleValuesParser::new(["v1", "v2"])
        .try_map(|version| version.parse::<ProxyProtocol>()))]
    pub proxy_protocol: Option<ProxyProtocol>,

    /// The Unix socket where workers claim connections (with `--to gate`; the backend is
    /// `default`).
    #[arg(long, value_name = "PATH", requires = "listen")]
    pub gate: Option<PathBuf>,

    /// The certificate authorities for a `tls:` backend (PEM). Default: those that this machine
    /// trusts.
    #[arg(long, value_name = "CA.pem", requires = "listen")]
    pub backend_ca: Option<PathBuf>,

    /// The certificate chain to show to a `tls:` backend (PEM).
    #[arg(long, value_name = "CHAIN.pem", requires_all = ["listen", "backend_key"])]
    pub backend_cert: Option<PathBuf>,

    /// The private key of --backend-cert (PEM).
    #[arg(long, value_name = "KEY.pem", requires_all = ["listen", "backend_cert"])]
    pub backend_key: Option<PathBuf>,

    /// Where the admin API listens: unix:/PATH, 127.0.0.1:PORT, or `none`. Default: admin.sock in the
    /// runtime directory.
    #[arg(long, value_name = "ADDRESS", requires = "listen")]
    pub admin: Option<String>,

    /// The format of log lines.
    #[arg(long, value_name = "FORMAT", requires = "listen")]
    #[arg(value_parser = PossibleValuesParser::new(["text", "json"]).map(|format| {
        if format == "json" { LogFormat::Json } else { LogFormat::Text }
    }))]
    pub log_format: Option<LogFormat>,
}

#[derive(Debug, ArgGroup)]
#[command(after_help = CHECK_EXAMPLES)]
pub(super) struct CheckArgs {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,

    /// Print which certificate, route and backend a client would get, and why.
    #[arg(long)]
    pub explain: bool,

    /// The listener that the client connects to. Default: every listener.
    #[arg(long, value_name = "NAME", requires = "explain")]
    pub listener: Option<String>,

    /// The server name (SNI) that the client asks for.
    #[arg(long, value_name = "NAME", requires = "explain")]
    pub sni: Option<String>,

    /// The protocol (ALPN) that the client offers.
    #[arg(long, value_name = "PROTOCOL", requires = "explain")]
    pub alpn: Option<String>,

    /// The client's IP address.
    #[arg(long, value_name = "IP", requires = "explain")]
    pub from: Option<IpAddr>,

    /// A name in the client's certificate, such as `cn:alice`. Default: the client shows no
    /// certificate.
    #[arg(long, value_name = "RULE", requires = "explain")]
    pub identity: Option<String>,
}

#[derive(Debug, ArgGroup)]
#[command(after_help = CLAIM_EXAMPLES)]
pub(super) struct ClaimArgs {
    /// The gate's socket.
    #[arg(long, value_name = "PATH")]
    pub gate: PathBuf,

    /// The backend whose connections to serve.
    #[arg(long, value_name = "NAME")]
    pub backend: String,

    /// The number of commands that may run at a time.
    #[arg(long, value_name = "N", default_value = "64", value_parser = at_least_one::<NonZeroUsize>)]
    pub max: NonZeroUsize,

    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

#[derive(Debug, ArgGroup)]
#[command(after_help = DOCTOR_EXAMPLES)]
pub(super) struct DoctorArgs {
    /// The configuration file. Without it, the checks are for the defaults.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

const EXAMPLES: &str = "\
Examples:
  vestibule
      The demo; try `curl --cacert certs/ca.pem https://localhost:8443/`
  vestibule run --listen 0.0.0.0:443 --cert chain.pem --key key.pem --to 127.0.0.1:8080
      TLS in front of a server on port 8080
  vestibule run -c /etc/vestibule.toml
      Run with a configuration file

Exit codes: 0 clean end, 1 failed at run time, 2 wrong usage or configuration, 3 connections had to
be cut at the end of a drain.";

const RUN_USAGE: &str = "\
vestibule run -c FILE
       vestibule run --listen ADDRESS --cert CHAIN.pem --key KEY.pem --to BACKEND [OPTIONS]";

const RUN_EXAMPLES: &str = "\
Examples:
  vestibule run -c /etc/vestibule.toml
  vestibule run --listen 0.0.0.0:443 --cert chain.pem --key key.pem --to unix:/run/app.sock
  vestibule run --listen 0.0.0.0:443 --cert chain.pem --key key.pem --to 127.0.0.1:8080 \\
        --proxy-protocol v2
      For a backend that expects the header, such as nginx with `listen 8080 proxy_protocol`
  vestibule run --listen :443 --cert chain.pem --key key.pem --to gate --gate /run/app/gate.sock
  vestibule run --listen 0.0.0.0:443 --cert chain.pem --key key.pem --to unix:/run/app.sock \\
        --client-ca ca.pem --allow 'uri:spiffe://corp/ns/*/sa/web' --allow cn:alice
      Mutual TLS: clients need a certificate from this CA with one of these names
  vestibule run --listen unix:/run/db.sock --to tls:db.internal:5433 --backend-ca ca.pem
      Client mode: local programs connect without TLS, Vestibule speaks TLS to the server

SIGHUP, or a change of a file, reloads the configuration. If it has a mistake, nothing changes.
SIGTERM, SIGINT and SIGQUIT drain: no new connections; open ones have time to end (timeouts.drain,
30 s by default). A second signal cuts all connections at once.
`access_log = \"connections\"` under [runtime] logs the end of every connection.";

const CHECK_EXAMPLES: &str = "\
Examples:
  vestibule check -c /etc/vestibule.toml && systemctl reload vestibule
      Print every problem. If there is none, print the listeners with their certificates
  vestibule check -c /etc/vestibule.toml --explain --sni api.example.com --identity cn:alice
      Print which certificate, route and backend this client would get, and why

Problems are printed as FILE:LINE:COLUMN: message. The exit code is 0 without problems, else 2. A
certificate that has expired, or that all peers refuse, is a problem here, and a warning for `run`.
Anything that stops a listener from binding now is a problem too, and so is a directory of the gate
that other users can change.";

const CLAIM_EXAMPLES: &str = "\
Examples:
  vestibule claim --gate /run/app/gate.sock --backend app -- cat
      An echo server
  vestibule claim --gate /run/app/gate.sock --backend app --max 4 -- ./handler.sh --verbose
      At most four connections at a time; the others wait

The command's environment has VESTIBULE_ID, VESTIBULE_PEER, VESTIBULE_SNI, VESTIBULE_ALPN and
VESTIBULE_IDENTITY. A value that is not known is empty.";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  vestibule doctor -c /etc/vestibule.toml
      One line for each check: ok, warn or fail; below it, what to do
  vestibule doctor -c /etc/vestibule.toml --json

Run it as the user of Vestibule, with its limits. The exit code is 1 if something will break, else 0.";

const COMPLETIONS_EXAMPLES: &str = "\
Example:
  vestibule completions bash > /etc/bash_completion.d/vestibule";

/// A number that is not 0, refused in the words of the configuration.
fn at_least_one<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| "expected a whole number from 1".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn claps_definition_is_valid() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_flags_of_a_sidecar_require_each_other() {
        let parse = |line: &str| Args::try_parse_from(line.split(' '));
        assert!(parse("vestibule run --listen :0").is_err());
        assert!(parse("vestibule run --listen a:1 --cert c --key k").is_err());
        assert!(parse("vestibule run --listen a:1 --cert c --key k --to hello").is_ok());
        assert!(parse("vestibule run --listen a:1 --cert c --to hello").is_err());
        assert!(parse("vestibule run --listen a:1 --key k --to hello").is_err());
        assert!(parse("vestibule run -c f --to hello").is_err());
        assert!(parse("vestibule run -c f --proxy-protocol v2").is_err());
        assert!(parse("vestibule run -c f --alpn h2").is_err());
        assert!(parse("vestibule run -c f --log-format json").is_err());
        // Accepted here: `cli::run` reports this with its own message.
        assert!(parse("vestibule run").is_ok());
    }
    #[test]
    fn a_number_below_one_is_refused_in_our_words() {
        for line in [
            "vestibule connections --limit 0",
            "vestibule connections --limit x",
            "vestibule connections --watch=0",
            "vestibule claim --gate g --backend b --max 0 -- cat",
        ] {
            let error = Args::try_parse_from(line.split(' ')).expect_err(line);
            let error = error.to_string();
            assert!(error.contains("expected a whole number from 1"), "{error}");
            assert!(!error.contains(".."), "{error}");
        }
    }
}
