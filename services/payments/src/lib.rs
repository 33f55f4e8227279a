//! The reference service payments.
