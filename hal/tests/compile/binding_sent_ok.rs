//! The CPU's number, which says nothing about the thread that has it.
pub(crate) fn main() {
    let binding = hal::hosted::bind().unwrap();
    let cpu = binding.cpu();
    std::thread::spawn(move || cpu.index()).join().unwrap();
}
