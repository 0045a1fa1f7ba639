//! How large JSON may be inside: how deep it nests and how many values it holds. What is deeper or
//! holds more is refused before anything looks into it, so that nothing that does can be made to
//! overflow its stack or to take for ever.

use serde_json::Value;

/// The most of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most arrays and objects within each other.
    pub depth: usize,
    /// The most values: members, items and what holds them.
    pub values: usize,
}

/// What there is too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    /// It nests too deep.
    #[error("nests deeper than {0} levels")]
    Deep(usize),
    /// It holds too many values.
    #[error("holds more than {0} values")]
    Many(usize),
}

impl Limits {
    /// Looks at a JSON text, without reading it into anything. Of a text that is no JSON the answer
    /// means nothing.
    ///
    /// # Errors
    /// [`TooMuch`].
    pub fn check_text(self, text: &str) -> Result<(), TooMuch> {
        let (mut depth, mut values) = (0_usize, 1_usize);
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' => {
                    while let Some(byte) = bytes.next() {
                        match byte {
                            b'\\' => drop(bytes.next()),
                            b'"' => break,
                            _ => {}
                        }
                    }
                }
                b'[' | b'{' => {
                    depth += 1;
                    values += 1;
                    self.fits(depth, values)?;
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                b',' => {
                    values += 1;
                    self.fits(depth, values)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Looks at a value.
    ///
    /// # Errors
    /// [`TooMuch`].
    pub fn check(self, value: &Value) -> Result<(), TooMuch> {
        let mut open = vec![(value, 1)];
        let mut values = 0;
        while let Some((value, depth)) = open.pop() {
            values += 1;
            match value {
                Value::Array(items) => {
                    self.fits(depth, values + items.len())?;
                    open.extend(items.iter().map(|item| (item, depth + 1)));
                }
                Value::Object(members) => {
                    self.fits(depth, values + members.len())?;
                    open.extend(members.values().map(|member| (member, depth + 1)));
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        self.fits(0, values)
    }

    fn fits(self, depth: usize, values: usize) -> Result<(), TooMuch> {
        if depth > self.depth {
            return Err(TooMuch::Deep(self.depth));
        }
        if values > self.values {
            return Err(TooMuch::Many(self.values));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        depth: 3,
        values: 8,
    };

    #[test]
    fn what_is_too_deep_or_too_many_is_seen_in_texts_and_values_alike() {
        for (text, found) in [
            ("[[[1]]]", Ok(())),
            (r#"{"a":{"b":["]]]}}}[[[[{{{{,,,,,,,,,,,\"[["]}}"#, Ok(())),
            ("[[[[]]]]", Err(TooMuch::Deep(3))),
            (r#"[{"a":[{}]}]"#, Err(TooMuch::Deep(3))),
            ("[1,2,3,4,5,6,7]", Ok(())),
            ("[1,2,3,4,5,6,7,8]", Err(TooMuch::Many(8))),
            (r#"{"a":[1,2,3],"b":[1,2]}"#, Ok(())),
            (r#"{"a":[1,2,3],"b":[1,2,3]}"#, Err(TooMuch::Many(8))),
            ("7", Ok(())),
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(LIMITS.check(&value), found, "the value {text}");
            assert_eq!(LIMITS.check_text(text), found, "the text {text}");
        }
        let deep = "[".repeat(10_000_000);
        assert_eq!(LIMITS.check_text(&deep), Err(TooMuch::Deep(3)));
    }
}
