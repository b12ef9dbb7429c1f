//! The Rust end of the conformance matrix, in which every language's library
//! talks with every other's: it obeys commands on standard input, one a line,
//! and answers on standard output.
//!
//! ```text
//! conformance NETWORKNAME [LISTEN...] listens there or on tcp://127.0.0.1:0: "ready PEERID"
//! info                               "info BASE64URL"
//! connect BASE64URL                  "connected PEERID TRANSPORT" or "connect_failed CODE TEXT"
//! pattern PEERID COUNT SIZE PRIORITY sends COUNT messages of SIZE bytes: "sent COUNT"
//! verify PEERID COUNT SIZE           checks COUNT further messages: "verified COUNT"
//! toobig PEERID                      tries 2 MiB and a byte: "refused too_big"
//! disconnect PEERID                  "lost PEERID CODE", as for every lost session
//! quit, or the end of the input      "bye", exit code 0
//! ```
//!
//! Anything else is answered with `error ...`. Byte i of message k is
//! k*31 + i*7 + 3 modulo 256, and k runs on from command to command.

use std::collections::{HashMap, VecDeque};
use std::env;
use std::error::Error;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crust::{Config, Event, Events, Handle, MAX_MESSAGE, Message, PeerId, Service};

type Answer<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    let [_, network, listen @ ..] = &arguments[..] else {
        eprintln!("usage: conformance NETWORKNAME [LISTEN...]");
        return ExitCode::from(2);
    };
    match drive(network, listen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conformance: {error}");
            ExitCode::FAILURE
        }
    }
}

fn drive(network: &str, listen: &[String]) -> Answer<()> {
    let usual = ["tcp://127.0.0.1:0".to_owned()];
    let listen = if listen.is_empty() { &usual } else { listen };
    let config = listen
        .iter()
        .fold(Config::new().network_name(network), Config::listen);
    let (service, events) = Service::new(config)?;
    let driver = Arc::new(Driver {
        service: service.handle(),
        starting: AtomicUsize::new(listen.len()),
        peers: Mutex::default(),
    });
    let (orders, ordered) = mpsc::channel();
    let threads = [
        thread::spawn({
            let driver = Arc::clone(&driver);
            move || driver.listen(events)
        }),
        thread::spawn({
            let driver = Arc::clone(&driver);
            move || driver.send(&ordered)
        }),
    ];
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        if words == ["quit"] {
            break;
        }
        if let Err(error) = driver.obey(&words, &orders) {
            say(format_args!("error {error}"));
        }
    }
    drop(orders);
    service.close();
    for thread in threads {
        thread.join().map_err(|_| "a thread panicked")?;
    }
    drop(service);
    say(format_args!("bye"));
    Ok(())
}

/// Prints one whole line at once.
fn say(line: std::fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    // Nobody listens any more when this fails, and then the input ends as well.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// A service and what is known of its peers.
struct Driver {
    service: Handle,
    /// Listeners that have not started.
    starting: AtomicUsize,
    peers: Mutex<HashMap<PeerId, Peer>>,
}

/// The running numbers of one peer.
#[derive(Default)]
struct Peer {
    /// Number of the next message to it.
    to_send: usize,
    /// Number of the next message from it to be checked.
    checked: usize,
    /// Messages from it that nobody has asked about yet.
    received: VecDeque<Message>,
    /// Questions that wait for messages.
    asked: VecDeque<Question>,
}

/// Whether `count` messages of `size` bytes came as expected.
struct Question {
    count: usize,
    size: usize,
}

/// An order to send `count` messages, numbered from `first`.
struct Order {
    to: PeerId,
    first: usize,
    count: usize,
    size: usize,
    priority: u8,
}

/// Message number `k`.
fn pattern(k: usize, size: usize) -> Vec<u8> {
    (0..size).map(|i| (k * 31 + i * 7 + 3) as u8).collect()
}

impl Driver {
    /// Handles everything that happens, until the service has stopped.
    fn listen(&self, events: Events) {
        for event in events {
            match event {
                Event::ListenerStarted { .. }
                    if self.starting.fetch_sub(1, Ordering::Relaxed) == 1 =>
                {
                    say(format_args!("ready {}", self.service.id()));
                }
                Event::ListenerFailed { error, .. } => say(format_args!("error {error}")),
                Event::ConnectionInfo { info, .. } => {
                    say(format_args!("info {}", base64url::encode(&info)));
                }
                Event::Connected { peer, endpoint, .. } => {
                    let transport = endpoint.split(':').next().unwrap_or_default();
                    say(format_args!("connected {peer} {transport}"));
                }
                Event::AlreadyConnected { peer, .. } => {
                    say(format_args!("error already connected to {peer}"));
                }
                Event::ConnectFailed { error, .. } => connect_failed(&error),
                Event::Lost { peer, error, .. } => {
                    self.lost(peer);
                    say(format_args!("lost {peer} {}", error.name()));
                }
                Event::Message(message) => {
                    let mut peers = self.peers();
                    let peer = peers.entry(message.peer).or_default();
                    peer.received.push_back(message);
                    peer.answer();
                }
                Event::MessagesDropped { peer, count, .. } => {
                    say(format_args!(
                        "error {count} messages to {peer} were dropped"
                    ));
                }
                _ => {}
            }
        }
    }

    /// Sends patterns in the order in which they were asked for.
    fn send(&self, orders: &Receiver<Order>) {
        for order in orders {
            let sent = (0..order.count).try_for_each(|k| {
                let data = pattern(order.first + k, order.size);
                self.service
                    .send_wait(&order.to, data, order.priority, None)
            });
            match sent {
                Ok(()) => say(format_args!("sent {}", order.count)),
                Err(error) => say(format_args!("error {error}")),
            }
        }
    }

    /// Obeys one command.
    fn obey(&self, words: &[&str], orders: &Sender<Order>) -> Answer<()> {
        match words {
            [] => {}
            ["info"] => self.service.prepare_connection_info(0)?,
            ["connect", info] => {
                let info = base64url::decode(info).ok_or("connection info is not base64url")?;
                // What is refused at once is told as every other failure.
                if let Err(error) = self.service.connect(&info, 1) {
                    connect_failed(&error);
                }
            }
            ["pattern", to, count, size, priority] => {
                let (to, count) = (to.parse()?, number(count)?);
                let mut peers = self.peers();
                let peer = peers.entry(to).or_default();
                orders.send(Order {
                    to,
                    first: peer.to_send,
                    count,
                    size: number(size)?,
                    priority: priority
                        .parse()
                        .map_err(|_| format!("priority {priority} is not one of 0 to 255"))?,
                })?;
                peer.to_send += count;
            }
            ["verify", from, count, size] => {
                let (from, count, size) = (from.parse()?, number(count)?, number(size)?);
                let mut peers = self.peers();
                let peer = peers.entry(from).or_default();
                peer.asked.push_back(Question { count, size });
                peer.answer();
            }
            ["toobig", to] => {
                let data = vec![0; MAX_MESSAGE + 1];
                match self.service.send(&to.parse()?, &data, 0) {
                    Ok(()) => Err(format!("a message of {} bytes was accepted", data.len()))?,
                    Err(error) => say(format_args!("refused {}", error.name())),
                }
            }
            ["disconnect", who] => self.service.disconnect(&who.parse()?)?,
            [command, ..] => Err(format!("unknown command {command:?} or wrong arguments"))?,
        }
        Ok(())
    }

    /// Answers the questions that can no longer be answered well.
    fn lost(&self, who: PeerId) {
        if let Some(peer) = self.peers().get_mut(&who) {
            for question in peer.asked.drain(..) {
                say(format_args!(
                    "error the peer is lost and sent {} messages of the {} to verify",
                    peer.received.len(),
                    question.count
                ));
            }
        }
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<PeerId, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    /// Checks what can be checked.
    fn answer(&mut self) {
        while let Some(&Question { count, size }) = self.asked.front() {
            if self.received.len() < count {
                return;
            }
            self.asked.pop_front();
            let first = self.checked;
            self.checked += count;
            let wrong = self
                .received
                .drain(..count)
                .zip(first..)
                .filter(|(message, k)| **message != pattern(*k, size))
                .count();
            if wrong > 0 {
                say(format_args!(
                    "error {wrong} of {count} messages differ from the pattern"
                ));
            } else {
                say(format_args!("verified {count}"));
            }
        }
    }
}

fn connect_failed(error: &crust::Error) {
    say(format_args!("connect_failed {} {error}", error.name()));
}

fn number(text: &str) -> Answer<usize> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a whole number of 0 or more").into())
}

/// Base64 with the URL alphabet and without padding (RFC 4648, section 5).
mod base64url {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    pub fn encode(data: &[u8]) -> String {
        let mut text = String::with_capacity(data.len().div_ceil(3) * 4);
        for chunk in data.chunks(3) {
            let mut bits = 0u32;
            for i in 0..3 {
                bits = bits << 8 | u32::from(chunk.get(i).copied().unwrap_or(0));
            }
            for i in 0..=chunk.len() {
                text.push(char::from(ALPHABET[(bits >> (18 - 6 * i) & 63) as usize]));
            }
        }
        text
    }

    pub fn decode(text: &str) -> Option<Vec<u8>> {
        let mut data = Vec::with_capacity(text.len() / 4 * 3 + 2);
        for chunk in text.as_bytes().chunks(4) {
            let mut bits = 0u32;
            for &letter in chunk {
                let value = ALPHABET.iter().position(|&known| known == letter)?;
                bits = bits << 6 | value as u32;
            }
            let unused = 6 * chunk.len() as u32 % 8;
            // One letter alone is no byte, and unused bits are zero.
            if chunk.len() == 1 || bits & ((1 << unused) - 1) != 0 {
                return None;
            }
            let bytes = (bits >> unused).to_be_bytes();
            data.extend_from_slice(&bytes[5 - chunk.len()..]);
        }
        Some(data)
    }
}
