//! Runs the gateway: a stub until it is merged.

use std::net::SocketAddr;

use crate::config::{Config, Paths};

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct UpOptions {
    /// Listen here instead.
    pub listen: Option<SocketAddr>,
}

/// Why it could not run.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// A stub.
    #[error("not built yet")]
    Stub,
}

/// Runs until it is told to stop.
///
/// # Errors
/// Always, for now.
#[expect(clippy::unused_async, reason = "a stub")]
pub async fn run(_paths: Paths, _config: Config, _options: UpOptions) -> Result<(), UpError> {
    Err(UpError::Stub)
}
