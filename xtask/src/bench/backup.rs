//! Backup and restore of one GiB beside restic: CPU seconds and wall seconds of the whole process, on the same files,
//! turn by turn. Quote CPU: wall time moves with whatever else the machine does.

use std::{
    fs,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};

use super::{machine, page::Section, program};
use crate::step;

const MIB: usize = 1 << 20;
const SIZE_MIB: usize = 1024;
const ROUNDS: usize = 3;
const PASSWORD: &str = "a password for a measurement";

/// What one command cost.
#[derive(Debug, Clone, Copy)]
struct Cost {
    cpu_seconds: f64,
    wall_seconds: f64,
}

/// A program under measurement.
trait Tool {
    /// As the table names it.
    fn name(&self) -> &'static str;
    /// A command that backs `data` up into the fresh repository in `scratch`.
    fn backup(&self, scratch: &Path, data: &Path) -> Result<Command>;
    /// A command that restores what `backup` wrote into `scratch/restored`.
    fn restore(&self, scratch: &Path, data: &Path) -> Command;
    /// The size of the repository in `scratch`, in bytes.
    fn repository(&self, scratch: &Path) -> PathBuf;
}

/// Measures both kinds of data with both programs.
pub fn measure() -> Result<Section> {
    program::build(&["opsctl"])?;
    let restic = peers::PEERS
        .iter()
        .find(|peer| peer.name == "restic")
        .and_then(peers::Peer::locate);
    let restic = restic.context("restic is not installed; `cargo xtask test --install` does it")?;
    let restic_version = step::output(Command::new(&restic).arg("version").current_dir("/"))?;
    let tools: [Box<dyn Tool>; 2] = [
        Box::new(Opsctl {
            program: program::release("opsctl")?,
        }),
        Box::new(Restic { program: restic }),
    ];

    let scratch = tempfile::tempdir().context("could not make a scratch folder")?;
    let mut rows = Vec::new();
    for (kind, fill) in [("random", fill_random as Fill), ("COPY text", fill_copy_text)] {
        let data = scratch.path().join("data");
        fs::create_dir_all(&data)?;
        fill(&data.join("payload"))?;
        let mut costs: Vec<(Vec<Cost>, Vec<Cost>, u64)> = vec![(Vec::new(), Vec::new(), 0); tools.len()];
        for round in 0..ROUNDS {
            for (tool, (backups, restores, size)) in tools.iter().zip(&mut costs) {
                let place = scratch.path().join(format!("{}-{round}", tool.name()));
                fs::create_dir_all(&place)?;
                backups.push(cost(&mut tool.backup(&place, &data)?)?);
                *size = tree_size(&tool.repository(&place))?;
                restores.push(cost(&mut tool.restore(&place, &data))?);
                println!(
                    "{kind}, round {}, {}: backup {:?}, restore {:?}",
                    round + 1,
                    tool.name(),
                    backups[round],
                    restores[round]
                );
                fs::remove_dir_all(&place)?;
            }
        }
        for (what, pick) in [("backup", 0), ("restore", 1)] {
            let [ours, theirs] = [0, 1].map(|tool| median(if pick == 0 { &costs[tool].0 } else { &costs[tool].1 }));
            rows.push(vec![
                format!("{what}, {kind}"),
                format!("{:.2} / {:.2}", ours.cpu_seconds, theirs.cpu_seconds),
                format!("{:.2} / {:.2}", ours.wall_seconds, theirs.wall_seconds),
                if pick == 0 {
                    format!("{} / {}", costs[0].2 / MIB as u64, costs[1].2 / MIB as u64)
                } else {
                    String::new()
                },
            ]);
        }
        fs::remove_dir_all(&data)?;
    }
    Ok(Section {
        area: "backup",
        title: "Backup and restore",
        method: format!(
            "opsctl {} beside {}, {SIZE_MIB} MiB in one file, a fresh repository in a local folder each time, {ROUNDS} rounds in turn, medians, whole processes. \
             Each cell: opsctl / restic.\n\n{}",
            env!("CARGO_PKG_VERSION"),
            restic_version.trim(),
            machine::describe(),
        ),
        columns: vec!["what", "CPU s/GiB", "wall s/GiB", "repository MiB"],
        rows,
    })
}

struct Opsctl {
    program: PathBuf,
}

impl Tool for Opsctl {
    fn name(&self) -> &'static str {
        "opsctl"
    }

    fn backup(&self, scratch: &Path, data: &Path) -> Result<Command> {
        fs::write(scratch.join("password"), PASSWORD)?;
        fs::write(
            scratch.join("opsctl.toml"),
            format!(
                "version = 1\ndefault_env = \"local\"\n[env.local]\nplatform = \"local\"\nrepository = \"here\"\n\
                 [repository.here]\nstore = \"file:repo\"\npassword = {{ file = \"password\" }}\n\
                 [datastore.payload]\nkind = \"files\"\npath = {:?}\n",
                data.display().to_string()
            ),
        )?;
        private(&scratch.join("password"))?;
        private(&scratch.join("opsctl.toml"))?;
        let mut command = Command::new(&self.program);
        command.args(["backup", "payload", "--json"]).current_dir(scratch);
        Ok(command)
    }

    fn restore(&self, scratch: &Path, _data: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["restore", "payload", "--json", "--into"])
            .arg(scratch.join("restored"))
            .current_dir(scratch);
        command
    }

    fn repository(&self, scratch: &Path) -> PathBuf {
        scratch.join("repo")
    }
}

struct Restic {
    program: PathBuf,
}

impl Restic {
    fn command(&self, scratch: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .current_dir(scratch)
            .env("RESTIC_REPOSITORY", scratch.join("repo"))
            .env("RESTIC_PASSWORD", PASSWORD);
        command.args(["--no-cache", "--quiet"]);
        command
    }
}

impl Tool for Restic {
    fn name(&self) -> &'static str {
        "restic"
    }

    fn backup(&self, scratch: &Path, data: &Path) -> Result<Command> {
        step::run(
            self.command(scratch)
                .args(["init", "--repository-version", "2"])
                .stdout(Stdio::null()),
        )?;
        let mut command = self.command(scratch);
        command.arg("backup").arg(data);
        Ok(command)
    }

    fn restore(&self, scratch: &Path, _data: &Path) -> Command {
        let mut command = self.command(scratch);
        command
            .args(["restore", "latest", "--target"])
            .arg(scratch.join("restored"));
        command
    }

    fn repository(&self, scratch: &Path) -> PathBuf {
        scratch.join("repo")
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a measurement of a whole process reads the real clock"
)]
fn cost(command: &mut Command) -> Result<Cost> {
    let before = children_cpu()?;
    let started = std::time::Instant::now();
    step::run(command.stdout(Stdio::null()).stdin(Stdio::null()))?;
    Ok(Cost {
        cpu_seconds: children_cpu()? - before,
        wall_seconds: started.elapsed().as_secs_f64(),
    })
}

/// CPU seconds of all children that have ended.
fn children_cpu() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("the system does not count its children")?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

fn median(costs: &[Cost]) -> Cost {
    let middle = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Cost {
        cpu_seconds: middle(costs.iter().map(|cost| cost.cpu_seconds).collect()),
        wall_seconds: middle(costs.iter().map(|cost| cost.wall_seconds).collect()),
    }
}

type Fill = fn(&Path) -> Result<()>;

fn fill_random(file: &Path) -> Result<()> {
    let mut out = BufWriter::with_capacity(MIB, fs::File::create(file)?);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = vec![0_u8; MIB];
    for _ in 0..SIZE_MIB {
        for word in block.chunks_exact_mut(8) {
            word.copy_from_slice(&splitmix(&mut state).to_le_bytes());
        }
        out.write_all(&block)?;
    }
    Ok(out.flush()?)
}

/// Rows as PostgreSQL's COPY writes them: tab-separated numbers, times, words and amounts.
fn fill_copy_text(file: &Path) -> Result<()> {
    const WORDS: &[&str] = &[
        "pending",
        "paid",
        "delivered",
        "cancelled",
        "Berlin",
        "Lisbon",
        "Oslo",
        "book",
        "lamp",
        "chair",
        "\\N",
    ];
    let mut out = BufWriter::with_capacity(MIB, fs::File::create(file)?);
    let mut state = 7_u64;
    let mut written = 0;
    let mut id = 0_u64;
    while written < SIZE_MIB * MIB {
        let noise = splitmix(&mut state);
        let word = |shift: u32| WORDS[(noise >> shift) as usize % WORDS.len()];
        let row = format!(
            "{id}\t{:016x}\t2026-{:02}-{:02} {:02}:{:02}:{:02}.{:06}+00\t{}\t{}\t{}.{:02}\t{} {} {}\n",
            splitmix(&mut state),
            noise % 12 + 1,
            noise / 16 % 28 + 1,
            noise / 512 % 24,
            noise / 8192 % 60,
            noise / 65536 % 60,
            noise % 1_000_000,
            word(3),
            word(11),
            noise % 5000,
            noise / 7 % 100,
            word(19),
            word(27),
            word(35),
        );
        out.write_all(row.as_bytes())?;
        written += row.len();
        id += 1;
    }
    Ok(out.flush()?)
}

/// The generator of Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn private(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(file, fs::Permissions::from_mode(0o600))?)
}

fn tree_size(folder: &Path) -> Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        size += if entry.file_type()?.is_dir() {
            tree_size(&entry.path())?
        } else {
            entry.metadata()?.len()
        };
    }
    Ok(size)
}
