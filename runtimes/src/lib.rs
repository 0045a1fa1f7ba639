//! Where agents and on-demand MCP servers run.
//!
//! What is promised: one `Runtime` (launch, stop, list, logs, health) over Docker, Podman and child
//! processes, so that what is started is always stopped. No runtime is implemented yet; stdio MCP
//! servers are supervised by the gateway itself.
