//! Values with a form of their own: mail addresses, links, hosts, accounts, telephone numbers.
//!
//! Each is parsed as a whole and brought into the one form in which it is compared. Where programs
//! are known to read a text differently (two `@`, a backslash in a link, a name before a host), it is
//! no address, and so nobody's choice.

use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization as _;
use url::{Host, Url};

use super::words::is_hidden;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A mail address. Its domain has no case, what is before the `@` has.
    Mail,
    /// A link with a path, a query, a port or a scheme other than that of the web.
    Link,
    /// A host, or a link to its first page.
    Host,
    /// A bank account (IBAN) or another long number of letters and digits.
    Account,
    /// A telephone number.
    Phone,
    /// Somebody who is mentioned: `@name`.
    Mention,
}

/// A value in the form in which it is compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// What it is.
    pub kind: Kind,
    /// The form in which it is compared.
    pub text: String,
    /// As it was written.
    pub written: String,
    /// It can hardly be something else. A file's name has the form of a host, too.
    pub sure: bool,
}

/// Endings of files that are no top-level domains.
const FILES: [&str; 44] = [
    "bak", "bmp", "cfg", "conf", "css", "csv", "doc", "docx", "epub", "exe", "gif", "gz", "htm",
    "html", "ini", "ipynb", "java", "jpeg", "jpg", "js", "json", "jsx", "lock", "log", "mp3",
    "mp4", "odt", "pdf", "png", "ppt", "pptx", "rtf", "svg", "tar", "tex", "toml", "ts", "tsx",
    "txt", "wav", "xls", "xlsx", "xml", "yaml",
];

/// An IBAN (ISO 13616) without blanks; its check digits are not looked at, for what has the form of one
/// is sent like one.
static IBAN: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^[A-Za-z]{2}[0-9]{2}[A-Za-z0-9]{10,30}$").ok());
/// An IBAN in groups of four, as people write it.
static SPACED_IBAN: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"\b[A-Z]{2}[0-9]{2}(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,4})?\b").ok()
});
/// A telephone number that cannot be taken for a date or an amount: with its country, or with an area.
static SURE_PHONE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"\+[0-9](?:[ ().-]{0,2}[0-9]){7,14}",
        r"|\([0-9]{3}\) ?[0-9]{3}[-. ][0-9]{4}\b",
        r"|\b[0-9]{3}[-.][0-9]{3}[-.][0-9]{4}\b",
    ))
    .ok()
});

fn nfc(text: &str) -> String {
    text.nfc().collect()
}

/// A host in the form in which it is compared: IDNA, lower case, no dot at its end.
fn host(text: &str) -> Option<String> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.') || is_mark(c);
    if text.is_empty() || !text.chars().all(plain) {
        return None;
    }
    match Host::parse(text).ok()? {
        Host::Domain(name) => {
            let name = name.strip_suffix('.').unwrap_or(&name).to_ascii_lowercase();
            let labels = |label: &str| !label.is_empty() && label.len() <= 63;
            (name.len() <= 253 && name.split('.').all(labels)).then_some(name)
        }
        Host::Ipv4(ip) => Some(ip.to_string()),
        Host::Ipv6(_) => None,
    }
}

/// A combining mark, which a name of a host may hold before it is normalised.
fn is_mark(c: char) -> bool {
    unicode_normalization::char::is_combining_mark(c)
}

/// Whether a name of a host ends in what can be a top-level domain, or is an address.
fn is_public(host: &str) -> bool {
    if host.parse::<std::net::Ipv4Addr>().is_ok() {
        return true;
    }
    match host.rsplit_once('.') {
        Some((_, top)) => {
            top.len() >= 2
                && (top.chars().all(|c| c.is_ascii_alphabetic()) || top.starts_with("xn--"))
        }
        None => false,
    }
}

/// Reads a text that is one address and nothing else.
pub fn whole(text: &str) -> Option<Address> {
    let parsed = |kind, form: String, sure| {
        Some(Address {
            kind,
            text: form,
            written: text.to_owned(),
            sure,
        })
    };
    if text.len() > 2048 || text.chars().any(is_hidden) {
        return None;
    }
    if let Some(form) = account(text) {
        return parsed(Kind::Account, form, true);
    }
    if let Some((form, sure)) = phone(text) {
        return parsed(Kind::Phone, form, sure);
    }
    if text.chars().any(char::is_whitespace) {
        return None;
    }
    if text.contains("://") {
        let (kind, form) = link(text)?;
        return parsed(kind, form, true);
    }
    if let Some(name) = text.strip_prefix('@') {
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        let named = name.chars().count() >= 2 && name.chars().all(plain);
        return named
            .then(|| parsed(Kind::Mention, nfc(name).to_lowercase(), true))
            .flatten();
    }
    if text.contains('@') {
        return parsed(Kind::Mail, mail(text)?, true);
    }
    let (kind, form) = bare(text)?;
    let file = form
        .rsplit_once('.')
        .is_some_and(|(_, end)| FILES.contains(&end));
    parsed(kind, form, kind == Kind::Link || !file)
}

fn mail(text: &str) -> Option<String> {
    let text = match text.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("mailto:") => text.get(7..)?,
        Some(_) | None => text,
    };
    let (local, domain) = text.split_once('@')?;
    let plain = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c) || is_mark(c);
    if local.is_empty() || local.len() > 64 || !local.chars().all(plain) {
        return None;
    }
    Some(format!("{}@{}", nfc(local), host(domain)?))
}

fn link(text: &str) -> Option<(Kind, String)> {
    let (scheme, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) => (name, Some(port)),
        Some(_) => return None,
        None => (authority, None),
    };
    if text.contains('\\') || scheme.is_empty() {
        return None;
    }
    let name = host(name)?;
    let parsed = Url::parse(text).ok()?;
    let scheme = parsed.scheme();
    if matches!(scheme, "http" | "https") {
        // What was parsed is what was read above.
        if parsed.host_str()?.trim_end_matches('.') != name {
            return None;
        }
        let default = if scheme == "http" { "80" } else { "443" };
        let port = port.filter(|port| *port != default && !port.is_empty());
        return Some(web(&name, port, parsed.path(), parsed.query()));
    }
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let query = parsed.query().map(|query| format!("?{query}"));
    let path = parsed.path();
    Some((
        Kind::Link,
        format!("{scheme}://{name}{port}{path}{}", query.unwrap_or_default()),
    ))
}

/// A link of the web; whether it is encrypted makes it no other place.
fn web(host: &str, port: Option<&str>, path: &str, query: Option<&str>) -> (Kind, String) {
    let bare = matches!(path, "" | "/") && query.is_none_or(str::is_empty) && port.is_none();
    if bare {
        return (Kind::Host, host.to_owned());
    }
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let path = match path.strip_suffix('/') {
        // The same page to whoever serves it.
        Some(shorter) if !shorter.is_empty() && query.is_empty() => shorter,
        Some(_) | None if path.is_empty() => "/",
        Some(_) | None => path,
    };
    (Kind::Link, format!("{host}{port}{path}{query}"))
}

/// A host, or a link without its scheme.
fn bare(text: &str) -> Option<(Kind, String)> {
    if !text.contains('.') || text.starts_with('.') {
        return None;
    }
    let end = text.find(['/', '?', '#', ':']).unwrap_or(text.len());
    let name = host(text.get(..end)?)?;
    if !is_public(&name) {
        return None;
    }
    if end == text.len() {
        return Some((Kind::Host, name));
    }
    link(&format!("https://{text}"))
}

fn account(text: &str) -> Option<String> {
    let joined: String = text.chars().filter(|c| *c != ' ').collect();
    if joined.len() < text.len() {
        let spaced = SPACED_IBAN.as_ref()?;
        let all = spaced.find(text)?;
        return (all.len() == text.len()).then_some(joined);
    }
    if IBAN.as_ref()?.is_match(&joined) {
        return Some(joined.to_ascii_uppercase());
    }
    let digits = joined.chars().filter(char::is_ascii_digit).count();
    let plain = joined.chars().all(|c| c.is_ascii_alphanumeric());
    (plain && joined.len() >= 12 && digits >= 6).then_some(joined)
}

/// A telephone number, and whether it is sure to be one.
fn phone(text: &str) -> Option<(String, bool)> {
    let plain = |c: char| c.is_ascii_digit() || " ().-/+".contains(c);
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    if !(7..=15).contains(&digits.len()) || !text.chars().all(plain) {
        return None;
    }
    if text.get(1..).is_some_and(|rest| rest.contains('+')) {
        return None;
    }
    let sure = SURE_PHONE
        .as_ref()
        .and_then(|form| form.find(text))
        .is_some_and(|found| found.len() == text.len());
    let form = match (text.starts_with('+'), digits.strip_prefix("00")) {
        (true, _) => format!("+{digits}"),
        (false, Some(rest)) => format!("+{rest}"),
        (false, None) => digits,
    };
    Some((form, sure))
}

/// What stands around an address in a text and is no part of it.
const AROUND: &[char] = &[
    '.', ',', ';', ':', '!', '?', '\'', '’', '‘', '*', '_', '~', '…', '=',
];

/// What separates pieces of a text wherever it stands; not in a link.
pub(super) fn separates(c: char) -> bool {
    matches!(
        c,
        ',' | ';'
            | '|'
            | '('
            | ')'
            | '['
            | ']'
            | '{'
            | '}'
            | '<'
            | '>'
            | '"'
            | '“'
            | '”'
            | '„'
            | '«'
            | '»'
            | '`'
    )
}

/// All addresses in a text.
pub fn find(text: &str) -> Vec<Address> {
    let mut found = Vec::new();
    for form in [&SPACED_IBAN, &SURE_PHONE] {
        if let Some(form) = form.as_ref() {
            found.extend(form.find_iter(text).filter_map(|one| whole(one.as_str())));
        }
    }
    for chunk in text.split_whitespace() {
        pieces(links(chunk, &mut found), &mut found);
    }
    found.sort();
    found.dedup();
    found
}

/// The addresses without a scheme in a piece of text without blanks.
fn pieces(chunk: &str, found: &mut Vec<Address>) {
    for piece in chunk.split(separates) {
        let piece = piece
            .trim_end_matches(AROUND)
            .trim_start_matches(['\'', '’', '‘', '*', '_', '~', '=', ':', '#']);
        if piece.len() >= 3 {
            found.extend(whole(piece));
        }
    }
}

/// The links in a piece of text without blanks; returns what comes after the last.
fn links<'a>(chunk: &'a str, found: &mut Vec<Address>) -> &'a str {
    let mut rest = chunk;
    while let Some(colon) = rest.find("://") {
        let (before, after) = rest.split_at(colon);
        let begins = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '-'));
        let scheme = before.rsplit(begins).next().unwrap_or_default();
        pieces(before.strip_suffix(scheme).unwrap_or_default(), found);
        let end = after
            .find(['<', '>', '"', '“', '”', '`', '{', '}', '|', '^', '\''])
            .unwrap_or(after.len());
        let (link, more) = after.split_at(end);
        let mut link = link.trim_end_matches(AROUND);
        while let Some(shorter) = link.strip_suffix([')', ']', ',']) {
            let opened = shorter.matches('(').count() > shorter.matches(')').count();
            if link.ends_with(')') && opened {
                break;
            }
            link = shorter.trim_end_matches(AROUND);
        }
        let text = format!("{scheme}{link}");
        let unreadable = || Address {
            kind: Kind::Link,
            text: format!("unreadable {text}"),
            written: text.clone(),
            sure: true,
        };
        // It is meant to be one, whoever can read it: nobody has chosen it.
        found.push(whole(&text).unwrap_or_else(unreadable));
        rest = more;
    }
    rest
}
