//! The `flotilla` binary: hands the command line to whoever does it, and ends with its exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use flotilla::cli::{self, Command};
use flotilla::config::Env;

fn main() -> ExitCode {
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    let command = match cli::parse(std::env::args_os(), &mut out, &mut err) {
        Ok(command) => command,
        Err(code) => return code,
    };
    match command {
        Command::Check { file, json } => {
            let env = Env::of_process();
            match cli::check(&file, json, &env, &mut out, &mut err) {
                Ok(code) => ExitCode::from(code),
                // Whoever read our output has gone.
                Err(_) => ExitCode::FAILURE,
            }
        }
        Command::Serve | Command::Sim => {
            drop(writeln!(err, "flotilla: this command does not exist yet"));
            ExitCode::FAILURE
        }
    }
}
