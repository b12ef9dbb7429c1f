//! A library that speaks another ABI is refused before anything is made.
#![cfg(all(target_os = "linux", not(crust_static)))]

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use crust::{Config, ErrorKind, Seed, Service};

const CHILD: &str = "CRUST_TEST_OTHER_ABI";

#[test]
fn a_library_of_another_abi_is_refused() {
    if env::var_os(CHILD).is_some() {
        let expected = "speaks ABI 99, but this program was built for ABI 1";
        let errors = [
            Service::new(Config::new()).map(drop).unwrap_err(),
            Service::with_handler(Config::new(), |_| {})
                .map(drop)
                .unwrap_err(),
            Seed::generate().map(drop).unwrap_err(),
            crust::connection_info_peer(b"").map(drop).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Abi, "{error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
        println!("refused in the child");
        return;
    }
    // A second process in which one function of the library answers as that of
    // another ABI would.
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("abi-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let (source, library) = (dir.join("other.c"), dir.join("other.so"));
    fs::write(&source, "unsigned crust_abi_version(void) { return 99; }\n").unwrap();
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let built = Command::new(compiler)
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status();
    assert!(built.expect("a C compiler; set CC").success());
    let child = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "a_library_of_another_abi_is_refused",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .env("LD_PRELOAD", &library)
        .output()
        .unwrap();
    fs::remove_dir_all(&dir).unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    let complained = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{said}{complained}");
    assert!(said.contains("refused in the child"), "{said}{complained}");
}
