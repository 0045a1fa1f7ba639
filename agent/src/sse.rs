//! Server-sent events, as much of them as is spoken here, with limits on what is kept and on how
//! long a stream may be silent.

use std::collections::VecDeque;
use std::time::Duration;

use reqwest::Response;

/// Why a stream ended before it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// Not a byte came for too long.
    #[error("it fell silent")]
    Silent,
    /// The connection broke.
    #[error("the connection broke")]
    Cut,
    /// More than may be.
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
}

/// A response that is read event by event.
#[derive(Debug)]
pub(crate) struct Stream {
    response: Response,
    lines: Lines,
    ready: VecDeque<Vec<u8>>,
    silence: Duration,
}

impl Stream {
    /// Reads a response whose events are at most `max` bytes each, and that is never silent for
    /// longer than `silence`.
    pub(crate) fn new(response: Response, max: usize, silence: Duration) -> Self {
        Self {
            response,
            lines: Lines::new(max),
            ready: VecDeque::new(),
            silence,
        }
    }

    /// The data of the next event, or that the stream has ended.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        while self.ready.is_empty() {
            let Some(bytes) = self.more().await? else {
                return Ok(None);
            };
            self.ready.extend(self.lines.feed(&bytes)?);
        }
        Ok(self.ready.pop_front())
    }

    /// Waits for a sign of life: bytes, events or not.
    pub(crate) async fn alive(&mut self) -> Result<(), Broken> {
        match self.more().await? {
            Some(bytes) => self.ready.extend(self.lines.feed(&bytes)?),
            None => return Err(Broken::Cut),
        }
        Ok(())
    }

    /// An event that is there already.
    pub(crate) fn ready(&mut self) -> Option<Vec<u8>> {
        self.ready.pop_front()
    }

    async fn more(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        let chunk = tokio::time::timeout(self.silence, self.response.chunk());
        match chunk.await {
            Ok(Ok(bytes)) => Ok(bytes.map(Into::into)),
            Ok(Err(_)) => Err(Broken::Cut),
            Err(_) => Err(Broken::Silent),
        }
    }
}

/// A whole body that is no stream of events.
pub(crate) async fn body(
    mut response: Response,
    max: usize,
    silence: Duration,
) -> Result<Vec<u8>, Broken> {
    let mut body = Vec::new();
    loop {
        let chunk = tokio::time::timeout(silence, response.chunk());
        match chunk.await {
            Ok(Ok(Some(bytes))) if body.len() + bytes.len() > max => {
                return Err(Broken::TooLong(max));
            }
            Ok(Ok(Some(bytes))) => body.extend_from_slice(&bytes),
            Ok(Ok(None)) => return Ok(body),
            Ok(Err(_)) => return Err(Broken::Cut),
            Err(_) => return Err(Broken::Silent),
        }
    }
}

/// Whether a response is a stream of events.
pub(crate) fn is_stream(response: &Response) -> bool {
    let kind = response.headers().get(reqwest::header::CONTENT_TYPE);
    kind.and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| {
            let kind = kind.split(';').next().unwrap_or_default();
            kind.trim().eq_ignore_ascii_case("text/event-stream")
        })
}

/// Cuts bytes into the data of events.
#[derive(Debug)]
struct Lines {
    max: usize,
    line: Vec<u8>,
    data: Vec<u8>,
}

impl Lines {
    fn new(max: usize) -> Self {
        Self {
            max,
            line: Vec::new(),
            data: Vec::new(),
        }
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, Broken> {
        let mut done = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + self.data.len() + piece.len() > self.max {
                return Err(Broken::TooLong(self.max));
            }
            self.line.extend_from_slice(piece);
            if self.line.ends_with(b"\n") {
                done.extend(self.end_line());
            }
        }
        Ok(done)
    }

    /// What a finished line completes. A second `data:` line is told from the first by the line
    /// break that each leaves behind.
    fn end_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            let mut data = std::mem::take(&mut self.data);
            data.pop();
            return Some(data).filter(|data| !data.is_empty());
        }
        if let Some(data) = line.strip_prefix(b"data:") {
            let data = data.strip_prefix(b" ").unwrap_or(data);
            self.data.extend_from_slice(data);
            self.data.push(b'\n');
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let stream =
            b": hi\r\nid: 7\r\nevent: x\r\ndata: \r\n\r\ndata: {\"a\":\ndata:1}\n\ndata: x\n\ndata: half";
        for size in 1..stream.len() {
            let mut lines = Lines::new(100);
            let got: Vec<Vec<u8>> = stream
                .chunks(size)
                .flat_map(|bytes| lines.feed(bytes).unwrap())
                .collect();
            let whole = [b"{\"a\":\n1}".to_vec(), b"x".to_vec()];
            assert_eq!(got, whole, "cut by {size}");
        }
    }

    #[test]
    fn an_event_that_is_too_long_is_an_error() {
        let mut lines = Lines::new(10);
        assert_eq!(lines.feed(b"data: 0123456789"), Err(Broken::TooLong(10)));
        let mut lines = Lines::new(10);
        lines.feed(b"data: 012\n").unwrap();
        assert!(lines.feed(b"data: 012\n").is_err());
    }
}
