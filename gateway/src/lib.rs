//! stub
pub mod config;
pub mod secrets;
pub mod supervise;
pub mod upstreams;
