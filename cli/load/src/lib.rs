//! The load engine: open-model arrivals, response times from the scheduled start, exact accounting.
