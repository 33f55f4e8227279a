//! States put on for a test, as if calls had led to them. Forcing a state in production is [`Breaker::force`]; unlike
//! there, what is put on here goes on by itself.

use super::core::{Phase, Probes};
use super::{Breaker, Control, clock};

impl Breaker {
    /// Opens, whatever it is now, for exactly its first break.
    pub(crate) fn trip(&self) {
        let now = clock::coarse_millis();
        let mut control = self.control();
        let Control { core, settings, .. } = &mut *control;
        core.force(Phase::Closed);
        core.trip(settings, now, core.generation(), 0.0);
        self.publish(control, now);
    }

    /// Half-open with no probe out yet.
    pub(crate) fn half_open(&self) {
        self.enter(Phase::HalfOpen(Probes::default()));
    }
}
