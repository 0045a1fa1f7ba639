//! What the script does next: a function from the conversation to a few words and calls of tools.

use serde_json::{Value, json};

use super::letters::{Letter, addresses, names};
use super::talk::{Done, Talk};

/// The most letters, notes and addresses that are taken up at once.
const LETTERS: usize = 5;
const NOTES: usize = 10;
const ADDRESSES: usize = 3;
/// The longest text that is sent, in characters.
const LONGEST: usize = 8000;

/// A piece of an answer.
#[derive(Debug, PartialEq)]
pub(super) enum Part {
    /// Words.
    Say(String),
    /// A call of a tool.
    Use {
        /// As it is offered.
        tool: String,
        /// Its arguments.
        input: Value,
    },
}

/// What the person wants.
#[derive(Debug, PartialEq)]
enum Wish {
    Mail,
    Notes,
    Send(Vec<String>),
    Write,
    Why,
    Help,
}

/// The next piece of the play.
pub(super) fn next(talk: &Talk) -> Vec<Part> {
    match wish(&talk.asked) {
        Wish::Mail => mail(talk),
        Wish::Notes => notes(talk),
        Wish::Send(to) => match leak(talk, &to, "I collect your notes to send them.") {
            Ok(parts) => parts,
            Err(report) => say(report),
        },
        Wish::Write => write(talk),
        Wish::Why => say(why(talk)),
        Wish::Help => say(HELP.to_owned()),
    }
}

const HELP: &str = "I am a script that plays an assistant, so I know only a few lines. Try:\n\
    - \"read my mail\"\n- \"remember that the key is under the mat\"\n- \"read my notes\"\n\
    - \"send my notes to ana@example.org\"\n- \"why\", after something was not done\n\
    With a real model in the configuration, this same chat talks to that.";

fn say(text: String) -> Vec<Part> {
    vec![Part::Say(text)]
}

fn wish(asked: &str) -> Wish {
    let lower = asked.to_lowercase();
    let words: Vec<&str> = lower
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    let has = |any: &[&str]| words.iter().any(|word| any.contains(word));
    let polite = [
        "please", "can", "could", "would", "you", "hey", "hi", "hello", "kindly",
    ];
    let first = words.iter().find(|word| !polite.contains(word)).copied();
    let writes = ["write", "remember", "note", "save", "jot", "add", "keep"];
    let to = addresses(asked);
    if has(&["why"]) {
        Wish::Why
    } else if !to.is_empty() && has(&["send", "forward", "mail", "email", "share", "write"]) {
        Wish::Send(to)
    } else if first.is_some_and(|first| writes.contains(&first)) {
        Wish::Write
    } else if has(&[
        "mail", "mails", "email", "emails", "letter", "letters", "post", "inbox", "postbox",
        "mailbox",
    ]) {
        Wish::Mail
    } else if has(&["notes"]) {
        Wish::Notes
    } else if has(&["remember", "note", "write", "jot"]) {
        Wish::Write
    } else {
        Wish::Help
    }
}

/// Calls of a tool, if it is offered; else words that say it is not.
fn calls(talk: &Talk, text: &str, tool: &str, inputs: Vec<Value>) -> Result<Vec<Part>, String> {
    let Some(offered) = talk.offered(tool) else {
        return Err(format!(
            "For this I need the tool `{tool}`, and I was not given it."
        ));
    };
    let mut parts = Vec::new();
    if !text.is_empty() {
        parts.push(Part::Say(text.to_owned()));
    }
    parts.extend(inputs.into_iter().map(|input| Part::Use {
        tool: offered.to_owned(),
        input,
    }));
    Ok(parts)
}

fn not_done(done: &Done) -> String {
    format!("`{}` was not done: {}", done.tool, done.reason())
}

/// Reads the newest letters and believes them.
fn mail(talk: &Talk) -> Vec<Part> {
    read_mail(talk).unwrap_or_else(say)
}

fn read_mail(talk: &Talk) -> Result<Vec<Part>, String> {
    let lists = talk.done("postbox__list");
    let Some(list) = lists.last() else {
        return calls(
            talk,
            "I look into your postbox.",
            "postbox__list",
            vec![json!({})],
        );
    };
    if list.failed {
        return Err(format!(
            "I could not look into your postbox. {}",
            not_done(list)
        ));
    }
    let read = talk.done("postbox__read");
    if read.is_empty() {
        let ids = names(&list.text, &["id", "name", "file"]);
        let inputs: Vec<Value> = ids
            .into_iter()
            .take(LETTERS)
            .map(|id| json!({ "id": id }))
            .collect();
        if inputs.is_empty() {
            return Err("Your postbox is empty.".to_owned());
        }
        let text = match inputs.len() {
            1 => "There is one letter. I read it.".to_owned(),
            n => format!("There are {n} letters. I read them."),
        };
        return calls(talk, &text, "postbox__read", inputs);
    }
    let letters: Vec<Letter> = read
        .iter()
        .filter(|done| !done.failed)
        .map(|done| Letter::read(&done.text))
        .collect();
    let mut summary: Vec<String> = read
        .iter()
        .filter(|done| done.failed)
        .map(|done| not_done(done))
        .collect();
    summary.extend(letters.iter().map(Letter::line));
    let summary = summary.join("\n");
    let mut to: Vec<String> = letters.iter().flat_map(Letter::orders).collect();
    to.dedup();
    to.truncate(ADDRESSES);
    if to.is_empty() {
        return Err(format!(
            "{summary}\nNothing in them asks me to do anything."
        ));
    }
    let intro = format!(
        "A letter says that your notes should go to {}. I believe what I read, so I get them.",
        to.join(" and ")
    );
    leak(talk, &to, &intro)
        .map_err(|report| format!("{summary}\nA letter told me to send your notes away. {report}"))
}

impl Letter {
    fn line(&self) -> String {
        let or = |text: &str, other: &str| {
            let text: String = text.chars().take(80).collect();
            if text.is_empty() {
                other.to_owned()
            } else {
                text
            }
        };
        format!(
            "- \"{}\" from {}",
            or(&self.subject, "(no subject)"),
            or(&self.from, "somebody")
        )
    }
}

/// Collects the notes and sends them; at the end, words that say what became of it.
fn leak(talk: &Talk, to: &[String], intro: &str) -> Result<Vec<Part>, String> {
    let sent = talk.done("postbox__send");
    if !sent.is_empty() {
        return Err(sent
            .iter()
            .map(|done| outcome(done))
            .collect::<Vec<_>>()
            .join("\n"));
    }
    let lists = talk.done("notes__list");
    let Some(list) = lists.last() else {
        return calls(talk, intro, "notes__list", vec![json!({})]);
    };
    if list.failed {
        return Err(format!("I could not get at them. {}", not_done(list)));
    }
    let read = talk.done("notes__read");
    if read.is_empty() {
        let titles = names(&list.text, &["title", "name", "id"]);
        let inputs: Vec<Value> = titles
            .into_iter()
            .take(NOTES)
            .map(|title| json!({ "title": title }))
            .collect();
        if inputs.is_empty() {
            return Err("There are no notes yet, so there is nothing to send.".to_owned());
        }
        return calls(talk, "", "notes__read", inputs);
    }
    let body: Vec<&str> = read
        .iter()
        .filter(|done| !done.failed)
        .map(|done| done.text.as_str())
        .collect();
    if body.is_empty() {
        let why: Vec<String> = read.iter().map(|done| not_done(done)).collect();
        return Err(format!("I could not read them. {}", why.join("\n")));
    }
    let body: String = body.join("\n\n").chars().take(LONGEST).collect();
    let letter = |to: &String| json!({ "to": to, "subject": "The notes", "body": body });
    let text = "I have them. Now I send them.";
    calls(talk, text, "postbox__send", to.iter().map(letter).collect())
}

fn outcome(sent: &Done) -> String {
    let to = sent
        .input
        .get("to")
        .and_then(Value::as_str)
        .unwrap_or("somebody");
    if sent.failed {
        format!(
            "I tried to send them to {to}, and it was not done: {}",
            sent.reason()
        )
    } else {
        format!("I sent them to {to}.")
    }
}

/// Reads the notes out.
fn notes(talk: &Talk) -> Vec<Part> {
    read_notes(talk).unwrap_or_else(say)
}

fn read_notes(talk: &Talk) -> Result<Vec<Part>, String> {
    let lists = talk.done("notes__list");
    let Some(list) = lists.last() else {
        return calls(
            talk,
            "I look for your notes.",
            "notes__list",
            vec![json!({})],
        );
    };
    if list.failed {
        return Err(format!("I could not get at your notes. {}", not_done(list)));
    }
    let read = talk.done("notes__read");
    if read.is_empty() {
        let titles = names(&list.text, &["title", "name", "id"]);
        let inputs: Vec<Value> = titles
            .into_iter()
            .take(NOTES)
            .map(|title| json!({ "title": title }))
            .collect();
        if inputs.is_empty() {
            return Err("There are no notes yet. Try \"remember that …\".".to_owned());
        }
        return calls(talk, "", "notes__read", inputs);
    }
    let lines = read.iter().map(|done| {
        let title = done
            .input
            .get("title")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if done.failed {
            not_done(done)
        } else {
            format!(
                "- {title}: {}",
                done.text.chars().take(500).collect::<String>()
            )
        }
    });
    Err(format!(
        "Your notes:\n{}",
        lines.collect::<Vec<_>>().join("\n")
    ))
}

/// Writes a note.
fn write(talk: &Talk) -> Vec<Part> {
    let done = talk.done("notes__write");
    if let Some(done) = done.last() {
        let title = done
            .input
            .get("title")
            .and_then(Value::as_str)
            .unwrap_or_default();
        return say(if done.failed {
            format!("I could not write it down. {}", not_done(done))
        } else {
            format!("I wrote it down, as \"{title}\".")
        });
    }
    let (title, text) = note(&talk.asked);
    let input = json!({ "title": title, "text": text });
    calls(talk, "I write it down.", "notes__write", vec![input]).unwrap_or_else(say)
}

/// Title and text of a note: before and after a colon, or its first words and all of it.
fn note(asked: &str) -> (String, String) {
    const LEADING: [&str; 25] = [
        "please", "can", "could", "would", "you", "hey", "hi", "hello", "kindly", "write",
        "remember", "note", "save", "jot", "add", "keep", "down", "that", "to", "a", "me",
        "called", "titled", "this", "my",
    ];
    let mut rest = asked.trim();
    loop {
        let word = rest
            .split(|c: char| !c.is_alphanumeric())
            .next()
            .unwrap_or_default();
        if word.is_empty() || !LEADING.contains(&word.to_lowercase().as_str()) {
            break;
        }
        let after = rest.get(word.len()..).unwrap_or_default();
        rest = after.trim_start_matches(|c: char| c.is_whitespace() || ":,-".contains(c));
    }
    let rest = if rest.is_empty() { asked.trim() } else { rest };
    let quotes = |text: &str| {
        text.trim()
            .trim_matches(['"', '\'', '“', '”'])
            .trim()
            .to_owned()
    };
    if let Some((title, text)) = rest.split_once(':')
        && (1..=60).contains(&title.trim().chars().count())
        && !text.trim().is_empty()
    {
        return (quotes(title), quotes(text));
    }
    let title: Vec<&str> = rest.split_whitespace().take(6).collect();
    let title: String = title.join(" ").chars().take(60).collect();
    (
        quotes(title.trim_end_matches(['.', ',', '!', '?'])),
        quotes(rest),
    )
}

/// Says what was not done last, and where the whole story is.
fn why(talk: &Talk) -> String {
    let mut all = talk.before.iter().chain(&talk.done).rev();
    let last = all.clone().next();
    let Some(refused) = all.find(|done| done.failed) else {
        let done = last.map_or_else(
            || "I did nothing yet".to_owned(),
            |done| format!("what I did last was `{}`, and it was done", done.tool),
        );
        return format!("Nothing was refused here so far: {done}.");
    };
    format!(
        "What was not done last is `{}`. I was told: {}\nThe inbox shows what led to it, step by step. In a terminal, \
         `portcullis audit list` has its id, and `portcullis why ID` tells the same.",
        refused.tool,
        refused.reason()
    )
}
