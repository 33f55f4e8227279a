//! The reference service identity.
