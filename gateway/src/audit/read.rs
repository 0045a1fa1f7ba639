//! Reading the log: a stub until it is merged.

use std::path::Path;

use policy::record::{Bad, Story};

/// Which stories are wanted.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The newest so many.
    pub limit: usize,
    /// Only those that hold this text.
    pub text: Option<String>,
}

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A stub.
    #[error("the log cannot be read yet")]
    Stub,
}

/// A log that fits.
#[derive(Clone, Debug)]
pub struct Verified {
    /// How many entries it has.
    pub entries: i64,
    /// The hash of the last.
    pub head: String,
}

/// Why the log is not sound.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// An entry does not fit.
    #[error(transparent)]
    Bad(Bad),
    /// It cannot be read.
    #[error(transparent)]
    Other(#[from] ReadError),
}

/// The newest stories.
///
/// # Errors
/// Always, for now.
#[expect(clippy::unused_async, reason = "a stub")]
pub async fn stories(_data: &Path, _filter: Filter) -> Result<Vec<Story>, ReadError> {
    Err(ReadError::Stub)
}

/// One story.
///
/// # Errors
/// Always, for now.
#[expect(clippy::unused_async, reason = "a stub")]
pub async fn story(_data: &Path, _id: &str) -> Result<Option<Story>, ReadError> {
    Err(ReadError::Stub)
}

/// Walks the whole log.
///
/// # Errors
/// Always, for now.
#[expect(clippy::unused_async, reason = "a stub")]
pub async fn verify(_data: &Path) -> Result<Verified, VerifyError> {
    Err(ReadError::Stub.into())
}
