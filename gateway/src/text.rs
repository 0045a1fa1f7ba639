//! Text that others wrote, made safe to show on a terminal and on a page.

use std::fmt::Write as _;

/// The text with every character that could move the cursor, hide or reorder what a person reads
/// shown as `\u{..}`: control characters (a line break and a tab too), bidirectional controls and
/// characters without width.
pub fn printable(text: &str) -> String {
    escape(text, |_| false)
}

/// As [`printable`], but lines stay lines.
pub fn printable_lines(text: &str) -> String {
    escape(text, |c| c == '\n')
}

/// As [`printable_lines`], for running text on a page: a tab stays, and so do the two characters
/// without which many an emoji falls apart.
pub fn prose(text: &str) -> String {
    escape(text, |c| matches!(c, '\n' | '\t' | '\u{200d}' | '\u{fe0f}'))
}

/// JSON in which the same characters are escapes: it means the same to a program, and moves no cursor
/// where a person looks at it.
pub fn printable_json(json: &str) -> String {
    let mut units = [0; 2];
    json.chars().fold(String::new(), |mut out, c| {
        // Those below are escaped in JSON, or are white space between its parts.
        if c < '\u{7f}' || !is_deceptive(c) {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
        out
    })
}

/// An error and everything that led to it, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

fn escape(text: &str, keep: impl Fn(char) -> bool) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut out, c| {
            if keep(c) || !is_deceptive(c) {
                out.push(c);
            } else {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            out
        })
}

/// Whether a character of a text is seen by nobody and read by a program: like those that are spelled
/// out, without lines, tabs and what emoji are joined by.
pub fn is_hidden(c: char) -> bool {
    is_deceptive(c) && !matches!(c, '\n' | '\r' | '\t' | '\u{200d}' | '\u{fe0e}' | '\u{fe0f}')
}

/// Whether a character is drawn as nothing, or changes how others are drawn.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' // zero width, left-to-right and right-to-left marks
            | '\u{2028}'..='\u{202e}' // line and paragraph separators, embeddings, overrides
            | '\u{2060}'..='\u{206f}' // word joiner, invisible operators, isolates, deprecated
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}' // interlinear annotation
            | '\u{e0000}'..='\u{e0fff}' // tags and variation selectors
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_deceive_a_reader_is_spelled_out() {
        for (text, shown) in [
            ("plain é 漢 ✓", "plain é 漢 ✓"),
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("a\u{202e}b\u{2066}c", "a\\u{202e}b\\u{2066}c"),
            ("a\u{200b}b\u{feff}\u{9b}", "a\\u{200b}b\\u{feff}\\u{9b}"),
            ("a\nb\tc", "a\\u{a}b\\u{9}c"),
            ("\u{e0041}", "\\u{e0041}"),
        ] {
            assert_eq!(printable(text), shown);
        }
        assert_eq!(printable_lines("a\nb\r"), "a\nb\\u{d}");
        let json = serde_json::json!({"é\u{9b}": ["\u{202e}\u{e0041}\n"]});
        let shown = printable_json(&json.to_string());
        assert_eq!(shown, "{\"é\\u009b\":[\"\\u202e\\udb40\\udc41\\n\"]}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
            json
        );
        assert_eq!(prose("a\tb\u{fe0f}\n\u{202e}"), "a\tb\u{fe0f}\n\\u{202e}");
    }
}
