//! When something is due, held against `croner`, which had each of these right, and against tables of what must come out
//! at changes of the clock, after downtimes and around quiet hours.

use std::time::Duration;

use backups::schedule::runner::{self, Ended, Jobs};
use backups::schedule::{Decision, Due, Expression, ExpressionError, QuietHours, Timing, zone};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio_util::sync::CancellationToken;

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

fn timing(expression: &str, place: &str) -> Timing {
    Timing {
        name: "test".to_owned(),
        expression: expression.parse().expect("an expression"),
        zone: zone(place).expect("a zone"),
        jitter: Duration::ZERO,
        quiet: Vec::new(),
    }
}

/// The next ones as local times with their offsets.
fn local(expression: &str, place: &str, after: &str, count: usize) -> Vec<String> {
    let timing = timing(expression, place);
    timing
        .occurrences(at(after))
        .take(count)
        .map(|instant| {
            instant
                .to_zoned(timing.zone.clone())
                .strftime("%Y-%m-%dT%H:%M:%S%:z")
                .to_string()
        })
        .collect()
}

#[test]
fn a_time_that_the_clock_leaves_out_happens_once_when_it_leaps() {
    assert_eq!(
        local("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", 3),
        [
            "2026-03-28T02:30:00+01:00",
            "2026-03-29T03:00:00+02:00",
            "2026-03-30T02:30:00+02:00"
        ]
    );
    // Several in the gap, and one at its end, are one.
    assert_eq!(
        local("*/20 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 3),
        [
            "2026-03-29T03:00:00+02:00",
            "2026-03-29T03:20:00+02:00",
            "2026-03-29T03:40:00+02:00"
        ]
    );
    // What happens in every hour anyway is not made up for.
    assert_eq!(
        local("30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 3),
        [
            "2026-03-29T01:30:00+01:00",
            "2026-03-29T03:30:00+02:00",
            "2026-03-29T04:30:00+02:00"
        ]
    );
    // A whole day was left out.
    assert_eq!(
        local("0 12 * * *", "Pacific/Apia", "2011-12-29T23:00:00Z", 2),
        ["2011-12-31T00:00:00+14:00", "2011-12-31T12:00:00+14:00"]
    );
}

#[test]
fn a_time_that_the_clock_repeats_happens_once() {
    assert_eq!(
        local("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
        ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]
    );
    // From the second of the two hours on, the first is over.
    assert_eq!(
        local("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1),
        ["2026-10-26T02:30:00+01:00"]
    );
    assert_eq!(
        local("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:59:00Z", 5),
        [
            "2026-10-25T02:00:00+02:00",
            "2026-10-25T02:30:00+02:00",
            "2026-10-25T02:00:00+01:00",
            "2026-10-25T02:30:00+01:00",
            "2026-10-25T03:00:00+01:00"
        ]
    );
}

#[test]
fn days_are_read_as_a_crontab_has_them() {
    let days = |expression, count| {
        local(expression, "UTC", "2026-11-01T00:00:00Z", count)
            .iter()
            .map(|text| text[..10].to_owned())
            .collect::<Vec<_>>()
    };
    // 2 November 2026 is a Monday. 1 is Monday and not, as with Quartz, Sunday.
    assert_eq!(days("0 9 * * 1", 1), ["2026-11-02"]);
    assert_eq!(days("0 9 * * 0", 1), ["2026-11-01"]);
    assert_eq!(days("0 9 * * 7", 2), ["2026-11-01", "2026-11-08"]);
    assert_eq!(
        days("0 9 * * 1-5", 5),
        ["2026-11-02", "2026-11-03", "2026-11-04", "2026-11-05", "2026-11-06"]
    );
    assert_eq!(days("0 9 * * MON-FRI", 5), days("0 9 * * 1-5", 5));
    assert_eq!(days("0 9 * * sat-sun", 3), ["2026-11-01", "2026-11-07", "2026-11-08"]);
    assert_eq!(days("0 9 13 * FRI", 3), ["2026-11-06", "2026-11-13", "2026-11-20"]);
    assert_eq!(days("0 0 9 ? JAN-MAR MON 2027", 2), ["2027-01-04", "2027-01-11"]);
    assert_eq!(days("@monthly", 1), ["2026-12-01"]);
    assert_eq!(days("@weekly", 1), ["2026-11-08"]);
    assert_eq!(days("0 0 29 2 *", 2), ["2028-02-29", "2032-02-29"]);
}

#[test]
fn what_is_no_expression_is_refused_and_told() {
    for (text, told) in [
        ("", "0 fields: expected five"),
        ("* * * *", "4 fields"),
        ("60 * * * *", "60 is no minute: expected 0 to 59"),
        ("* * 0 * *", "0 is no day of the month: expected 1 to 31"),
        ("* * * * MOON", "`MOON` is no day of the week: expected SUN to SAT"),
        ("* * L * *", "`L`, `W` and `#` are not known here"),
        ("*/0 * * * *", "`0` is no step of the minute"),
        ("30-10 * * * *", "ends before it begins"),
        ("0 0 9 * * 1", "`1` as a day of the week is MON in a crontab and SUN"),
        ("@reboot", "`@reboot` is not known"),
        ("TZ=UTC 0 2 * * *", "the time zone does not belong"),
        ("0 0 30 2 *", "it never happens"),
        ("0 0 29 2 * ", ""),
        ("0 0 0 29 FEB ? 2027", "it never happens"),
        ("1,,2 * * * *", "nothing is no minute"),
        ("99999999999999999999 * * * *", "is no minute"),
        ("-1 * * * *", "nothing is no minute"),
        ("\u{661} * * * *", "is no minute"),
    ] {
        match text.parse::<Expression>() {
            Ok(_) => assert!(told.is_empty(), "{text}"),
            Err(error) => assert!(!told.is_empty() && error.to_string().contains(told), "{text}: {error}"),
        }
    }
    assert_eq!(
        "* ".repeat(300).parse::<Expression>().map(|_| ()),
        Err(ExpressionError::Long)
    );
    assert!(zone("Europe/Berlni").is_none());
}

/// A field of the grammar that all readers share.
fn field(random: &mut StdRng, least: u32, most: u32, names: &[&str]) -> String {
    let named = |random: &mut StdRng, value: u32| {
        if !names.is_empty() && random.random_bool(0.5) {
            names[(value - least) as usize].to_owned()
        } else {
            value.to_string()
        }
    };
    let mut items = Vec::new();
    for _ in 0..*[1, 1, 1, 2, 3].choose(random).expect("some") {
        let (a, b) = (random.random_range(least..=most), random.random_range(least..=most));
        let (a, b) = (a.min(b), a.max(b));
        items.push(match random.random_range(0..5) {
            0 => format!("*/{}", random.random_range(2..=most.max(3))),
            1 if a < b => format!("{a}-{b}/{}", random.random_range(1..=5)),
            2 if a < b => format!("{}-{}", named(random, a), named(random, b)),
            _ => named(random, a),
        });
    }
    items.join(",")
}

fn expression(random: &mut StdRng) -> String {
    const MONTHS: [&str; 12] = [
        "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
    ];
    const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
    let or_star = |random: &mut StdRng, share: f64, least, most, names: &[&str]| {
        if random.random_bool(share) {
            "*".to_owned()
        } else {
            field(random, least, most, names)
        }
    };
    let minute = or_star(random, 0.2, 0, 59, &[]);
    // Half of them in the hours in which clocks change.
    let hour = if random.random_bool(0.5) {
        random.random_range(0..=3).to_string()
    } else {
        or_star(random, 0.5, 0, 23, &[])
    };
    let day = or_star(random, 0.6, 1, 31, &[]);
    let month = or_star(random, 0.7, 1, 12, &MONTHS);
    let weekday = or_star(random, 0.6, 0, 6, &DAYS);
    let five = format!("{minute} {hour} {day} {month} {weekday}");
    // With seconds weekdays are names alone.
    if random.random_bool(0.2) && !weekday.contains(|c: char| c.is_ascii_digit()) {
        return format!("{} {five}", random.random_range(0..60));
    }
    five
}

const ZONES: [&str; 14] = [
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/Sao_Paulo",
    "America/Santiago",
    "America/Havana",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Asia/Kolkata",
    "Asia/Tehran",
    "Asia/Beirut",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
];

/// What must come out: croner's wall times, each mapped by the rule that the documentation states. Croner is not asked
/// for the mapping here, because it calls only expressions with one second, minute and hour fixed, where we (and
/// Debian's cron) call hourly only what has every hour: `*/30 2 * * *` is not to be lost on the day of a leap, and
/// `0 1,2 * * *` not to run twice when the clock goes back.
fn expected(judge: &croner::Cron, hourly: bool, zone: &TimeZone, after: Timestamp, until: Timestamp) -> Vec<Timestamp> {
    let day = SignedDuration::from_hours(48);
    let mut wall: DateTime = zone.to_datetime(after.checked_sub(day).expect("in range"));
    let end = zone.to_datetime(until.checked_add(day).expect("in range"));
    let mut instants = Vec::new();
    while let Ok(next) = judge.find_next_occurrence(&wall, false) {
        if next > end {
            break;
        }
        wall = next;
        let ambiguous = zone.to_ambiguous_timestamp(next);
        match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => instants.extend(ambiguous.unambiguous()),
            AmbiguousOffset::Gap { .. } if hourly => {}
            AmbiguousOffset::Gap { .. } => {
                let before = ambiguous.earlier().expect("in range");
                let leap = zone
                    .preceding(before.checked_add(SignedDuration::from_hours(25)).expect("in range"))
                    .find(|change| {
                        change.timestamp() <= before.checked_add(SignedDuration::from_hours(24)).expect("in range")
                    })
                    .expect("a leap");
                instants.push(leap.timestamp());
            }
            AmbiguousOffset::Fold { .. } => {
                instants.extend(zone.to_ambiguous_timestamp(next).earlier());
                if hourly {
                    instants.extend(ambiguous.later());
                }
            }
        }
    }
    instants.sort();
    instants.dedup();
    instants.retain(|instant| *instant > after && *instant <= until);
    instants
}

#[test]
fn croner_agrees_over_random_expressions_zones_and_ten_years() {
    const CASES: usize = 600;
    const TAKEN: usize = 40;
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| rand::rng().random::<u64>());
    println!("SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (first, last) = (at("2020-01-01T00:00:00Z"), at("2030-01-01T00:00:00Z"));
    let (mut compared, mut directly) = (0, 0);
    for _ in 0..CASES {
        let text = expression(&mut random);
        let place = *ZONES.choose(&mut random).expect("zones");
        let Ok(ours) = text.parse::<Expression>() else {
            assert!(text.contains(' '), "{text}");
            // Impossible dates alone are refused.
            let judge: croner::Cron = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            let start = first.to_zoned(TimeZone::UTC).datetime();
            assert!(judge.find_next_occurrence(&start, false).is_err(), "{text} is possible");
            continue;
        };
        let judge: croner::Cron = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        let timing = timing(&text, place);
        let words: Vec<&str> = text.split(' ').collect();
        let hour = words[words.len() - 4];
        let hourly = {
            // Every hour, however it is written.
            let any: croner::Cron = format!("0 {hour} * * *").parse().expect("the hour alone");
            let start: DateTime = "2027-05-01T00:00:00".parse().expect("a day");
            let mut iterator = any.iter_from(start, croner::Direction::Forward);
            (0..24).all(|expected| iterator.next().is_some_and(|found| found.hour() == expected))
        };
        let fixed = judge.determine_job_type() == croner::JobType::FixedTime;

        // Anywhere in the ten years, and shortly before changes of the clock.
        let mut starts =
            vec![Timestamp::from_second(random.random_range(first.as_second()..last.as_second())).expect("in range")];
        let changes: Vec<_> = timing
            .zone
            .following(first)
            .take_while(|change| change.timestamp() < last)
            .collect();
        for _ in 0..2 {
            if let Some(change) = changes.choose(&mut random) {
                let back = SignedDuration::from_secs(random.random_range(-7200..100_000));
                starts.push(change.timestamp().checked_sub(back).expect("in range"));
            }
        }
        for after in starts {
            let found: Vec<Timestamp> = timing.occurrences(after).take(TAKEN).collect();
            let told = format!("SEED={seed}: {text} in {place} after {after}");
            assert!(found.is_sorted_by(|a, b| a < b), "{told}: {found:?}");
            assert!(found.iter().all(|instant| *instant > after), "{told}");
            let Some(until) = found.last().copied().filter(|_| found.len() == TAKEN) else {
                continue;
            };
            assert_eq!(found, expected(&judge, hourly, &timing.zone, after, until), "{told}");
            compared += 1;
            if hourly || fixed {
                // The whole of it, changes of the clock included, as croner has it.
                let start = after.to_zoned(timing.zone.clone());
                let judged: Vec<Timestamp> = judge
                    .iter_after(start)
                    .take(TAKEN)
                    .map(|zoned| zoned.timestamp())
                    .collect();
                assert_eq!(found, judged, "{told}: directly");
                directly += 1;
            }
        }
        drop(ours);
    }
    assert!(compared > CASES && directly > CASES / 4, "{compared} {directly}");
}

#[test]
fn after_a_downtime_there_is_one_run() {
    let timing = timing("0 2 * * *", "Europe/Berlin");
    let handled = at("2026-11-01T01:00:00Z");
    let Decision::Wait(due) = timing.decide(handled, at("2026-11-01T12:00:00Z")) else {
        panic!("nothing is due");
    };
    assert_eq!(due.start, at("2026-11-02T01:00:00Z"));
    assert_eq!(
        timing.decide(handled, at("2026-11-02T01:00:00Z")),
        Decision::Run { due, missed: 0 }
    );
    let Decision::Run { due, missed } = timing.decide(handled, at("2026-11-09T12:00:00Z")) else {
        panic!("a week is missed");
    };
    assert_eq!((due.occurrence, missed), (at("2026-11-09T01:00:00Z"), 7));
    assert!(matches!(
        timing.decide(due.occurrence, at("2026-11-09T12:00:00Z")),
        Decision::Wait(_)
    ));
    // Over with the year 2026.
    let once = self::timing("0 0 0 1 JAN ? 2026", "UTC");
    assert_eq!(once.decide(handled, at("2027-01-01T00:00:00Z")), Decision::Never);
}

#[test]
fn years_of_missed_seconds_are_decided_at_once() {
    let timing = timing("* * * * * *", "Europe/Berlin");
    let now = at("2026-11-09T12:00:00Z");
    let Decision::Run { due, missed } = timing.decide(at("2020-01-01T00:00:00Z"), now) else {
        panic!("it is due");
    };
    assert_eq!((due.occurrence, missed), (now, Timing::COUNTED));
}

#[test]
fn jitter_is_the_same_everywhere_spreads_and_keeps_the_order() {
    let mut timing = timing("*/10 * * * *", "UTC");
    timing.jitter = Duration::from_hours(1);
    let start = at("2026-11-01T00:00:00Z");
    let drawn: Vec<Due> = timing.upcoming(start).take(200).collect();
    assert_eq!(drawn, timing.clone().upcoming(start).take(200).collect::<Vec<_>>());
    for pair in drawn.windows(2) {
        assert!(
            pair[0].start >= pair[0].occurrence && pair[0].start < pair[1].occurrence,
            "{pair:?}"
        );
    }
    let delays: std::collections::BTreeSet<_> = drawn
        .iter()
        .map(|due| due.start.duration_since(due.occurrence))
        .collect();
    assert!(delays.len() > 150, "{}", delays.len());
    let other = Timing {
        name: "another".to_owned(),
        ..timing
    };
    assert_ne!(drawn, other.upcoming(start).take(200).collect::<Vec<_>>());
}

#[test]
fn quiet_hours_put_off_to_their_end() {
    let quiet = |windows: &[&str], expression: &str, after: &str| {
        let mut timing = timing(expression, "Europe/Berlin");
        timing.quiet = windows.iter().map(|text| text.parse().expect("a window")).collect();
        Timing::check_quiet(&timing.quiet).expect("some time is left");
        let due = timing.next(at(after)).expect("an occurrence");
        due.start.to_zoned(timing.zone.clone()).strftime("%a %H:%M").to_string()
    };
    // 2 November 2026 is a Monday.
    let monday = "2026-11-02T00:30:00Z";
    assert_eq!(quiet(&["01:00-06:00"], "0 2 * * *", monday), "Mon 06:00");
    assert_eq!(quiet(&["22:00-06:30"], "0 2 * * *", monday), "Mon 06:30");
    assert_eq!(quiet(&["22:00-02:00"], "0 2 * * *", monday), "Mon 02:00");
    assert_eq!(quiet(&["01:00-03:00", "03:00-04:00"], "0 2 * * *", monday), "Mon 04:00");
    assert_eq!(quiet(&["TUE 01:00-06:00"], "0 2 * * *", monday), "Mon 02:00");
    // The days are those on which a window begins.
    assert_eq!(quiet(&["SUN 22:00-06:00"], "0 2 * * *", monday), "Mon 06:00");
    assert_eq!(quiet(&["MON 22:00-06:00"], "0 2 * * *", monday), "Mon 02:00");
    assert_eq!(quiet(&["MON-FRI 00:00-24:00"], "0 2 * * *", monday), "Sat 00:00");
    // The end falls into the hour that the clock leaves out: the leap is the end.
    assert_eq!(
        quiet(&["01:00-02:30"], "15 1 * * *", "2026-03-28T23:00:00Z"),
        "Sun 03:30"
    );

    assert!(Timing::check_quiet(&["00:00-24:00".parse().expect("a window")]).is_err());
    for wrong in [
        "8-18",
        "08:00-25:00",
        "08:00",
        "MOON 08:00-09:00",
        "08:00-08:00",
        "24:00-08:00",
        "08:60-09:00",
    ] {
        assert!(wrong.parse::<QuietHours>().is_err(), "{wrong}");
    }
    for right in ["08:00-18:00", "MON-FRI 22:00-06:00", "SUN,SAT 00:00-24:00"] {
        assert_eq!(
            right.parse::<QuietHours>().expect(right).to_string().parse(),
            right.parse::<QuietHours>()
        );
    }
    // Several that are put off are one run.
    let mut timing = timing("0 * * * *", "UTC");
    timing.quiet = vec!["08:00-18:00".parse().expect("a window")];
    let handled = at("2026-11-02T07:00:00Z");
    assert!(matches!(
        timing.decide(handled, at("2026-11-02T17:59:59Z")),
        Decision::Wait(_)
    ));
    let Decision::Run { due, missed } = timing.decide(handled, at("2026-11-02T18:00:00Z")) else {
        panic!("the quiet is over");
    };
    assert_eq!((due.occurrence, missed), (at("2026-11-02T18:00:00Z"), 10));
}

/// What `systemd-analyze calendar` says comes next.
fn elapses(line: &str, after: Timestamp, count: usize) -> Vec<Timestamp> {
    let base = after.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    let output = std::process::Command::new("systemd-analyze")
        .args([
            "calendar",
            "--iterations",
            &count.to_string(),
            "--base-time",
            &base,
            line,
        ])
        .env("TZ", "UTC")
        .env("LC_ALL", "C")
        .output()
        .expect("systemd-analyze starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    text.lines()
        .filter_map(|text| {
            let (label, value) = text.trim().split_once(": ")?;
            let utc = label == "(in UTC)";
            let elapse = label == "Next elapse" || label.starts_with("Iter") || label.starts_with("Iteration");
            (utc || elapse).then(|| value.trim().to_owned())
        })
        .filter_map(|value| {
            let value = value.strip_suffix(" UTC")?;
            let (_, value) = value.split_once(' ')?;
            DateTime::strptime("%Y-%m-%d %H:%M:%S", value)
                .ok()?
                .to_zoned(TimeZone::UTC)
                .ok()
                .map(|zoned| zoned.timestamp())
        })
        .collect()
}

#[test]
fn systemd_reads_what_is_written_for_it_as_we_do() {
    if std::process::Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        peers::skip(
            "systemd_reads_what_is_written_for_it_as_we_do",
            "systemd-analyze is not installed",
        );
        return;
    }
    let berlin = zone("Europe/Berlin").expect("a zone");
    let lines = |text: &str| text.parse::<Expression>().expect(text).on_calendar(&berlin);
    assert_eq!(
        lines("30 2 * * MON-FRI"),
        ["Mon,Tue,Wed,Thu,Fri *-*-* 02:30:00 Europe/Berlin"]
    );
    assert_eq!(
        lines("0 0 13 * FRI"),
        ["*-*-13 00:00:00 Europe/Berlin", "Fri *-*-* 00:00:00 Europe/Berlin"]
    );
    let seed = rand::rng().random::<u64>();
    println!("SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let after = at("2026-11-02T10:20:00Z");
    let mut compared = 0;
    while compared < 60 {
        let text = expression(&mut random);
        let Ok(ours) = text.parse::<Expression>() else { continue };
        let timing = timing(&text, "UTC");
        let mut theirs: Vec<Timestamp> = ours
            .on_calendar(&timing.zone)
            .iter()
            .flat_map(|line| elapses(line, after, 12))
            .collect();
        theirs.sort();
        theirs.dedup();
        theirs.truncate(12);
        let own: Vec<Timestamp> = timing.occurrences(after).take(theirs.len()).collect();
        assert!(!theirs.is_empty(), "{text}");
        assert_eq!(
            own,
            theirs,
            "SEED={seed}: {text} as {:?}",
            ours.on_calendar(&timing.zone)
        );
        compared += 1;
    }
}

#[test]
fn a_crontab_has_no_seconds_and_counts_weekdays_from_sunday() {
    let crontab = |text: &str| text.parse::<Expression>().expect(text).crontab();
    assert_eq!(
        crontab("*/15 2 * JAN-MAR MON-FRI").as_deref(),
        Some("0,15,30,45 2 * 1-3 1-5")
    );
    assert_eq!(crontab("@weekly").as_deref(), Some("0 0 * * 0"));
    assert_eq!(crontab("0 5 4 1 * sat-sun").as_deref(), Some("5 4 1 * 0,6"));
    assert_eq!(crontab("30 5 4 1 * ?"), None);
    let seed = rand::rng().random::<u64>();
    println!("SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..500 {
        let text = expression(&mut random);
        if let Ok(read) = text.parse::<Expression>()
            && let Some(written) = read.crontab()
        {
            assert_eq!(
                written.parse::<Expression>().as_ref(),
                Ok(&read),
                "SEED={seed}: {text} as {written}"
            );
        }
    }
}

/// Jobs that take their time, on tokio's paused clock.
struct Paced {
    began: tokio::time::Instant,
    handled: Vec<std::cell::Cell<Timestamp>>,
    takes: Vec<Duration>,
    /// How often it is in the way first.
    locked: std::cell::Cell<u32>,
    /// What happened, in seconds since the start: begun and ended.
    story: std::cell::RefCell<Vec<(usize, i64, i64, u32)>>,
}

const EPOCH: &str = "2026-11-02T00:00:00Z";

impl Paced {
    fn new(takes: &[u64]) -> Self {
        Self {
            began: tokio::time::Instant::now(),
            handled: takes.iter().map(|_| std::cell::Cell::new(at(EPOCH))).collect(),
            takes: takes.iter().map(|seconds| Duration::from_secs(*seconds)).collect(),
            locked: std::cell::Cell::new(0),
            story: std::cell::RefCell::default(),
        }
    }

    fn since(&self) -> i64 {
        self.now().as_second() - at(EPOCH).as_second()
    }
}

impl Jobs for Paced {
    fn now(&self) -> Timestamp {
        at(EPOCH) + SignedDuration::try_from(self.began.elapsed()).expect("in range")
    }
    fn handled(&self, schedule: usize) -> Timestamp {
        self.handled[schedule].get()
    }
    fn busy(&self, _: usize) -> bool {
        false
    }
    async fn run(&self, schedule: usize, due: Due, missed: u32, cancel: CancellationToken) -> Ended {
        let begun = self.since();
        assert!(due.start <= self.now());
        if self.locked.get() > 0 {
            self.locked.set(self.locked.get() - 1);
            return Ended::Again(Duration::from_secs(5));
        }
        tokio::select! {
            () = tokio::time::sleep(self.takes[schedule]) => {}
            () = cancel.cancelled() => {}
        }
        self.handled[schedule].set(due.occurrence);
        self.story.borrow_mut().push((schedule, begun, self.since(), missed));
        Ended::Handled
    }
}

#[tokio::test(start_paused = true)]
async fn a_runner_starts_on_time_side_by_side_and_never_twice() {
    let timings = [timing("*/10 * * * * *", "UTC"), timing("30 * * * * *", "UTC")];
    // The first takes longer than its interval.
    let jobs = Paced::new(&[25, 1]);
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    tokio::join!(runner::serve(&timings, &jobs, &cancel), async move {
        tokio::time::sleep(Duration::from_secs(100)).await;
        stop.cancel();
    });
    let mut story = jobs.story.into_inner();
    story.sort_by_key(|(schedule, begun, ..)| (*schedule, *begun));
    assert_eq!(
        story,
        [
            (0, 10, 35, 0),
            (0, 35, 60, 1),
            (0, 60, 85, 2),
            // Cancelled, and waited for.
            (0, 85, 100, 1),
            (1, 30, 31, 0),
            (1, 90, 91, 0),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_in_the_way_is_tried_again() {
    let timings = [timing("0 * * * * *", "UTC")];
    let jobs = Paced::new(&[1]);
    jobs.locked.set(2);
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    tokio::join!(runner::serve(&timings, &jobs, &cancel), async move {
        tokio::time::sleep(Duration::from_secs(90)).await;
        stop.cancel();
    });
    assert_eq!(jobs.story.into_inner(), [(0, 70, 71, 0)]);
}

#[tokio::test(start_paused = true)]
async fn once_runs_what_is_due_in_its_order_and_ends() {
    let timings = [
        timing("0 2 * * *", "UTC"),
        timing("0 1 * * *", "UTC"),
        timing("0 12 * * *", "UTC"),
    ];
    let jobs = Paced::new(&[10, 10, 10]);
    tokio::time::advance(Duration::from_hours(3)).await;
    let cancel = CancellationToken::new();
    assert_eq!(runner::once(&timings, &jobs, &cancel).await, 2);
    let order: Vec<usize> = jobs.story.borrow().iter().map(|(schedule, ..)| *schedule).collect();
    assert_eq!(order, [1, 0]);
    assert_eq!(runner::once(&timings, &jobs, &cancel).await, 0);
}
