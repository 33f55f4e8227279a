//! What the archived log of a datastore is worth now, told by the repository alone, without reaching the server: up to
//! where it is held, which base backup leads there, up to which moment everything is there, and what is lost for ever.

use jiff::Timestamp;
use replication::{Position, SystemId};

use super::archive::{Archive, ArchiveError, Lost};
use super::contents::Held;
use super::reach::{Branch, way};
use super::recovery::BaseBackup;
use crate::repo::Id;

/// What the log of one cluster is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The cluster.
    pub system: SystemId,
    /// Where the log ends that is held.
    pub end: Option<Position>,
    /// The newest base backup from which a restore gets to that end.
    pub base: Option<Id>,
    /// Why there is none, in words.
    pub no_base: Option<String>,
    /// All that was acknowledged before, by the server's clock, can be restored. `None` where that is not known: no receiver
    /// told it, or no base backup leads there.
    pub until: Option<Timestamp>,
    /// What is lost for ever and no base backup was taken after: no restore leads over it, in the order in which it was
    /// noticed.
    pub open: Vec<Lost>,
}

/// What an archive is worth with these base backups, which are of its datastore, oldest first. `None` while it is empty.
/// Of several clusters under one name the one counts of which the newest base backup is, else the one that was heard of
/// last.
///
/// # Errors
/// The archive's.
pub async fn account(archive: &Archive, bases: &[BaseBackup]) -> Result<Option<Account>, ArchiveError> {
    let system = if let Some(newest) = bases.last() {
        newest.base.system
    } else {
        let mut contents = archive.list().await?.systems.into_iter().collect::<Vec<_>>();
        contents.sort_by_key(|(_, held)| held.standing.map(|standing| standing.moment));
        match contents.last() {
            Some((system, _)) => *system,
            None => return Ok(None),
        }
    };
    let listed = archive.listed(system).await?;
    Ok(listed.held.map(|held| of(system, &held, &listed.gaps, bases)))
}

fn of(system: SystemId, held: &Held, gaps: &[Lost], bases: &[BaseBackup]) -> Account {
    let ends = held.files().map(|(segment, until)| Position {
        timeline: segment.timeline,
        lsn: until.unwrap_or(segment.end(held.segment_size)),
    });
    let bases: Vec<&BaseBackup> = bases.iter().filter(|backup| backup.base.system == system).collect();
    let mut account = Account {
        system,
        end: ends.max_by_key(|end| (end.timeline, end.lsn)),
        base: None,
        no_base: bases.is_empty().then(|| "there is no base backup".to_owned()),
        until: None,
        open: gaps.to_vec(),
    };
    account
        .open
        .retain(|gap| !bases.iter().any(|backup| backup.base.start >= gap.until));
    for backup in bases.into_iter().rev() {
        let why = match way(held, &backup.needs(), Branch::Newest) {
            Err(no) => no.to_string(),
            Ok(way) => {
                // As long as nothing is held behind it, no listing shows it.
                let ahead = account.open.iter().find(|gap| gap.until > way.reached);
                match (way.usable(), way.gaps.first(), ahead) {
                    (Ok(()), None, None) => {
                        (account.base, account.no_base) = (Some(backup.snapshot), None);
                        account.until = way.moment;
                        // What the server handed over itself meanwhile is not lost.
                        account.open.clear();
                        break;
                    }
                    (_, Some(gap), _) => format!("missing is {gap}"),
                    (Err(short), None, _) => short.to_string(),
                    (Ok(()), None, Some(gap)) => format!("the server has no more {gap}"),
                }
            }
        };
        // That of the newest one.
        account.no_base.get_or_insert(why);
    }
    account
}

#[cfg(test)]
mod tests {
    use replication::{Lsn, Segment, SegmentSize, Timeline};

    use super::super::contents::Standing;
    use super::*;
    use crate::source::postgres::base::{Base, Pages};

    const SYSTEM: SystemId = SystemId(7);

    fn lsn(segments: u64) -> Lsn {
        Lsn(segments * SegmentSize::DEFAULT.bytes())
    }

    fn backup(name: u8, start: Lsn) -> BaseBackup {
        let at = Timestamp::from_second(i64::from(name)).unwrap();
        BaseBackup {
            snapshot: Id::of(&[name]),
            base: Base {
                schema: String::new(),
                kind: String::new(),
                method: String::new(),
                tool_version: String::new(),
                system: SYSTEM,
                server_version: String::new(),
                server_version_num: 150_000,
                segment_bytes: SegmentSize::DEFAULT.bytes(),
                timeline: Timeline::FIRST,
                start,
                end: start.plus(100),
                pages: Pages::Unprotected,
                tablespaces: Vec::new(),
                files: 0,
                bytes: 0,
                started_at: at,
                finished_at: at,
            },
        }
    }

    fn held(segments: impl IntoIterator<Item = u64>) -> Held {
        let timeline = Timeline::FIRST;
        let segments = segments.into_iter().map(|number| Segment { timeline, number });
        Held {
            segments: segments.collect(),
            standing: Some(Standing {
                timeline,
                lsn: lsn(9),
                moment: Timestamp::from_second(1000).unwrap(),
            }),
            ..Held::default()
        }
    }

    #[test]
    fn a_gap_is_open_until_a_base_backup_is_taken_behind_it() {
        let lost = Lost {
            timeline: Timeline::FIRST,
            from: lsn(3),
            until: lsn(6),
        };
        let held = held([1, 2, 6, 7, 8]);
        let before = of(SYSTEM, &held, &[lost], &[backup(1, lsn(1).plus(8))]);
        assert_eq!((before.base, &before.open[..], before.until), (None, &[lost][..], None));
        assert!(
            before
                .no_base
                .is_some_and(|why| why.contains("000000010000000000000003"))
        );
        assert_eq!(before.end.map(|end| end.lsn), Some(lsn(9)));
        let backups = [backup(1, lsn(1).plus(8)), backup(2, lsn(6).plus(8))];
        let after = of(SYSTEM, &held, &[lost], &backups);
        assert_eq!((after.base, &after.open[..]), (Some(backups[1].snapshot), &[][..]));
        assert_eq!(after.until, Timestamp::from_second(1000).ok());
        assert_eq!(after.no_base, None);
    }

    #[test]
    fn a_gap_that_nothing_lies_behind_is_open_and_one_that_was_filled_is_not() {
        let lost = Lost {
            timeline: Timeline::FIRST,
            from: lsn(3),
            until: lsn(6),
        };
        let backups = [backup(1, lsn(1).plus(8))];
        let ahead = of(SYSTEM, &held([1, 2]), &[lost], &backups);
        assert_eq!((ahead.base, &ahead.open[..]), (None, &[lost][..]));
        let filled = of(SYSTEM, &held(1..9), &[lost], &backups);
        assert_eq!((filled.base, &filled.open[..]), (Some(backups[0].snapshot), &[][..]));
    }

    #[test]
    fn without_a_base_backup_no_log_is_worth_anything() {
        let account = of(SYSTEM, &held(1..9), &[], &[]);
        assert_eq!((account.base, account.until), (None, None));
        assert!(account.no_base.is_some());
    }
}
