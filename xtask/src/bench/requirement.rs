//! A figure that is required, and whether what was measured meets it. What is measured is the areas' matter.

use std::fmt;

/// A required figure and what was measured.
#[derive(Debug)]
pub struct Requirement {
    what: String,
    /// `None` where the machine was never quiet enough to tell.
    measured: Option<f64>,
    bar: Bar,
    unit: &'static str,
}

#[derive(Debug, Clone, Copy)]
enum Bar {
    AtMost(f64),
    AtLeast(f64),
}

impl Requirement {
    /// More than `most` of `unit`s is too much.
    pub fn at_most(what: &str, measured: Option<f64>, most: f64, unit: &'static str) -> Self {
        Self::new(what, measured, Bar::AtMost(most), unit)
    }

    /// Less than `least` of `unit`s is too little.
    pub fn at_least(what: &str, measured: Option<f64>, least: f64, unit: &'static str) -> Self {
        Self::new(what, measured, Bar::AtLeast(least), unit)
    }

    fn new(what: &str, measured: Option<f64>, bar: Bar, unit: &'static str) -> Self {
        Self {
            what: what.to_owned(),
            measured,
            bar,
            unit,
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, unit, .. } = self;
        let Some(measured) = self.measured else {
            return write!(
                f,
                "{what}: {} {unit}: not measured, the machine was never quiet",
                self.bar
            );
        };
        let met = match self.bar {
            Bar::AtMost(most) => measured <= most,
            Bar::AtLeast(least) => measured >= least,
        };
        write!(
            f,
            "{what}: {measured:.2} {unit}, {}: {}",
            self.bar,
            if met { "met" } else { "NOT met" }
        )
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "at most {most}"),
            Self::AtLeast(least) => write!(f, "at least {least}"),
        }
    }
}
