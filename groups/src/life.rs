//! The life of a run: every transition in one function.

use serde::{Deserialize, Serialize};

use crate::bounds::RELAUNCHES;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits for its turn.
    Queued,
    /// An agent is started, and has not said yet that it is there.
    Starting,
    /// The agent works.
    Working,
    /// The agent waits for a person.
    Waiting,
    /// What there was to do is done.
    Done,
    /// It could not be done.
    Failed,
    /// A person stopped it.
    Stopped,
}

impl State {
    /// Whether nothing more happens.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Stopped)
    }

    /// Its name in the database.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Working => "working",
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }

    /// All states.
    pub(crate) const ALL: [Self; 7] = [
        Self::Queued,
        Self::Starting,
        Self::Working,
        Self::Waiting,
        Self::Done,
        Self::Failed,
        Self::Stopped,
    ];
}

/// Where a run is, and how it came there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Where it is.
    pub state: State,
    /// How many agents were started for it.
    pub launch: u32,
    /// How many of them ended without a word.
    pub lost: u32,
}

/// What can happen to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its turn has come.
    Launch,
    /// The gateway was restarted, and its agents are gone.
    Resume,
    /// The agent ended, could not be started, or never said that it is there.
    Lost,
    /// The agent says that it is there.
    Hello,
    /// A person is asked.
    Waits,
    /// Nobody is asked any more.
    GoesOn,
    /// The agent says that it is done.
    Done,
    /// It cannot be done.
    Fail,
    /// A person stops it.
    Stop,
}

impl Life {
    /// A run that waits for its turn.
    pub const NEW: Self = Self {
        state: State::Queued,
        launch: 0,
        lost: 0,
    };

    /// What becomes of it; nothing, if this cannot happen to it, or changes nothing.
    pub fn after(self, step: Step) -> Option<Self> {
        use State::{Done, Failed, Queued, Starting, Stopped, Waiting, Working};
        let at = |state| Some(Self { state, ..self });
        let anew = |lost| Self {
            state: Starting,
            launch: self.launch + 1,
            lost,
        };
        match (step, self.state) {
            (Step::Launch, Queued) | (Step::Resume, Starting | Working | Waiting) => {
                Some(anew(self.lost))
            }
            (Step::Lost, Starting | Working | Waiting) if self.lost < RELAUNCHES => {
                Some(anew(self.lost + 1))
            }
            (Step::Hello, Starting) | (Step::GoesOn, Waiting) => at(Working),
            (Step::Waits, Working) => at(Waiting),
            (Step::Done, Starting | Working | Waiting) => at(Done),
            (Step::Lost, Starting | Working | Waiting)
            | (Step::Fail, Queued | Starting | Working | Waiting) => at(Failed),
            (Step::Stop, Queued | Starting | Working | Waiting) => at(Stopped),
            (_, Done | Failed | Stopped)
            | (Step::Launch, Starting | Working | Waiting)
            | (Step::Resume | Step::Lost | Step::Done, Queued)
            | (Step::Hello, Queued | Working | Waiting)
            | (Step::GoesOn, Queued | Starting | Working)
            | (Step::Waits, Queued | Starting | Waiting) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STEPS: [Step; 9] = [
        Step::Launch,
        Step::Resume,
        Step::Lost,
        Step::Hello,
        Step::Waits,
        Step::GoesOn,
        Step::Done,
        Step::Fail,
        Step::Stop,
    ];

    #[test]
    fn an_agent_that_keeps_ending_is_given_up() {
        let mut life = Life::NEW.after(Step::Launch).unwrap();
        for _ in 0..RELAUNCHES {
            life = life.after(Step::Hello).unwrap();
            life = life.after(Step::Lost).unwrap();
            assert_eq!(life.state, State::Starting);
        }
        assert_eq!(life.after(Step::Lost).unwrap().state, State::Failed);
        // A restart of the gateway is not the agent's fault.
        assert_eq!(life.after(Step::Resume).unwrap().lost, life.lost);
    }

    proptest! {
        #[test]
        fn whatever_happens_a_run_is_over_once_and_each_agent_has_a_number_of_its_own(
            steps in prop::collection::vec(0..STEPS.len(), 0..60)
        ) {
            let mut life = Life::NEW;
            for step in steps {
                let Some(next) = life.after(STEPS[step]) else { continue };
                prop_assert!(!life.state.is_over());
                prop_assert!(next != life);
                let started = next.state == State::Starting;
                prop_assert_eq!(next.launch, life.launch + u32::from(started));
                prop_assert!(next.lost <= RELAUNCHES);
                prop_assert!(next.state != State::Queued);
                life = next;
            }
        }
    }
}
