//! What was measured, where and with what, as files that the next command reads.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::lines::{Figure, Output};
use crate::{qemu, workspace};

/// Where results go.
pub(super) fn folder() -> PathBuf {
    workspace::target().join("bench")
}

/// The machine that measured.
pub(super) fn machine() -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(':')).map_or("unknown", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let emulator = qemu::installed().map_or_else(|| "none".to_owned(), |(_, version)| version);
    json!({ "processor": model, "cores": cores, "qemu": emulator })
}

/// The same in words.
pub(super) fn machine_in_words() -> String {
    let machine = machine();
    let text = |key: &str| machine[key].as_str().unwrap_or("").to_owned();
    format!("{}, {} cores, QEMU {}", text("processor"), machine["cores"], text("qemu"))
}

pub(super) fn figure(figure: &Figure) -> Value {
    let mut value = json!({
        "name": figure.name, "unit": figure.unit, "median": figure.median,
        "min": figure.min, "p99": figure.p99, "max": figure.max, "samples": figure.samples,
    });
    if let Some(fairness) = figure.fairness {
        value["fairness"] = fairness.into();
    }
    if !figure.histogram.is_empty() {
        value["histogram"] = json!(figure.histogram);
    }
    value
}

/// Everything that a boot has written.
pub(super) fn output(output: &Output) -> Value {
    let figures: Vec<Value> = output.figures.iter().map(figure).collect();
    json!({ "machine": machine(), "info": output.info, "figures": figures })
}

/// Writes `value` under the results' folder and returns where.
pub(super) fn write(name: &str, value: &Value) -> Result<PathBuf> {
    write_text(name, &format!("{value:#}\n"))
}

pub(super) fn write_text(name: &str, text: &str) -> Result<PathBuf> {
    let path = folder().join(name);
    fs::create_dir_all(folder()).with_context(|| format!("making {}", folder().display()))?;
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// A JSON file, or `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Value>> {
    match fs::read_to_string(path) {
        Ok(text) => {
            Ok(Some(serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}
