//! Links the kernel by its own script when it is built for bare metal.

fn main() {
    println!("cargo::rerun-if-changed=link.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
        println!("cargo::rustc-link-arg-bins=-T{folder}/link.ld");
        println!("cargo::rustc-link-arg-bins=--no-pie");
        println!("cargo::rustc-link-arg-bins=-zmax-page-size=4096");
        if std::env::var("CARGO_CFG_QUIESCE_SANITIZE").as_deref() == Ok("address") {
            for name in ["memcpy", "memmove", "memset"] {
                println!("cargo::rustc-link-arg-bins=--wrap={name}");
            }
            // The compiler's names for "report and go on" are those for "report and stop" here.
            for size in ["1", "2", "4", "8", "16", "N"] {
                for access in [format!("load{size}"), format!("store{size}")] {
                    println!("cargo::rustc-link-arg-bins=--defsym=__asan_{access}=__asan_{access}_noabort");
                }
            }
        }
    }
}
