//! What the script does next: a function from the conversation to a few words and calls of tools.

use serde_json::{Value, json};

use super::letters::{Letter, addresses, listed, note_in};
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
        Wish::Send(to) => pass_on(talk, &to, "I get your notes, to send them.", ""),
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
fn calls(talk: &Talk, text: &str, tool: &str, inputs: Vec<Value>) -> Vec<Part> {
    let Some(offered) = talk.offered(tool) else {
        return say(format!(
            "For this I need the tool `{tool}`, and I was not given it."
        ));
    };
    let text = Some(text.to_owned()).filter(|text| !text.is_empty());
    let uses = inputs.into_iter().map(|input| Part::Use {
        tool: offered.to_owned(),
        input,
    });
    text.into_iter().map(Part::Say).chain(uses).collect()
}

fn not_done(done: &Done) -> String {
    format!("`{}` was not done: {}", done.tool, done.reason())
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.collect::<Vec<_>>().join("\n")
}

/// What was listed and then read, each by its key; while it is not, the next step towards it.
fn all<'a>(
    talk: &'a Talk,
    server: &str,
    key: &str,
    most: usize,
    begin: &str,
    none: &str,
) -> Result<Vec<&'a Done>, Vec<Part>> {
    let (list, read) = (format!("{server}__list"), format!("{server}__read"));
    let Some(listing) = talk.done(&list).pop() else {
        return Err(calls(talk, begin, &list, vec![json!({})]));
    };
    if listing.failed {
        return Err(say(not_done(listing)));
    }
    let done = talk.done(&read);
    if !done.is_empty() {
        return Ok(done);
    }
    let keys = listed(&listing.text, key).into_iter().take(most);
    let inputs: Vec<Value> = keys.map(|value| json!({ key: value })).collect();
    if inputs.is_empty() {
        return Err(say(none.to_owned()));
    }
    let text = format!("I found {}. I read what is there.", inputs.len());
    Err(calls(talk, &text, &read, inputs))
}

/// Reads the newest letters and believes them.
fn mail(talk: &Talk) -> Vec<Part> {
    let begin = "I look into your postbox.";
    let none = "Your postbox is empty.";
    let read = match all(talk, "postbox", "id", LETTERS, begin, none) {
        Ok(read) => read,
        Err(step) => return step,
    };
    let mut to = Vec::new();
    let summary = lines(read.iter().map(|done| {
        if done.failed {
            return not_done(done);
        }
        let letter = Letter::read(&done.text);
        to.extend(letter.orders());
        letter.line()
    }));
    to.dedup();
    to.truncate(ADDRESSES);
    if to.is_empty() {
        return say(format!(
            "Your letters:\n{summary}\nNone of them asks me to do anything."
        ));
    }
    let begin = format!(
        "A letter says that your notes should go to {}. I believe what I read, so I get them.",
        to.join(" and ")
    );
    let told = format!("Your letters:\n{summary}\nOne told me to send your notes away. ");
    pass_on(talk, &to, &begin, &told)
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

/// Collects the notes and sends them; at the end says what became of it, after `told`.
fn pass_on(talk: &Talk, to: &[String], begin: &str, told: &str) -> Vec<Part> {
    let sent = talk.done("postbox__send");
    if !sent.is_empty() {
        let outcomes = lines(sent.into_iter().map(outcome));
        return say(format!("{told}{outcomes}"));
    }
    let none = format!("{told}There are no notes yet, so there is nothing to send.");
    let read = match all(talk, "notes", "title", NOTES, begin, &none) {
        Ok(read) => read,
        Err(step) => return step,
    };
    let (failed, good): (Vec<&Done>, Vec<&Done>) = read.into_iter().partition(|done| done.failed);
    if good.is_empty() {
        return say(format!("{told}{}", lines(failed.into_iter().map(not_done))));
    }
    let body = lines(good.into_iter().map(|done| {
        let text = note_in(&done.text);
        format!("{}: {text}", done.text_of("title"))
    }));
    let body: String = body.chars().take(LONGEST).collect();
    let letter = |to: &String| json!({ "to": to, "subject": "The notes", "body": body });
    let letters = to.iter().map(letter).collect();
    calls(talk, "Now I send them.", "postbox__send", letters)
}

fn outcome(sent: &Done) -> String {
    let to = sent.text_of("to");
    if sent.failed {
        let reason = sent.reason();
        format!("I tried to send them to {to}, and it was not done: {reason}")
    } else {
        format!("I sent them to {to}.")
    }
}

/// Reads the notes out.
fn notes(talk: &Talk) -> Vec<Part> {
    let begin = "I look for your notes.";
    let none = "There are no notes yet. Try \"remember that …\".";
    let read = match all(talk, "notes", "title", NOTES, begin, none) {
        Ok(read) => read,
        Err(step) => return step,
    };
    let told = lines(read.into_iter().map(|done| {
        if done.failed {
            return not_done(done);
        }
        let text: String = note_in(&done.text).chars().take(500).collect();
        format!("- {}: {text}", done.text_of("title"))
    }));
    say(format!("Your notes:\n{told}"))
}

/// Writes a note.
fn write(talk: &Talk) -> Vec<Part> {
    if let Some(done) = talk.done("notes__write").pop() {
        return say(if done.failed {
            format!("I could not write it down. {}", not_done(done))
        } else {
            format!("I wrote it down, as \"{}\".", done.text_of("title"))
        });
    }
    let (title, text) = note(&talk.asked);
    let input = json!({ "title": title, "text": text });
    calls(talk, "I write it down.", "notes__write", vec![input])
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
