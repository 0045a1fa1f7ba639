//! The folder: letters are files in it, what was sent is a file in `sent/`.
//!
//! An id is the name of a file in the folder itself, without `.eml`, and nothing else: no way leads
//! out of the folder, and a link in it is not followed. What is written is complete or not there.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use mail_parser::{Address, Message, MessageParser};
use rustix::fs::OFlags;

/// The longest letter that is read, in bytes.
const LETTER: u64 = 1024 * 1024;
/// How much of a letter is read for the list, in bytes: its headers.
const HEAD: u64 = 64 * 1024;
/// The longest body that is sent, in bytes.
const BODY: usize = 256 * 1024;
/// The longest subject and address, in bytes.
const LINE: usize = 500;
/// The most entries of a folder that are looked at, and the most letters that were sent.
const ENTRIES: usize = 10_000;
/// The most letters that are listed, the newest ones.
const LISTED: usize = 100;

/// Why it was not done, in words for a model: no paths.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MailError {
    #[error("there is no letter `{0}`; `list` tells which there are")]
    NoLetter(String),
    #[error("the letter `{0}` is longer than 1 MiB and is not read here")]
    TooLong(String),
    #[error("the mailbox holds too many files; its owner has to tidy up")]
    Full,
    #[error("`{0}` is not one address such as `name@example.org`")]
    NoAddress(String),
    #[error("the subject must be one line of at most {LINE} bytes, without control characters")]
    Subject,
    #[error("the body is longer than 256 KiB; send less")]
    Body,
    #[error("the mailbox cannot be used now: {0}")]
    Io(io::ErrorKind),
}

impl From<io::Error> for MailError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

/// What a list tells of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) id: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) subject: String,
    pub(crate) date: String,
    at: i64,
}

/// A mailbox.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox {
    folder: PathBuf,
    address: String,
}

impl Mailbox {
    /// Opens a folder, which is made where it is not there.
    pub(crate) fn open(folder: &Path, address: String) -> io::Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.and_then(|()| {
            let sent = folder.join("sent");
            DirBuilder::new().recursive(true).mode(0o700).create(sent)
        })?;
        Ok(Self {
            folder: folder.canonicalize()?,
            address,
        })
    }

    /// The newest letters, newest first, and how many older ones are left out.
    pub(crate) fn list(&self) -> Result<(Vec<Head>, usize), MailError> {
        let mut heads = Vec::new();
        for (count, entry) in fs::read_dir(&self.folder)?.enumerate() {
            if count >= ENTRIES {
                return Err(MailError::Full);
            }
            let name = entry?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".eml")) else {
                continue;
            };
            // What is no letter, or has just gone, is not listed.
            if let Ok(Some((bytes, _))) = self.bytes(id, HEAD) {
                heads.push(head(
                    id,
                    MessageParser::default().parse_headers(&bytes).as_ref(),
                ));
            }
        }
        heads.sort_by(|a: &Head, b| (b.at, &b.id).cmp(&(a.at, &a.id)));
        let left_out = heads.len().saturating_sub(LISTED);
        heads.truncate(LISTED);
        Ok((heads, left_out))
    }

    /// One letter: its head, and its text.
    pub(crate) fn read(&self, id: &str) -> Result<(Head, String), MailError> {
        let none = || MailError::NoLetter(id.to_owned());
        let (bytes, more) = self.bytes(id, LETTER)?.ok_or_else(none)?;
        if more {
            return Err(MailError::TooLong(id.to_owned()));
        }
        let message = MessageParser::default().parse(&bytes);
        let texts = message.iter().flat_map(|message| {
            (0..message.text_body_count()).filter_map(|part| message.body_text(part))
        });
        let body = texts.collect::<Vec<_>>().join("\n\n");
        Ok((head(id, message.as_ref()), body))
    }

    /// Sends a letter: it is in `sent/`, whole and on the disk, when this returns its id.
    pub(crate) fn send(
        &self,
        to: &str,
        subject: &str,
        body: &str,
        now: Timestamp,
    ) -> Result<String, MailError> {
        if !is_address(to) {
            return Err(MailError::NoAddress(to.chars().take(LINE).collect()));
        }
        if subject.len() > LINE || subject.chars().any(char::is_control) {
            return Err(MailError::Subject);
        }
        if body.len() > BODY {
            return Err(MailError::Body);
        }
        let sent = self.folder.join("sent");
        if fs::read_dir(&sent)?.take(ENTRIES).count() == ENTRIES {
            return Err(MailError::Full);
        }
        let id = uuid::Uuid::now_v7().simple().to_string();
        let text = format!(
            "From: {}\nTo: {to}\nSubject: {subject}\nDate: {}\nMessage-ID: <{id}@postbox>\n\
             MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\
             Content-Transfer-Encoding: 8bit\n\n{body}\n",
            self.address,
            rfc2822(now)
        );
        write(&sent, &format!("{id}.eml"), text.as_bytes())?;
        Ok(id)
    }

    /// Whether the folder has an entry of this name.
    pub(crate) fn holds(&self, name: &str) -> bool {
        self.folder.join(name).symlink_metadata().is_ok()
    }

    /// Puts a file into the folder, unless one of this name is there.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        match write(&self.folder, name, bytes) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => done,
        }
    }

    /// The first bytes of a letter, and whether there are more; `None` if there is no such letter.
    fn bytes(&self, id: &str, limit: u64) -> Result<Option<(Vec<u8>, bool)>, MailError> {
        if !is_id(id) {
            return Ok(None);
        }
        // Neither a link nor a pipe may take us elsewhere or hold us up.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let open = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(self.folder.join(format!("{id}.eml")));
        let file = match open {
            Ok(file) => file,
            Err(error) if is_none(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = bytes.len() > limit;
        bytes.truncate(limit);
        Ok(Some((bytes, more)))
    }
}

/// The date of a letter, as it is written in one.
pub(crate) fn rfc2822(at: Timestamp) -> String {
    let at = at.to_zoned(jiff::tz::TimeZone::UTC);
    jiff::fmt::rfc2822::to_string(&at).unwrap_or_default()
}

/// Writes a file that is whole and on the disk when this returns, or is not there; none is replaced.
fn write(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(dir.join(name))?;
    File::open(dir)?.sync_all()
}

/// What can be an id: nothing that is a way, hidden, or hard to tell apart.
fn is_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+=@,".contains(&byte);
    !id.is_empty() && id.len() <= 200 && !id.starts_with('.') && id.bytes().all(plain)
}

/// One plain address: no list, no name, nothing that a header or a reader could take for more.
fn is_address(text: &str) -> bool {
    let odd = |c: char| c.is_control() || c.is_whitespace() || "<>()[]\\,;:\"".contains(c);
    let mut parts = text.split('@');
    let (Some(name), Some(host), None) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    !name.is_empty() && !host.is_empty() && text.len() <= LINE && !text.contains(odd)
}

fn is_none(error: &io::Error) -> bool {
    // A link that is not followed is no letter either.
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

fn head(id: &str, message: Option<&Message<'_>>) -> Head {
    let date = message.and_then(Message::date);
    Head {
        id: id.to_owned(),
        from: people(message.and_then(Message::from)),
        to: people(message.and_then(Message::to)),
        subject: message
            .and_then(Message::subject)
            .unwrap_or_default()
            .to_owned(),
        date: date
            .map(mail_parser::DateTime::to_rfc3339)
            .unwrap_or_default(),
        at: date.map_or(i64::MIN, mail_parser::DateTime::to_timestamp),
    }
}

fn people(address: Option<&Address<'_>>) -> String {
    let all = address.iter().flat_map(|address| address.iter());
    let one = |addr: &mail_parser::Addr<'_>| match (addr.name(), addr.address()) {
        (Some(name), Some(address)) => format!("{name} <{address}>"),
        (None, Some(one)) | (Some(one), None) => one.to_owned(),
        (None, None) => String::new(),
    };
    all.map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
