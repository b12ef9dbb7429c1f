//! Holds these bindings against `include/crust.h` by asking a C compiler.

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::Command;

use crust_sys::*;

const BINDINGS: &str = include_str!("../src/lib.rs");

fn include_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../include")
}

fn header() -> String {
    fs::read_to_string(include_dir().join("crust.h")).expect("the repository holds include/crust.h")
}

/// A directory of this test's own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("the target directory can be written");
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn compiler() -> Command {
    let name = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut command = Command::new(name);
    command.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-I"]);
    command.arg(include_dir());
    command
}

fn run(command: &mut Command) -> String {
    let out = command
        .output()
        .unwrap_or_else(|why| panic!("{command:?} does not start: {why}; set CC to a C compiler"));
    assert!(
        out.status.success(),
        "{command:?} failed:\n{}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).expect("the program prints ASCII")
}

/// Compiles and runs a C program that prints one number for each expression.
fn ask_c(name: &str, expressions: &[String]) -> Vec<i64> {
    let scratch = Scratch::new(name);
    let mut source = String::from("#include <stdio.h>\n#include \"crust.h\"\nint main(void) {\n");
    for expression in expressions {
        writeln!(
            source,
            "    printf(\"%lld\\n\", (long long)({expression}));"
        )
        .unwrap();
    }
    source += "    return 0;\n}\n";
    let (file, program) = (scratch.0.join("ask.c"), scratch.0.join("ask"));
    fs::write(&file, source).expect("the target directory can be written");
    run(compiler().arg(&file).arg("-o").arg(&program));
    let answers: Vec<i64> = run(&mut Command::new(program))
        .lines()
        .map(|line| line.parse().expect("a number"))
        .collect();
    assert_eq!(answers.len(), expressions.len());
    answers
}

fn compare(name: &str, ours: &[(String, i64)]) {
    let expressions: Vec<String> = ours
        .iter()
        .map(|(expression, _)| expression.clone())
        .collect();
    for ((expression, ours), theirs) in ours.iter().zip(ask_c(name, &expressions)) {
        assert_eq!(
            *ours, theirs,
            "{expression}: Rust has {ours}, C has {theirs}"
        );
    }
}

macro_rules! layouts {
    ($($name:ident { $($field:ident $(as $rust:ident)?),* $(,)? })*) => {
        vec![$(
            (format!("sizeof({})", stringify!($name)), size_of::<$name>() as i64),
            (format!("_Alignof({})", stringify!($name)), align_of::<$name>() as i64),
            $((
                format!("offsetof({}, {})", stringify!($name), stringify!($field)),
                offset!($name, $field $(as $rust)?),
            ),)*
        )*]
    };
}

macro_rules! offset {
    ($name:ident, $field:ident) => {
        offset_of!($name, $field) as i64
    };
    ($name:ident, $field:ident as $rust:ident) => {
        offset_of!($name, $rust) as i64
    };
}

fn all_layouts() -> Vec<(String, i64)> {
    layouts! {
        crust_peer_id { bytes }
        crust_event {
            type as r#type, code, priority, role, how, reserved0, count, token, peer, data, len,
            endpoint, text, took_us, bytes, reserved1,
        }
        crust_callbacks { struct_size, reserved, user, on_events, on_release }
        crust_message { peer, data, len, priority, reserved }
        crust_peer_info {
            struct_size, how, role, cipher, reserved, peer, endpoint, rtt_us, age_us,
            sent_messages, sent_bytes, received_messages, received_bytes, dropped_messages,
            queued_bytes, unacked_bytes, suspended, resumed,
        }
        crust_stats {
            struct_size, reserved, peers, listeners, handshakes, connects, sessions_total,
            handshakes_failed, handshakes_evicted, connects_failed, sent_messages, sent_bytes,
            received_messages, received_bytes, dropped_messages, wire_sent_bytes,
            wire_received_bytes, events_queued, event_bytes_queued, events_total,
            backpressure_pauses, sent_datagrams, received_datagrams, lost_datagrams,
            circuits, carried_bytes, known, refused_connections, refused_handshakes, refused_files, refused_sessions, shed_sessions, rate_pauses, alerts, suppressed_alerts, resumptions,
            refused_banned, memory_bytes, refused_memory, dropped_logs, refused_help,
        }
        crust_nat { struct_size, reachable, cgnat, pending, reserved, why }
        crust_nat_server { struct_size, reserved, server, seen, error }
        crust_nat_seen { struct_size, reserved, peer, from, at }
        crust_nat_port {
            struct_size, code, twice, reserved, expires_ms, internal, external, gateway, means,
            text,
        }
        crust_lan_peer { struct_size, role, peer, heard_ms, endpoints }
        crust_known_peer {
            struct_size, role, direct, relays, reserved, peer, expires_ms, endpoints,
        }
        crust_group {
            struct_size, any, role, reserved, name, peers, n_peers, contacts, n_contacts, infos,
            info_lens, n_infos,
        }
        crust_group_info {
            struct_size, any, role, code, up, wanted, next_ms, name, text,
        }
        crust_group_peer { struct_size, state, peer, code, tries, next_ms, text }
        crust_gate_request {
            struct_size, how, role, outbound, reserved, peer, app_id, app_id_len, endpoint,
        }
        crust_ban_info { struct_size, reserved, left_ms, who, reason }
        crust_nat_flow {
            struct_size, confidence, none, nearby, twice, blocked, hairpin, mapping, filtering,
            ports, reserved, step, low, high, external,
        }
    }
}

#[test]
fn structs_lie_in_memory_as_in_c() {
    compare("layouts", &all_layouts());
}

#[test]
fn every_struct_of_the_header_is_compared() {
    let compared: BTreeSet<String> = all_layouts()
        .iter()
        .filter_map(|(expression, _)| {
            Some(
                expression
                    .strip_prefix("sizeof(")?
                    .strip_suffix(')')?
                    .to_owned(),
            )
        })
        .collect();
    // "typedef struct NAME {" defines; "typedef struct NAME NAME;" is opaque.
    let defined: BTreeSet<String> = header()
        .lines()
        .filter_map(|line| line.strip_prefix("typedef struct "))
        .filter_map(|rest| rest.split_once(" {").map(|(name, _)| name.to_owned()))
        .collect();
    assert_eq!(compared, defined);
    assert_eq!(size_of::<crust_event>(), 88, "the header promises 88 bytes");
    assert_eq!(
        size_of::<crust_message>(),
        32,
        "the header promises 32 bytes"
    );
}

/// The constants of the bindings: name and the value as written.
fn bound_constants() -> Vec<(String, i64)> {
    BINDINGS
        .lines()
        .filter_map(|line| line.strip_prefix("pub const "))
        .map(|line| {
            let (name, rest) = line.split_once(": ").expect("a type follows");
            let (_, value) = rest.split_once(" = ").expect("a value follows");
            let digits = value.trim_end_matches(';').replace('_', "");
            (name.to_owned(), digits.parse().expect("a number"))
        })
        .collect()
}

#[test]
fn constants_have_the_header_s_values() {
    let ours = bound_constants();
    assert!(ours.len() > 80, "only {} constants were read", ours.len());
    compare("constants", &ours);
}

#[test]
fn every_constant_of_the_header_is_bound() {
    // Macros that steer the compiler are no constants.
    const MACROS: [&str; 4] = ["CRUST_H", "CRUST_API", "CRUST_CALL", "CRUST_MUST_CHECK"];
    let mut theirs = BTreeSet::new();
    for line in header().lines() {
        let line = line.trim_start();
        let name = match line.strip_prefix("#define ") {
            Some(rest) => rest.split_whitespace().next(),
            // An enumerator: "CRUST_OK = 0,".
            None => line.split_once('=').map(|(name, _)| name.trim()),
        };
        let name = name.unwrap_or_default();
        if name.starts_with("CRUST_") && !MACROS.contains(&name) {
            theirs.insert(name.to_owned());
        }
    }
    let ours: BTreeSet<String> = bound_constants()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(ours, theirs);
}

/// Says a Rust type of the bindings in C.
fn c_type(rust: &str) -> String {
    if let Some(inner) = rust.strip_prefix("*mut ") {
        return format!("{} *", c_type(inner));
    }
    if let Some(inner) = rust.strip_prefix("*const ") {
        return format!("{} const *", c_type(inner));
    }
    match rust {
        "c_char" => "char",
        "c_int" => "int",
        "c_void" => "void",
        "u8" => "uint8_t",
        "u32" => "uint32_t",
        "u64" => "uint64_t",
        "i32" => "int32_t",
        "usize" => "size_t",
        "isize" => "intptr_t",
        name if name.starts_with("crust_") => name,
        other => panic!("no C type is known for {other}"),
    }
    .to_owned()
}

/// The bound functions as C prototypes.
fn prototypes() -> Vec<String> {
    let (_, block) = BINDINGS
        .split_once("unsafe extern \"C\" {\n")
        .expect("the functions' block");
    let (block, _) = block.split_once("\n}\n").expect("the block's end");
    let code: String = block
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join(" ");
    code.split(';')
        .filter_map(|item| item.trim().strip_prefix("pub fn ").map(str::to_owned))
        .map(|item| {
            let (name, rest) = item.split_once('(').expect("arguments");
            let (arguments, result) = rest.rsplit_once(')').expect("arguments");
            let arguments: Vec<String> = arguments
                .split(',')
                .filter(|argument| !argument.trim().is_empty())
                .map(|argument| c_type(argument.split_once(": ").expect("a type").1.trim()))
                .collect();
            let arguments = if arguments.is_empty() {
                "void".into()
            } else {
                arguments.join(", ")
            };
            let result = result
                .trim()
                .strip_prefix("-> ")
                .map_or("void".into(), c_type);
            format!("{result} CRUST_CALL {name}({arguments});")
        })
        .collect()
}

#[test]
fn functions_have_the_header_s_types() {
    // A C compiler refuses a second declaration that conflicts with the first.
    let scratch = Scratch::new("prototypes");
    let ours = prototypes();
    assert!(ours.len() > 40, "only {} functions were read", ours.len());
    let file = scratch.0.join("prototypes.c");
    let check = |text: &str| {
        fs::write(&file, format!("#include \"crust.h\"\n{text}\n")).expect("a writable directory");
        compiler()
            .args(["-w", "-fsyntax-only"]) // conflicts are errors, and only they matter here
            .arg(&file)
            .output()
            .expect("a C compiler")
    };
    let out = check(&ours.join("\n"));
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    // The check itself must notice a wrong type.
    let wrong = ours[0].replace("char", "uint64_t");
    assert_ne!(wrong, ours[0]);
    assert!(
        !check(&wrong).status.success(),
        "a conflicting declaration was let pass"
    );
}

#[test]
fn every_function_of_the_header_is_bound() {
    let theirs: BTreeSet<String> = header()
        .lines()
        .filter(|line| line.starts_with("CRUST_API "))
        .map(|line| {
            let (_, rest) = line
                .split_once("CRUST_CALL ")
                .expect("a calling convention");
            rest.split_once('(').expect("arguments").0.to_owned()
        })
        .collect();
    let ours: BTreeSet<String> = prototypes()
        .iter()
        .map(|text| {
            let (_, rest) = text
                .split_once("CRUST_CALL ")
                .expect("a calling convention");
            rest.split_once('(').expect("arguments").0.to_owned()
        })
        .collect();
    assert_eq!(ours, theirs);
}
