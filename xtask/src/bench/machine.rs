//! What a figure was measured on. A figure without its machine says nothing.

use std::fs;

use crate::step;

/// One line: processor, cores, memory, kernel, compiler.
pub fn describe() -> String {
    let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned());
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = field("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()))
        .map_or(0, |kib| kib / 1024 / 1024);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let rustc = step::output(std::process::Command::new("rustc").arg("--version").current_dir("/")).unwrap_or_default();
    format!(
        "{cpu}, {cores} cores, {memory} GiB, Linux {}, {}",
        kernel.trim(),
        rustc.trim()
    )
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
