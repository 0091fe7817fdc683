//! The `flotilla` binary: hands the command line to whoever does it, and ends with its exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use flotilla::app;
use flotilla::cli::{self, Command};
use flotilla::config::Env;

fn main() -> ExitCode {
    let (mut out, mut err) = (io::stdout().lock(), io::stderr());
    let command = match cli::parse(std::env::args_os(), &mut out, &mut err) {
        Ok(command) => command,
        Err(code) => return code,
    };
    let env = Env::of_process();
    match command {
        Command::Check { file, json } => {
            match cli::check(&file, json, &env, &mut out, &mut err) {
                Ok(code) => ExitCode::from(code),
                // Whoever read our output has gone.
                Err(_) => ExitCode::FAILURE,
            }
        }
        Command::Migrate { json } => match app::migrate(&env, json, &mut out) {
            Ok(code) => ExitCode::from(code),
            Err(failure) => end(Err(failure), &mut err),
        },
        Command::Explain(asked) => match cli::explain(&asked, &env, &mut out, &mut err) {
            Ok(code) => ExitCode::from(code),
            Err(_) => ExitCode::FAILURE,
        },
        Command::Serve => end(app::serve(&env), &mut err),
        Command::Sim => end(app::simulate(&env), &mut err),
    }
}

/// Tells why the process ends, and with which code.
fn end(result: Result<(), app::Failure>, err: &mut impl Write) -> ExitCode {
    let Err(failure) = result else { return ExitCode::from(cli::DONE) };
    for line in failure.lines() {
        // Nobody is left to tell when the terminal is gone.
        drop(writeln!(err, "flotilla: {line}"));
    }
    ExitCode::from(failure.code())
}
