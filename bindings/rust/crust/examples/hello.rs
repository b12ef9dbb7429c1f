//! Two services in one program that find each other and talk.
//!
//! ```sh
//! cargo run --example hello
//! ```
//!
//! Real programs run one service each, and the connection info travels between
//! them by mail, by chat or through a server that both know.

use std::process::ExitCode;
use std::thread;

use crust::{Config, Event, Events, Result, Service};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hello: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let config = Config::new()
        .network_name("hello example")
        .listen("tcp://127.0.0.1:0");
    let (alice, mut alice_events) = Service::new(config.clone().app_id("Alice"))?;
    let (bob, bob_events) = Service::new(config.app_id("Bob"))?;
    println!("Alice is {}", alice.id());
    println!("Bob   is {}", bob.id());

    // Alice tells where she is. The answer comes as an event with the token.
    alice.prepare_connection_info(1)?;
    let info = alice_events.find_map(|event| match event {
        Event::ConnectionInfo { token: 1, info, .. } => Some(info),
        _ => None,
    });
    let info = info.expect("a service answers before it stops");
    println!("Alice gives Bob {} bytes of connection info", info.len());

    // Bob connects. From here on each looks after the own events.
    bob.connect(&info, 2)?;
    let alice_life = thread::spawn(move || live("Alice", &alice, alice_events));
    live("Bob", &bob, bob_events)?;
    alice_life.join().expect("Alice does not panic")
}

/// Greets whoever connects, answers a greeting with a farewell, and closes after
/// the other's farewell.
fn live(name: &str, service: &Service, events: Events) -> Result<()> {
    for event in events {
        match event {
            Event::Connected {
                peer, app_id, took, ..
            } => {
                let other = String::from_utf8_lossy(&app_id);
                println!("{name} is connected to {other} after {took:?}");
                service.send(&peer, format!("Hello {other}!"), 0)?;
            }
            Event::Message(message) => {
                let text = String::from_utf8_lossy(&message);
                println!("{name} hears: {text}");
                if text.starts_with("Hello") {
                    service.send(&message.peer, format!("{name} wishes a good day."), 0)?;
                } else {
                    // What was sent before is delivered all the same.
                    service.close();
                }
            }
            Event::Lost { error, .. } => {
                println!("{name} is alone again: {error}");
                service.close();
            }
            Event::ConnectFailed { error, .. } | Event::ListenerFailed { error, .. } => {
                return Err(error);
            }
            _ => {}
        }
    }
    Ok(())
}
