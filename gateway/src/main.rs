//! The `portcullis` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    // Before any thread is started: the supervisor forks and becomes a subreaper.
    if args.next().is_some_and(|command| command == "supervise") {
        return runtimes::supervise::main(args, gateway::config::env_var("PATH"));
    }
    gateway::cli::main()
}
