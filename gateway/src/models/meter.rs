//! Reads along while an answer passes: what it took, and whether it came to its end. It holds back
//! nothing and changes nothing; what it cannot read it does not count.

use policy::action::{Digest, Digester};
use serde::Deserialize;

use crate::db::usage::Tokens;

/// The longest line of a stream that is looked into.
const LONGEST_LINE: usize = 1024 * 1024;
/// The longest answer in one piece that is looked into.
const LONGEST_WHOLE: usize = 4 * 1024 * 1024;

/// What was read of an answer.
#[derive(Debug)]
pub(super) struct Meter {
    form: Form,
    tokens: Tokens,
    ended: bool,
    error: Option<String>,
    digest: Digester,
}

#[derive(Debug)]
enum Form {
    /// Server-sent events: the line that is being received.
    Stream { line: Vec<u8>, skip: bool },
    /// One JSON value.
    Whole(Vec<u8>),
    /// Something else.
    Other,
}

#[derive(Default, Deserialize)]
struct Counts {
    #[serde(rename = "input_tokens")]
    input: Option<u64>,
    #[serde(rename = "output_tokens")]
    output: Option<u64>,
    #[serde(rename = "cache_read_input_tokens")]
    cache_read: Option<u64>,
    #[serde(rename = "cache_creation_input_tokens")]
    cache_write: Option<u64>,
}

/// An event of a stream, or a whole answer: the members that are read have the same names.
#[derive(Deserialize)]
struct Piece {
    #[serde(rename = "type")]
    kind: Option<String>,
    usage: Option<Counts>,
    message: Option<Inner>,
    error: Option<Problem>,
}

#[derive(Deserialize)]
struct Inner {
    usage: Option<Counts>,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl Meter {
    /// For an answer of this content type.
    pub(super) fn new(content_type: &str) -> Self {
        let form = if content_type.starts_with("text/event-stream") {
            Form::Stream {
                line: Vec::new(),
                skip: false,
            }
        } else if content_type.starts_with("application/json") {
            Form::Whole(Vec::new())
        } else {
            Form::Other
        };
        Self {
            form,
            tokens: Tokens::default(),
            ended: false,
            error: None,
            digest: Digester::new(),
        }
    }

    /// Sees a piece that is passed on.
    pub(super) fn see(&mut self, bytes: &[u8]) {
        self.digest.add(bytes);
        match &mut self.form {
            Form::Other => {}
            Form::Whole(kept) => {
                if kept.len() + bytes.len() > LONGEST_WHOLE {
                    self.form = Form::Other;
                } else {
                    kept.extend_from_slice(bytes);
                }
            }
            Form::Stream { line, skip } => {
                let mut whole = Vec::new();
                for part in bytes.split_inclusive(|byte| *byte == b'\n') {
                    *skip |= line.len() + part.len() > LONGEST_LINE;
                    if *skip {
                        line.clear();
                    } else {
                        line.extend_from_slice(part);
                    }
                    if part.ends_with(b"\n") {
                        if !*skip {
                            whole.push(std::mem::take(line));
                        }
                        line.clear();
                        *skip = false;
                    }
                }
                for line in whole {
                    self.line(&line);
                }
            }
        }
    }

    fn line(&mut self, line: &[u8]) {
        let Some(data) = line.strip_prefix(b"data:") else {
            return;
        };
        let Ok(piece) = serde_json::from_slice::<Piece>(data) else {
            return;
        };
        match piece.kind.as_deref() {
            Some("message_start") => {
                if let Some(counts) = piece.message.and_then(|message| message.usage) {
                    self.count(&counts);
                }
            }
            // Cumulative: the last one counts.
            Some("message_delta") => {
                if let Some(counts) = piece.usage {
                    self.count(&counts);
                }
            }
            Some("message_stop") => self.ended = true,
            Some("error") => self.error = Some(kind_of(piece.error)),
            Some(_) | None => {}
        }
    }

    fn count(&mut self, counts: &Counts) {
        let take = |to: &mut u64, from: Option<u64>| *to = from.unwrap_or(*to);
        take(&mut self.tokens.input, counts.input);
        take(&mut self.tokens.output, counts.output);
        take(&mut self.tokens.cache_read, counts.cache_read);
        take(&mut self.tokens.cache_write, counts.cache_write);
    }

    /// The answer's last piece was seen.
    pub(super) fn end(&mut self) {
        match &self.form {
            Form::Stream { .. } => {}
            Form::Other => self.ended = true,
            Form::Whole(kept) => {
                self.ended = true;
                match serde_json::from_slice::<Piece>(kept) {
                    Ok(piece) => {
                        if piece.kind.as_deref() == Some("error") {
                            self.error = Some(kind_of(piece.error));
                        }
                        if let Some(counts) = piece.usage {
                            self.count(&counts);
                        }
                    }
                    Err(_) => self.error = Some("the answer is no JSON".to_owned()),
                }
            }
        }
    }

    /// Whether the stream is at the begin of a line, so that an event of ours could follow.
    pub(super) fn between_lines(&self) -> bool {
        matches!(&self.form, Form::Stream { line, skip: false } if line.is_empty())
    }

    /// What it took so far.
    pub(super) fn tokens(&self) -> Tokens {
        self.tokens
    }

    /// Whether it came to its end.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// The error that it told itself.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Digest over all that passed.
    pub(super) fn digest(&self) -> Digest {
        self.digest.clone().finish()
    }
}

/// The error's kind, where it is one: a word, and nothing that an answer could smuggle into the log.
fn kind_of(problem: Option<Problem>) -> String {
    let kind = problem.and_then(|problem| problem.kind).unwrap_or_default();
    let is_word =
        (1..=64).contains(&kind.len()) && kind.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    if is_word { kind } else { "an error".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":25,\"cache_read_input_tokens\":7,\"output_tokens\":1}}}\n\n\
        event: ping\ndata: {\"type\":\"ping\"}\n\n\
        event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"usage\":{\"input_tokens\":999}}\n\n\
        event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":15}}\n\n\
        event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

    #[test]
    fn a_stream_is_counted_however_it_is_cut() {
        for size in [1, 2, 7, 100, STREAM.len()] {
            let mut meter = Meter::new("text/event-stream; charset=utf-8");
            for piece in STREAM.as_bytes().chunks(size) {
                meter.see(piece);
            }
            meter.end();
            let tokens = Tokens {
                input: 25,
                output: 15,
                cache_read: 7,
                cache_write: 0,
            };
            assert_eq!(meter.tokens(), tokens, "in pieces of {size}");
            assert!(meter.ended() && meter.error().is_none() && meter.between_lines());
            assert_eq!(meter.digest(), Digest::of(STREAM.as_bytes()));
        }
    }

    #[test]
    fn half_a_stream_has_not_ended_and_one_that_errs_says_how() {
        let mut meter = Meter::new("text/event-stream");
        let (half, _) = STREAM.as_bytes().split_at(STREAM.len() - 5);
        meter.see(half);
        meter.end();
        assert!(!meter.ended() && !meter.between_lines());
        let mut meter = Meter::new("text/event-stream");
        meter.see(
            b"data: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"x\"}}\n\n",
        );
        assert_eq!(meter.error(), Some("overloaded_error"));
    }

    #[test]
    fn a_line_that_never_ends_is_not_kept() {
        let mut meter = Meter::new("text/event-stream");
        meter.see(b"data: ");
        for _ in 0..40 {
            meter.see(&vec![b'x'; 100_000]);
        }
        assert!(matches!(&meter.form, Form::Stream { line, skip: true } if line.is_empty()));
        meter.see(b"\n");
        meter.see(STREAM.as_bytes());
        assert!(meter.ended());
    }

    #[test]
    fn an_answer_in_one_piece_is_counted_and_garbage_is_told() {
        let mut meter = Meter::new("application/json");
        meter.see(br#"{"type":"message","usage":{"input_tokens":3,"#);
        meter.see(br#""output_tokens":4,"cache_creation_input_tokens":5}}"#);
        meter.end();
        let tokens = meter.tokens();
        assert_eq!((tokens.input, tokens.output, tokens.cache_write), (3, 4, 5));
        let mut meter = Meter::new("application/json");
        meter.see(b"<html>");
        meter.end();
        assert_eq!(meter.error(), Some("the answer is no JSON"));
    }
}
