//! What people said, in the order in which it arrived.
//!
//! A log: entries are added and read, never changed. Its number, not a platform's clock, is the
//! order; whoever reads keeps the number it has come to.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Something a person said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Through which channel.
    pub channel: String,
    /// Where: the channel's own name of the place.
    pub place: String,
    /// The platform's id of the message: the same one again is the same message.
    pub external_id: String,
    /// Who: the platform's stable id, never a display name.
    pub by: String,
    /// What.
    pub text: String,
    /// When it arrived here.
    pub at: Timestamp,
}

/// A message in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Its place in the order of arrival, from 1.
    pub seq: i64,
    /// What was said.
    pub said: Said,
}
