//! Where agents and on-demand MCP servers run.
//!
//! What is started here is always stopped, has an environment, a home and, as root, a uid of its
//! own, and never speaks for the owner. Nothing here decides what may run, and nothing reads the
//! gateway's environment: what a program gets, its caller names.
//!
//! Reading order: [`runtime`] (the port: launch, wait, stop), [`child`] (agents as child
//! processes), [`house`] (homes, uids and who lives), [`bundled`] (what comes with the gateway),
//! [`tail`], [`supervise`] (the process between us and everything that a program starts).

pub mod bundled;
pub mod child;
pub mod house;
pub mod runtime;
pub mod supervise;
pub mod tail;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks; a panic elsewhere does not make the data here unusable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
