//! Arguments, runtime, signals and exit codes: nothing else.

use clap::{CommandFactory, FromArgMatches};
use sluice_cli::{args::Cli, exit};
use std::{io::Write, process::ExitCode};

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let parsed = Cli::from_arg_matches(&matches).and_then(|cli| cli.settle(&matches));
    let cli = parsed.unwrap_or_else(|error| error.format(&mut Cli::command()).exit());
    // The one error is that there is a provider already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return say_and_exit(&format!("cannot start: {error}"), exit::FAILED),
    };
    let code = runtime.block_on(async {
        tokio::select! {
            result = sluice_cli::run(cli) => match result {
                Ok(()) => ExitCode::SUCCESS,
                Err(failure) => match failure.message() {
                    Some(message) => say_and_exit(&message, failure.code()),
                    None => ExitCode::from(failure.code()),
                },
            },
            // Without a handler there is still the default action of the signal, which ends the process too.
            Ok(()) = tokio::signal::ctrl_c() => ExitCode::from(exit::INTERRUPTED),
        }
    });
    // A read of stdin that is under way cannot be called off, and must not hold the exit.
    runtime.shutdown_background();
    code
}

fn say_and_exit(message: &str, code: u8) -> ExitCode {
    // Nobody is left to be told that stderr does not work.
    let _ = writeln!(std::io::stderr(), "sluice: {message}");
    ExitCode::from(code)
}
