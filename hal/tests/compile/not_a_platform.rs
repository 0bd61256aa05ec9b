//! A type that is no platform.
use hal::Platform;

struct Toaster;

fn spin<P: Platform>() {
    P::relax();
}

fn main() {
    spin::<Toaster>();
}
