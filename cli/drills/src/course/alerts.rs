//! The part of a course that expected alerts have: how long the fault is kept up for them, the wait for their end, what is
//! taken down of them. What it proves is concluded elsewhere.

use super::{Course, Effect, WorkError};
use crate::expectation::LONGEST;

impl Course<'_> {
    /// Whether an alert that is expected still needs the fault.
    pub(super) fn alerts_wait(&self, effect: Effect) -> bool {
        let alerts = self.alerts.as_ref();
        alerts.is_some_and(|alerts| alerts.waits(self.subject.at(effect.first)))
    }

    /// Watches until alerts that are expected have fired, as far as they will, and are resolved.
    pub(super) async fn alerts_end(&mut self, effect: Effect) -> Result<(), WorkError> {
        if self.alerts.is_none() || self.story.status.is_some() {
            return Ok(());
        }
        self.step("alerts").await?;
        let since = tokio::time::Instant::now();
        let undone = self.story.undone;
        while undone.is_none() && since.elapsed() < LONGEST && self.alerts_wait(effect) {
            if self.wait(self.terms.sample_every).await? {
                return Ok(());
            }
        }
        let over = undone.unwrap_or_else(|| self.now());
        self.story.alerts_over = Some(over);
        let over = self.subject.at(over);
        let since = tokio::time::Instant::now();
        while since.elapsed() < LONGEST && self.alerts.as_ref().is_some_and(|alerts| alerts.lasts(over)) {
            if self.wait(self.terms.sample_every).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Notes what has become of alerts since it was last asked.
    pub(super) fn tell_alerts(&mut self) {
        let changes = self.alerts.as_ref().map(|alerts| alerts.judge().changes());
        for change in changes.into_iter().flatten() {
            self.moment(self.subject.seconds(change.at), change.kind, change.text);
        }
    }

    /// Takes down what was seen of alerts.
    pub(super) fn conclude_alerts(&mut self) {
        self.tell_alerts();
        let Some(alerts) = &self.alerts else { return };
        let at = |seconds: Option<f64>| seconds.map(|seconds| self.subject.at(seconds));
        let effect = at(self.story.recovery.effect_seconds);
        let judge = alerts.judge();
        let reports = judge.reports(effect, at(self.story.alerts_over));
        let unexpected = judge.unexpected(effect);
        let more = judge.unlisted();
        drop(judge);
        (self.story.alerts, self.story.unexpected_alerts) = (reports, unexpected);
        if more > 0 {
            self.story
                .notes
                .push(format!("{more} more alerts fired that are not listed"));
        }
    }
}
