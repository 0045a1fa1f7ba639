//! stub

pub mod audit;
pub mod cli;
pub mod config;
pub mod secrets;
pub mod supervise;
pub mod text;
pub mod up;
