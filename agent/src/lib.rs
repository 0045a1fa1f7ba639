//! The protocol between an agent's sandbox and the gateway.
//!
//! What is promised: the sandbox side of Portcullis, a small program that dials home with its run's
//! token, holds no other credential and reaches nothing but the gateway. Not implemented yet: today
//! agents come from outside, over MCP.
