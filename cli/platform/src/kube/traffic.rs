//! A service's traffic, counted by a Prometheus: raw samples of its counters (`source`), pod by pod, become sums that only
//! grow (`ledger`). What cannot be counted is an error, never a zero: who judges by it must not take silence for health.

mod ledger;
mod source;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use jiff::Timestamp;
use tokio::time::Instant;

use super::KubePlatform;
use super::settings::{Sli, Workload};
use crate::prometheus::{Access, Prometheus, PrometheusError, Series};
use crate::run::message_of;
use crate::{Counts, InstanceTraffic, PlatformError, Result, ServiceState, Traffic, Usage, VersionTraffic};
pub(super) use source::escape;
pub use source::traefik_services;

use ledger::{Ledger, Owner, Reading, Scrapes};
use source::{Backend, Question};

/// Until scrapes say how often they are made.
const USUAL_INTERVAL_MS: i64 = 15_000;
/// So many intervals without a scrape are missing data; less is a scrape that is late.
const LATE: i64 = 3;
/// A scrape may be late by this much, however short the interval.
const LATE_AT_LEAST_MS: i64 = 5_000;
/// How far a range goes back at most.
const LONGEST_MS: i64 = 30 * 60 * 1000;

/// What this process has counted.
#[derive(Default)]
pub(super) struct Counting {
    /// Whom it asks, or why nobody can be asked; absent until that is known.
    prometheus: Mutex<Option<std::result::Result<Prometheus, String>>>,
    services: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Count>>>>,
}

impl Counting {
    pub(super) fn ask(&self, prometheus: std::result::Result<Prometheus, String>) {
        *self.prometheus.lock().unwrap_or_else(PoisonError::into_inner) = Some(prometheus);
    }

    fn of(&self, service: &str) -> Arc<tokio::sync::Mutex<Count>> {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(services.entry(service.to_owned()).or_default())
    }
}

/// Growing sums of the service's counters. Errors: [`PlatformError::NoTraffic`] without a Prometheus or its series,
/// [`PlatformError::Refused`] for an objective that cannot be counted.
pub(super) async fn read(platform: &KubePlatform, workload: &Workload) -> Result<Traffic> {
    let prometheus = prometheus(platform, workload)?;
    let state = platform.state_of(workload).await?;
    let mut backends = Backends::default();
    if workload.sli == Sli::Traefik {
        let (stable, canary) = (&workload.deployment, workload.canary_deployment());
        let (stable, canary) =
            tokio::try_join!(platform.desired(workload, stable), platform.desired(workload, &canary))?;
        backends.stable = stable.map(|desired| desired.version);
        backends.canary = canary.map(|desired| desired.version);
    }
    let count = platform.counting.of(&workload.name);
    let mut count = count.lock().await;
    count.look(&prometheus, workload, &state, &backends).await?;
    Ok(count.traffic(&state, platform.clients.now()))
}

/// CPU and memory of every pod, as far as somebody counts them. Errors: [`PlatformError::NoTraffic`] without a Prometheus.
pub(super) async fn usage(platform: &KubePlatform, workload: &Workload) -> Result<Vec<Usage>> {
    let prometheus = prometheus(platform, workload)?;
    let state = platform.state_of(workload).await?;
    let (cpu, memory) = (source::cpu_query(workload, "1m"), source::memory_query(workload));
    let (cpu, memory) = tokio::try_join!(prometheus.query(&cpu), prometheus.query(&memory))
        .map_err(|error| unknown(workload, &error))?;
    let of = |series: &[Series], pod: &str| {
        let series = series.iter().find(|series| series.label("pod") == pod)?;
        series.samples.last()?.value
    };
    let usage = |instance: &crate::Instance| Usage {
        instance: instance.id.clone(),
        version: instance.version.clone(),
        cpu_cores: of(&cpu.series, &instance.id),
        memory_bytes: of(&memory.series, &instance.id),
    };
    Ok(state.instances.iter().map(usage).collect())
}

/// The one number that a query gives. Errors: as [`read`].
pub(super) async fn number(platform: &KubePlatform, workload: &Workload, query: &str) -> Result<Option<f64>> {
    let answer = prometheus(platform, workload)?.query(query).await;
    let answer = answer.map_err(|error| unanswered(workload, error))?;
    Ok(answer.number().filter(|_| answer.warnings.is_empty()))
}

fn prometheus(platform: &KubePlatform, workload: &Workload) -> Result<Prometheus> {
    let no_traffic = |why: String| PlatformError::NoTraffic {
        service: workload.name.clone(),
        why,
    };
    let Some(url) = &platform.settings.prometheus else {
        return Err(no_traffic("no Prometheus is configured".to_owned()));
    };
    let mut known = platform
        .counting
        .prometheus
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let plain = || Prometheus::new(url, Access::Open, None).map_err(|error| message_of(&error));
    known.get_or_insert_with(plain).clone().map_err(no_traffic)
}

/// As [`unknown`], of a query that somebody wrote: its words are a mistake to be mended, not a passing lack.
fn unanswered(workload: &Workload, error: PrometheusError) -> PlatformError {
    match error {
        PrometheusError::BadQuery { query, message } => PlatformError::Refused {
            what: format!("the query `{query}` for `{}`", workload.name),
            why: message,
        },
        error => unknown(workload, &error),
    }
}

fn unknown(workload: &Workload, error: &PrometheusError) -> PlatformError {
    PlatformError::NoTraffic {
        service: workload.name.clone(),
        why: message_of(error),
    }
}

/// The versions behind the two Services, for sources that count by Service.
#[derive(Debug, Default)]
struct Backends {
    stable: Option<String>,
    canary: Option<String>,
}

/// The counting of one service.
struct Count {
    boot_id: String,
    ledger: Ledger,
    /// Every pod that was ever seen: its last samples are read when it has gone already.
    pods: BTreeMap<String, Pod>,
    interval_ms: Option<i64>,
    last: Option<LastLook>,
}

#[derive(Debug)]
struct Pod {
    version: String,
    began_ms: Option<i64>,
    /// The one of its targets that is counted: a pod that two jobs scrape would count twice.
    target: Option<String>,
}

#[derive(Debug)]
struct LastLook {
    at: Instant,
    /// How far behind Prometheus' clock the counting was.
    behind_ms: i64,
}

impl Default for Count {
    fn default() -> Self {
        Self {
            boot_id: uuid::Uuid::new_v4().to_string(),
            ledger: Ledger::default(),
            pods: BTreeMap::new(),
            interval_ms: None,
            last: None,
        }
    }
}

/// The answers to all questions, and what time it was where they come from.
struct Answers {
    at_ms: i64,
    series: Vec<(Question, Vec<Series>)>,
}

impl Count {
    /// Counts what happened since the last look; the first one sets the zero.
    async fn look(
        &mut self,
        prometheus: &Prometheus,
        workload: &Workload,
        state: &ServiceState,
        backends: &Backends,
    ) -> Result<()> {
        let answers = self.ask(prometheus, workload).await;
        let answers = answers.map_err(|error| unanswered(workload, error))?;
        if let Some(objective) = workload.objectives.latency_seconds {
            let named = answers.series.iter().filter(|(question, _)| question.only.is_none());
            let series: Vec<Series> = named.flat_map(|(_, series)| series.iter().cloned()).collect();
            if let (Some(histogram), Some(query)) = (source::without_bucket(&series), source::bounds_query(workload)) {
                let bounds = prometheus
                    .query(&query)
                    .await
                    .map_err(|error| unknown(workload, &error))?;
                return Err(PlatformError::Refused {
                    what: format!("the latency objective of {objective} s of `{}`", workload.name),
                    why: source::nearest_bounds(histogram, objective, &bounds.series),
                });
            }
        }
        self.take(&answers, workload, state, backends)
            .map_err(|why| PlatformError::NoTraffic {
                service: workload.name.clone(),
                why,
            })
    }

    async fn ask(&self, prometheus: &Prometheus, workload: &Workload) -> Result<Answers, PrometheusError> {
        let range = self.range();
        let questions = source::questions(workload);
        let queries = questions.iter().map(|question| async move {
            let query = format!("{}[{}ms]", question.selector, range.as_millis());
            prometheus.query(&query).await?.complete()
        });
        let (clock, series) = tokio::try_join!(prometheus.query("time()"), try_join_all(queries))?;
        let at_ms = clock.series.first().and_then(|series| series.samples.first());
        Ok(Answers {
            at_ms: at_ms.map_or(0, |sample| sample.at_ms),
            series: questions.into_iter().zip(series).collect(),
        })
    }

    /// How far back to ask: to before the end of what is counted, whatever the clocks say.
    fn range(&self) -> Duration {
        let interval = self.interval_ms.unwrap_or(USUAL_INTERVAL_MS);
        let since = match &self.last {
            Some(last) => last.behind_ms + i64::try_from(last.at.elapsed().as_millis()).unwrap_or(LONGEST_MS),
            None => 2 * interval,
        };
        let range = since.saturating_add(4 * interval).clamp(LATE_AT_LEAST_MS, LONGEST_MS);
        Duration::from_millis(range.unsigned_abs())
    }

    /// Takes the answers in. Errors: why they are not enough to count by.
    fn take(
        &mut self,
        answers: &Answers,
        workload: &Workload,
        state: &ServiceState,
        backends: &Backends,
    ) -> Result<(), String> {
        self.learn(state);
        let timed = workload.objectives.latency_seconds.is_some();
        let mut readings = Vec::new();
        let mut scrapes = Scrapes::new();
        for (number, (question, all)) in answers.series.iter().enumerate() {
            for series in all {
                let target = target_of(series);
                let times = scrapes.entry(target.clone()).or_default();
                times.extend(source::scraped(series));
                let measures = question.only.unwrap_or_else(|| source::measures(series, timed));
                if measures.is_empty() {
                    continue;
                }
                let Some((owner, began_ms)) = self.owner(workload, series, &target, backends) else {
                    continue;
                };
                readings.push(Reading {
                    id: format!("{number}{:?}", series.labels),
                    target,
                    owner,
                    began_ms,
                    measures,
                    samples: series
                        .samples
                        .iter()
                        .filter_map(|s| Some((s.at_ms, s.value?)))
                        .collect(),
                });
            }
        }
        for times in scrapes.values_mut() {
            times.sort_unstable();
            times.dedup();
        }
        self.interval_ms = interval(&scrapes).or(self.interval_ms);
        let late = (LATE * self.interval_ms.unwrap_or(USUAL_INTERVAL_MS)).max(LATE_AT_LEAST_MS);
        let fresh = |target: &str| {
            let last = scrapes.get(target).and_then(|times| times.last()).copied();
            last.filter(|last| answers.at_ms - last <= late)
        };
        let reached = match workload.sli {
            Sli::Traefik => scrapes.keys().filter_map(|target| fresh(target)).min(),
            _ => self.pods_reached(answers.at_ms - late, state, &scrapes, fresh)?,
        };
        let to = reached.ok_or_else(|| match scrapes.values().filter_map(|times| times.last()).max() {
            Some(last) => format!("Prometheus has not scraped it for {} s", (answers.at_ms - last) / 1000),
            None => nothing(workload),
        })?;
        self.ledger.take(&readings, &scrapes, to);
        self.last = Some(LastLook {
            at: Instant::now(),
            behind_ms: answers.at_ms - self.ledger.counted_to().unwrap_or(to),
        });
        Ok(())
    }

    fn learn(&mut self, state: &ServiceState) {
        for instance in &state.instances {
            let began_ms = instance.started_at.map(Timestamp::as_millisecond);
            let pod = self.pods.entry(instance.id.clone()).or_insert_with(|| Pod {
                version: instance.version.clone(),
                began_ms,
                target: None,
            });
            pod.began_ms = pod.began_ms.or(began_ms);
        }
    }

    /// Whose requests a series counts, and when its process began; absent when it is none of ours.
    fn owner(
        &mut self,
        workload: &Workload,
        series: &Series,
        target: &str,
        backends: &Backends,
    ) -> Option<(Owner, Option<i64>)> {
        if workload.sli == Sli::Traefik {
            let version = match source::backend(workload, series)? {
                Backend::Stable => backends.stable.clone(),
                Backend::Canary => backends.canary.clone(),
            };
            let owner = Owner {
                version: version?,
                instance: String::new(),
            };
            return Some((owner, None));
        }
        let name = source::pod(series);
        let pod = self.pods.get_mut(name)?;
        if pod.target.get_or_insert_with(|| target.to_owned()) != target {
            return None;
        }
        let owner = Owner {
            version: pod.version.clone(),
            instance: name.to_owned(),
        };
        Some((owner, pod.began_ms))
    }

    /// The instant that every ready pod was scraped up to. Errors: more than half of a version's pods are not scraped.
    /// Pods that began after `since` have time to be found.
    fn pods_reached(
        &self,
        since: i64,
        state: &ServiceState,
        scrapes: &Scrapes,
        fresh: impl Fn(&str) -> Option<i64>,
    ) -> Result<Option<i64>, String> {
        let mut reached = None;
        let mut missing: BTreeMap<&str, (usize, usize, &str)> = BTreeMap::new();
        for instance in state.ready() {
            let ends = format!("\u{1f}{}", instance.id);
            let last = scrapes
                .keys()
                .filter(|target| target.ends_with(&ends))
                .filter_map(|target| fresh(target))
                .max();
            reached = match (reached, last) {
                (Some(reached), Some(last)) => Some(std::cmp::min::<i64>(reached, last)),
                (reached, last) => reached.or(last),
            };
            let young = self
                .pods
                .get(&instance.id)
                .and_then(|pod| pod.began_ms)
                .is_some_and(|began| began > since);
            let (pods, lost, example) = missing.entry(&instance.version).or_default();
            *pods += 1;
            if last.is_none() && !young {
                *lost += 1;
                *example = &instance.id;
            }
        }
        for (version, (pods, lost, example)) in missing {
            if lost * 2 > pods {
                return Err(format!(
                    "Prometheus does not scrape {lost} of {pods} pods of version {version}, such as `{example}`"
                ));
            }
        }
        Ok(reached)
    }

    fn traffic(&self, state: &ServiceState, at: Timestamp) -> Traffic {
        let mut versions: BTreeMap<&str, Counts> = BTreeMap::new();
        let mut instances = Vec::new();
        for (owner, counts) in self.ledger.counts() {
            add(versions.entry(&owner.version).or_default(), &counts);
            if !owner.instance.is_empty() {
                instances.push(InstanceTraffic {
                    instance: owner.instance.clone(),
                    version: owner.version.clone(),
                    counts,
                });
            }
        }
        Traffic {
            at,
            boot_id: self.boot_id.clone(),
            stable_version: state.stable_version.clone(),
            versions: versions
                .into_iter()
                .map(|(version, counts)| VersionTraffic {
                    version: version.to_owned(),
                    counts,
                })
                .collect(),
            instances,
            held_rejections: 0,
            unrouted_errors: 0,
            probe_held_rejections: 0,
            probe_unrouted_errors: 0,
        }
    }
}

fn nothing(workload: &Workload) -> String {
    match workload.sli {
        Sli::Traefik => "Prometheus scrapes no Traefik".to_owned(),
        _ => format!(
            "Prometheus scrapes no pod of it: no series has the labels namespace=\"{}\" and pod=\"{}-…\"",
            workload.namespace, workload.deployment
        ),
    }
}

/// What was scraped for a series; ends with its pod.
fn target_of(series: &Series) -> String {
    format!(
        "{}\u{1f}{}\u{1f}{}",
        series.label("job"),
        series.label("instance"),
        source::pod(series)
    )
}

/// The usual time between two scrapes of one target.
fn interval(scrapes: &Scrapes) -> Option<i64> {
    let mut apart: Vec<i64> = scrapes
        .values()
        .flat_map(|times| times.windows(2).map(|pair| pair[1] - pair[0]))
        .collect();
    apart.sort_unstable();
    apart.get(apart.len() / 2).copied()
}

fn add(sum: &mut Counts, counts: &Counts) {
    sum.requests += counts.requests;
    sum.errors += counts.errors;
    sum.over_objective += counts.over_objective;
    sum.in_flight += counts.in_flight;
}

#[cfg(test)]
mod tests;
