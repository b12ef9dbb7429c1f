//! Sets the run path of this crate's examples and tests, so that they start
//! with a libcrust that is not installed on the system. Programs that depend on
//! this crate choose for themselves.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DEP_CRUST_LIB_DIR");
    // An archive cannot be exchanged after linking, so a test of that is left out.
    println!("cargo::rerun-if-env-changed=DEP_CRUST_STATIC");
    println!("cargo::rustc-check-cfg=cfg(crust_static)");
    if env::var("DEP_CRUST_STATIC").is_ok_and(|value| value == "1") {
        println!("cargo::rustc-cfg=crust_static");
    }
    let unix = env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "unix");
    if let (true, Ok(dir)) = (unix, env::var("DEP_CRUST_LIB_DIR")) {
        for argument in ["-Xlinker", "-rpath", "-Xlinker", &dir] {
            println!("cargo::rustc-link-arg={argument}");
        }
    }
}
