//! The instance's keys: files in the data directory, outside the database.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use aws_lc_rs::{hmac, rand};
use policy::action::hex;
use serde::{Deserialize, Serialize};

use crate::fault;

/// A key that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Its file cannot be read or written.
    #[error("the key `{path}` cannot be read or written")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Its file is not a key.
    #[error(
        "`{0}` is not a key of this version; restore it from a backup, or remove the data directory to begin again"
    )]
    NotAKey(PathBuf),
}

/// What was sealed cannot be opened: another key, or changed on the disk.
#[derive(Debug, thiserror::Error)]
#[error("a sealed value cannot be opened: the key is another one, or it was changed on the disk")]
pub struct Unsealable;

/// The keys of one data directory.
pub struct Keys {
    /// What names this instance; the audience of its tokens.
    pub instance: String,
    /// Signs tokens.
    pub token: Vec<u8>,
    /// Which key `token` is.
    pub token_kid: String,
    /// Checks what [`sign`](Self::sign) signed.
    pub public: PublicKey,
    /// The file of what was signed of the log.
    pub checkpoints: PathBuf,
    seal: RandomizedNonceKey,
    mac: hmac::Key,
    sign: Ed25519KeyPair,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

impl Keys {
    /// Reads the keys, making those that are not there yet.
    ///
    /// # Errors
    /// [`KeyError`], if a file cannot be read or written or is no key.
    pub fn open(data: &Path) -> Result<Self, KeyError> {
        let folder = data.join("keys");
        make_private(&folder).map_err(|source| KeyError::File {
            path: folder.clone(),
            source,
        })?;
        let token = key(&folder.join("token.key"))?;
        let seal_path = folder.join("seal.key");
        let seal = RandomizedNonceKey::new(&AES_256_GCM, &key(&seal_path)?)
            .map_err(|_| KeyError::NotAKey(seal_path))?;
        let instance = instance(&folder.join("instance.id"))?;
        let token_kid = policy::action::Digest::of(&token)
            .as_str()
            .chars()
            .take(16)
            .collect();
        let sign = sign_key(&folder)?;
        Ok(Self {
            instance,
            token,
            token_kid,
            public: PublicKey::of(&sign),
            checkpoints: data.join(crate::audit::checkpoint::FILE),
            seal,
            mac: mac_key(&folder)?,
            sign,
        })
    }

    /// What checks signatures over the log, without an instance. `None` if there is none.
    ///
    /// # Errors
    /// [`KeyError`], if its file cannot be read.
    pub fn open_public(data: &Path) -> Result<Option<PublicKey>, KeyError> {
        let folder = data.join("keys");
        if !folder.join(SIGN).exists() {
            return Ok(None);
        }
        Ok(Some(PublicKey::of(&sign_key(&folder)?)))
    }

    /// Which instance it is, without opening it. `None` if there is none.
    ///
    /// # Errors
    /// [`KeyError`], if its file cannot be read.
    pub fn instance_of(data: &Path) -> Result<Option<String>, KeyError> {
        let file = data.join("keys/instance.id");
        if !file.exists() {
            return Ok(None);
        }
        Ok(Some(instance(&file)?))
    }

    /// Signs a text (Ed25519), in hexadecimal.
    pub fn sign(&self, text: &str) -> String {
        hex(self.sign.sign(text.as_bytes()).as_ref())
    }

    /// The key over the end of the log, to verify it without an instance. `None` if there is none.
    ///
    /// # Errors
    /// [`KeyError`], if its file cannot be read.
    pub fn open_mac(data: &Path) -> Result<Option<Mac>, KeyError> {
        let folder = data.join("keys");
        if !folder.join("log.key").exists() {
            return Ok(None);
        }
        Ok(Some(Mac(mac_key(&folder)?)))
    }

    /// Keyed digest (HMAC-SHA-256), in hexadecimal.
    pub fn mac(&self, text: &str) -> String {
        hex(hmac::sign(&self.mac, text.as_bytes()).as_ref())
    }

    /// Encrypts (AES-256-GCM, random nonce in front); `bound` must be the same when it is opened.
    ///
    /// # Errors
    /// [`Unsealable`], if the system has no randomness.
    pub fn seal(&self, bound: &str, plain: &[u8]) -> Result<Vec<u8>, Unsealable> {
        let mut sealed = plain.to_vec();
        let nonce = self
            .seal
            .seal_in_place_append_tag(Aad::from(bound.as_bytes()), &mut sealed)
            .map_err(|_| Unsealable)?;
        let mut out = nonce.as_ref().to_vec();
        out.append(&mut sealed);
        Ok(out)
    }

    /// Decrypts what [`seal`](Self::seal) made.
    ///
    /// # Errors
    /// [`Unsealable`].
    pub fn unseal(&self, bound: &str, sealed: &[u8]) -> Result<Vec<u8>, Unsealable> {
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN).ok_or(Unsealable)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unsealable)?;
        let mut rest = rest.to_vec();
        let plain = self
            .seal
            .open_in_place(nonce, Aad::from(bound.as_bytes()), &mut rest)
            .map_err(|_| Unsealable)?;
        Ok(plain.to_vec())
    }
}

/// Checks the keyed digest over the end of the log.
#[derive(Debug)]
pub struct Mac(hmac::Key);

impl Mac {
    /// Whether `mac` is the digest of `text`.
    pub fn fits(&self, text: &str, mac: &str) -> bool {
        hex(hmac::sign(&self.0, text.as_bytes()).as_ref()) == mac
    }
}

/// The file of the key that signs checkpoints of the log.
const SIGN: &str = "checkpoint.key";

fn instance(file: &Path) -> Result<String, KeyError> {
    Ok(hex(key(file)?.get(..8).unwrap_or_default()))
}

fn sign_key(folder: &Path) -> Result<Ed25519KeyPair, KeyError> {
    let path = folder.join(SIGN);
    Ed25519KeyPair::from_seed_unchecked(&key(&path)?).map_err(|_| KeyError::NotAKey(path))
}

/// An Ed25519 key that checks signatures; written in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(Vec<u8>);

impl PublicKey {
    fn of(pair: &Ed25519KeyPair) -> Self {
        Self(pair.public_key().as_ref().to_vec())
    }

    /// Whether the key signed a text.
    pub fn fits(&self, text: &str, signature: &str) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        bytes(signature).is_some_and(|signature| key.verify(text.as_bytes(), &signature).is_ok())
    }
}

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

/// A text that is no public key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("that is no key; `portcullis audit key` prints one, 64 hexadecimal digits")]
pub struct NoKey;

impl TryFrom<String> for PublicKey {
    type Error = NoKey;
    fn try_from(text: String) -> Result<Self, NoKey> {
        text.parse()
    }
}

impl std::str::FromStr for PublicKey {
    type Err = NoKey;
    fn from_str(text: &str) -> Result<Self, NoKey> {
        let key = bytes(text.trim()).ok_or(NoKey)?;
        if key.len() == KEY_BYTES {
            Ok(Self(key))
        } else {
            Err(NoKey)
        }
    }
}

/// What hexadecimal digits say.
fn bytes(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}

fn mac_key(folder: &Path) -> Result<hmac::Key, KeyError> {
    Ok(hmac::Key::new(
        hmac::HMAC_SHA256,
        &key(&folder.join("log.key"))?,
    ))
}

/// Makes a directory that only its owner may enter, or makes an existing one so.
///
/// # Errors
/// What the system said.
pub fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    if fs::metadata(folder)?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

const KEY_BYTES: usize = 32;

fn key(path: &Path) -> Result<Vec<u8>, KeyError> {
    let wrong = |source| KeyError::File {
        path: path.to_owned(),
        source,
    };
    match fs::read(path) {
        Ok(key) if key.len() == KEY_BYTES => return Ok(key),
        Ok(_) => return Err(KeyError::NotAKey(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(wrong(error)),
    }
    let mut key = vec![0; KEY_BYTES];
    rand::fill(&mut key).map_err(|_| wrong(io::Error::other("no randomness")))?;
    // Written beside and moved, so that a power cut leaves no half a key.
    let fresh = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(wrong)?;
    file.write_all(&key)
        .and_then(|()| file.sync_all())
        .map_err(wrong)?;
    fault::now("key.written");
    fs::rename(&fresh, path).map_err(wrong)?;
    fault::now("key.there");
    let folder = path.parent().unwrap_or(path);
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(wrong)?;
    Ok(key)
}

/// A short id that a person can type: letters and digits without those that look alike (Crockford's
/// base 32), 5 bits each.
pub fn short_id(length: usize) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let mut bytes = vec![0; length];
    // Without randomness the ids are still unique per database: a second insert of one fails.
    if rand::fill(&mut bytes).is_err() {
        tracing::error!("the system has no randomness");
    }
    bytes
        .iter()
        .map(|byte| {
            char::from(
                ALPHABET
                    .get(usize::from(byte & 31))
                    .copied()
                    .unwrap_or(b'0'),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_only_whole_with_its_key_and_its_row() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let keys = Keys::open(one.path()).unwrap();
        let sealed = keys.seal("q1", b"the arguments").unwrap();
        assert_eq!(
            Keys::open(one.path())
                .unwrap()
                .unseal("q1", &sealed)
                .unwrap(),
            b"the arguments"
        );
        assert!(keys.unseal("q2", &sealed).is_err());
        assert!(
            Keys::open(two.path())
                .unwrap()
                .unseal("q1", &sealed)
                .is_err()
        );
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert!(keys.unseal("q1", &changed).is_err());
        assert!(keys.unseal("q1", &sealed[..5]).is_err());
    }
}
