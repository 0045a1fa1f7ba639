//! The end of what a program said, for whoever has to find out why it failed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::lock;

/// How much is kept, in bytes.
const KEPT: usize = 64 * 1024;
/// How many of its last lines are told.
const LINES: usize = 8;

/// The last lines that a program wrote.
#[derive(Clone, Debug, Default)]
pub struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    /// Keeps the end of a stream until it ends.
    pub async fn follow(self, mut stream: impl AsyncRead + Unpin) {
        let mut bytes = vec![0; 8 * 1024];
        while let Ok(count @ 1..) = stream.read(&mut bytes).await {
            let mut kept = lock(&self.0);
            kept.extend(bytes.iter().take(count));
            let excess = kept.len().saturating_sub(KEPT);
            kept.drain(..excess);
        }
    }

    /// The last lines, oldest first; empty if it said nothing.
    pub fn lines(&self) -> String {
        let bytes: Vec<u8> = lock(&self.0).iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let mut lines: Vec<&str> = text.lines().rev().take(LINES).collect();
        lines.reverse();
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_leaves_its_last_lines() {
        let tail = Tail::default();
        let flood = format!("{}one\ntwo\n", "x\n".repeat(KEPT));
        tail.clone().follow(flood.as_bytes()).await;
        assert_eq!(lock(&tail.0).len(), KEPT);
        assert_eq!(tail.lines(), "x\nx\nx\nx\nx\nx\none\ntwo");
    }
}
