//! Routes of an Alertmanager: receivers that are not there, routes that no alert reaches.

lint::checks! {
    /// All checks of routes.
    pub CHECKS;
    RECEIVER_UNKNOWN, "receiver-unknown", Error,
        "A route names a receiver that is not there.",
        "Alertmanager refuses the whole file.";
}
