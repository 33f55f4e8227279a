//! An expression as systemd's `OnCalendar=`, systemd.time(7). There both day fields must fit, so that an expression in
//! which either may becomes two lines; a time that both name is one elapse there too.

use jiff::tz::TimeZone;

use super::expression::Expression;
use super::field::{Field, WEEKDAYS, runs};

impl Expression {
    /// The lines, in the time zone `zone` where that has a name.
    pub fn on_calendar(&self, zone: &TimeZone) -> Vec<String> {
        let fields = &self.fields;
        let zone = zone.iana_name().map_or_else(String::new, |name| format!(" {name}"));
        let line = |day: &str, weekdays: &str| {
            let weekdays = if weekdays.is_empty() {
                String::new()
            } else {
                format!("{weekdays} ")
            };
            format!(
                "{weekdays}{}-{}-{day} {}:{}:{}{zone}",
                list(&fields.year, 4),
                list(&fields.month, 2),
                list(&fields.hour, 2),
                list(&fields.minute, 2),
                list(&fields.second, 2),
            )
        };
        let (days, weekdays) = (list(&fields.day, 2), weekdays(&fields.weekday));
        match (fields.day.star, fields.weekday.star) {
            (_, true) => vec![line(&days, "")],
            (true, false) => vec![line("*", &weekdays)],
            (false, false) => vec![line(&days, ""), line("*", &weekdays)],
        }
    }
}

fn list(field: &Field, digits: usize) -> String {
    if field.star {
        return "*".to_owned();
    }
    let words: Vec<String> = runs(&field.values)
        .into_iter()
        .map(|(first, last)| match last - first {
            0 => format!("{first:0digits$}"),
            1 => format!("{first:0digits$},{last:0digits$}"),
            _ => format!("{first:0digits$}..{last:0digits$}"),
        })
        .collect();
    words.join(",")
}

/// From Monday, as systemd writes them.
fn weekdays(field: &Field) -> String {
    let names: Vec<String> = (1..=7)
        .map(|day| day % 7)
        .filter(|day| field.values.contains(day))
        .map(|day| {
            let name = WEEKDAYS[usize::from(day)];
            format!("{}{}", &name[..1], name[1..].to_ascii_lowercase())
        })
        .collect();
    names.join(",")
}
