//! Running promtool over generated files: a few processes at a time, each over many files, in a private folder that
//! goes away with everything in it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Stdio;

use futures::StreamExt;
use tokio::process::Command;

use super::answer::{self, Answer};
use super::file::TestFile;
use super::generate::{self, Job};
use super::slice::{RuleSet, Slice};
use super::{Settings, TestError};

/// What is read of one process's output.
const LARGEST_OUTPUT: u64 = 64 << 20;
/// How many processes there are for each that may run at one time, so that none is left with the rest.
const SHARES: usize = 2;
/// A process costs as much as this before it does anything; see [`Job::weight`].
const START_WEIGHT: u64 = 300;

/// What one job came to: promtool's answer, or why there is none.
pub(super) type Outcome = Result<Answer, String>;

/// Runs the jobs; one outcome each, in their order.
pub(super) async fn run(
    jobs: &[Job],
    files: &[(TestFile, RuleSet)],
    settings: &Settings,
) -> Result<Vec<Outcome>, TestError> {
    let folder = tempfile::Builder::new()
        .prefix("opsctl-rules-")
        .tempdir()
        .map_err(TestError::Scratch)?;
    write(folder.path(), jobs, files).map_err(TestError::Scratch)?;
    let batches = batches(jobs, settings.processes);
    let runs = batches
        .iter()
        .enumerate()
        .map(|(number, batch)| process(folder.path(), number, batch, settings));
    let answers: Vec<_> = futures::stream::iter(runs)
        .buffer_unordered(settings.processes)
        .collect()
        .await;
    let mut outcomes: Vec<Outcome> = jobs.iter().map(|_| Err("promtool did not run it".to_owned())).collect();
    for answer in answers {
        for (job, outcome) in answer? {
            outcomes[job] = outcome;
        }
    }
    Ok(outcomes)
}

/// Writes the rules of every slice once, and a file for every job.
fn write(folder: &Path, jobs: &[Job], files: &[(TestFile, RuleSet)]) -> std::io::Result<()> {
    let mut slices: BTreeMap<(usize, &Slice), Vec<String>> = BTreeMap::new();
    for (number, job) in jobs.iter().enumerate() {
        let (file, rules) = &files[job.test.0];
        let count = slices.len();
        let paths = match slices.entry((job.test.0, &job.slice)) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let paths = if job.slice == Slice::Whole {
                    rules
                        .paths
                        .iter()
                        .map(|path| absolute(path))
                        .collect::<Result<_, _>>()?
                } else {
                    let mut paths = Vec::new();
                    for (part, text) in rules.texts(&job.slice).into_iter().enumerate() {
                        let path = format!("rules-{count}-{part}.yaml");
                        fs::write(folder.join(&path), text)?;
                        paths.push(path);
                    }
                    paths
                };
                entry.insert(paths)
            }
        };
        // Promtool takes groups in any order where a file does not say one; here it is theirs in the files.
        let groups = rules.groups();
        let order: Vec<&str> = if file.group_eval_order.is_empty() {
            groups
        } else {
            file.group_eval_order.iter().map(String::as_str).collect()
        };
        let text = generate::text(job, file, &file.tests[job.test.1], paths, &order);
        fs::write(folder.join(name(number)), text)?;
    }
    Ok(())
}

/// Patterns in the path of a rule file are meant as they stand.
fn absolute(path: &Path) -> std::io::Result<String> {
    let path = std::path::absolute(path)?.to_string_lossy().into_owned();
    Ok(path
        .chars()
        .flat_map(|c| {
            ['*', '?', '[', '\\']
                .contains(&c)
                .then_some('\\')
                .into_iter()
                .chain([c])
        })
        .collect())
}

fn name(job: usize) -> String {
    format!("test-{job}.yaml")
}

/// The jobs by process: the heaviest first, each to the process with the least to do.
fn batches(jobs: &[Job], processes: usize) -> Vec<Vec<usize>> {
    let total: u64 = jobs.iter().map(|job| job.weight).sum();
    let worth = (total / START_WEIGHT + 1) as usize;
    let count = (processes * SHARES).min(worth).min(jobs.len());
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|job| std::cmp::Reverse(jobs[*job].weight));
    let mut batches: Vec<(u64, Vec<usize>)> = vec![(0, Vec::new()); count];
    for job in order {
        if let Some(batch) = batches.iter_mut().min_by_key(|batch| batch.0) {
            batch.0 += jobs[job].weight;
            batch.1.push(job);
        }
    }
    batches.into_iter().map(|(_, jobs)| jobs).collect()
}

async fn process(
    folder: &Path,
    number: usize,
    batch: &[usize],
    settings: &Settings,
) -> Result<Vec<(usize, Outcome)>, TestError> {
    let path = folder.join(format!("output-{number}"));
    let output = File::create(&path).map_err(TestError::Scratch)?;
    // Both go into one file, so that what is said of a file stands where its verdict stands.
    let both = output.try_clone().map_err(TestError::Scratch)?;
    // It runs in another folder than the one that a path may be relative to; a bare name is looked up on PATH.
    let program = match settings.promtool.components().count() {
        0 | 1 => settings.promtool.clone(),
        _ => std::path::absolute(&settings.promtool).map_err(TestError::Scratch)?,
    };
    let mut child = Command::new(program)
        .args(["test", "rules"])
        .args(
            settings
                .features
                .iter()
                .map(|feature| format!("--enable-feature={feature}")),
        )
        .args(batch.iter().map(|job| name(*job)))
        .current_dir(folder)
        // Its databases are gone with the folder, also when it is killed.
        .env("TMPDIR", folder)
        // It makes much garbage of a small heap; collecting it half as often is a tenth of its time.
        .env("GOGC", "200")
        .env_remove("GOMAXPROCS")
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(both)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| TestError::Promtool {
            path: settings.promtool.clone(),
            source,
        })?;
    let ended = tokio::time::timeout(settings.limit, child.wait()).await;
    let why = match ended {
        Err(_) => {
            child.kill().await.ok();
            format!("promtool took longer than {} s", settings.limit.as_secs())
        }
        Ok(Err(error)) => format!("promtool was lost: {error}"),
        Ok(Ok(status)) => format!("promtool ended ({status}) without an answer"),
    };
    let mut text = Vec::new();
    let file = File::open(&path).map_err(TestError::Scratch)?;
    file.take(LARGEST_OUTPUT)
        .read_to_end(&mut text)
        .map_err(TestError::Scratch)?;
    let text = String::from_utf8_lossy(&text);
    let answers = answer::read(&text);
    // The last one may be cut off where the process did not come to its end.
    let whole = answers.len() == batch.len();
    let last = text.lines().last().unwrap_or_default();
    let mut answers = answers.into_iter();
    Ok(batch
        .iter()
        .map(|job| {
            let answer = if whole { answers.next() } else { None };
            (*job, answer.ok_or_else(|| format!("{why}; it last said: {last}")))
        })
        .collect())
}
