//! The gateway's integration tests: one binary, real processes and sockets.

mod cli;
mod upstreams;
