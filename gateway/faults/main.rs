//! The gateway with its fault points: the same binary, which does at these what a test's schedule says.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|command| command == "supervise") {
        return runtimes::supervise::main(args, gateway::config::env_var("PATH"));
    }
    gateway::cli::main()
}
