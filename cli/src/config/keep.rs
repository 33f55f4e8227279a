//! `backup.keep` of a datastore: which of its snapshots stay. What the rules mean is the business of the crate `backups`.

use backups::retention::{Policy, Slot};
use jiff::SignedDuration;

use super::section::Section;
use super::values::Span;

const WITHIN: [(&str, Slot); 5] = [
    ("within_hourly", Slot::Hourly),
    ("within_daily", Slot::Daily),
    ("within_weekly", Slot::Weekly),
    ("within_monthly", Slot::Monthly),
    ("within_yearly", Slot::Yearly),
];

/// `keep = { within = "35d", monthly = 12 }`. One that keeps nothing is an error: it would be a deletion.
pub(super) fn keep(section: Section<'_>) -> Option<Policy> {
    let span = |key| {
        section
            .optional(key)
            .map(|Span(span)| SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX))
    };
    let mut policy = Policy {
        within: span("within"),
        tags: section.optional("tags").unwrap_or_default(),
        ..Policy::default()
    };
    for slot in Slot::ALL {
        policy
            .counts
            .extend(section.optional(slot.word()).map(|count: u32| (slot, count)));
    }
    for (key, slot) in WITHIN {
        policy.slots_within.extend(span(key).map(|span| (slot, span)));
    }
    let sound = !policy.is_empty();
    if !sound {
        section.findings().error(
            section.origin(),
            "`keep` keeps nothing: expected for example { within = \"35d\", monthly = 12 }",
        );
    }
    section.finish();
    sound.then_some(policy)
}
