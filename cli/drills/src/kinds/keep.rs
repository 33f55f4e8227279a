//! Keeping up a fault that ends by itself where it acts: played for half a minute at a time, prolonged by the worker.

use std::time::Duration;

use opsctl_platform::run::{Run, RunError};
use opsctl_platform::{Field, Platform, PlatformError};
use serde_json::Value;
use tokio::time::Instant;

use crate::course::{Course, PlanError, WorkError};

/// How long a fault lives that nobody keeps up.
const TTL: Duration = Duration::from_secs(30);
/// How long before it is prolonged.
const EVERY: Duration = Duration::from_secs(8);

/// When a fault was last prolonged.
#[derive(Debug, Default)]
pub(super) struct Keep {
    renewed: Option<Instant>,
}

impl Keep {
    /// It was put just now.
    pub(super) fn since(now: Instant) -> Self {
        Self { renewed: Some(now) }
    }

    /// Prolongs it when it is time. `false`: it has ended.
    pub(super) async fn up(&mut self, run: &Run, field: &Field) -> Result<bool, WorkError> {
        let Some(renewed) = self.renewed else { return Ok(false) };
        if renewed.elapsed() < EVERY {
            return Ok(true);
        }
        match run.renew_fault(field, TTL).await {
            Ok(()) => {
                self.renewed = Some(Instant::now());
                Ok(true)
            }
            Err(RunError::Platform(PlatformError::FaultLost { .. })) => Ok(false),
            // It may answer again before the fault has ended.
            Err(RunError::Platform(_)) if renewed.elapsed() < TTL => Ok(true),
            Err(RunError::Platform(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a fault can be played there, and nobody plays one.
pub(super) async fn free(platform: &dyn Platform, field: &Field) -> Result<(), PlanError> {
    match platform.get(field).await {
        Ok(None) => Ok(()),
        Ok(Some(fault)) => Err(PlanError::Faulted {
            object: field.object.clone(),
            run: fault["holder"].as_str().unwrap_or("another run").to_owned(),
        }),
        Err(PlatformError::UnknownField { .. }) => Err(PlanError::NoFaults {
            object: field.object.clone(),
        }),
        Err(error) => Err(error.into()),
    }
}

/// The same right before the field becomes `value`, in words; asks whether the platform would do it, too.
pub(super) async fn still_free(course: &Course<'_>, field: &Field, value: &Value) -> Result<(), String> {
    let platform = course.run.platform().as_ref();
    free(platform, field).await.map_err(|error| error.to_string())?;
    let asked = platform.rehearse(field, None, Some(value)).await;
    asked.map(drop).map_err(|error| error.to_string())
}
