//! Secrets that the gateway holds, in the spellings in which they could leave it.

use std::collections::BTreeSet;

use crate::action::hex;

/// Shorter ones are not looked for: they would be found everywhere.
const SHORTEST: usize = 8;

/// A secret as it is and as JSON, URLs, base64 and hexadecimal write it, and backwards.
pub(super) fn spellings(secret: &str) -> BTreeSet<String> {
    if secret.len() < SHORTEST {
        return BTreeSet::new();
    }
    let json = serde_json::Value::String(secret.to_owned()).to_string();
    let json = json.trim_matches('"').to_owned();
    let lower = hex(secret.as_bytes());
    let mut all = BTreeSet::from([
        secret.to_owned(),
        json.replace('/', "\\/"),
        json,
        secret.chars().rev().collect(),
        percent(secret, false),
        percent(secret, false).replace("%20", "+"),
        percent(secret, true),
        percent(secret, true).replace("%20", "+"),
        lower.to_ascii_uppercase(),
        lower,
    ]);
    for shift in 0..3 {
        for url in [false, true] {
            all.insert(base64_within(secret.as_bytes(), shift, url));
        }
    }
    all.retain(|one| one.len() >= SHORTEST);
    all
}

fn percent(text: &str, lower: bool) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ if lower => format!("%{byte:02x}"),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// The letters of base64 that depend on the secret alone, where `shift` bytes stand before it.
fn base64_within(secret: &[u8], shift: usize, url: bool) -> String {
    let mut bytes = vec![0; shift];
    bytes.extend_from_slice(secret);
    let alphabet: &[u8; 64] = if url {
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    } else {
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    };
    let bit = |n: usize| {
        let byte = bytes.get(n / 8).copied().unwrap_or_default();
        usize::from(byte >> (7 - n % 8) & 1)
    };
    let first = (shift * 8).div_ceil(6);
    let last = bytes.len() * 8 / 6;
    (first..last)
        .filter_map(|letter| {
            let bits = (letter * 6..letter * 6 + 6).fold(0, |bits, n| bits << 1 | bit(n));
            alphabet.get(bits).copied().map(char::from)
        })
        .collect()
}

/// Base64 (either alphabet, padded or not), if that is what it is.
pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from(bits >> held & 0xff).unwrap_or_default());
        }
    }
    Some(out)
}

/// Hexadecimal, if that is what it is.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    pairs.remainder().is_empty().then_some(())?;
    Some(
        pairs
            .map(|pair| pair.iter().fold(0, |all, digit| all << 4 | digit))
            .collect(),
    )
}

/// A text with its `%41`s read; `None` if there are none.
pub(super) fn from_percent(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut read = false;
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let pair = after
            .get(..2)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        let byte = pair
            .filter(|_| *first == b'%')
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        if let Some(byte) = byte {
            out.push(byte);
            rest = after.get(2..).unwrap_or_default();
            read = true;
        } else {
            out.push(*first);
            rest = after;
        }
    }
    read.then(|| String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_known_wherever_in_it_the_secret_stands() {
        let secret = "s3cr3t/value?+é";
        for before in ["", "a", "ab", "abc"] {
            let whole = format!("{before}{secret} and more");
            let written = base64_within(whole.as_bytes(), 0, false);
            assert_eq!(
                from_base64(&written).unwrap(),
                &whole.as_bytes()[..written.len() * 6 / 8]
            );
            let spelt = spellings(secret);
            assert!(
                spelt.iter().any(|one| written.contains(one.as_str())),
                "{before}"
            );
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        assert_eq!(from_percent("a%2Fb%é").as_deref(), Some("a/b%é"));
        assert_eq!(from_percent("100%"), None);
        assert_eq!(from_hex("61ff").unwrap(), [0x61, 0xff]);
        assert_eq!(from_hex("61f"), None);
        assert_eq!(from_base64("aGk=").unwrap(), b"hi");
        assert!(spellings("short").is_empty());
    }
}
