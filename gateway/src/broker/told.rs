//! What came back of an action, as it goes into the record: masked, and no longer than it is kept.

use policy::action::Digest;
use policy::record::Told;
use serde_json::Value;

use super::{Answer, Parts};

/// How much more than is kept is looked at, so that a credential that is cut off is still known as one.
const MARGIN: usize = 4096;

impl Parts {
    /// What is recorded of an answer; of one that is the gateway's own, nothing.
    pub(super) fn told(&self, answer: &Answer) -> Option<Told> {
        let raw = match answer {
            Answer::Result(raw) | Answer::Error(raw) => raw,
            Answer::Refused(_) => return None,
        };
        let most = self.config.now().audit.max_result;
        let kept = (most > 0).then(|| self.recorded(raw, most)).flatten();
        let (told, cut) = kept.map_or((None, false), |(told, cut)| (Some(told), cut));
        Some(Told {
            digest: Digest::of(raw.as_bytes()),
            size: Some(raw.len()),
            told,
            cut,
        })
    }

    fn recorded(&self, raw: &str, most: usize) -> Option<(Value, bool)> {
        let mut value: Value = serde_json::from_str(raw).ok()?;
        let mut cut = shorten(&mut value, &mut most.saturating_add(MARGIN));
        let (mut masked, _) = self.kept.finder().mask(&value);
        cut |= shorten(&mut masked, &mut { most });
        Some((masked, cut))
    }
}

/// Cuts a value where it becomes longer than what is left; says whether it did.
fn shorten(value: &mut Value, left: &mut usize) -> bool {
    /// What anything but a text counts.
    const OTHER: usize = 8;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            *left = left.saturating_sub(OTHER);
            false
        }
        Value::String(text) => {
            let whole = text.len();
            if whole <= *left {
                *left -= whole;
                return false;
            }
            let end = (0..=*left).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or(0));
            *left = 0;
            true
        }
        Value::Array(items) => {
            let mut cut = false;
            let mut fit = 0;
            for item in items.iter_mut() {
                if *left == 0 {
                    break;
                }
                *left = left.saturating_sub(1);
                cut |= shorten(item, left);
                fit += 1;
            }
            cut |= fit < items.len();
            items.truncate(fit);
            cut
        }
        Value::Object(members) => {
            let mut cut = false;
            members.retain(|name, member| {
                if *left == 0 {
                    cut = true;
                    return false;
                }
                *left = left.saturating_sub(name.len());
                cut |= shorten(member, left);
                true
            });
            cut
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_too_long_is_cut_where_it_becomes_so_and_says_it() {
        let whole =
            json!({ "content": [{ "type": "text", "text": "grün und blau" }], "n": [1, 2, 3] });
        let mut same = whole.clone();
        assert!(!shorten(&mut same, &mut 200));
        assert_eq!(same, whole);
        let mut cut = whole.clone();
        assert!(shorten(&mut cut, &mut 23));
        assert_eq!(
            cut,
            json!({ "content": [{ "type": "text", "text": "gr" }] })
        );
        assert!(shorten(&mut json!(["a", "b"]), &mut 2));
    }
}
