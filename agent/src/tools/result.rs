//! What a tool returned, as a `tool_result` block of a bounded size.

use serde_json::{Value, json};

/// The most blocks of one result.
const MOST_BLOCKS: usize = 64;
/// How the gateway's fence around what strangers wrote begins, and its last line.
const FENCE: (&str, &str) = ("[portcullis:data ", "[portcullis:end ");
/// The kinds of images that models read.
const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// The block of a result, of about `room` bytes at most.
pub(super) fn block(id: &str, result: &Value, room: usize) -> Value {
    let mut made = Made {
        room,
        blocks: Vec::new(),
    };
    let kind = result.get("resultType").and_then(Value::as_str);
    if kind.is_some_and(|kind| kind != "complete") {
        return error(
            id,
            "the tool asked something back, which is not possible here",
            room,
        );
    }
    let content = result.get("content").and_then(Value::as_array);
    let content = content.map(Vec::as_slice).unwrap_or_default();
    let failed = result.get("isError") == Some(&Value::Bool(true));
    for part in content.iter().take(MOST_BLOCKS) {
        if failed && part.get("type").is_some_and(|kind| kind == "image") {
            // The provider would refuse it, and all that follows.
            made.note("[an image, which cannot be shown with an error]");
        } else {
            made.part(part);
        }
    }
    if content.len() > MOST_BLOCKS {
        let left = content.len() - MOST_BLOCKS;
        made.note(&format!("[{left} more parts were left out]"));
    }
    if let (true, Some(structured)) = (content.is_empty(), result.get("structuredContent")) {
        made.text(&structured.to_string());
    }
    if made.blocks.is_empty() {
        made.note("[the tool returned nothing]");
    }
    whole(id, made.blocks, failed)
}

/// The block of a call that has no result.
pub(super) fn error(id: &str, text: &str, room: usize) -> Value {
    let mut made = Made {
        room,
        blocks: Vec::new(),
    };
    made.text(text);
    whole(id, made.blocks, true)
}

fn whole(id: &str, content: Vec<Value>, failed: bool) -> Value {
    let mut block = json!({ "type": "tool_result", "tool_use_id": id, "content": content });
    if let (true, Some(members)) = (failed, block.as_object_mut()) {
        members.insert("is_error".to_owned(), true.into());
    }
    block
}

/// Blocks that were made, and how many bytes may still be.
struct Made {
    room: usize,
    blocks: Vec<Value>,
}

impl Made {
    fn part(&mut self, part: &Value) {
        let text = |pointer: &str| part.pointer(pointer).and_then(Value::as_str);
        match text("/type") {
            Some("text") => self.text(text("/text").unwrap_or_default()),
            Some("image") => {
                let kind = text("/mimeType").unwrap_or_default();
                self.image(kind, text("/data").unwrap_or_default());
            }
            Some("audio") => {
                let kind = text("/mimeType").unwrap_or("audio");
                self.note(&format!("[{kind}: sound cannot be shown]"));
            }
            Some("resource") if text("/resource/text").is_some() => {
                let uri = text("/resource/uri").unwrap_or_default();
                let text = text("/resource/text").unwrap_or_default();
                self.text(&format!("[{uri}]\n{text}"));
            }
            Some("resource") => {
                let uri = text("/resource/uri").unwrap_or_default();
                let kind = text("/resource/mimeType").unwrap_or("data");
                self.text(&format!("[{uri}: {kind} cannot be shown]"));
            }
            _ => self.text(&part.to_string()),
        }
    }

    fn image(&mut self, kind: &str, data: &str) {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
        if !IMAGES.contains(&kind) || data.is_empty() || !data.bytes().all(good) {
            return self.note("[an image of a kind that cannot be shown]");
        }
        if data.len() > self.room {
            let (length, room) = (data.len(), self.room);
            return self.note(&format!(
                "[an image of {length} bytes was left out; {room} may be shown]"
            ));
        }
        self.room -= data.len();
        let source = json!({ "type": "base64", "media_type": kind, "data": data });
        self.blocks
            .push(json!({ "type": "image", "source": source }));
    }

    fn text(&mut self, text: &str) {
        if text.trim().is_empty() {
            return;
        }
        let shown = &text
            .get(..text.floor_char_boundary(self.room))
            .unwrap_or_default();
        if !shown.trim().is_empty() {
            self.room -= shown.len();
            self.blocks.push(json!({ "type": "text", "text": shown }));
        }
        if shown.len() < text.len() {
            self.room = 0;
            // What was cut must not take what comes next into its fence.
            let end = text
                .lines()
                .next_back()
                .filter(|end| end.starts_with(FENCE.1));
            if let (true, Some(end)) = (text.starts_with(FENCE.0), end) {
                self.note(end);
            }
            let (shown, length) = (shown.len(), text.len());
            self.note(&format!("[cut: the first {shown} of {length} bytes]"));
        }
    }

    /// Says what is missing; a few bytes that are always allowed.
    fn note(&mut self, text: &str) {
        self.blocks.push(json!({ "type": "text", "text": text }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(result: &Value, room: usize, content: &Value) {
        let got = block("1", result, room);
        assert_eq!(got["content"], *content, "{result}");
        assert_eq!(got["tool_use_id"], "1");
    }

    fn text(text: &str) -> Value {
        json!({ "type": "text", "text": text })
    }

    #[test]
    fn every_kind_of_content_becomes_something_that_a_model_reads() {
        let png = json!({ "type": "image", "mimeType": "image/png", "data": "aGk=" });
        let source = json!({ "type": "base64", "media_type": "image/png", "data": "aGk=" });
        let file = json!({ "uri": "a://b", "text": "hello" });
        let blob = json!({ "uri": "a://b", "mimeType": "x/y", "blob": "aGk=" });
        let link = json!({ "type": "resource_link", "uri": "a://b" });
        let result = json!({ "content": [
            { "type": "text", "text": "hi" }, { "type": "text", "text": " " }, png,
            { "type": "image", "mimeType": "image/svg+xml", "data": "aGk=" },
            { "type": "audio", "mimeType": "audio/wav", "data": "aGk=" },
            { "type": "resource", "resource": file }, { "type": "resource", "resource": blob },
            link, { "type": "of tomorrow" },
        ]});
        let content = json!([
            text("hi"),
            { "type": "image", "source": source },
            text("[an image of a kind that cannot be shown]"),
            text("[audio/wav: sound cannot be shown]"),
            text("[a://b]\nhello"),
            text("[a://b: x/y cannot be shown]"),
            text(&link.to_string()),
            text(r#"{"type":"of tomorrow"}"#),
        ]);
        check(&result, 1000, &content);
        let structured = json!({ "content": [], "structuredContent": { "a": 1 } });
        check(&structured, 1000, &json!([text(r#"{"a":1}"#)]));
        check(
            &json!({}),
            1000,
            &json!([text("[the tool returned nothing]")]),
        );
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        let long = json!({ "content": [{ "type": "text", "text": "ééé" }, { "type": "text", "text": "more" }] });
        let content = json!([
            text("éé"),
            text("[cut: the first 4 of 6 bytes]"),
            text("[cut: the first 0 of 4 bytes]"),
        ]);
        check(&long, 5, &content);
        let image =
            json!({ "content": [{ "type": "image", "mimeType": "image/png", "data": "aGk=" }] });
        let left = text("[an image of 4 bytes was left out; 3 may be shown]");
        check(&image, 3, &json!([left]));
        let many = json!({ "content": vec![text("x"); 100] });
        let block = block("1", &many, 1000);
        assert_eq!(block["content"].as_array().unwrap().len(), 65);
    }

    #[test]
    fn what_is_cut_keeps_the_end_of_its_fence() {
        let fenced = "[portcullis:data n1]\nlong, and longer\n[portcullis:end n1]";
        let result = json!({ "content": [text(fenced)] });
        let content = json!([
            text("[portcullis:data n1]\nlong"),
            text("[portcullis:end n1]"),
            text("[cut: the first 25 of 57 bytes]"),
        ]);
        check(&result, 25, &content);
    }

    #[test]
    fn errors_and_questions_are_errors() {
        let failed = json!({ "content": [text("no")], "isError": true });
        assert_eq!(block("1", &failed, 100)["is_error"], true);
        let image = json!({ "type": "image", "mimeType": "image/png", "data": "AAAA" });
        let failed = json!({ "content": [image], "isError": true });
        assert_eq!(block("1", &failed, 1000)["content"][0]["type"], "text");
        let asks = json!({ "resultType": "input_required", "content": [] });
        assert_eq!(block("1", &asks, 100)["is_error"], true);
    }
}
