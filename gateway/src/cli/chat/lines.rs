//! A conversation line by line: what is said and done is printed as it comes; a question is answered
//! where it stands.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, BufRead as _, IsTerminal as _};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::super::Failure;
use super::super::approvals::{ended, whole};
use super::super::client::{Client, text};
use super::super::output::{self, Output, Tone, complain};
use super::super::stream::{Event, Events, interrupts};
use super::super::watch;
use super::{newest, of, say};
use crate::text::{printable, printable_lines};

/// How many items are printed first.
const BEGINNING: u64 = 20;
/// An answer that comes sooner after its question was shown was typed for another.
const UNREAD: Duration = Duration::from_secs(1);

struct Lines<'a> {
    group: &'a str,
    client: &'a Client,
    out: Output,
    terminal: bool,
    /// Ids of the items that show what was typed here.
    mine: BTreeSet<String>,
    /// What was printed of items that change.
    printed: BTreeMap<String, String>,
    /// What is printed of a text that is being written: whose, and how much.
    writing: Option<(String, String)>,
    /// The text whose writing something else came between: the rest is printed once it is whole.
    broken: Option<String>,
    /// What stands before the words of the agent.
    agent: &'static str,
    open: BTreeSet<String>,
    /// Questions that are not shown yet: one is answered after the other.
    waiting: VecDeque<Value>,
    /// The question that was shown last and is open, and since when.
    asked: Option<(Value, Instant)>,
}

pub(super) async fn run(group: &str, client: &Client, out: Output) -> Result<(), Failure> {
    if out.json {
        let text = "`chat` without `--message` is for people; leave `--json` out";
        return Err(Failure::Usage(text.to_owned()));
    }
    let (items, after) = newest(client, group, BEGINNING).await?;
    let mut events = Events::open(client, Some(group), Some(after)).await?;
    let mut interrupts = interrupts()?;
    let mut typed = typed();
    let mut lines = Lines {
        group,
        client,
        out,
        terminal: io::stdout().is_terminal(),
        mine: BTreeSet::new(),
        printed: BTreeMap::new(),
        writing: None,
        broken: None,
        agent: agent(is_script(client, group).await?),
        open: BTreeSet::new(),
        waiting: VecDeque::new(),
        asked: None,
    };
    for item in items {
        lines.item(&item)?;
    }
    lines.prompt()?;
    loop {
        tokio::select! {
            event = events.next() => lines.hear(event?).await?,
            line = typed.recv() => match line {
                Some(line) => lines.typed(line.trim()).await?,
                None => return Ok(()),
            },
            _ = interrupts.recv() => return output::say("\n"),
        }
    }
}

/// What is typed, line by line. The thread ends with the process: nothing can end its reading.
fn typed() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Lines<'_> {
    fn prompt(&self) -> Result<(), Failure> {
        if !self.terminal {
            return Ok(());
        }
        match &self.asked {
            Some((question, _)) => {
                let id = printable(text(question, "id"));
                output::say(&format!("{id}  y / task / n REASON > "))
            }
            None => output::say(&format!("{} > ", self.group)),
        }
    }

    /// Prints above the prompt.
    fn print(&mut self, line: &str) -> Result<(), Failure> {
        if let Some((id, _)) = self.writing.take() {
            self.broken = Some(id);
            output::say("\n")?;
        }
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        output::say(&format!("{clear}{line}\n"))
    }

    async fn hear(&mut self, event: Event) -> Result<(), Failure> {
        match event.name.as_str() {
            "item" => {
                if self.item(&event.data)? {
                    self.prompt()?;
                }
            }
            "writing" => self.more(&event.data)?,
            "dropped" => {
                if self.writing.take().is_some() {
                    output::say(" (it begins again)\n")?;
                    self.prompt()?;
                }
            }
            _ => {
                let questions = watch::told(&mut self.open, event, self.client).await;
                self.questions(questions)?;
            }
        }
        Ok(())
    }

    fn questions(&mut self, questions: Vec<Value>) -> Result<(), Failure> {
        for question in questions {
            if text(&question, "group") != self.group {
                continue;
            }
            let id = text(&question, "id").to_owned();
            if self.open.contains(&id) {
                self.waiting.push_back(question);
                continue;
            }
            self.waiting.retain(|one| text(one, "id") != id);
            let was_asked = |(asked, _): &(Value, Instant)| text(asked, "id") == id;
            if self.asked.as_ref().is_some_and(was_asked) {
                self.asked = None;
                let line = ended(&question, self.out);
                self.print(line.trim_end())?;
                self.prompt()?;
            }
        }
        if self.asked.is_none()
            && let Some(question) = self.waiting.pop_front()
        {
            let card = whole(&question, Timestamp::now(), self.out);
            self.print(&card)?;
            self.asked = Some((question, Instant::now()));
            self.prompt()?;
        }
        Ok(())
    }

    /// Prints an item, if there is something new to say of it.
    fn item(&mut self, item: &Value) -> Result<bool, Failure> {
        let id = text(item, "id").to_owned();
        let faint = |text: &str| self.out.paint(text, Tone::Faint);
        let line = match of(item, "type") {
            "person" if self.mine.contains(&id) => return Ok(false),
            "person" => format!("{}: {}", printable(of(item, "by")), inset(of(item, "text"))),
            "agent" => {
                let words = inset(of(item, "text"));
                if self.writing.as_ref().is_some_and(|(of, _)| *of == id) {
                    return self.written(&words);
                }
                let script = item.get("body").and_then(|body| body.get("script"));
                format!("{}{words}", agent(script == Some(&Value::Bool(true))))
            }
            "tool" => format!(
                "{} {} {}",
                faint("·"),
                printable(of(item, "tool")),
                self.out.word(of(item, "state"))
            ),
            "run" => match of(item, "state") {
                state @ ("failed" | "stopped") => {
                    format!("{}: {}", self.out.word(state), printable(of(item, "text")))
                }
                _ => return Ok(false),
            },
            "notice" => faint(&printable(of(item, "text"))),
            _ => return Ok(false),
        };
        if self.printed.get(&id) == Some(&line) {
            return Ok(false);
        }
        self.print(&line)?;
        self.printed.insert(id, line);
        Ok(true)
    }

    /// Prints more of a text that is being written.
    fn more(&mut self, data: &Value) -> Result<(), Failure> {
        if !self.terminal {
            return Ok(());
        }
        let id = text(data, "id");
        if self.broken.as_deref() == Some(id) {
            return Ok(());
        }
        let from = data.get("from").and_then(Value::as_u64).unwrap_or_default();
        let from = usize::try_from(from).unwrap_or_default();
        if self.writing.as_ref().is_none_or(|(of, _)| of != id) {
            self.print("")?;
            output::say(self.agent)?;
            self.writing = Some((id.to_owned(), String::new()));
        }
        let Some((_, whole)) = &mut self.writing else {
            return Ok(());
        };
        let known = whole.chars().count();
        // What was told before is told again after a stream broke.
        let new: String = text(data, "text")
            .chars()
            .skip(known.saturating_sub(from))
            .collect();
        whole.push_str(&new);
        output::say(&inset(&new))
    }

    /// A text that was being written is whole: prints what is missing of it.
    fn written(&mut self, words: &str) -> Result<bool, Failure> {
        let Some((id, so_far)) = self.writing.take() else {
            return Ok(false);
        };
        match words.strip_prefix(&inset(&so_far)) {
            Some(rest) => output::say(&format!("{rest}\n"))?,
            None => output::say(&format!("\n{}{words}\n", self.agent))?,
        }
        let line = format!("{}{words}", self.agent);
        self.printed.insert(id, line);
        Ok(true)
    }

    async fn typed(&mut self, line: &str) -> Result<(), Failure> {
        if let Some((question, since)) = &self.asked
            && let Some(answer) = answer(line)
        {
            if since.elapsed() < UNREAD {
                complain("this question came only now: read it, and answer again");
                return self.prompt();
            }
            let id = text(question, "id").to_owned();
            let (word, body) = answer;
            // That it was answered is told by the events, to all alike.
            if let Err(failure) = self.client.post(&["approvals", &id, word], body).await {
                complain(&failure.to_string());
                return self.prompt();
            }
            return Ok(());
        }
        if line.is_empty() {
            return self.prompt();
        }
        match say(self.client, self.group, line).await {
            Ok(id) => drop(self.mine.insert(id)),
            Err(failure) => complain(&failure.to_string()),
        }
        self.prompt()
    }
}

fn agent(script: bool) -> &'static str {
    if script {
        "agent (a script): "
    } else {
        "agent: "
    }
}

/// Whether the model of a group is a script.
async fn is_script(client: &Client, group: &str) -> Result<bool, Failure> {
    let groups = client.get(&["groups"], &[]).await?;
    let mut groups = groups.as_array().into_iter().flatten();
    let group = groups.find(|one| text(one, "name") == group);
    Ok(group.and_then(|group| group.get("script")) == Some(&Value::Bool(true)))
}

/// What a line says to the question that is asked, if it says something to it.
fn answer(line: &str) -> Option<(&'static str, Value)> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "y" | "yes" if rest.is_empty() => Some(("approve", json!({ "for": "once" }))),
        "task" if rest.is_empty() => Some(("approve", json!({ "for": "run" }))),
        "n" | "no" => {
            let reason = Some(rest.trim()).filter(|reason| !reason.is_empty());
            Some(("deny", json!({ "reason": reason })))
        }
        _ => None,
    }
}

/// What somebody said: only its first line begins where ours do, so that nobody writes a card or a
/// prompt that looks like ours.
fn inset(text: &str) -> String {
    printable_lines(text).replace('\n', "\n  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_word_answers_a_question() {
        let said = |line: &str| answer(line).map(|(word, body)| format!("{word} {body}"));
        for (line, expected) in [
            ("y", Some(r#"approve {"for":"once"}"#)),
            ("task", Some(r#"approve {"for":"run"}"#)),
            ("n", Some(r#"deny {"reason":null}"#)),
            ("no not them", Some(r#"deny {"reason":"not them"}"#)),
            ("yes please tell me more", None),
            ("yesterday", None),
            ("nothing", None),
            ("", None),
        ] {
            assert_eq!(said(line).as_deref(), expected, "{line}");
        }
    }
}
