//! What groups need of the gateway: agents that are started as processes, each with its run's token
//! and nothing else, and runs that end.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use groups::{Ended, LaunchError, Launched, RunKey};
use policy::ids::{ConversationId, GroupName};
use runtimes::runtime::{Launch, Running, Runtime};
use secrecy::SecretString;

use crate::broker::Broker;
use crate::config::Agent;
use crate::fault;
use crate::identity::runs::Hosted;

/// The program that drives an agent.
pub const PROGRAM: &str = "portcullis-agent";

/// How long the start of a process may take.
const LONGEST_START: Duration = Duration::from_secs(30);

/// Starts agents on a runtime.
#[derive(Debug)]
pub(super) struct Host {
    /// Not kept alive by the groups that it serves.
    pub broker: Weak<Broker>,
    /// Where agents run.
    pub runtime: Arc<dyn Runtime>,
    /// Where agents find the gateway.
    pub url: String,
    /// What thinks for each group.
    pub agents: BTreeMap<GroupName, Agent>,
}

/// A run as the broker knows it.
pub(super) fn hosted(key: &RunKey) -> Hosted {
    Hosted {
        run: key.run.clone(),
        group: key.group.clone(),
        conversation: key.conversation.clone(),
        person: key.person.clone(),
    }
}

impl Host {
    async fn start(&self, key: &RunKey) -> Result<Running, LaunchError> {
        let failed = |error: &dyn std::error::Error| LaunchError(crate::text::chain(error));
        let stopping = || LaunchError("the gateway is being stopped".to_owned());
        let broker = self.broker.upgrade().ok_or_else(stopping)?;
        broker.identity.runs.open(hosted(key), HashSet::new());
        let token = broker.identity.issue_for_run(&key.run);
        let token = token.map_err(|error| failed(&error))?;
        let args = match self.agents.get(&key.group) {
            Some(Agent::Native) | None => Vec::new(),
            Some(Agent::Command(command)) => {
                let mut args = vec!["--".to_owned()];
                args.extend(command.iter().cloned());
                args
            }
        };
        let launch = Launch {
            // One run of a group at a time, so its home is the group's.
            name: key.group.to_string(),
            program: PathBuf::from(PROGRAM),
            args,
            env: BTreeMap::from([
                ("PORTCULLIS_URL".to_owned(), self.url.clone().into()),
                ("PORTCULLIS_RUN_TOKEN".to_owned(), token),
            ]) as BTreeMap<String, SecretString>,
        };
        fault::point("agent.launch").await;
        let started = tokio::time::timeout(LONGEST_START, self.runtime.launch(launch)).await;
        let took_too_long = |_| LaunchError("the agent did not start in time".to_owned());
        let running = started.map_err(took_too_long)?;
        let running = running.map_err(|error| failed(&error))?;
        fault::point("agent.launched").await;
        tracing::info!(run.id = %key.run, group.name = %key.group, "the agent of `{}` has started", key.run);
        Ok(running)
    }
}

impl groups::Host for Host {
    fn launch(&self, key: &RunKey) -> BoxFuture<'_, Result<Box<dyn Launched>, LaunchError>> {
        let key = key.clone();
        Box::pin(async move {
            let running = self.start(&key).await?;
            Ok(Box::new(Process(running)) as Box<dyn Launched>)
        })
    }

    fn heard<'a>(
        &'a self,
        conversation: &'a ConversationId,
        by: &'a str,
        message: i64,
        text: &'a str,
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Some(broker) = self.broker.upgrade() {
                broker.heard(conversation, by, message, text).await;
            }
        })
    }

    fn over(&self, key: &RunKey) -> BoxFuture<'_, ()> {
        let run = key.run.clone();
        Box::pin(async move {
            if let Some(broker) = self.broker.upgrade() {
                broker.run_over(&run, "the task is over").await;
            }
        })
    }
}

/// An agent's process.
struct Process(Running);

impl Launched for Process {
    fn ended(&mut self) -> BoxFuture<'_, Ended> {
        Box::pin(async move { Ended(one_line(&self.0.wait().await.how)) })
    }

    fn stop(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move { drop(self.0.stop().await) })
    }
}

/// What an agent wrote at its end, for the gateway's log: one line, that cannot be taken for another
/// entry.
fn one_line(text: &str) -> String {
    crate::text::printable(&text.trim_end().replace('\n', " / "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_writes_no_line_of_the_log() {
        let how = "it ended with exit status: 1: bad\n2026-01-01 INFO all is well\r\u{1b}[2K\n";
        assert_eq!(
            one_line(how),
            "it ended with exit status: 1: bad / 2026-01-01 INFO all is well\\u{d}\\u{1b}[2K"
        );
    }
}
