//! Finds libcrust and tells Cargo how to link it. In this order:
//!
//! 1. `CRUST_LIB_DIR`, the directory that holds the library; with
//!    `CRUST_STATIC=1` the archive `libcrust.a` in it is linked instead;
//! 2. pkg-config's `crust`, unless `CRUST_NO_PKG_CONFIG` is set;
//! 3. `build/lib` of the repository that this crate lies in.
//!
//! Dependants read `DEP_CRUST_LIB_DIR`, the directory of the library, to set a
//! run path, and `DEP_CRUST_STATIC`, which is 1 when the archive was asked for.
//! `DOCS_RS` skips linking: documentation needs no library.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;

const HOW_TO: &str = "\
To get it, do one of these:
  - in the root of the libcrust repository run `./build.sh lib`, which makes build/lib;
  - install libcrust so that `pkg-config --libs crust` answers (PKG_CONFIG_PATH names further places);
  - set CRUST_LIB_DIR to the directory that holds the library
    (and CRUST_STATIC=1 to link libcrust.a from there).";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for name in [
        "CRUST_LIB_DIR",
        "CRUST_STATIC",
        "CRUST_NO_PKG_CONFIG",
        "DOCS_RS",
    ] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    if env::var_os("DOCS_RS").is_some() {
        return;
    }
    if let Err(tried) = find() {
        eprintln!("crust-sys cannot find libcrust. Tried:\n{tried}\n{HOW_TO}");
        process::exit(1);
    }
}

/// Links the first libcrust that it finds, or says where it looked.
fn find() -> Result<(), String> {
    let statically = env::var("CRUST_STATIC").is_ok_and(|value| value != "0" && !value.is_empty());
    println!("cargo::metadata=STATIC={}", u8::from(statically));
    if let Some(dir) = env::var_os("CRUST_LIB_DIR") {
        // Whoever names a directory wants that one and no other.
        return link_from(Path::new(&dir), statically)
            .map_err(|why| format!("  - CRUST_LIB_DIR: {why}"));
    }
    let mut tried = String::new();
    if env::var_os("CRUST_NO_PKG_CONFIG").is_some() {
        tried += "  - pkg-config: switched off by CRUST_NO_PKG_CONFIG\n";
    } else {
        match pkg_config::Config::new()
            .atleast_version(env!("CARGO_PKG_VERSION"))
            .statik(statically)
            .probe("crust")
        {
            Ok(library) => {
                if let Some(dir) = library.link_paths.first() {
                    announce(dir);
                }
                return Ok(());
            }
            Err(why) => {
                tried += "  - pkg-config: ";
                tried += first_line(&why.to_string());
                tried += "\n";
            }
        }
    }
    // The crate lies in bindings/rust/crust-sys.
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(repository) = crate_dir.ancestors().nth(3) else {
        return Err(tried + "  - this crate does not lie in the libcrust repository");
    };
    link_from(&repository.join("build/lib"), statically)
        .map_err(|why| tried + "  - in this repository: " + &why)
}

/// Links the library in `dir`, or says why it cannot be.
fn link_from(dir: &Path, statically: bool) -> Result<(), String> {
    // The import library, where there is one, is what the linker reads.
    let files: &[&str] = match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        _ if statically => &["libcrust.a"],
        Ok("windows") => &["libcrust.dll.a", "crust.lib", "crust.dll"],
        Ok("macos" | "ios") => &["libcrust.dylib"],
        _ => &["libcrust.so"],
    };
    for file in files {
        // A file that comes, goes or changes later makes this script run again.
        println!("cargo::rerun-if-changed={}", dir.join(file).display());
    }
    if !files.iter().any(|file| dir.join(file).is_file()) {
        let wanted = dir.join(files[0]);
        return Err(format!("there is no {}", wanted.display()));
    }
    let dir = fs::canonicalize(dir).map_err(|why| format!("{}: {why}", dir.display()))?;
    if statically {
        println!("cargo::rustc-link-search=native={}", dir.display());
        println!("cargo::rustc-link-lib=static=crust");
        return link_private(&dir);
    }
    let near = bring_near(&dir).map_err(|why| format!("{}: {why}", dir.display()))?;
    println!("cargo::rustc-link-search=native={}", near.display());
    println!("cargo::rustc-link-search=native={}", dir.display());
    println!("cargo::rustc-link-lib=dylib=crust");
    announce(&dir);
    Ok(())
}

/// Makes links to the library's files in OUT_DIR. Cargo puts search directories
/// below its target directory, and no others, on the loader's path of what it
/// starts: so `cargo run` and `cargo test`, documentation tests included, find
/// the library without any environment variable.
fn bring_near(dir: &Path) -> std::io::Result<PathBuf> {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo sets OUT_DIR"));
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        let wanted = (text.starts_with("libcrust.") && !text.ends_with(".a"))
            || text.starts_with("crust.dll")
            || text.starts_with("crust.lib");
        if !wanted {
            continue;
        }
        let link = out.join(&name);
        match fs::remove_file(&link) {
            Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(why),
            _ => {}
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(entry.path(), &link)?;
        #[cfg(not(unix))]
        fs::copy(entry.path(), &link).map(drop)?;
    }
    Ok(out)
}

/// Links what libcrust.a needs beside it: what the crust.pc next to it says, or
/// what every build needs when there is none.
fn link_private(dir: &Path) -> Result<(), String> {
    let described = fs::read_to_string(dir.join("pkgconfig/crust.pc")).unwrap_or_default();
    let field = |name| described.lines().find_map(|line| line.strip_prefix(name));
    for package in field("Requires.private:").unwrap_or("").split_whitespace() {
        pkg_config::probe_library(package)
            .map_err(|why| format!("{package}: {}", first_line(&why.to_string())))?;
    }
    for word in field("Libs.private:")
        .unwrap_or("-lpthread")
        .split_whitespace()
    {
        if let Some(library) = word.strip_prefix("-l") {
            println!("cargo::rustc-link-lib=dylib={library}");
        }
    }
    Ok(())
}

/// Tells dependants where the library is, and lets this crate's own tests find it.
fn announce(dir: &Path) {
    println!("cargo::metadata=LIB_DIR={}", dir.display());
    if env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "unix") {
        for argument in ["-Xlinker", "-rpath", "-Xlinker", &dir.to_string_lossy()] {
            println!("cargo::rustc-link-arg={argument}");
        }
    }
}

fn first_line(text: &str) -> &str {
    text.lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or(text)
        .trim()
}
