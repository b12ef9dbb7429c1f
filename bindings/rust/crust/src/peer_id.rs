use std::fmt;
use std::str::FromStr;

use crust_sys as sys;

use crate::error::{Error, ErrorKind, Result, check};

/// Who a peer is: its Ed25519 public key.
///
/// The text form is 64 hexadecimal digits. Ids are ordered as their bytes.
///
/// ```
/// let text = "00ff".repeat(16);
/// let id: crust::PeerId = text.parse()?;
/// assert_eq!(id.as_bytes()[1], 0xff);
/// assert_eq!(id.to_string(), text);
/// # Ok::<(), crust::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct PeerId([u8; PeerId::SIZE]);

impl PeerId {
    /// Bytes of an id.
    pub const SIZE: usize = sys::CRUST_PEER_ID_SIZE;

    /// The id with these bytes. Bytes that are nobody's key make an id that no
    /// peer can prove.
    pub const fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        Self(bytes)
    }

    /// The key.
    pub const fn as_bytes(&self) -> &[u8; Self::SIZE] {
        &self.0
    }

    /// The first eight digits, for logs and for people.
    pub fn short(&self) -> String {
        self.0[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    pub(crate) fn from_raw(id: sys::crust_peer_id) -> Self {
        Self(id.bytes)
    }

    /// For arguments of the library, which only reads them.
    pub(crate) fn as_raw(&self) -> *const sys::crust_peer_id {
        // Both types are 32 bytes with alignment 1.
        self.0.as_ptr().cast()
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 2 * Self::SIZE];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        f.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

/// Reads 64 hexadecimal digits of either case. [`ErrorKind::Invalid`].
impl FromStr for PeerId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = text.as_bytes();
        if digits.len() != 2 * Self::SIZE {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "peer id has {} characters, want {} hexadecimal digits",
                    text.chars().count(),
                    2 * Self::SIZE
                ),
            ));
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let mut id = [0; Self::SIZE];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            match (digit(pair[0]), digit(pair[1])) {
                (Some(high), Some(low)) => *byte = (high << 4 | low) as u8,
                _ => {
                    return Err(Error::new(
                        ErrorKind::Invalid,
                        format!("peer id {text:?} is not hexadecimal"),
                    ));
                }
            }
        }
        Ok(Self(id))
    }
}

impl From<[u8; PeerId::SIZE]> for PeerId {
    fn from(bytes: [u8; PeerId::SIZE]) -> Self {
        Self(bytes)
    }
}

impl From<PeerId> for [u8; PeerId::SIZE] {
    fn from(id: PeerId) -> Self {
        id.0
    }
}

/// As text in formats for people, as 32 bytes in others.
#[cfg(feature = "serde")]
impl serde::Serialize for PeerId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for PeerId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = PeerId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a peer id of 64 hexadecimal digits")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<PeerId, E> {
                text.parse().map_err(E::custom)
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Text)
        } else {
            <[u8; PeerId::SIZE]>::deserialize(deserializer).map(PeerId)
        }
    }
}

/// The secret that an identity is made from. Whoever has it is that peer.
///
/// It is overwritten when it is dropped, and its [`Debug`](fmt::Debug) form does
/// not show it.
///
/// ```
/// use crust::{Config, Seed, Service};
///
/// let (seed, id) = Seed::generate()?;
/// let (service, _events) = Service::new(Config::new().identity_seed(&seed))?;
/// assert_eq!(service.id(), id);
/// # Ok::<(), crust::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Seed([u8; Seed::SIZE]);

impl Seed {
    /// Bytes of a seed.
    pub const SIZE: usize = sys::CRUST_SEED_SIZE;

    /// A new random seed, and the id of the peer that it makes.
    /// [`ErrorKind::Abi`], [`ErrorKind::Forked`], [`ErrorKind::Internal`].
    pub fn generate() -> Result<(Self, PeerId)> {
        crate::check_abi()?;
        let mut seed = Self([0; Self::SIZE]);
        let mut id = sys::crust_peer_id::default();
        // SAFETY: both point to room for what is written: CRUST_SEED_SIZE bytes
        // and one id.
        check(unsafe { sys::crust_identity_generate(seed.0.as_mut_ptr(), &mut id) })?;
        Ok((seed, PeerId::from_raw(id)))
    }

    /// A seed that was kept.
    pub const fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        Self(bytes)
    }

    /// The secret, to keep it.
    pub const fn as_bytes(&self) -> &[u8; Self::SIZE] {
        &self.0
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        erase(&mut self.0);
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// Overwrites a secret, also where the compiler sees that nobody reads it again.
pub(crate) fn erase(secret: &mut [u8]) {
    for byte in secret {
        // SAFETY: a valid, aligned, exclusive reference.
        unsafe { std::ptr::write_volatile(byte, 0) };
    }
    std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let mut bytes = [0; PeerId::SIZE];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = (i * 37 + 200) as u8;
        }
        let id = PeerId::from_bytes(bytes);
        let text = id.to_string();
        assert_eq!(text.len(), 64);
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.to_uppercase().parse(), Ok(id));
        assert_eq!(id.short(), text[..8]);
        assert_eq!(format!("{id:?}"), format!("PeerId({text})"));
        // The library writes the same text.
        let mut theirs = [0; sys::CRUST_PEER_ID_TEXT];
        // SAFETY: an id, and room for the text.
        let rc = unsafe { sys::crust_peer_id_format(id.as_raw(), theirs.as_mut_ptr().cast()) };
        assert_eq!(rc, sys::CRUST_OK);
        assert_eq!(&theirs[..64], text.as_bytes());
    }

    #[test]
    fn wrong_text_is_refused_with_a_sentence() {
        let wrong_length = "abc".parse::<PeerId>().unwrap_err();
        assert_eq!(wrong_length.kind(), ErrorKind::Invalid);
        assert_eq!(
            wrong_length.to_string(),
            "peer id has 3 characters, want 64 hexadecimal digits"
        );
        for text in [
            "g".repeat(64),
            "é".repeat(32),
            format!("+{}", "0".repeat(63)),
        ] {
            let error = text.parse::<PeerId>().unwrap_err();
            assert!(error.to_string().contains("is not hexadecimal"), "{error}");
        }
    }

    #[test]
    fn ids_are_ordered_as_bytes() {
        let low = PeerId::from_bytes([1; 32]);
        let mut bytes = [1; 32];
        bytes[31] = 2;
        assert!(low < PeerId::from_bytes(bytes));
    }

    #[test]
    fn seeds_do_not_show() {
        let seed = Seed::from_bytes([7; 32]);
        assert_eq!(format!("{seed:?}"), "Seed(..)");
        let mut secret = [7; 4];
        erase(&mut secret);
        assert_eq!(secret, [0; 4]);
    }

    #[cfg(feature = "serde")]
    #[test]
    fn serde_uses_the_text_form() {
        let id = PeerId::from_bytes([0xab; 32]);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{}\"", "ab".repeat(32)));
        assert_eq!(serde_json::from_str::<PeerId>(&json).unwrap(), id);
        let error = serde_json::from_str::<PeerId>("\"ab\"").unwrap_err();
        assert!(
            error.to_string().contains("64 hexadecimal digits"),
            "{error}"
        );
    }
}
