//! Reads scenario files.
//!
//! A field that is not known, a value that cannot be, and a name that is there twice are errors with file and line.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

use super::scenario::{Scenario, Twin};
use crate::workspace;

/// What the files say.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) scenarios: Vec<Scenario>,
    pub(super) twins: Vec<Twin>,
}

/// Everything in the workspace, by the names of files and then as it stands there.
pub(super) fn load() -> Result<Files> {
    let folder = workspace::root().join("xtask/torture");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .with_context(|| format!("reading {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    let mut all = Files::default();
    let mut places = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let found = parse(&file, &text)?;
        let names = found.scenarios.iter().map(|scenario| &scenario.name);
        for name in names.chain(found.twins.iter().map(|twin| &twin.name)) {
            if let Some(first) = places.insert(name.clone(), file.clone()) {
                bail!("`{name}` is in {} and in {}", workspace::shown(&first), workspace::shown(&file));
            }
        }
        all.scenarios.extend(found.scenarios);
        all.twins.extend(found.twins);
    }
    Ok(all)
}

/// The form of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    scenario: Vec<toml::Spanned<Scenario>>,
    #[serde(default)]
    twin: Vec<toml::Spanned<Twin>>,
}

/// What is in `text`; `file` is for messages.
fn parse(file: &Path, text: &str) -> Result<Files> {
    let place = |at: Option<usize>| {
        let line = at.map_or(String::new(), |at| format!(":{}", text[..at].matches('\n').count() + 1));
        format!("{}{line}", workspace::shown(file))
    };
    let document: Document = toml::from_str(text).map_err(|error| {
        let at = error.span().map(|span| span.start);
        anyhow!("{}: {}{}", place(at), error.message(), hint(error.message()))
    })?;
    let mut found = Files::default();
    for scenario in document.scenario {
        scenario.get_ref().check().with_context(|| place(Some(scenario.span().start)))?;
        found.scenarios.push(scenario.into_inner());
    }
    for twin in document.twin {
        for is_broken in [true, false] {
            twin.get_ref().scenario(is_broken).check().with_context(|| place(Some(twin.span().start)))?;
        }
        found.twins.push(twin.into_inner());
    }
    Ok(found)
}

/// For "unknown field `x`, expected one of `a`, `b`": which of those it may have been.
fn hint(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let [wrong, known @ ..] = quoted.as_slice() else { return String::new() };
    let score = |name: &&&str| strsim::damerau_levenshtein(wrong, name);
    match known.iter().min_by_key(score) {
        Some(near) if message.starts_with("unknown") && score(&near) <= 1 + near.len() / 3 => {
            format!("; did you mean `{near}`?")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::scenario::{Clock, Fault, Matrix, Model, Which};
    use super::*;
    use crate::build::Chaos;

    const GOOD: &str = "\n[[scenario]]\nname = \"a-1\"\ntests = [\"rcu::\"]\ncpus = 4\nseconds = 20\nleast = 3\nmatrix = \"quick\"\n";

    fn error(text: &str) -> String {
        format!("{:#}", parse(Path::new("some.toml"), text).unwrap_err())
    }

    #[test]
    fn a_file_is_read() {
        let text = format!(
            "{GOOD}faults = [\"nmi\", \"vcpu\"]\nmachine = \"pc\"\n{}time = \"counted 3\"\nbuild = {{ hz = 100, chaos = true }}\n",
            GOOD.replace("a-1", "b")
        );
        let both = parse(Path::new("some.toml"), &text).unwrap().scenarios;
        assert_eq!(both[0].faults, [Fault::Nmi, Fault::Vcpu]);
        assert_eq!((both[0].machine, both[0].cores(), both[0].memory), (Model::Pc, 4, 256));
        assert_eq!((both[1].time, both[1].cores()), (Clock::Counted(3), 1));
        assert_eq!(both[1].build.variant().chaos, Chaos::Seeded);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let said = error(&format!("{GOOD}secnods = 3\n"));
        assert!(said.starts_with("some.toml:9: unknown field `secnods`"), "{said}");
        assert!(said.ends_with("did you mean `seconds`?"), "{said}");
        let said = error(&format!("{GOOD}faults = [\"nmis\"]\n"));
        assert!(said.contains("some.toml:9") && said.ends_with("did you mean `nmi`?"), "{said}");
        let said = error(&format!("{GOOD}time = \"counted 30\"\n"));
        assert!(said.contains("a shift of 0 to 10"), "{said}");
        let said = error(&GOOD.replace("cpus = 4", "cpus = 0"));
        assert!(said.contains("some.toml:2") && said.contains("at least 1 CPU"), "{said}");
        let said = error(&GOOD.replace("cpus = 4", "cpus = \"four\""));
        assert!(said.starts_with("some.toml:5: invalid type"), "{said}");
        let said = error(&format!("{GOOD}time = \"counted 3\"\nfaults = [\"nmi\"]\n"));
        assert!(said.contains("the same every time"), "{said}");
    }

    #[test]
    fn what_is_not_near_gets_no_hint() {
        assert_eq!(hint("unknown field `zzzzzz`, expected one of `name`, `cpus`"), "");
        assert_eq!(hint("invalid type: string \"four\", expected u32"), "");
    }

    #[test]
    fn those_of_the_workspace_are_good_and_many() {
        let Files { scenarios: all, twins } = load().unwrap();
        assert!(twins.len() >= 9);
        let cpus: BTreeSet<u32> = all.iter().map(|scenario| scenario.cpus).collect();
        assert!(all.len() >= 20, "{}", all.len());
        for wanted in [1, 2, 4, 16, 64] {
            assert!(cpus.contains(&wanted), "none with {wanted} CPUs");
        }
        assert!(all.iter().any(|scenario| scenario.qemu == Which::Backports && scenario.cpus == 288));
        let quick: u64 = all
            .iter()
            .filter(|scenario| scenario.matrix == Matrix::Quick)
            .map(|scenario| scenario.seconds)
            .sum();
        assert!((60..=240).contains(&quick), "the quick ones take {quick} s");
    }
}
