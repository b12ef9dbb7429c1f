use std::fmt;
use std::hash::Hash;
use std::net::SocketAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Res;

/// What a program calls a peer. It is told to every peer, and must be of at most 256 bytes
/// when `maidsafe_utilities` serialises it.
pub trait Uid:
    'static
    + Send
    + fmt::Debug
    + Clone
    + Copy
    + Eq
    + PartialEq
    + Ord
    + PartialOrd
    + Hash
    + Serialize
    + DeserializeOwned
{
}

/// What a service is to the one that it bootstraps from.
#[derive(Debug, Clone, Copy, Eq, PartialEq)]
pub enum CrustUser {
    /// A full member of the network. It may bootstrap only if the other one can reach it
    /// from outside.
    Node,
    /// A user of the network, which need not be reachable.
    Client,
}

/// What happens to a [`Service`](crate::Service).
///
/// For each peer comes one of `BootstrapAccept`, `BootstrapConnect` and `ConnectSuccess`,
/// then its messages, then `LostPeer`.
#[derive(Debug)]
pub enum Event<UID: Uid> {
    /// A peer has bootstrapped from us.
    BootstrapAccept(UID, CrustUser),
    /// We have bootstrapped from a peer, at its address.
    BootstrapConnect(UID, SocketAddr),
    /// Nobody let us bootstrap.
    BootstrapFailed,
    /// Connections are accepted at this port.
    ListenerStarted(u16),
    /// No listener could be started.
    ListenerFailed,
    /// Answers [`prepare_connection_info`](crate::Service::prepare_connection_info).
    ConnectionInfoPrepared(ConnectionInfoResult<UID>),
    /// There is a connection with a peer.
    ConnectSuccess(UID),
    /// There is none, after a [`connect`](crate::Service::connect).
    ConnectFailure(UID),
    /// The connection is gone.
    LostPeer(UID),
    /// A peer, which is what it says, has sent a message.
    NewMessage(UID, CrustUser, Vec<u8>),
    /// A message for a peer was not sent, because it is over
    /// [`MAX_PAYLOAD_SIZE`](crate::MAX_PAYLOAD_SIZE).
    WriteMsgSizeProhibitive(UID, Vec<u8>),
}

/// The answer to [`prepare_connection_info`](crate::Service::prepare_connection_info).
#[derive(Debug)]
pub struct ConnectionInfoResult<UID> {
    /// The token of the call.
    pub result_token: u32,
    /// What to keep for [`connect`](crate::Service::connect), and to make the public part
    /// from.
    pub result: Res<PrivConnectionInfo<UID>>,
}

/// Our part of connecting to one peer.
#[derive(Debug)]
pub struct PrivConnectionInfo<UID> {
    #[doc(hidden)]
    pub id: UID,
    #[doc(hidden)]
    pub info: Vec<u8>,
}

impl<UID: Uid> PrivConnectionInfo<UID> {
    /// What the peer is to get.
    pub fn to_pub_connection_info(&self) -> PubConnectionInfo<UID> {
        PubConnectionInfo {
            id: self.id,
            info: self.info.clone(),
        }
    }
}

/// What a peer needs to connect to us, to be handed to it by whatever way there is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound = "UID: Uid")]
pub struct PubConnectionInfo<UID> {
    #[doc(hidden)]
    pub id: UID,
    #[doc(hidden)]
    pub info: Vec<u8>,
}

impl<UID: Uid> PubConnectionInfo<UID> {
    /// Whose it is.
    pub fn id(&self) -> UID {
        self.id
    }
}
