//! Server-sent events, as much of them as MCP uses, with a limit on what is kept.

use std::time::Duration;

/// The longest wait a server may ask for before its stream is resumed.
const MAX_RETRY: Duration = Duration::from_secs(10);

/// Cuts a stream of bytes into the data of events.
#[derive(Debug)]
pub(super) struct Events {
    max: usize,
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    after_cr: bool,
    /// The id of the last event that had one, for resuming.
    pub(super) last_id: Option<String>,
    /// How long to wait before resuming, as the server asked.
    pub(super) retry: Option<Duration>,
}

/// An event was longer than a message may be.
#[derive(Debug)]
pub(super) struct TooLong;

impl Events {
    pub(super) fn new(max: usize) -> Self {
        let (line, data) = (Vec::new(), None);
        Self {
            max,
            line,
            data,
            after_cr: false,
            last_id: None,
            retry: None,
        }
    }

    /// Takes bytes and returns the data of the events they complete.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut done = Vec::new();
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (head, tail) = rest.split_at(at);
            let (end, tail) = tail.split_first().unwrap_or((&b'\n', &[]));
            // The second half of a CR LF ends no line.
            if !(*end == b'\n' && head.is_empty() && self.after_cr) {
                self.push(head)?;
                done.extend(self.end_line());
            }
            self.after_cr = *end == b'\r';
            rest = tail;
        }
        self.after_cr &= rest.is_empty();
        self.push(rest)?;
        Ok(done)
    }

    /// Forgets a half-received event, before the stream is resumed.
    pub(super) fn restart(&mut self) {
        self.line.clear();
        self.data = None;
        self.after_cr = false;
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        let kept = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
        if kept + bytes.len() > self.max {
            return Err(TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return self.data.take().filter(|data| !data.is_empty());
        }
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let field = halves.next().unwrap_or_default();
        let value = halves.next().unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                let lines_before = self.data.is_some();
                let data = self.data.get_or_insert_default();
                if lines_before {
                    data.push(b'\n');
                }
                data.extend_from_slice(value);
            }
            b"id" => self.last_id = String::from_utf8(value.to_vec()).ok(),
            b"retry" => {
                let millis = std::str::from_utf8(value)
                    .ok()
                    .and_then(|text| text.parse().ok());
                self.retry = millis.map(|ms| Duration::from_millis(ms).min(MAX_RETRY));
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let stream = b": hi\r\nid: 7\r\nretry: 5\r\ndata: \r\n\r\ndata: {\"a\":\ndata:1}\n\ndata: x\r\rdata: half";
        for size in 1..stream.len() {
            let mut events = Events::new(100);
            let got: Vec<Vec<u8>> = stream
                .chunks(size)
                .flat_map(|bytes| events.feed(bytes).unwrap())
                .collect();
            assert_eq!(
                got,
                [b"{\"a\":\n1}".to_vec(), b"x".to_vec()],
                "cut by {size}"
            );
            assert_eq!(events.last_id.as_deref(), Some("7"));
            assert_eq!(events.retry, Some(Duration::from_millis(5)));
        }
    }

    #[test]
    fn an_event_that_is_too_long_is_an_error() {
        assert!(Events::new(10).feed(b"data: 0123456789").is_err());
    }
}
