//! The platform of this build.
use hal::{Native, Platform};

fn spin<P: Platform>() {
    P::relax();
}

pub(crate) fn main() {
    spin::<Native>();
}
