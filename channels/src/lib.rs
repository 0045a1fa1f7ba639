//! People and messages.
//!
//! What is promised: one vocabulary (inbound, outbound, card, address) for Slack, WhatsApp, the web
//! and the terminal, and a durable ledger ordered by ingest sequence, so that nothing is lost and
//! nothing doubled. A channel knows people, addresses, cards and nonces; never a group, a role or a
//! rule. No channel is implemented yet.
