//! The arguments of `vestibule revoke`.

use clap::Args as ArgGroup;

use super::Target;

#[derive(Debug, ArgGroup)]
#[command(after_help = REVOKE_EXAMPLES)]
pub(in crate::cli) struct RevokeArgs {
    #[command(flatten)]
    pub target: Target,

    /// The clients to refuse: a pattern as in a route, such as cn:alice, or serial: and the serial
    /// number of a certificate. Their open connections end.
    #[arg(value_name = "IDENTITY", required_unless_present_any = ["list", "remove"])]
    pub identity: Option<String>,

    /// Print all revocations.
    #[arg(long, conflicts_with_all = ["identity", "remove"])]
    pub list: bool,

    /// Remove the revocation with this id: its clients may connect again.
    #[arg(long, value_name = "ID", conflicts_with = "identity")]
    pub remove: Option<String>,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

const REVOKE_EXAMPLES: &str = "\
Examples:
  vestibule revoke cn:alice
      Refuse alice from now on, also after a restart, and end her connections
  vestibule revoke serial:4f:3a:07
      One certificate, by the number that `openssl x509 -noout -serial` prints
  vestibule revoke --list
  vestibule revoke --remove 7f8c1a52-5d0e-4c4b-9f57-0f7c7a9f0f11";
