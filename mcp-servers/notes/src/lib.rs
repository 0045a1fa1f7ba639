//! A group's notes as an MCP server, in process: a face of [`groups::notes`].
//!
//! It is given who calls as typed values, and gives labels back as typed values; it knows no
//! gateway and no transport.

use std::collections::BTreeSet;

use groups::notes::{Note, NoteError, Notes, Title};
use jiff::Timestamp;
use policy::ids::GroupName;
use policy::label::{Label, Labels};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What it tells a model of itself.
pub const INSTRUCTIONS: &str = "Notes that last from one conversation to the next.";

/// For whom something is done.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Whose notes.
    pub group: GroupName,
    /// The labels of the conversation now.
    pub labels: Labels,
    /// The time.
    pub now: Timestamp,
}

/// What comes of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The MCP result.
    pub result: Value,
    /// The labels of what is in it.
    pub labels: BTreeSet<Label>,
}

/// The server.
#[derive(Clone, Debug)]
pub struct Server {
    notes: Notes,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    title: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    title: String,
    text: String,
}

/// Why there is no good answer, in words for a model.
enum Failed {
    Arguments(serde_json::Error),
    Note(NoteError),
}

impl From<NoteError> for Failed {
    fn from(error: NoteError) -> Self {
        Self::Note(error)
    }
}

impl Server {
    /// A face of these notes.
    pub fn new(notes: Notes) -> Self {
        Self { notes }
    }

    /// The tools, as MCP lists them.
    pub fn tools() -> Vec<Value> {
        let title = json!({ "type": "string", "description": "The note's title: one line." });
        let text = json!({ "type": "string", "description": "All of the note's text." });
        let object = |properties: Value, required: &[&str]| {
            json!({
                "type": "object", "properties": properties,
                "required": required, "additionalProperties": false,
            })
        };
        let tool = |name: &str, title: &str, description: &str, schema: Value, hints: Value| json!({ "name": name, "title": title, "description": description, "inputSchema": schema, "annotations": hints });
        let reads = json!({ "readOnlyHint": true, "openWorldHint": false });
        let adds = json!({ "readOnlyHint": false, "destructiveHint": false, "idempotentHint": true, "openWorldHint": false });
        let destroys = json!({ "readOnlyHint": false, "destructiveHint": true, "idempotentHint": true, "openWorldHint": false });
        vec![
            tool(
                "list",
                "List the notes",
                "The titles of all notes, the latest first, and when each was written.",
                object(json!({}), &[]),
                reads.clone(),
            ),
            tool(
                "read",
                "Read a note",
                "One note.",
                object(json!({ "title": title }), &["title"]),
                reads,
            ),
            tool(
                "write",
                "Write a note",
                "Writes a note, in the place of the one with the same title.",
                object(json!({ "title": title, "text": text }), &["title", "text"]),
                adds,
            ),
            tool(
                "delete",
                "Delete a note",
                "Deletes a note. It cannot be brought back.",
                object(json!({ "title": title }), &["title"]),
                destroys,
            ),
        ]
    }

    /// Does what a tool does. `None` if there is no such tool.
    pub async fn call(&self, caller: Caller, tool: &str, args: &Value) -> Option<Told> {
        let done = match tool {
            "list" => self.list(&caller, args).await,
            "read" => self.read(&caller, args).await,
            "write" => self.write(caller, args).await,
            "delete" => self.delete(&caller, args).await,
            _ => return None,
        };
        Some(done.unwrap_or_else(|failed| {
            let text = match failed {
                Failed::Arguments(error) => format!("the arguments do not fit: {error}"),
                Failed::Note(error) => {
                    if let NoteError::Storage(why) = &error {
                        tracing::error!("the notes cannot be reached: {why}");
                    }
                    error.to_string()
                }
            };
            let result = json!({ "content": [{ "type": "text", "text": text }], "isError": true });
            Told {
                result,
                labels: BTreeSet::new(),
            }
        }))
    }

    async fn list(&self, caller: &Caller, args: &Value) -> Result<Told, Failed> {
        let Nothing {} = arguments(args)?;
        let all = self.notes.list(&caller.group).await?;
        let notes: Vec<Value> = all
            .iter()
            .map(|note| json!({ "title": note.title, "updated_at": note.updated_at }))
            .collect();
        // A title is a text like any other, and of whoever wrote it.
        let labels = all.iter().flat_map(Note::marks).collect();
        Ok(told(json!({ "notes": notes }), labels))
    }

    async fn read(&self, caller: &Caller, args: &Value) -> Result<Told, Failed> {
        let Which { title } = arguments(args)?;
        let note = self
            .notes
            .read(&caller.group, &Title::try_from(title)?)
            .await?;
        let labels = note.marks();
        let note = json!({ "title": note.title, "text": note.text, "updated_at": note.updated_at });
        Ok(told(note, labels))
    }

    async fn write(&self, caller: Caller, args: &Value) -> Result<Told, Failed> {
        let Written { title, text } = arguments(args)?;
        let title = Title::try_from(title)?;
        let written = json!({ "written": title.as_str() });
        let Caller { group, labels, now } = caller;
        self.notes.write(&group, title, text, labels, now).await?;
        Ok(told(written, BTreeSet::new()))
    }

    async fn delete(&self, caller: &Caller, args: &Value) -> Result<Told, Failed> {
        let Which { title } = arguments(args)?;
        let title = Title::try_from(title)?;
        self.notes.delete(&caller.group, &title).await?;
        Ok(told(json!({ "deleted": title.as_str() }), BTreeSet::new()))
    }
}

fn arguments<T: DeserializeOwned>(args: &Value) -> Result<T, Failed> {
    T::deserialize(args).map_err(Failed::Arguments)
}

fn told(value: Value, labels: BTreeSet<Label>) -> Told {
    let content = json!([{ "type": "text", "text": value.to_string() }]);
    let result = json!({ "content": content, "structuredContent": value, "isError": false });
    Told { result, labels }
}
