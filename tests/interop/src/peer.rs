//! A libcrust peer: the process `crust peer --json`.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::frame::Result;
use crate::keys::Identity;
use crate::link::{Link, Us};

pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Peer {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
    passed: VecDeque<Value>,
    pub network: String,
    pub id: [u8; 32],
    pub address: SocketAddr,
    utp: Option<SocketAddr>,
}

pub fn text<'a>(event: &'a Value, key: &str) -> &'a str {
    event[key].as_str().unwrap_or("")
}

impl Peer {
    /// Starts a peer that listens on loopback.
    pub fn start(program: &str, network: &str, flags: &[&str]) -> Result<Peer> {
        let mut child = Command::new(program)
            .args(["peer", "--json", "--network", network, "--listen", "tcp://127.0.0.1:0"])
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start {program}: {e}"))?;
        let (tell, lines) = channel();
        let out = child.stdout.take().expect("a pipe");
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(|l| l.ok()) {
                if let Ok(value) = serde_json::from_str::<Value>(&line) {
                    if tell.send(value).is_err() {
                        return;
                    }
                }
            }
        });
        let stdin = child.stdin.take();
        let address = ([127, 0, 0, 1], 0).into();
        let mut p =
            Peer { child, stdin, lines, passed: VecDeque::new(), network: network.into(), id: [0; 32], address, utp: None };
        let started = p.event("started")?;
        p.id = hex::decode(text(&started, "peer")).ok().and_then(|b| b.try_into().ok()).ok_or("started without an id")?;
        for _ in 0..1 + flags.iter().filter(|f| **f == "--listen").count() {
            let listening = p.event("listener_started")?;
            let endpoint = text(&listening, "endpoint");
            let (transport, address) = endpoint.split_once("://").ok_or(format!("an endpoint {endpoint:?}"))?;
            let address = address.parse().map_err(|_| format!("an endpoint {endpoint:?}"))?;
            match transport {
                "utp" => p.utp = Some(address),
                _ => p.address = address,
            }
        }
        Ok(p)
    }

    pub fn command(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().ok_or("the peer's input is closed")?;
        stdin.write_all(format!("{line}\n").as_bytes()).map_err(|e| format!("cannot command the peer: {e}"))
    }

    /// The next event of this name. Others that come before it are kept.
    pub fn event(&mut self, name: &str) -> Result<Value> {
        self.event_within(name, PATIENCE)?.ok_or(format!("no event {name} within {PATIENCE:?}; there were {:?}", self.passed))
    }

    pub fn event_within(&mut self, name: &str, patience: Duration) -> Result<Option<Value>> {
        self.find(patience, name, |v| v["event"] == name)
    }

    fn find(&mut self, patience: Duration, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Option<Value>> {
        if let Some(i) = self.passed.iter().position(&wanted) {
            return Ok(self.passed.remove(i));
        }
        let end = Instant::now() + patience;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(v) if wanted(&v) => return Ok(Some(v)),
                Ok(v) => self.passed.push_back(v),
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => return Err(format!("the peer ended before {what}")),
            }
        }
    }

    /// Where the peer listens over UDP.
    pub fn utp_address(&self) -> Result<SocketAddr> {
        self.utp.ok_or("the peer does not listen over UDP".into())
    }

    pub fn connect(&self) -> Result<TcpStream> {
        TcpStream::connect(self.address).map_err(|e| format!("cannot reach the peer: {e}"))
    }

    /// A link that we begin.
    pub fn dial(&self, us: &Us) -> Result<Link> {
        let link = Link::initiate(self.connect()?, us)?;
        self.is_it(link)
    }

    /// A link that the peer begins, by its command connect.
    pub fn accept(&mut self, us: &Us) -> Result<Link> {
        let listener = self.invite(&us.identity.id())?;
        self.accept_at(&listener, us)
    }

    /// A link that the peer begins by itself, or was told to begin.
    pub fn accept_at(&self, listener: &TcpListener, us: &Us) -> Result<Link> {
        let end = Instant::now() + PATIENCE;
        listener.set_nonblocking(true).map_err(|e| e.to_string())?;
        let conn = loop {
            match listener.accept() {
                Ok((conn, _)) => break conn,
                Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(2))
                }
                Err(e) => return Err(format!("cannot accept: {e}")),
            }
        };
        conn.set_nonblocking(false).map_err(|e| e.to_string())?;
        let link = Link::respond(conn, us)?;
        self.is_it(link)
    }

    /// The next message event of this priority.
    pub fn message_of(&mut self, priority: u64) -> Result<Value> {
        self.message_of_within(priority, PATIENCE)?.ok_or(format!("no message of priority {priority}"))
    }

    pub fn message_of_within(&mut self, priority: u64, patience: Duration) -> Result<Option<Value>> {
        self.find(patience, "a message", |v| v["event"] == "message" && v["priority"] == priority)
    }

    /// Whether an event of this name has come and was not asked for.
    pub fn has(&mut self, name: &str) -> bool {
        self.passed.extend(self.lines.try_iter());
        self.passed.iter().any(|v| v["event"] == name)
    }

    /// Tells the peer to connect to a port of ours, where it expects `id`.
    pub fn invite(&mut self, id: &[u8; 32]) -> Result<TcpListener> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| format!("cannot listen: {e}"))?;
        let address = listener.local_addr().map_err(|e| e.to_string())?;
        self.command(&format!("connect tcp://{address}#{}", hex::encode(id)))?;
        Ok(listener)
    }

    fn is_it(&self, link: Link) -> Result<Link> {
        if link.them.peer != self.id {
            return Err(format!("{} answered instead of {}", hex::encode(link.them.peer), hex::encode(self.id)));
        }
        Ok(link)
    }

    /// Somebody of this network whose id compares with the peer's as wanted.
    pub fn neighbour(&self, decider: bool, aes: bool) -> Us {
        Us::new(Identity::against(&self.id, decider), &self.network, aes)
    }

    /// Ends the peer, which must exit with 0.
    pub fn quit(mut self) -> Result<()> {
        self.command("quit")?;
        self.event("stopped")?;
        let status = self.child.wait().map_err(|e| e.to_string())?;
        if !status.success() {
            return Err(format!("the peer ended with {status}"));
        }
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stdin = None;
        // A peer that has quit is gone already; one whose scenario failed must not stay.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
