//! A binding, and what it says about its thread, sent to another thread.
fn main() {
    let binding = hal::hosted::bind().unwrap();
    std::thread::spawn(move || binding.cpu()).join().unwrap();
}
