use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use config_file_handler::{self as files, FileHandler};
use serde::{Deserialize, Serialize};

use crate::{CrustUser, Res};

/// The configuration, as it is in `NAME.crust.config`, where `NAME` is that of the
/// executable without its extension: JSON in the directory of the executable, the
/// user's, or the system's; the first that there is. Keys may be missing, and unknown
/// ones are ignored.
#[derive(PartialEq, Eq, Debug, Serialize, Deserialize, Clone, Default)]
#[serde(default)]
pub struct Config {
    /// Whom to bootstrap from.
    pub hard_coded_contacts: Vec<SocketAddr>,
    /// The port to listen at; a random one.
    pub tcp_acceptor_port: Option<u16>,
    /// Ask routers for the port `tcp_acceptor_port` and no other.
    pub force_acceptor_port_in_ext_ep: bool,
    /// The UDP port of service discovery; 5484.
    pub service_discovery_port: Option<u16>,
    /// The file in which peers are written down that were connected to directly;
    /// `NAME.bootstrap.cache` beside the executable, or in the user's directory. A name
    /// without directory lies there, too.
    pub bootstrap_cache_name: Option<String>,
    /// Who may bootstrap from us as a node, and connect; everybody.
    pub whitelisted_node_ips: Option<HashSet<IpAddr>>,
    /// Who may bootstrap from us as a client; everybody.
    pub whitelisted_client_ips: Option<HashSet<IpAddr>>,
    /// Services of different networks never connect. Without the name nobody can tell the
    /// traffic from random bytes.
    pub network_name: Option<String>,
    /// For developers.
    pub dev: Option<DevConfig>,
}

/// Settings for developers.
#[derive(PartialEq, Eq, Debug, Serialize, Deserialize, Clone, Default)]
#[serde(default)]
pub struct DevConfig {
    /// Nodes may bootstrap from us that we cannot reach from outside.
    pub disable_external_reachability_requirement: bool,
}

impl Config {
    /// Whether an address may be a peer of a kind.
    pub(crate) fn admits(&self, ip: IpAddr, user: CrustUser) -> bool {
        let list = match user {
            CrustUser::Node => &self.whitelisted_node_ips,
            CrustUser::Client => &self.whitelisted_client_ips,
        };
        list.as_ref().is_none_or(|list| list.contains(&ip))
    }

    /// Whether nodes must be reachable from outside.
    pub(crate) fn demands_reachability(&self) -> bool {
        !self
            .dev
            .as_ref()
            .is_some_and(|dev| dev.disable_external_reachability_requirement)
    }

    /// Where the bootstrap cache is; `None`: nowhere can be written.
    pub(crate) fn cache_path(&self) -> Option<PathBuf> {
        let name = match &self.bootstrap_cache_name {
            Some(name) => PathBuf::from(name),
            None => PathBuf::from(named(".bootstrap.cache").ok()?),
        };
        if name.components().count() > 1 {
            return Some(name);
        }
        let writable = |dir: &PathBuf| {
            fs::metadata(dir).is_ok_and(|m| m.is_dir() && !m.permissions().readonly())
        };
        let dir = files::current_bin_dir().ok().filter(writable);
        let dir = dir.or_else(|| files::user_app_dir().ok());
        dir.map(|dir| dir.join(name))
    }
}

/// Reads the configuration file. Where there is none, one of defaults is made; one that
/// there is, is left as it is.
///
/// Errors: [`ConfigFileHandler`](crate::CrustError::ConfigFileHandler) when it is no
/// configuration.
pub fn read_config_file() -> Res<Config> {
    ConfigFile::open().map(|(_, config)| config)
}

/// A file that is followed.
pub(crate) struct ConfigFile {
    handler: FileHandler<Config>,
    modified: Option<SystemTime>,
}

impl ConfigFile {
    pub(crate) fn open() -> Res<(Self, Config)> {
        let handler = FileHandler::new(&named(".crust.config")?, false)?;
        let config = handler.read_file()?;
        let modified = modified(handler.path());
        Ok((Self { handler, modified }, config))
    }

    /// What the file says when it has changed since. One that cannot be read changes
    /// nothing.
    pub(crate) fn news(&mut self) -> Option<Config> {
        let modified = modified(self.handler.path());
        if modified == self.modified {
            return None;
        }
        let config = self.handler.read_file().ok()?;
        self.modified = modified;
        Some(config)
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|m| m.modified()).ok()
}

/// The name of the executable, without its extension, and a suffix.
fn named(suffix: &str) -> Res<OsString> {
    let mut name = files::exe_file_stem()?;
    name.push(suffix);
    Ok(name)
}
