//! The console: pages for people, over the same handlers as `/api/v1`.
//!
//! A page is a shell that holds nothing, for whoever has a cookie; what it shows is fetched by the
//! shell's own script, which alone has the token. What agents, servers and strangers wrote is only
//! ever text.

mod assets;
mod cards;
mod chat;
mod door;
mod inbox;
mod live;
mod log;
mod pins;
mod rules;
pub mod sessions;
mod state;
mod view;

pub use door::router;
