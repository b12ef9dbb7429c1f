//! Who is not wanted.

use std::ffi::{CString, c_char};
use std::time::Duration;

use crust_sys as sys;

use crate::config::c_string;
use crate::error::Result;
use crate::info::text_of;

/// A ban, as [`Handle::bans`](crate::Handle::bans) saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ban {
    /// A peer id of 64 hexadecimal digits, an IP address or a prefix.
    pub who: String,
    /// Until it ends; `None`: with the service.
    pub left: Option<Duration>,
    /// What the program gave as its reason.
    pub reason: String,
}

impl Ban {
    pub(crate) fn empty() -> sys::crust_ban_info {
        sys::crust_ban_info {
            struct_size: size_of::<sys::crust_ban_info>() as u32,
            reserved: 0,
            left_ms: 0,
            who: [0; 72],
            reason: [0; 264],
        }
    }

    pub(crate) fn from_raw(raw: &sys::crust_ban_info) -> Self {
        Self {
            who: text_of(&raw.who),
            left: (raw.left_ms != 0).then(|| Duration::from_millis(raw.left_ms)),
            reason: text_of(&raw.reason),
        }
    }
}

/// An array of texts for C.
pub(crate) struct Texts {
    _own: Vec<CString>,
    raw: Vec<*const c_char>,
}

impl Texts {
    pub(crate) fn new<S: ToString>(what: &str, texts: impl IntoIterator<Item = S>) -> Result<Self> {
        let own = texts
            .into_iter()
            .map(|text| c_string(what, &text.to_string()))
            .collect::<Result<Vec<_>>>()?;
        let raw = own.iter().map(|text| text.as_ptr()).collect();
        Ok(Self { _own: own, raw })
    }

    pub(crate) fn as_ptr(&self) -> *const *const c_char {
        self.raw.as_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.raw.len()
    }
}
