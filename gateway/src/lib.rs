//! The gateway: the one broker that every action of an agent passes, and everything around it.
//!
//! Reading order: [`broker`] (the whole way of an action), [`approvals`], [`audit`], [`catalog`],
//! [`upstreams`], then the doors: [`door`], [`mcp`], [`api`], [`cli`]; [`up`] puts it all together.

pub mod api;
pub mod approvals;
pub mod audit;
pub mod broker;
pub mod catalog;
pub mod choices;
pub mod cli;
pub mod config;
pub mod console;
pub mod conversations;
pub mod db;
pub mod door;
pub mod fault;
pub mod hosted;
pub mod identity;
pub mod keys;
pub mod live;
pub mod mcp;
pub mod models;
pub mod orphans;
pub mod peer;
pub mod secrets;
pub mod text;
pub mod up;
pub mod upstreams;
