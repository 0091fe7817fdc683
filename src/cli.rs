//! The command line: what is asked for, and the commands that need no running node.

mod check;
mod client;
mod explain;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::SETTINGS_REFERENCE;

/// Done.
pub const DONE: u8 = 0;
/// Refused: not now, or not without something else.
pub const REFUSED: u8 = 1;
/// Settings, a document or the command line are wrong.
pub const BAD_INPUT: u8 = 64;
/// A port cannot be bound, or something that is needed cannot be reached.
pub const UNREACHABLE: u8 = 69;

/// One node of a fleet of identical AI API proxies.
///
/// Clients speak the OpenAI API to it; it speaks to the providers that the fleet document names.
/// Without any configuration it answers from simulated providers.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(name = "flotilla", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

/// What `flotilla` is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve requests (the default).
    ///
    /// Everything is set by FLOTILLA_ variables:
    /// `flotilla --help` lists them.
    Serve,
    /// Run simulated providers, for development, tests and load.
    ///
    /// They listen on FLOTILLA_SIM_LISTEN and answer at once; a model named sim-429, sim-reset and
    /// so on brings that fault.
    Sim,
    /// Check a fleet document without serving it.
    ///
    /// Prints one line that begins with `ok:` and ends with exit code 0, or every fault with its
    /// place and exit code 64. Variables that are not set here are warnings.
    Check {
        /// The document: .yaml, .yml, .json or .toml.
        file: PathBuf,
        /// Write one JSON object to the standard output instead, for machines.
        #[arg(long)]
        json: bool,
    },
    /// Bring the keys in Redis to the shape that this build writes.
    ///
    /// Goes straight to FLOTILLA_REDIS_URL, and may be run at any time and as often as one likes.
    /// Nodes do the same when they start. Prints what it did; exit code 1 where a migration waits
    /// until older nodes are gone, 64 where the keys are newer than this build.
    Migrate {
        /// Write one JSON object instead, for machines.
        #[arg(long)]
        json: bool,
    },
    /// Explain what a node would decide about a request.
    ///
    /// Asks the node at FLOTILLA_ADMIN_URL with FLOTILLA_ADMIN_TOKEN.
    Explain(Explain),
}

/// Which request is to be explained.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Explain {
    /// Its limits: which apply, how they stand, and what holds while Redis is away.
    #[arg(long, required = true)]
    pub limits: bool,
    /// The name of its key.
    #[arg(long)]
    pub key: Option<String>,
    /// The model that it asks for.
    #[arg(long)]
    pub model: Option<String>,
    /// The user that it names.
    #[arg(long)]
    pub user: Option<String>,
    /// The only target of interest.
    #[arg(long)]
    pub target: Option<String>,
    /// Write one JSON object to the standard output instead, for machines.
    #[arg(long)]
    pub json: bool,
}

/// Reads the command line. Help, the version and mistakes are written to `out` and `err`.
///
/// # Errors
/// The exit code, where nothing is left to do: 0 after help, 64 after a mistake.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<Command, ExitCode> {
    let manual = Arguments::command().after_long_help(manual());
    let parsed = manual.try_get_matches_from(arguments);
    match parsed.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => Ok(arguments.command.unwrap_or(Command::Serve)),
        Err(mistake) if mistake.use_stderr() => {
            // Nobody is left to tell when the terminal is gone.
            drop(write!(err, "{mistake}"));
            Err(ExitCode::from(BAD_INPUT))
        }
        Err(help) => {
            drop(write!(out, "{help}"));
            Err(ExitCode::from(DONE))
        }
    }
}

fn manual() -> String {
    format!(
        "Exit codes: 0 done, 1 refused or differs, 64 bad settings or document, 69 unreachable.\n\n\
         Settings, with their defaults:\n\n{SETTINGS_REFERENCE}"
    )
}

pub use check::check;
pub use explain::explain;
