//! The life of a question: every transition in one function.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// For how long a yes counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// This call.
    Once,
    /// The same tool until the task ends.
    Run,
    /// What a rule says that comes of it.
    Always,
}

/// Where a question stands. The names are those of the stored column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nobody has answered.
    Pending,
    /// Somebody said yes.
    Approved,
    /// Somebody said no.
    Denied,
    /// Nobody answered in time, which is a no.
    Expired,
    /// It no longer makes sense to ask.
    Withdrawn,
    /// Who asked went away; a plain yes no longer runs it.
    CallerGone,
}

impl State {
    /// Every state, for tables and tests.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Approved,
        Self::Denied,
        Self::Expired,
        Self::Withdrawn,
        Self::CallerGone,
    ];

    /// The state's name, as stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
            Self::CallerGone => "caller_gone",
        }
    }

    /// Whether an answer can still come.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::CallerGone)
    }
}

/// What happens to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A person says yes; `anyway` if they know that nobody waits for it.
    Approve {
        /// Run it although the caller is gone.
        anyway: bool,
        /// How many others must still say so.
        missing: u8,
    },
    /// A person says no.
    Deny,
    /// Who asked cancelled or went away.
    CallerLeft,
    /// The identical call came again.
    CallerBack,
    /// It no longer makes sense to ask.
    Withdraw,
    /// Time has passed.
    Tick,
}

/// Why an event changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmoved {
    /// It is settled already.
    #[error("it is already {}", .0.as_str())]
    Settled(State),
    /// The caller is gone, and the person did not say *run anyway*.
    #[error("who asked for it has gone; say `--run-anyway` to run it all the same")]
    CallerGone,
    /// Nothing to do.
    #[error("nothing changes")]
    Nothing,
}

/// The state after an event. The deadline comes first: a late answer is no answer.
///
/// # Errors
/// [`Unmoved`], when the event changes nothing.
pub fn apply(
    state: State,
    event: Event,
    now: Timestamp,
    deadline: Timestamp,
) -> Result<State, Unmoved> {
    use Event::{Approve, CallerBack, CallerLeft, Deny, Tick, Withdraw};
    use State::{Approved, CallerGone, Denied, Expired, Pending, Withdrawn};
    match (state, event) {
        (Approved | Denied | Expired | Withdrawn, _) => Err(Unmoved::Settled(state)),
        (Pending | CallerGone, _) if now >= deadline => Ok(Expired),
        (CallerGone, Approve { anyway: false, .. }) => Err(Unmoved::CallerGone),
        (Pending | CallerGone, Approve { missing: 0, .. }) => Ok(Approved),
        // It is counted, and the question stays open.
        (Pending | CallerGone, Approve { .. }) => Ok(state),
        (Pending | CallerGone, Deny) => Ok(Denied),
        (Pending | CallerGone, Withdraw) => Ok(Withdrawn),
        (Pending, CallerLeft) => Ok(CallerGone),
        (CallerGone, CallerBack) => Ok(Pending),
        (CallerGone, CallerLeft) | (Pending, CallerBack) | (Pending | CallerGone, Tick) => {
            Err(Unmoved::Nothing)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    const EVENTS: [Event; 9] = [
        yes(false, 0),
        yes(true, 0),
        yes(false, 1),
        yes(true, 1),
        Event::Deny,
        Event::CallerLeft,
        Event::CallerBack,
        Event::Withdraw,
        Event::Tick,
    ];

    const fn yes(anyway: bool, missing: u8) -> Event {
        Event::Approve { anyway, missing }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn every_transition_as_a_table() {
        let mut table = Vec::new();
        for state in State::ALL {
            for event in EVENTS {
                let cell = match apply(state, event, at(1), at(9)) {
                    Ok(next) => next.as_str().to_owned(),
                    Err(why) => format!("- {why}"),
                };
                table.push(format!(
                    "{:<11} {:<37} {cell}\n",
                    state.as_str(),
                    format!("{event:?}")
                ));
            }
        }
        expect_test::expect_file!["../tests/snapshots/approval.txt"].assert_eq(&table.concat());
    }

    #[test]
    fn what_is_settled_never_moves_again() {
        for state in State::ALL.into_iter().filter(|state| !state.is_open()) {
            for event in EVENTS {
                for now in [1, 9, 10] {
                    assert_eq!(
                        apply(state, event, at(now), at(9)),
                        Err(Unmoved::Settled(state))
                    );
                }
            }
        }
    }

    #[test]
    fn a_late_yes_is_a_no() {
        for event in EVENTS {
            assert_eq!(
                apply(State::Pending, event, at(9), at(9)),
                Ok(State::Expired)
            );
            assert_eq!(
                apply(State::CallerGone, event, at(10), at(9)),
                Ok(State::Expired)
            );
        }
        expect![[r#"who asked for it has gone; say `--run-anyway` to run it all the same"#]]
            .assert_eq(&Unmoved::CallerGone.to_string());
    }
}
