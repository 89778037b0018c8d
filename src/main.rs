//! The `peercompute` command.
//!
//! Each command is a module of `cli`; this file only tells them apart and turns errors into one
//! message and an exit code: 0 done, 1 failed, 2 wrong usage.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    quiet_drivers();
    cli::run(cli::Cli::parse())
}

/// Mesa's device selection complains on standard error where no desktop has set this.
fn quiet_drivers() {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        #[allow(unsafe_code, reason = "the process has one thread yet, so nothing reads the environment meanwhile")]
        // SAFETY: called first thing in `main`, before any thread exists.
        unsafe {
            std::env::set_var("XDG_RUNTIME_DIR", std::env::temp_dir());
        }
    }
}
