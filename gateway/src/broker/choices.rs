//! Who named the destinations of an action: gathered for the decision, learned from what people write
//! and from what trusted sources answer.

use policy::action::{Action, Kind, Method};
use policy::destination::words::Mark;
use policy::destination::{self, Destination, Soil, Source};
use policy::ids::{ConversationId, ServerName};
use policy::traits::{Level, Traits};

use super::Broker;
use crate::config::{Config, Server};
use crate::conversations::{Conversation, lock};

fn server_of<'a>(config: &'a Config, action: &Action) -> Option<&'a Server> {
    let name = ServerName::try_from(action.server.clone()).ok()?;
    config.servers.get(&name)
}

impl Broker {
    /// The destinations of an action, where that can matter for the decision.
    pub(super) fn destinations(
        config: &Config,
        action: &Action,
        traits: Traits,
        conversation: &Conversation,
    ) -> Vec<Destination> {
        if action.kind != Kind::Mcp || action.method != Method::Call {
            return Vec::new();
        }
        let server = server_of(config, action);
        let tool = server.and_then(|server| server.tools.get(&action.name));
        let declared = tool.map_or(&[][..], |tool| &tool.destinations);
        let read = conversation.has_read();
        if !traits.public_sink.holds() || (!read && declared.is_empty()) {
            return Vec::new();
        }
        destination::of_call(&action.name, &action.args, declared, &conversation.known)
    }

    /// Whether the answer to an action comes from a source that the configuration says, in so many
    /// words, delivers nothing that strangers wrote.
    fn is_trusted_source(&self, action: &Action) -> bool {
        let config = self.config.now();
        let Some(server) = server_of(&config, action).filter(|_| action.kind == Kind::Mcp) else {
            return false;
        };
        let tool = server
            .tools
            .get(&action.name)
            .filter(|_| action.method == Method::Call)
            .and_then(|tool| tool.traits.public_source);
        let traits = self.traits_of(&config, action);
        // What sends tells what it sent.
        let echoes = traits.public_sink.holds() && !traits.read_only && !action.method.reads_only();
        tool.or(server.trust.public_source) == Some(Level::No) && !echoes
    }

    /// What a permitted action puts into its server, to be stored with its record: a conversation that
    /// has read something may be told what to put there, and a server that is trusted must not hand that
    /// back as chosen. What only reads stores nothing.
    pub(super) fn put_into(&self, action: &Action, conversation: &Conversation) -> Vec<Mark> {
        let puts = action.kind == Kind::Mcp
            && conversation.has_read()
            && !self.reads_only(action)
            && server_of(&self.config.now(), action).is_some_and(trusted_somewhere);
        if puts {
            self.choices
                .put(&action.server, &action.args, &conversation.known)
        } else {
            Vec::new()
        }
    }

    /// Learns from the answer of a trusted source. It is stored when this returns, so before the
    /// answer is handed over.
    pub(super) async fn learn(&self, action: &Action, raw: &str) {
        if !self.is_trusted_source(action) {
            return;
        }
        let soil = self.choices.soil(&action.server);
        let own = {
            // Said by the agent, and so no evidence; what was known before it said so is.
            let conversation = self.conversations.get(&action.conversation);
            let conversation = lock(&conversation);
            Soil::default().of_call(&action.args, &conversation.known)
        };
        let tool = self.shown_tool(action);
        let source = Source::of_answer(action.id.clone(), tool, raw, &soil, &own);
        self.know(&action.conversation, source).await;
    }

    /// A person of a group wrote this to its conversation.
    pub async fn heard(&self, conversation: &ConversationId, by: &str, message: i64, text: &str) {
        let source = Source::of_person(by, message, text);
        self.know(conversation, source).await;
    }

    async fn know(&self, id: &ConversationId, source: Source) {
        let conversation = self.conversations.get(id);
        let kept = {
            let mut conversation = lock(&conversation);
            if !conversation.known.learn(source.clone()) {
                return;
            }
            conversation.known.kept(&source.origin)
        };
        self.choices.store(id, &source, kept).await;
    }
}

/// Whether any answer of a server is trusted.
fn trusted_somewhere(server: &Server) -> bool {
    let tools = server.tools.values();
    server.trust.public_source == Some(Level::No)
        || tools
            .into_iter()
            .any(|tool| tool.traits.public_source == Some(Level::No))
}
