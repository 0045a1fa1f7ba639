//! What is looked at before arguments go to a server, and before its answer is handed over: sizes,
//! secrets, and whose words they are.

use std::collections::BTreeSet;

use policy::action::{Action, Method};
use policy::decision::Permit;
use policy::fence::Fence;
use policy::label::Label;
use policy::record::Outcome;
use policy::secret::Finder;
use policy::shape::TooMuch;
use serde_json::Value;

use super::inside::withheld;
use super::{Broker, Call, fenced};
use crate::approvals::Answer;
use crate::keys::short_id;

/// Longer answers, in bytes, are worked on beside, not in the way of other calls.
const LONG: usize = 256 * 1024;
/// The length of a fence's number: 80 bits that nobody could have known.
const NONCE: usize = 16;

impl Broker {
    /// Says that arguments are too large inside.
    pub(super) fn too_much(&self, call: &Call) -> Option<Answer> {
        let limits = self.config.now().limits;
        let meta = call.meta.as_ref().map_or(0, |meta| {
            let all = meta.values().map(|value| limits.check(value));
            all.filter(Result::is_err).count()
        });
        let problem = match limits.check(&call.args) {
            Err(problem) => problem,
            Ok(()) if meta > 0 => TooMuch::Deep(limits.depth),
            Ok(()) => return None,
        };
        Some(Answer::Refused(format!(
            "NOT EXECUTED. What is sent to `{}` {problem}. Send less at once.",
            call.name
        )))
    }

    /// Everything that happens to an answer between its server and whoever is handed it. Done once:
    /// who is handed it later, and the digest in the log, have it as it is then.
    pub(super) async fn hand_over(
        &self,
        permit: &Permit,
        answer: Answer,
        outcome: Outcome,
        detail: Option<String>,
    ) -> (Answer, Outcome, Option<String>) {
        let action = permit.action();
        if let Answer::Result(raw) | Answer::Error(raw) = &answer
            && let Err(problem) = self.config.now().limits.check_text(raw)
        {
            let text =
                format!("It was done, but its answer {problem} and is withheld. Ask for less.");
            let detail = format!("its answer {problem}");
            return (Answer::Refused(text), Outcome::Error, Some(detail));
        }
        if let Err(why) = self.note_secrets(permit, &answer).await {
            return withheld(&why);
        }
        if permit.adds().contains(&Label::Untrusted) {
            (fence(action, answer).await, outcome, detail)
        } else {
            (answer, outcome, detail)
        }
    }

    /// Looks for secrets in an answer. Where there are some, the conversation has read what would
    /// hurt if it leaked, whatever was declared of the server: the label `secret` and the words of
    /// what was found are on the disk before the answer is handed over.
    async fn note_secrets(&self, permit: &Permit, answer: &Answer) -> Result<(), String> {
        let (Answer::Result(raw) | Answer::Error(raw)) = answer else {
            return Ok(());
        };
        let finder = self.kept.finder();
        let found = if raw.len() > LONG {
            let raw = raw.clone();
            let work = tokio::task::spawn_blocking(move || secrets_in(&raw, &finder));
            work.await.map_err(|_| "it could not be read".to_owned())?
        } else {
            secrets_in(raw, &finder)
        };
        let Some(words) = found else {
            return Ok(());
        };
        self.kept
            .remember(words, &self.db)
            .await
            .map_err(|error| error.to_string())?;
        if !permit.adds().contains(&Label::Secret) {
            self.label(permit.action(), BTreeSet::from([Label::Secret]))
                .await
                .map_err(|no_record| no_record.to_string())?;
        }
        Ok(())
    }
}

/// The words of the secrets in a text; `None` where it holds no secret.
fn secrets_in(text: &str, finder: &Finder) -> Option<BTreeSet<String>> {
    finder.holds(text).then(|| {
        let words = finder.secret_words(text).into_iter();
        words.map(str::to_owned).collect()
    })
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
