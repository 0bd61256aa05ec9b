//! Of a type that may.
pub(crate) fn main() {
    let _ = hal::percpu::DynamicPerCpu::new(|_| std::sync::Arc::new(1));
}
