//! A figure that is required, and whether what was measured meets it. What is measured is the areas' matter.

/// A required figure and what was measured.
#[derive(Debug)]
pub struct Requirement {
    /// What was asked for.
    what: String,
    measured: Option<f64>,
    most: f64,
    unit: &'static str,
}

impl Requirement {
    /// At most `most` of `unit`s are allowed.
    pub fn new(what: &str, measured: Option<f64>, most: f64, unit: &'static str) -> Self {
        Self {
            what: what.to_owned(),
            measured,
            most,
            unit,
        }
    }
}

impl std::fmt::Display for Requirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { what, most, unit, .. } = self;
        match self.measured {
            Some(measured) => {
                let met = if measured <= *most { "met" } else { "NOT met" };
                write!(f, "{what}: {measured:.2} {unit}, at most {most}: {met}")
            }
            None => write!(
                f,
                "{what}: at most {most} {unit}: not measured, the machine was never quiet"
            ),
        }
    }
}
