//! How much of everything there may be.

use std::time::Duration;

/// Runs of all groups that work at the same time; those that wait for a person do not count.
pub const RUNS: usize = 8;
/// Messages of a group that no agent has heard yet.
pub const QUEUED: usize = 20;
/// The longest message of a person, in bytes.
pub const SAID_BYTES: usize = 64 * 1024;

/// How often an agent that ended without saying that it was done is started again in a run.
pub const RELAUNCHES: u32 = 3;
/// How long to wait before the first, the second and each further start.
pub(crate) const BACKOFF: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(20),
];
/// How long an agent may take until it says that it is there.
pub const HELLO: Duration = Duration::from_secs(30);
/// How long an agent that is done may take to end by itself.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// How long to wait before something that the database refused is tried again.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// Streams of turns and reports of one group's agent at a time; each may hold megabytes.
pub const AT_ONCE: usize = 8;
/// Events in one report of an agent.
pub const EVENTS: usize = 256;
/// Events of one agent process: the numbers of the next one begin beyond.
pub const EVENTS_PER_LAUNCH: u64 = 1_000_000;
/// The longest piece of text that is being written, in bytes.
pub const DELTA_BYTES: usize = 128 * 1024;
/// The longest line of an agent for people, in characters.
pub const LINE_CHARS: usize = 500;
/// How often at most such a line is shown.
pub(crate) const LINES_EVERY: Duration = Duration::from_millis(500);
/// The longest message of an agent, and all results that wait for theirs, in bytes of JSON.
pub const MESSAGE_BYTES: usize = 2 * 1024 * 1024;
/// Blocks in a message.
pub const BLOCKS: usize = 256;
/// Messages in a run.
pub const RUN_MESSAGES: usize = 2_000;
/// All messages of a run, in bytes of JSON.
pub const RUN_BYTES: usize = 8 * 1024 * 1024;

/// How much of earlier runs an agent begins with, in bytes of JSON.
pub const HISTORY_BYTES: usize = 400 * 1024;
/// For how many runs less of it is handed on, after one that the provider refused.
pub(crate) const LOOKED_BACK: u64 = 4;
/// Messages of a conversation, and runs of a group, that are kept.
pub(crate) const KEPT: u64 = 10_000;
/// Messages that are read at a time.
pub(crate) const PAGE: u64 = 16;
