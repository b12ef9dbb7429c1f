use std::ffi::{CString, c_char, c_void};
use std::time::Duration;

use crust_sys as sys;

use crate::config::{Role, c_string};
use crate::error::{Error, ErrorKind, Result};
use crate::info::text_of;
use crate::peer_id::PeerId;

/// How it stands with a peer of a group. More may be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupState {
    /// There is a session, which may be suspended.
    Up,
    /// There is none, or none any more; the next attempt is due in a while.
    Down,
    /// An attempt is under way.
    Trying,
    /// An attempt has failed; the next one is due in a while.
    Failed,
    /// The program has disconnected it: nothing is tried until it asks again.
    Dropped,
    /// A state newer than this crate.
    Unknown,
}

impl GroupState {
    pub(crate) fn from_raw(raw: u32) -> Self {
        match raw {
            sys::CRUST_GROUP_UP => Self::Up,
            sys::CRUST_GROUP_DOWN => Self::Down,
            sys::CRUST_GROUP_TRYING => Self::Trying,
            sys::CRUST_GROUP_FAILED => Self::Failed,
            sys::CRUST_GROUP_DROPPED => Self::Dropped,
            _ => Self::Unknown,
        }
    }
}

/// A set of peers that a service keeps itself connected to: see
/// [`keep`](crate::Handle::keep).
///
/// ```no_run
/// # fn example(service: &crust::Service, alice: crust::PeerId) -> crust::Result<()> {
/// service.keep(&crust::Group::new("friends").peer(alice))?;
/// service.keep(&crust::Group::any("relays", 3, crust::Role::Node))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Group {
    name: String,
    any: u32,
    role: Role,
    peers: Vec<PeerId>,
    contacts: Vec<String>,
    infos: Vec<Vec<u8>>,
}

impl Group {
    /// A group of the peers that are added to it. A name has 1 to 64 bytes.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// A group of any `n` peers of a role, whoever they are and whoever begins the
    /// session.
    pub fn any(name: impl Into<String>, n: u32, role: Role) -> Self {
        Self {
            name: name.into(),
            any: n,
            role,
            ..Self::default()
        }
    }

    /// Adds a peer.
    pub fn peer(mut self, peer: PeerId) -> Self {
        self.peers.push(peer);
        self
    }

    /// Adds a peer and where it may be, `"ENDPOINT#PEER"`. To a group of
    /// [`any`](Self::any) it adds where peers may be, also `"ENDPOINT"`.
    pub fn contact(mut self, contact: impl Into<String>) -> Self {
        self.contacts.push(contact.into());
        self
    }

    /// Adds the peer that made a connection info.
    pub fn info(mut self, info: impl Into<Vec<u8>>) -> Self {
        self.infos.push(info.into());
        self
    }

    /// Has a function of the library read the group.
    pub(crate) fn with_raw<T>(&self, read: impl FnOnce(*const sys::crust_group) -> T) -> Result<T> {
        let name = c_string("name", &self.name)?;
        let contacts = self
            .contacts
            .iter()
            .map(|text| c_string("contact", text))
            .collect::<Result<Vec<CString>>>()?;
        let contacts: Vec<*const c_char> = contacts.iter().map(|text| text.as_ptr()).collect();
        let infos: Vec<*const c_void> = self.infos.iter().map(|i| i.as_ptr().cast()).collect();
        let lens: Vec<usize> = self.infos.iter().map(Vec::len).collect();
        Ok(read(&sys::crust_group {
            struct_size: size_of::<sys::crust_group>() as u32,
            any: self.any,
            role: match self.role {
                Role::Client => sys::CRUST_ROLE_CLIENT,
                _ => sys::CRUST_ROLE_NODE,
            },
            reserved: 0,
            name: name.as_ptr(),
            peers: self.peers.as_ptr().cast(), // both types are 32 bytes with alignment 1
            n_peers: self.peers.len(),
            contacts: contacts.as_ptr(),
            n_contacts: contacts.len(),
            infos: infos.as_ptr(),
            info_lens: lens.as_ptr(),
            n_infos: infos.len(),
        }))
    }
}

/// A group that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupInfo {
    /// As in the [`Group`].
    pub name: String,
    /// How many peers of `role`, whoever they are; 0: those that it names.
    pub any: u32,
    /// Of `any`.
    pub role: Role,
    /// How many peers of it are connected.
    pub up: u32,
    /// How many should be.
    pub wanted: u32,
    /// Of `any`: until the next search; `None`: now, or none is due.
    pub next: Option<Duration>,
    /// Of `any`: why the last search did not find enough.
    pub error: Option<Error>,
    /// Its peers in the order of their ids; of `any` those that are connected, and
    /// those that the program has disconnected.
    pub peers: Vec<GroupPeer>,
}

/// A peer of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupPeer {
    /// Who.
    pub peer: PeerId,
    /// How it stands with it.
    pub state: GroupState,
    /// How many attempts were in vain since the last session that lasted.
    pub tries: u32,
    /// Until the next attempt; `None`: none is due.
    pub next: Option<Duration>,
    /// Why there is no session.
    pub error: Option<Error>,
}

fn time_of(ms: u64) -> Option<Duration> {
    (ms != 0).then(|| Duration::from_millis(ms))
}

fn error_of(code: i32, text: &[c_char]) -> Option<Error> {
    (code < 0).then(|| Error::new(ErrorKind::from_code(code), text_of(text)))
}

impl GroupInfo {
    pub(crate) fn empty() -> sys::crust_group_info {
        sys::crust_group_info {
            struct_size: size_of::<sys::crust_group_info>() as u32,
            any: 0,
            role: 0,
            code: 0,
            up: 0,
            wanted: 0,
            next_ms: 0,
            name: [0; 72],
            text: [0; 256],
        }
    }

    pub(crate) fn from_raw(raw: &sys::crust_group_info) -> Self {
        Self {
            name: text_of(&raw.name),
            any: raw.any,
            role: Role::from_raw(raw.role as u8),
            up: raw.up,
            wanted: raw.wanted,
            next: time_of(raw.next_ms),
            error: error_of(raw.code, &raw.text),
            peers: Vec::new(),
        }
    }
}

impl GroupPeer {
    pub(crate) fn empty() -> sys::crust_group_peer {
        sys::crust_group_peer {
            struct_size: size_of::<sys::crust_group_peer>() as u32,
            state: 0,
            peer: sys::crust_peer_id { bytes: [0; 32] },
            code: 0,
            tries: 0,
            next_ms: 0,
            text: [0; 256],
        }
    }

    pub(crate) fn from_raw(raw: &sys::crust_group_peer) -> Self {
        Self {
            peer: PeerId::from_raw(raw.peer),
            state: GroupState::from_raw(raw.state),
            tries: raw.tries,
            next: time_of(raw.next_ms),
            error: error_of(raw.code, &raw.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_says_what_its_struct_says() {
        let mut raw = GroupPeer::empty();
        let peer = GroupPeer::from_raw(&raw);
        assert_eq!(
            (peer.state, peer.next, peer.error),
            (GroupState::Unknown, None, None)
        );
        (raw.state, raw.tries, raw.next_ms) = (sys::CRUST_GROUP_FAILED, 3, 1500);
        raw.code = ErrorKind::Timeout.code();
        raw.text[0] = b'x' as c_char;
        let peer = GroupPeer::from_raw(&raw);
        assert_eq!((peer.state, peer.tries), (GroupState::Failed, 3));
        assert_eq!(peer.next, Some(Duration::from_millis(1500)));
        assert_eq!(peer.error.unwrap().kind(), ErrorKind::Timeout);
    }
}
