//! Drills: steady state, injection, observation, undo and a verdict.
