//! What becomes of a server's answer before it is handed over.

use policy::action::{Action, Method};
use policy::decision::Permit;
use policy::fence::Fence;
use policy::label::Label;
use serde_json::Value;

use super::{Broker, fenced};
use crate::approvals::Answer;
use crate::keys::short_id;

/// Longer answers, in bytes, are worked on beside, not in the way of other calls.
const LONG: usize = 256 * 1024;
/// The length of a fence's number: 80 bits that nobody could have known.
const NONCE: usize = 16;

impl Broker {
    /// Puts a fence around what strangers may have written. Done once, where the answer comes in:
    /// whoever is handed it later, and the digest in the log, have it as it is then.
    pub(super) async fn fenced(&self, permit: &Permit, answer: Answer) -> Answer {
        if permit.adds().contains(&Label::Untrusted) {
            fence(permit.action(), answer).await
        } else {
            answer
        }
    }
}

/// Fences an answer to an action.
pub(super) async fn fence(action: &Action, answer: Answer) -> Answer {
    if !matches!(action.method, Method::Call | Method::Read | Method::Prompt) {
        return answer;
    }
    let fence = Fence::new(short_id(NONCE), format!("the server `{}`", action.server));
    match answer {
        Answer::Result(raw) if raw.len() > LONG => {
            let work = tokio::task::spawn_blocking(move || fenced::result(&raw, &fence));
            match work.await {
                Ok(fenced) => Answer::Result(fenced),
                Err(_) => Answer::Refused(
                    "UNKNOWN. It was done, and its answer could not be read.".to_owned(),
                ),
            }
        }
        Answer::Result(raw) => Answer::Result(fenced::result(&raw, &fence)),
        Answer::Error(raw) => match serde_json::from_str::<Value>(&raw) {
            Ok(error) => Answer::Error(fenced::error(error, &fence).to_string()),
            Err(_) => Answer::Error(raw),
        },
        Answer::Refused(text) => Answer::Refused(text),
    }
}
