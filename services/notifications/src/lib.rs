//! The reference service notifications.
