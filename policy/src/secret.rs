//! Finding credentials in arguments, and masking them for the log and the card.
//!
//! Two questions with different answers: *does this text hold a credential* ([`find`], a gate, so it
//! should rarely be wrong) and *should this be shown* ([`mask`], which would rather hide too much).

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

/// What stands in place of a secret.
pub const MASK: &str = "•••";

/// Forms that providers give their credentials, after the public documentation of each (and the
/// prefixes that the gitleaks rules agree on).
static CREDENTIAL: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"sk-(?:ant-|proj-|or-)?[A-Za-z0-9_-]{20,}", // Anthropic, OpenAI, OpenRouter
        r"|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}", // GitHub
        r"|glpat-[A-Za-z0-9_-]{20,}",                // GitLab
        r"|xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[0-9]-[A-Za-z0-9-]{10,}", // Slack
        r"|(?:AKIA|ASIA)[A-Z0-9]{16}",               // AWS access key id
        r"|AIza[A-Za-z0-9_-]{35}",                   // Google API key
        r"|ya29\.[A-Za-z0-9_-]{20,}",                // Google access token
        r"|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,}", // npm, PyPI
        r"|[rs]k_live_[A-Za-z0-9]{20,}",             // Stripe
        r"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}", // JSON Web Token
        r"|-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----", // PEM, OpenSSH, PGP
        r"|(?i:bearer|basic) [A-Za-z0-9._~+/-]{20,}=*", // an Authorization header
        r"|[a-z][a-z0-9+.-]*://[^\s/:@]+:[^\s/@]{3,}@", // a password in a URL
    ))
    .ok()
});

/// Names of members whose value is hidden whatever it looks like.
static SECRET_NAME: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?i)(?:^|[_.-])(?:password|passwd|passphrase|secret|token|api[_-]?key|private[_-]?key|authorization|credentials?|cookie)$").ok()
});

/// Whether a text holds something in the form of a credential. Where the expressions could not be
/// built, everything does: unreadable is refused.
pub fn is_credential(text: &str) -> bool {
    CREDENTIAL.as_ref().is_none_or(|form| form.is_match(text))
}

/// The JSON pointers (RFC 6901) of the strings and member names that hold a credential. `known`
/// are secrets that the gateway itself holds; those shorter than 8 bytes are not looked for.
pub fn find(value: &Value, known: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    walk(value, &mut String::new(), &mut |path, text| {
        if is_credential(text)
            || known
                .iter()
                .any(|secret| secret.len() >= 8 && text.contains(secret))
        {
            found.push(path.to_owned());
        }
    });
    found.dedup();
    found
}

fn walk(value: &Value, path: &mut String, see: &mut impl FnMut(&str, &str)) {
    match value {
        Value::String(text) => see(path, text),
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                let before = path.len();
                path.push('/');
                path.push_str(&n.to_string());
                walk(item, path, see);
                path.truncate(before);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                let before = path.len();
                path.push('/');
                path.push_str(&name.replace('~', "~0").replace('/', "~1"));
                see(path, name);
                walk(member, path, see);
                path.truncate(before);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The value with its credentials hidden; second, whether anything was.
pub fn mask(value: &Value, known: &[&str]) -> (Value, bool) {
    let mut hidden = false;
    let masked = mask_in(value, known, &mut hidden);
    (masked, hidden)
}

/// A text with its credentials hidden.
pub fn mask_text(text: &str, known: &[&str]) -> String {
    let mut out = match CREDENTIAL.as_ref() {
        Some(form) => form.replace_all(text, MASK).into_owned(),
        None => MASK.to_owned(),
    };
    for secret in known.iter().filter(|secret| secret.len() >= 8) {
        out = out.replace(secret, MASK);
    }
    out
}

fn mask_in(value: &Value, known: &[&str], hidden: &mut bool) -> Value {
    match value {
        Value::String(text) => {
            let masked = mask_text(text, known);
            *hidden |= masked != *text;
            Value::String(masked)
        }
        Value::Array(items) => items
            .iter()
            .map(|item| mask_in(item, known, hidden))
            .collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| {
                let secret = SECRET_NAME
                    .as_ref()
                    .is_none_or(|names| names.is_match(name));
                let shown = if secret && !matches!(member, Value::Null | Value::Bool(_)) {
                    *hidden = true;
                    Value::String(MASK.to_owned())
                } else {
                    mask_in(member, known, hidden)
                };
                (mask_text(name, known), shown)
            })
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn credentials_are_found_where_they_are_and_ordinary_text_is_not() {
        let value = json!({
            "to": "ana@example.org",
            "body": ["hello", "key: ghp_0123456789abcdef0123456789abcdef0123"],
            "url": "https://user:hunter22@example.org/x",
            "note": "a sk-short one, task-force, https://example.org:8080/a@b",
        });
        assert_eq!(find(&value, &[]), ["/body/1", "/url"]);
        assert_eq!(
            find(&json!({"x": "my s3cr3t-value"}), &["s3cr3t-value"]),
            ["/x"]
        );
        let name = format!("sk-ant-{}", "x7".repeat(20));
        assert_eq!(find(&json!({ name: 1 }), &[]).len(), 1);
    }

    #[test]
    fn what_is_masked_does_not_hold_the_secret_any_more() {
        let value = json!({"password": "x", "api_key": 5, "text": "AKIAABCDEFGHIJKLMNOP and s3cr3t-value", "keyboard": "qwerty", "tokens": 3});
        let (masked, hidden) = mask(&value, &["s3cr3t-value"]);
        assert!(hidden);
        assert_eq!(
            masked,
            json!({"password": MASK, "api_key": MASK, "text": format!("{MASK} and {MASK}"), "keyboard": "qwerty", "tokens": 3})
        );
        assert!(!mask(&json!({"a": ["b", null, 1]}), &[]).1);
    }
}
