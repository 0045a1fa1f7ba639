//! stub

pub mod approvals;
pub mod audit;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod conversations;
pub mod db;
pub mod identity;
pub mod keys;
pub mod secrets;
pub mod supervise;
pub mod text;
pub mod up;
pub mod upstreams;
