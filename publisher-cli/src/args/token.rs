//! The arguments of `sluice token`.

use super::examples;
use crate::duration;
use clap::{ArgGroup, Args, Subcommand};
use sluice_gateway::{channel::Pattern, config::Algorithm};
use std::{path::PathBuf, time::Duration};

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token, and print it
    #[command(after_help = examples::TOKEN)]
    Mint(MintArgs),
    /// Print what a token says, and whether it holds now
    #[command(after_help = examples::TOKEN)]
    Explain(ExplainArgs),
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("key").required(true).args(["secret_file", "private_key"])))]
pub struct MintArgs {
    /// The file with the secret, for HS256 to HS512; one line break at its end is none of it
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// The file with the private key in PEM, for the other algorithms
    #[arg(long, value_name = "FILE")]
    pub private_key: Option<PathBuf>,
    /// How to sign; HS256 with a secret, unless given
    #[arg(long, value_name = "ALG", value_parser = algorithm)]
    pub alg: Option<Algorithm>,
    /// The key's id, in the header
    #[arg(long, value_name = "ID")]
    pub kid: Option<String>,
    /// Who signs it
    #[arg(long, value_name = "ISSUER")]
    pub iss: Option<String>,
    /// Whom it is for
    #[arg(long, value_name = "AUDIENCE")]
    pub aud: Option<String>,
    /// Whose it is
    #[arg(long, value_name = "SUBJECT")]
    pub sub: Option<String>,
    /// The token's id (`jti`); one by chance, unless given
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// How long it is valid
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration::parse)]
    pub ttl: Duration,
    /// A pattern of channels that may be subscribed to; `{sub}` is the subject
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    pub subscribe: Vec<String>,
    /// A pattern of channels that may be published to
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    pub publish: Vec<String>,
    /// A channel that its streams have without asking
    #[arg(long, value_name = "CHANNEL", value_parser = pattern)]
    pub join: Vec<String>,
    /// Let it count, read any history, close connections and deny tokens
    #[arg(long)]
    pub admin: bool,
    /// The claim that has what it allows: `auth.claim` of the gateway
    #[arg(long, value_name = "NAME", default_value = "sluice")]
    pub claim: String,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The token; `-` reads it from stdin
    pub token: String,
    /// The file with the secret that should have signed it
    #[arg(long, value_name = "FILE", conflicts_with = "public_key")]
    pub secret_file: Option<PathBuf>,
    /// The file with the public key in PEM whose private key should have signed it
    #[arg(long, value_name = "FILE")]
    pub public_key: Option<PathBuf>,
    /// The claim that has what it allows: `auth.claim` of the gateway
    #[arg(long, value_name = "NAME", default_value = "sluice")]
    pub claim: String,
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    Algorithm::named(text).ok_or_else(|| format!("it is one of {}", Algorithm::names().join(", ")))
}

/// A pattern as the gateway will have it, `{sub}` left to it.
fn pattern(text: &str) -> Result<String, String> {
    Pattern::new(&text.replace("{sub}", "x")).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}
