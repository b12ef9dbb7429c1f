//! A second implementation of the libcrust protocol. It shares no code and no
//! cryptographic library with the first, and was written from docs/PROTOCOL.md.

mod frame;
mod golden;
mod keys;
mod link;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["noise-vectors"] => golden::noise_vectors().map(|text| print!("{text}")),
        ["document", path] => std::fs::read_to_string(path)
            .map_err(|e| format!("cannot read {path}: {e}"))
            .and_then(|doc| golden::check_document(&doc))
            .map(|n| println!("{n} test vectors of {path} hold")),
        _ => Err("usage: crust-interop noise-vectors | document PROTOCOL.md".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("crust-interop: {e}");
            ExitCode::FAILURE
        }
    }
}
