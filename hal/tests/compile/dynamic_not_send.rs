//! A dynamic variable of a type that may not leave the CPU that makes it.
fn main() {
    let _ = hal::percpu::DynamicPerCpu::new(|_| std::rc::Rc::new(1));
}
