//! What may happen, and why.
//!
//! An [`action::Action`] goes in with the facts about it; it comes out inside a
//! [`decision::Permit`] (it may run), a [`decision::Question`] (a person decides) or a
//! [`decision::Refusal`]. This crate is the pure core of the workspace: no I/O, no clock, no
//! randomness, no async. Time and ids are arguments, so any decision can be made again from its
//! record.
//!
//! Reading order: [`ids`], [`action`], [`traits`], [`label`], [`destination`], [`condition`],
//! [`rule`], [`review`], [`decision`], [`otherwise`], [`replay`], [`proposal`], [`approval`],
//! [`secret`], [`fence`], [`shape`], [`pin`], [`record`].

pub mod action;
pub mod approval;
pub mod condition;
pub mod decision;
pub mod destination;
pub mod fence;
pub mod ids;
pub mod label;
pub mod otherwise;
pub mod pin;
pub mod proposal;
pub mod record;
pub mod replay;
pub mod review;
pub mod rule;
pub mod secret;
pub mod shape;
pub mod traits;
