//! Values with a form of their own: durations, sizes, origins, secrets, traits.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use policy::traits::{Declared, Level};

use super::read::{Item, LATER, Table};
use crate::secrets::Secret;

/// The longest duration: ten years.
const LONGEST: u64 = 3650 * 86_400;

/// Reads a duration such as `10m`; `None` if it is not one.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let duration = match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3600)?),
        "d" => Duration::from_secs(number.checked_mul(86_400)?),
        _ => return None,
    };
    (!duration.is_zero() && duration <= Duration::from_secs(LONGEST)).then_some(duration)
}

/// What [`duration`] accepts, for messages.
pub const DURATION: &str = "accepted: a whole number and a unit (`ms`, `s`, `m`, `h`, `d`), such as \"90s\", \"10m\", \"12h\", \"30d\"";

/// Whether the gateway may listen there.
///
/// # Errors
/// A sentence that says why not, and what to do.
pub fn may_listen(listen: SocketAddr, behind_proxy: bool) -> Result<(), String> {
    if behind_proxy || listen.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(format!(
        "`{listen}` can be reached from other machines, and without TLS tokens would travel in the clear; \
         listen on 127.0.0.1, or put a proxy that does TLS in front and say `gateway.behind_proxy = true`"
    ))
}

/// The origin of an address that people would write: scheme, host, port where it is not the usual.
pub(super) fn origin(text: &str) -> Result<String, &'static str> {
    let url = reqwest::Url::parse(text).map_err(|_| "it is not an address")?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
        return Err("it is not an http or https address");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds a user name or password");
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err("it has a path; the gateway has an origin of its own");
    }
    Ok(url.origin().ascii_serialization())
}

impl Item<'_> {
    /// A duration.
    pub(super) fn duration(&self) -> Option<Duration> {
        let value = self.as_text().and_then(duration);
        if value.is_none() {
            self.problem("it is not a duration", DURATION);
        }
        value
    }

    /// A number of bytes.
    pub(super) fn size(&self, range: std::ops::RangeInclusive<usize>) -> Option<usize> {
        let accepted = format!(
            "accepted: from {} to {}, as a number of bytes or such as \"4 MiB\", \"512 KiB\"",
            bytes(*range.start()),
            bytes(*range.end())
        );
        let value = match self.as_text() {
            Some(text) => parse_size(text),
            None => self.as_number().flatten(),
        };
        let value = value.filter(|n| range.contains(n));
        if value.is_none() {
            self.problem("it is not a size that fits here", &accepted);
        }
        value
    }

    /// The trait's level.
    pub(super) fn level(&self) -> Option<Level> {
        match (self.as_flag(), self.as_text()) {
            (Some(true), _) => Some(Level::Yes),
            (Some(false), _) => Some(Level::No),
            (None, Some("forbidden")) => Some(Level::Forbidden),
            (None, _) => {
                self.problem(
                    "it is not a trait's value",
                    "accepted: `true`, `false`, \"forbidden\"",
                );
                None
            }
        }
    }

    /// An absolute path.
    pub(super) fn absolute(&self) -> Option<PathBuf> {
        let path = PathBuf::from(self.text()?);
        if path.is_absolute() {
            return Some(path);
        }
        self.problem(
            "the path is relative, and nothing is read from the current directory",
            "accepted: an absolute path",
        );
        None
    }

    /// A secret; its value never shows in a problem.
    pub(super) fn secret(&self) -> Option<Secret> {
        self.hide_if_text();
        if let Some(text) = self.as_text() {
            if text.contains('\0') {
                self.problem("it holds a NUL character", "accepted: a text without it");
                return None;
            }
            return Some(Secret::Plain(text.to_owned()));
        }
        let accepted = "accepted: a text, { env = \"NAME\" }, { file = \"/path\" } or { command = [\"program\", \"argument\"] }";
        if !self.is_table() {
            self.problem("it is not a secret", accepted);
            return None;
        }
        let table = self.table()?;
        let env = table
            .get("env")
            .map(|item| item.variable().map(Secret::Env));
        let file = table
            .get("file")
            .map(|item| item.absolute().map(Secret::File));
        let command = table.get("command").map(|item| item.argv());
        if let Some(item) = table.get("secret") {
            item.problem(
                format!("the secret store is {LATER}: it comes later"),
                accepted,
            );
            return None;
        }
        table.done();
        let mut given: Vec<Option<Secret>> = [env, file, command].into_iter().flatten().collect();
        if given.len() != 1 {
            self.problem_at_key("a secret comes from exactly one place", Some(accepted));
            return None;
        }
        given.pop().flatten()
    }

    fn hide_if_text(&self) {
        if !self.is_table() {
            self.hide();
        }
    }

    fn argv(&self) -> Option<Secret> {
        // An argument of the command may itself be a secret.
        self.hide();
        let words = self.texts()?;
        if words.is_empty() {
            self.problem(
                "the command is empty",
                "accepted: a program and its arguments",
            );
            return None;
        }
        Some(Secret::Command(words))
    }

    /// The name of an environment variable.
    pub(super) fn variable(&self) -> Option<String> {
        let name = self.text()?;
        if is_variable(name) {
            return Some(name.to_owned());
        }
        // It may be the secret itself.
        self.hide();
        self.problem("it is no name of an environment variable", VARIABLE);
        None
    }
}

/// What [`is_variable`] accepts, for messages.
pub(super) const VARIABLE: &str =
    "accepted: letters, digits and `_`, the first no digit, such as \"API_TOKEN\"";

/// Whether a text names an environment variable.
pub(super) fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A table of names and secrets.
pub(super) fn secrets(
    table: &Table<'_>,
    mut name: impl FnMut(&Item<'_>) -> Option<String>,
) -> BTreeMap<String, Secret> {
    let mut out = BTreeMap::new();
    for item in table.entries() {
        let (name, secret) = (name(&item), item.secret());
        if let (Some(name), Some(secret)) = (name, secret) {
            out.insert(name, secret);
        }
    }
    out
}

/// The four traits of a table.
pub(super) fn declared(table: &Table<'_>) -> Declared {
    let level = |key| table.get(key).and_then(|item| item.level());
    Declared {
        public_source: level("public_source"),
        secret_data: level("secret_data"),
        public_sink: level("public_sink"),
        dangerous_writes: level("dangerous_writes"),
        read_only: None,
    }
}

fn parse_size(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: usize = number.parse().ok()?;
    match unit.trim_start() {
        "B" => Some(number),
        "KiB" => number.checked_mul(1024),
        "MiB" => number.checked_mul(1024 * 1024),
        _ => None,
    }
}

fn bytes(n: usize) -> String {
    const MIB: usize = 1024 * 1024;
    match n {
        _ if n.is_multiple_of(MIB) => format!("{} MiB", n / MIB),
        _ if n.is_multiple_of(1024) => format!("{} KiB", n / 1024),
        _ => format!("{n} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_are_never_nothing() {
        for (text, seconds) in [
            ("90s", 90),
            ("10m", 600),
            ("12h", 43_200),
            ("30d", 2_592_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        for text in [
            "",
            "10",
            "m",
            "0s",
            "-1s",
            "1.5h",
            "1 h",
            "1w",
            "99999999999999999d",
            "3651d",
            "é",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert_eq!(
            origin("https://Gate.Example.org/"),
            Ok("https://gate.example.org".into())
        );
        assert_eq!(
            origin("https://a.example:443"),
            Ok("https://a.example".into())
        );
        assert_eq!(origin("http://[::1]:8080"), Ok("http://[::1]:8080".into()));
        for text in [
            "gate.example.org",
            "ftp://a",
            "https://a/b",
            "https://u:p@a",
            "https://a?b",
            "https://",
        ] {
            assert!(origin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_loopback_goes_without_a_proxy() {
        for (listen, ok) in [
            ("127.0.0.1:1", true),
            ("127.8.8.8:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("192.168.1.1:1", false),
        ] {
            assert_eq!(
                may_listen(listen.parse().unwrap(), false).is_ok(),
                ok,
                "{listen}"
            );
            assert_eq!(may_listen(listen.parse().unwrap(), true), Ok(()));
        }
    }
}
