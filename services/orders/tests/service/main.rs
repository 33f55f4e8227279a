//! The real `orders` beside the real `payments` and `notifications`, on free ports: flows, faults, restores, drains.
//! Identity is played by [`identity`], which signs as it does and can be stopped or change its keys.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

mod api;
mod drain;
mod flow;
mod identity;
mod kill;
mod observe;
mod policies;
mod restore;
mod stack;
