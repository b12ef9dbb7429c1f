//! Sections 3 to 5 of docs/PROTOCOL.md: identities, network names, masks.

use blake2::digest::{consts::U32, Mac};
use blake2::Blake2bMac;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use chacha20::XChaCha20;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

pub fn blake2b_256(key: &[u8; 32], data: &[u8]) -> [u8; 32] {
    let mut mac = <Blake2bMac<U32> as Mac>::new_from_slice(key).expect("32 bytes are a key");
    Mac::update(&mut mac, data);
    mac.finalize().into_bytes().into()
}

pub fn random<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    getrandom::getrandom(&mut out).expect("the system has randomness");
    out
}

/// What follows from a network name.
#[derive(Clone)]
pub struct Network {
    pub root: [u8; 32],
    pub psk: [u8; 32],
    pub mask: [u8; 32],
    pub datagram: [u8; 32],
}

impl Network {
    pub fn new(name: &[u8]) -> Network {
        let root = blake2b_256(&[0; 32], &[b"libcrust/1 network\x00", name].concat());
        let key = |name| blake2b_256(&root, name);
        Network { root, psk: key(b"psk"), mask: key(b"mask"), datagram: key(b"datagram") }
    }

    /// The stream that masks what stands behind a flight's nonce.
    pub fn stream(&self, nonce: &[u8; 24]) -> XChaCha20 {
        XChaCha20::new(&self.mask.into(), nonce.into())
    }

    pub fn flight(&self, nonce: &[u8; 24], padding: u16, noise: &[u8]) -> Vec<u8> {
        let mut out = nonce.to_vec();
        out.extend((noise.len() as u16).to_be_bytes());
        out.extend(padding.to_be_bytes());
        out.extend(noise);
        out.resize(out.len() + padding as usize, 0);
        self.stream(nonce).apply_keystream(&mut out[24..]);
        out
    }
}

#[derive(Clone)]
pub struct Identity(SigningKey);

impl Identity {
    pub fn from_seed(seed: &[u8; 32]) -> Identity {
        Identity(SigningKey::from_bytes(seed))
    }

    /// A random identity whose id compares with `other` as wanted.
    pub fn against(other: &[u8; 32], greater: bool) -> Identity {
        loop {
            let id = Identity::from_seed(&random());
            if (id.id() > *other) == greater {
                return id;
            }
        }
    }

    pub fn id(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// The X25519 secret: the first half of SHA-512 of the seed, clamped.
    pub fn secret(&self) -> [u8; 32] {
        let mut s = self.0.to_scalar_bytes();
        s[0] &= 248;
        s[31] = s[31] & 127 | 64;
        s
    }

    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

/// The X25519 form of a peer id.
pub fn montgomery(id: &[u8; 32]) -> Option<[u8; 32]> {
    Some(VerifyingKey::from_bytes(id).ok()?.to_montgomery().to_bytes())
}

pub fn verify(id: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) = (VerifyingKey::from_bytes(id), Signature::from_slice(signature)) else {
        return false;
    };
    key.verify_strict(message, &signature).is_ok()
}
