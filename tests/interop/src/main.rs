//! A second implementation of the libcrust protocol. It shares no code and no
//! cryptographic library with the first, and was written from docs/PROTOCOL.md.

mod datagram;
mod frame;
mod golden;
mod inner;
mod keys;
mod link;
mod peer;
mod resume;
mod scenarios;
mod session;
mod udp;

use std::process::ExitCode;
use std::time::Instant;

use frame::Result;
use scenarios::Way;

/// Counts and prints what holds.
#[derive(Default)]
struct Tally {
    /// Only scenarios whose name has this in it are run.
    part: String,
    passed: usize,
    failed: usize,
}

impl Tally {
    fn run(&mut self, name: &str, scenario: impl FnOnce() -> Result<()>) {
        if !name.contains(&self.part) {
            return;
        }
        let began = Instant::now();
        match scenario() {
            Ok(()) => {
                self.passed += 1;
                println!("ok      {name} ({:.1} s)", began.elapsed().as_secs_f64());
            }
            Err(e) => {
                self.failed += 1;
                println!("FAILED  {name}: {e}");
            }
        }
    }
}

type Scenario = fn(&str) -> Result<()>;

fn against(program: &str, document: &str, part: &str) -> Result<()> {
    let mut tally = Tally { part: part.into(), ..Tally::default() };
    tally.run("the test vectors of the document", || {
        let doc = std::fs::read_to_string(document).map_err(|e| format!("cannot read {document}: {e}"))?;
        golden::check_document(&doc).map(|n| println!("        {n} vectors"))
    });
    for way in Way::all() {
        tally.run(&format!("conversation: {}", way.name()), || scenarios::conversation(program, way));
    }
    for way in Way::all() {
        tally.run(&format!("closed by the peer: {}", way.name()), || scenarios::closed_by_the_peer(program, way));
    }
    for way in Way::all() {
        tally.run(&format!("resumption: {}", way.name()), || resume::resumption(program, way));
    }
    for way in Way::all() {
        tally.run(&format!("over UDP: {}", way.name()), || udp::conversation(program, way));
    }
    let others: [(&str, Scenario); 25] = [
        ("a service that stops", scenarios::stopping),
        ("silence", scenarios::silence),
        ("dialled by another network", scenarios::dialled_by_another_network),
        ("somebody else answers", scenarios::somebody_else),
        ("a false identity", scenarios::false_identity),
        ("messages before the link is chosen", scenarios::too_early),
        ("a ping behind the claim", scenarios::ping_behind_the_claim),
        ("links of a claimant", scenarios::links_of_a_claimant),
        ("links of a decider", scenarios::links_of_a_decider),
        ("sessions that begin at once", scenarios::begun_at_once),
        ("a service that takes no sessions", scenarios::not_allowed),
        ("refused by us", scenarios::we_refuse),
        ("records that break the protocol", scenarios::broken_records),
        ("connection info", scenarios::connection_info),
        ("heartbeat", scenarios::heartbeat),
        ("acknowledgements", resume::acknowledgements),
        ("acknowledgements that are false", resume::false_acknowledgements),
        ("lies in resumptions", resume::lies),
        ("other sessions than there are", resume::other_sessions),
        ("a session that is over", resume::over),
        ("close over the next link", resume::close_over_the_next_link),
        ("how long a session is kept", resume::window),
        ("replayed resumptions", resume::replay),
        ("silence over UDP", udp::silence),
        ("a session between TCP and UDP", udp::change_of_transport),
    ];
    for (name, scenario) in others {
        tally.run(name, || scenario(program));
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.failed == 0 {
        Ok(())
    } else {
        Err(format!("{} scenarios failed", tally.failed))
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["noise-vectors"] => golden::noise_vectors().map(|text| print!("{text}")),
        ["against", program, document] => against(program, document, ""),
        ["against", program, document, part] => against(program, document, part),
        _ => Err("usage: crust-interop against CRUST-PROGRAM PROTOCOL.md [PART-OF-A-NAME] | noise-vectors".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("crust-interop: {e}");
            ExitCode::FAILURE
        }
    }
}
