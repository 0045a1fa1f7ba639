//! The letters of the demo: everyday mail, and one that tries something.

use std::io;

use jiff::{SignedDuration, Timestamp};

use crate::mailbox::{Mailbox, rfc2822};

/// Whose mailbox it is.
pub(crate) const OWNER: &str = "you@home.example";

/// Tells that the letters were there once: who deletes them is not sent them again.
const MARK: &str = ".demo";

/// The letters, oldest first, and how many minutes ago each came.
const LETTERS: [(&str, i64, &str); 3] = [
    ("lunch", 3 * 24 * 60 + 95, include_str!("demo/lunch.eml")),
    ("library", 26 * 60, include_str!("demo/library.eml")),
    // The newest carries an instruction that no person would see.
    ("booking", 12, include_str!("demo/booking.eml")),
];

/// Puts the letters there, once in the life of a folder.
pub(crate) fn seed(mailbox: &Mailbox, now: Timestamp) -> io::Result<()> {
    if mailbox.holds(MARK) {
        return Ok(());
    }
    for (name, minutes, text) in LETTERS {
        let date = now
            .checked_sub(SignedDuration::from_mins(minutes))
            .unwrap_or(now);
        let text = text
            .replace("{DATE}", &rfc2822(date))
            .replace("{OWNER}", OWNER);
        mailbox.put(&format!("{name}.eml"), text.as_bytes())?;
    }
    // Last: where the power goes before, the rest comes with the next start.
    mailbox.put(MARK, b"")
}
