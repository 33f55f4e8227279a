//! The reference service orders.
