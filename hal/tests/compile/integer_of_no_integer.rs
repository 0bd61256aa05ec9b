//! An integer operation on a variable that is none.
hal::percpu! {
    static PAIR: (u32, u32) = (0, 0);
}

fn main() {
    PAIR.inc();
}
