//! Loads, as the console sees them.

use sync::TaskCx;

use super::ThisMachine;
use crate::console::torture::{Request, Told, Torture};
use crate::torture::{self, Said};

impl Torture for ThisMachine {
    fn loads(&self) -> Told {
        torture::told()
    }

    fn torture(&self, request: &Request, task: &mut TaskCx) -> u64 {
        torture::run(request, request.seconds * 1_000, Said::Aloud, task).errors
    }
}
