//! What can be told of a condition without evaluating it: names, functions, patterns, paths.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use cel::common::ast::{
    CallExpr, EntryExpr, Expr, LiteralValue, SelectExpr, SourceInfo, operators,
};
use cel::{IdedExpr, ParseErrors};
use regex::{Regex, RegexBuilder};

use super::{Flaw, cost, scope};

/// The largest compiled pattern, in bytes.
const PATTERN_SIZE: usize = 1 << 20;
/// How many levels its tree may have: each takes a piece of the stack when it is evaluated.
const LEVELS: usize = 40;
/// How many loops may lie in each other.
const LOOPS: usize = 3;
/// The types of CEL that a condition may name, as in `type(x) == string`.
const TYPES: [&str; 9] = [
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "uint",
];
/// Every function, with how many arguments it takes after a value, and how many without one.
pub(super) const FUNCTIONS: [(&str, &[usize], &[usize]); 33] = [
    ("size", &[0], &[1]),
    ("contains", &[1], &[]),
    ("startsWith", &[1], &[]),
    ("endsWith", &[1], &[]),
    ("matches", &[1], &[2]),
    ("lowerAscii", &[0], &[]),
    ("upperAscii", &[0], &[]),
    ("trim", &[0], &[]),
    ("split", &[1, 2], &[]),
    ("substring", &[1, 2], &[]),
    ("indexOf", &[1, 2], &[]),
    ("lastIndexOf", &[1, 2], &[]),
    ("charAt", &[1], &[]),
    ("orValue", &[1], &[]),
    ("or", &[1], &[]),
    ("hasValue", &[0], &[]),
    ("value", &[0], &[]),
    ("type", &[], &[1]),
    ("int", &[], &[1]),
    ("uint", &[], &[1]),
    ("double", &[], &[1]),
    ("string", &[], &[1]),
    ("bool", &[], &[1]),
    ("timestamp", &[], &[1]),
    ("duration", &[], &[1]),
    ("getFullYear", &[0, 1], &[]),
    ("getMonth", &[0, 1], &[]),
    ("getDate", &[0, 1], &[]),
    ("getDayOfMonth", &[0, 1], &[]),
    ("getDayOfWeek", &[0, 1], &[]),
    ("getDayOfYear", &[0, 1], &[]),
    ("getHours", &[0, 1], &[]),
    ("getMinutes", &[0, 1], &[]),
];
/// What [`scope::VARIABLES`] and their parts are, for messages.
const MACROS: [&str; 6] = ["has", "all", "exists", "exists_one", "map", "filter"];

/// Something that a condition reads of the arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// From the arguments inwards.
    pub steps: Vec<Step>,
    /// Where the last step is written, in bytes of the text.
    pub at: Range<usize>,
}

/// One step of a [`Path`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Into a member.
    Name(String),
    /// Into any item of a list.
    Each,
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("args")?;
        self.steps.iter().try_for_each(|step| match step {
            Step::Name(name) => write!(f, ".{name}"),
            Step::Each => f.write_str("[]"),
        })
    }
}

/// What a check finds.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) paths: Vec<Path>,
    pub(super) reads: BTreeSet<&'static str>,
}

/// Checks a parsed condition, and puts compiled patterns in the place of written ones.
pub(super) fn check(
    source: &str,
    info: &SourceInfo,
    expression: &mut IdedExpr,
    patterns: &mut BTreeMap<String, Regex>,
) -> Result<Checked, Vec<Flaw>> {
    let mut walk = Walk {
        source,
        info,
        patterns,
        bound: Vec::new(),
        loops: 0,
        level: 0,
        deepest: 0,
        found: Checked::default(),
        flaws: Vec::new(),
    };
    walk.says_yes_or_no(expression);
    walk.visit(expression);
    if walk.deepest > LEVELS {
        walk.flaw(
            0..source.len(),
            "the condition has too many parts, one within the other",
            "make several rules of it",
        );
    }
    let Walk {
        found, mut flaws, ..
    } = walk;
    if flaws.is_empty() && cost::excessive(expression) {
        flaws.push(Flaw {
            at: 0..source.len(),
            message: "the condition takes too long even for a small call".to_owned(),
            accepted: "compare with values that are written here, not every one with every other"
                .to_owned(),
        });
    }
    if flaws.is_empty() {
        return Ok(found);
    }
    flaws.sort_by_key(|flaw| flaw.at.start);
    flaws.dedup();
    Err(flaws)
}

/// The parser's errors with places of ours.
pub(super) fn unreadable(source: &str, errors: &ParseErrors) -> Vec<Flaw> {
    let accepted = "accepted: an expression in CEL, such as args.to.endsWith(\"@example.org\")";
    errors
        .errors
        .iter()
        .map(|error| {
            let line = usize::try_from(error.pos.0 - 1).unwrap_or(0);
            let column = usize::try_from(error.pos.1 - 1).unwrap_or(0);
            let before: usize = source.split_inclusive('\n').take(line).map(str::len).sum();
            let rest = source.get(before..).unwrap_or_default();
            let from = before + bytes_of(rest, column);
            let width = source
                .get(from..)
                .and_then(|rest| rest.chars().next())
                .map_or(0, char::len_utf8);
            let said = error.msg.lines().next().unwrap_or_default();
            let said = said.strip_prefix("Syntax error: ").unwrap_or(said);
            let said = said
                .split_once(" expecting ")
                .map_or(said, |(said, _)| said);
            Flaw {
                at: from..from + width,
                message: format!("this is no CEL: {said}"),
                accepted: accepted.to_owned(),
            }
        })
        .collect()
}

/// How deep its brackets lie in each other, and how many operators it has; what stands in quotes does
/// not count.
pub(super) fn shape(source: &str) -> (usize, usize) {
    let (mut depth, mut deepest, mut operators): (usize, usize, usize) = (0, 0, 0);
    let mut quote = None;
    let mut escaped = false;
    for c in source.chars() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '(' | '[' | '{') => {
                operators += 1;
                depth += 1;
                deepest = deepest.max(depth);
            }
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            (None, _) if ".+-*/%!?&|<>=".contains(c) => operators += 1,
            (Some(_) | None, _) => {}
        }
    }
    (deepest, operators)
}

/// How many bytes so many characters take.
fn bytes_of(text: &str, chars: usize) -> usize {
    text.char_indices()
        .nth(chars)
        .map_or(text.len(), |(at, _)| at)
}

struct Walk<'s> {
    source: &'s str,
    info: &'s SourceInfo,
    patterns: &'s mut BTreeMap<String, Regex>,
    /// The variables of loops, with what they go over where that is of the arguments.
    bound: Vec<(String, Option<Vec<Step>>)>,
    loops: usize,
    level: usize,
    deepest: usize,
    found: Checked,
    flaws: Vec<Flaw>,
}

impl Walk<'_> {
    fn flaw(&mut self, at: Range<usize>, message: impl Into<String>, accepted: impl Into<String>) {
        self.flaws.push(Flaw {
            at,
            message: message.into(),
            accepted: accepted.into(),
        });
    }

    /// Where a part is written, in bytes.
    fn place(&self, id: u64) -> Range<usize> {
        let Some((start, stop)) = self.info.offset_for(id) else {
            return 0..self.source.len();
        };
        let (start, stop) = (start as usize, stop as usize + 1);
        start..stop.max(start).min(self.source.len())
    }

    /// Where the name of a called function is written: before the place of the call.
    fn name_of(&self, id: u64, name: &str) -> Range<usize> {
        let place = self.place(id);
        let before = self.source.get(..place.start).unwrap_or_default();
        before.rfind(name).map_or(place, |at| at..at + name.len())
    }

    /// Refuses what is plainly no condition.
    fn says_yes_or_no(&mut self, expression: &IdedExpr) {
        let odd = match &expression.expr {
            Expr::Literal(literal) => !matches!(literal, LiteralValue::Boolean(_)),
            Expr::List(_) | Expr::Map(_) => true,
            Expr::Ident(name) => scope::VARIABLES.contains(&name.as_str()),
            Expr::Call(call) => matches!(
                call.func_name.as_str(),
                operators::ADD
                    | operators::SUBSTRACT
                    | operators::MULTIPLY
                    | operators::DIVIDE
                    | operators::MODULO
                    | operators::NEGATE
                    | "size"
                    | "lowerAscii"
                    | "upperAscii"
                    | "split"
                    | "string"
                    | "int"
            ),
            Expr::Unspecified | Expr::Select(_) | Expr::Comprehension(_) | Expr::Struct(_) => false,
        };
        if odd {
            self.flaw(
                0..self.source.len(),
                "it says neither true nor false",
                "accepted: a comparison, such as args.amount < 100",
            );
        }
    }

    fn visit(&mut self, expression: &mut IdedExpr) {
        self.level += 1;
        self.deepest = self.deepest.max(self.level);
        self.enter(expression);
        self.level -= 1;
    }

    fn enter(&mut self, expression: &mut IdedExpr) {
        let id = expression.id;
        match &mut expression.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => {
                let name = name.clone();
                self.variable(id, &name);
            }
            Expr::Select(_) => self.select(expression),
            Expr::Call(_) => self.call(expression),
            Expr::List(list) => list.elements.iter_mut().for_each(|part| self.visit(part)),
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                        self.visit(&mut entry.key);
                        self.visit(&mut entry.value);
                    }
                }
            }
            Expr::Struct(_) => self.flaw(
                self.place(id),
                "a condition makes no structures",
                "write a map, as { \"key\": value }",
            ),
            Expr::Comprehension(whole) => {
                self.visit(&mut whole.iter_range);
                self.visit(&mut whole.accu_init);
                let over = self.origin(&whole.iter_range).map(|(mut steps, _)| {
                    steps.push(Step::Each);
                    steps
                });
                self.loops += 1;
                if self.loops == LOOPS + 1 {
                    self.flaw(
                        self.place(id),
                        format!("there are more than {LOOPS} loops in each other"),
                        "make several rules of it",
                    );
                }
                let depth = self.bound.len();
                self.bound.push((whole.accu_var.clone(), None));
                self.bound.push((whole.iter_var.clone(), over));
                if let Some(second) = &whole.iter_var2 {
                    self.bound.push((second.clone(), None));
                }
                self.visit(&mut whole.loop_cond);
                self.visit(&mut whole.loop_step);
                self.visit(&mut whole.result);
                self.bound.truncate(depth);
                self.loops -= 1;
            }
        }
    }

    fn is_bound(&self, name: &str) -> bool {
        self.bound.iter().any(|(one, _)| one == name)
    }

    fn variable(&mut self, id: u64, name: &str) {
        if self.is_bound(name) || TYPES.contains(&name) || name.starts_with(scope::PATTERN) {
            return;
        }
        if let Some(known) = scope::VARIABLES.iter().find(|one| **one == name) {
            self.found.reads.insert(known);
            return;
        }
        self.flaw(
            self.place(id),
            format!("there is no `{name}` to read here"),
            format!("accepted: {}", listed(&scope::VARIABLES)),
        );
    }

    fn select(&mut self, expression: &mut IdedExpr) {
        if let Some((steps, end)) = self.origin(expression)
            && let Some(Step::Name(name)) = steps.last()
        {
            let at = end - name.len()..end;
            self.path(steps, at);
        }
        let Expr::Select(SelectExpr { operand, field, .. }) = &mut expression.expr else {
            return;
        };
        if let Expr::Ident(name) = &operand.expr
            && !self.is_bound(name)
            && scope::VARIABLES.contains(&name.as_str())
        {
            let at = self.after(self.place(operand.id).end, field);
            let (name, field) = (name.clone(), field.clone());
            if name == "traits" && !scope::TRAITS.contains(&field.as_str()) {
                self.flaw(
                    at,
                    format!("there is no trait `{field}`"),
                    format!("accepted: {}", listed(&scope::TRAITS)),
                );
            } else if name != "args" && name != "traits" {
                self.flaw(
                    at,
                    format!("`{name}` has no parts"),
                    "accepted: parts of `args` and `traits`",
                );
            }
        }
        self.visit(operand);
    }

    fn path(&mut self, steps: Vec<Step>, at: Range<usize>) {
        let path = Path { steps, at };
        if !self.found.paths.contains(&path) {
            self.found.paths.push(path);
        }
    }

    fn call(&mut self, expression: &mut IdedExpr) {
        if let Some((steps, end)) = self.origin(expression)
            && let Some(Step::Name(name)) = steps.last()
            && is(expression, operators::OPT_SELECT)
        {
            let at = end - name.len()..end;
            self.path(steps, at);
        }
        let id = expression.id;
        let Expr::Call(call) = &mut expression.expr else {
            return;
        };
        // `optional.of(x)` names its function in two parts.
        let of_optional =
            call.target.as_ref().is_some_and(
                |target| matches!(&target.expr, Expr::Ident(name) if name == "optional"),
            ) && !self.is_bound("optional");
        if of_optional {
            if !matches!(call.func_name.as_str(), "of" | "none" | "ofNonZeroValue") {
                let name = call.func_name.clone();
                self.no_function(id, &format!("optional.{name}"));
            }
            call.args.iter_mut().for_each(|part| self.visit(part));
            return;
        }
        self.function(id, call);
        if let Some(target) = &mut call.target {
            self.visit(target);
        }
        if call.func_name == "matches" {
            self.pattern(call);
        }
        call.args.iter_mut().for_each(|part| self.visit(part));
    }

    fn function(&mut self, id: u64, call: &CallExpr) {
        let name = call.func_name.as_str();
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return;
        }
        let Some((_, after, alone)) = FUNCTIONS.iter().find(|(one, ..)| *one == name) else {
            return self.no_function(id, name);
        };
        let (fits, how) = if call.target.is_some() {
            (*after, "after a value, as value.")
        } else {
            (*alone, "by itself, as ")
        };
        if fits.contains(&call.args.len()) {
            return;
        }
        let many: Vec<String> = fits.iter().map(ToString::to_string).collect();
        let accepted = if fits.is_empty() && call.target.is_some() {
            format!("write it by itself, as {name}(value)")
        } else if fits.is_empty() {
            format!("write it after a value, as value.{name}(...)")
        } else {
            format!("accepted: {} of them {how}{name}(...)", many.join(" or "))
        };
        self.flaw(
            self.name_of(id, name),
            format!("`{name}` does not take these arguments"),
            accepted,
        );
    }

    fn no_function(&mut self, id: u64, name: &str) {
        let names: Vec<&str> = MACROS
            .into_iter()
            .chain(FUNCTIONS.iter().map(|(name, ..)| *name))
            .collect();
        self.flaw(
            self.name_of(id, name),
            format!("there is no function `{name}`"),
            format!("accepted: {}", listed(&names)),
        );
    }

    /// Compiles a pattern that is written out, and lets its name stand for it.
    fn pattern(&mut self, call: &mut CallExpr) {
        let Some(place) = call.args.last_mut() else {
            return;
        };
        let at = self.place(place.id);
        let Expr::Literal(LiteralValue::String(text)) = &place.expr else {
            return self.flaw(
                at,
                "the pattern is not written out",
                "accepted: a text in quotes; an agent chooses no pattern",
            );
        };
        let text = text.inner().to_owned();
        let compiled = RegexBuilder::new(&text)
            .size_limit(PATTERN_SIZE)
            .dfa_size_limit(PATTERN_SIZE)
            .build();
        match compiled {
            Ok(pattern) => {
                let name = format!("{}{text}", scope::PATTERN);
                self.patterns.insert(text, pattern);
                place.expr = Expr::Ident(name);
            }
            Err(error) => {
                let error = error.to_string();
                let said = error.lines().last().unwrap_or_default();
                let said = said.strip_prefix("error: ").unwrap_or(said);
                self.flaw(
                    at,
                    format!("this is no pattern: {said}"),
                    "accepted: a regular expression, such as \"^[a-z]+$\"",
                );
            }
        }
    }

    /// What of the arguments an expression is, with where its text ends.
    fn origin(&self, expression: &IdedExpr) -> Option<(Vec<Step>, usize)> {
        match &expression.expr {
            Expr::Ident(name) => {
                let end = self.place(expression.id).end;
                match self.bound.iter().rev().find(|(one, _)| one == name) {
                    Some((_, steps)) => Some((steps.clone()?, end)),
                    None => (name == "args").then(|| (Vec::new(), end)),
                }
            }
            Expr::Select(select) => self.member(&select.operand, &select.field),
            Expr::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
                (operators::OPT_SELECT, [operand, field]) => {
                    let Expr::Literal(LiteralValue::String(field)) = &field.expr else {
                        return None;
                    };
                    self.member(operand, field.inner())
                }
                // A name in quotes is deliberate: it is how to read what no schema tells of.
                (operators::INDEX | operators::OPT_INDEX, [operand, index]) => {
                    let Expr::Literal(LiteralValue::Int(_)) = &index.expr else {
                        return None;
                    };
                    let (mut steps, end) = self.origin(operand)?;
                    steps.push(Step::Each);
                    Some((steps, end))
                }
                ("orValue" | "or" | "value", _) => {
                    let (steps, end) = self.origin(call.target.as_deref()?)?;
                    Some((steps, end.max(self.place(expression.id).start)))
                }
                _ => None,
            },
            Expr::Unspecified
            | Expr::Literal(_)
            | Expr::List(_)
            | Expr::Map(_)
            | Expr::Struct(_)
            | Expr::Comprehension(_) => None,
        }
    }

    fn member(&self, operand: &IdedExpr, field: &str) -> Option<(Vec<Step>, usize)> {
        let (mut steps, end) = self.origin(operand)?;
        steps.push(Step::Name(field.to_owned()));
        Some((steps, self.after(end, field).end))
    }

    /// Where `.field` or `.?field` is written next.
    fn after(&self, from: usize, field: &str) -> Range<usize> {
        let rest = self.source.get(from..).unwrap_or_default();
        let mut places = rest.match_indices(field);
        let found = places.find(|(at, _)| {
            let before = rest.get(..*at).unwrap_or_default().trim_end();
            let before = before.strip_suffix('?').unwrap_or(before).trim_end();
            before.ends_with('.')
        });
        let start = found.map_or(from, |(at, _)| from + at);
        let end = (start + field.len()).min(self.source.len());
        start.max(end.saturating_sub(field.len()))..end.max(field.len())
    }
}

fn is(expression: &IdedExpr, function: &str) -> bool {
    matches!(&expression.expr, Expr::Call(call) if call.func_name == function)
}

fn listed(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}
