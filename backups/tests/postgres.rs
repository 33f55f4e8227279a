//! PostgreSQL through the public surface, on real servers.

#[cfg(test)]
#[path = "postgres/base_damage.rs"]
mod base_damage;
#[cfg(test)]
#[path = "postgres/base_round_trip.rs"]
mod base_round_trip;
#[cfg(test)]
#[path = "postgres/base_world.rs"]
mod base_world;
#[cfg(test)]
#[path = "postgres/ladder.rs"]
mod ladder;
#[cfg(test)]
#[path = "postgres/log.rs"]
mod log;
#[cfg(test)]
#[path = "postgres/receiver.rs"]
mod receiver;
#[cfg(test)]
#[path = "postgres/receiver_world.rs"]
mod receiver_world;
