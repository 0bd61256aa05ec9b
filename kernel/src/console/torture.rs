//! What the console asks of torture: a trait beside [`Machine`](super::machine::Machine), for the same reason.

use alloc::string::String;
use alloc::vec::Vec;

use sync::TaskCx;

/// What is to be run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Request {
    /// The loads that run at the same time.
    pub scenarios: Vec<String>,
    /// For how long.
    pub seconds: u64,
    /// The twin that one of them is replaced by.
    pub broken: Option<String>,
    /// What strikes meanwhile.
    pub faults: Vec<String>,
}

/// What there is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Told {
    /// Names of loads, and what they do.
    pub scenarios: Vec<(&'static str, &'static str)>,
    /// Names of twins, of which load, and what is broken.
    pub twins: Vec<(&'static str, &'static str, &'static str)>,
    /// Names of faults, and what they do.
    pub faults: Vec<(&'static str, &'static str)>,
}

/// The machine's loads, as commands see them. A machine without any tells of none.
pub trait Torture {
    /// What there is.
    fn loads(&self) -> Told {
        Told::default()
    }

    /// Runs what is asked for, printing its own lines, and returns how much went wrong.
    fn torture(&self, request: &Request, task: &mut TaskCx) -> u64 {
        let _ = (request, task);
        0
    }
}
