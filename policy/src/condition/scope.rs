//! What a condition can read: the call's facts as values of CEL, made when they are first read.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use cel::common::types::{
    self, CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelTimestamp,
    CelUInt, Type,
};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::context::VariableResolver;
use cel::{DeclarationError, Env, ExecutionError};
use regex::Regex;
use serde_json::Value;

use crate::decision::Facts;

/// The names that a condition can read.
pub(super) const VARIABLES: [&str; 8] = [
    "args", "tool", "server", "group", "person", "labels", "traits", "now",
];
/// What `traits` has.
pub(super) const TRAITS: [&str; 5] = [
    "public_source",
    "secret_data",
    "public_sink",
    "dangerous_writes",
    "read_only",
];
/// Begins the name that stands for a compiled pattern; no text of a condition can hold it.
pub(super) const PATTERN: &str = "@pattern:";

type Lazy<'f> = OnceLock<Box<dyn Val + 'f>>;

/// The facts of one decision, for all of its conditions.
pub(crate) struct Scope<'f> {
    facts: &'f Facts,
    tool: &'f str,
    size: OnceLock<(u64, u64)>,
    args: Lazy<'f>,
    labels: Lazy<'f>,
    traits: Lazy<'f>,
}

impl<'f> Scope<'f> {
    /// Of a call; `tool` is its name as rules write it.
    pub(crate) fn new(facts: &'f Facts, tool: &'f str) -> Self {
        Self {
            facts,
            tool,
            size: OnceLock::new(),
            args: OnceLock::new(),
            labels: OnceLock::new(),
            traits: OnceLock::new(),
        }
    }

    /// How large what the agent sent is: values, and bytes of text.
    pub(super) fn size(&self) -> (u64, u64) {
        *self.size.get_or_init(|| {
            let (nodes, bytes) = size(&self.facts.action.args);
            (nodes, bytes + self.tool.len() as u64)
        })
    }

    fn variable<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let text = |text: &'b str| CowVal::owned(CelString::from(text));
        let facts = self.facts;
        Some(match name {
            "args" => borrowed(&**self.args.get_or_init(|| value(&facts.action.args))),
            "tool" => text(self.tool),
            "server" => text(&facts.action.server),
            "group" => text(facts.action.group.as_str()),
            "person" => match &facts.person {
                Some(person) => text(person),
                None => CowVal::owned(CelNull),
            },
            "labels" => borrowed(&**self.labels.get_or_init(|| {
                let names = facts.labels.names().into_iter();
                let names: Vec<Box<dyn Val>> = names
                    .map(|name| -> Box<dyn Val> { Box::new(CelString::from(name)) })
                    .collect();
                Box::new(CelList::from(names))
            })),
            "traits" => borrowed(&**self.traits.get_or_init(|| traits(facts))),
            "now" => CowVal::owned(CelTimestamp::from(now(facts)?)),
            _ => return None,
        })
    }
}

/// The variables of one condition: the scope's, and its own patterns.
pub(super) struct Names<'b, 'f> {
    pub(super) scope: &'b Scope<'f>,
    pub(super) patterns: &'b BTreeMap<String, Regex>,
}

impl VariableResolver for Names<'_, '_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        match name.strip_prefix(PATTERN) {
            Some(pattern) => {
                let pattern = self.patterns.get(pattern)?;
                Some(CowVal::owned(Pattern(pattern.clone())))
            }
            None => self.scope.variable(name),
        }
    }
}

fn borrowed<'b>(value: &'b (dyn Val + 'b)) -> CowVal<'b, 'b> {
    CowVal::Borrowed(value)
}

fn now(facts: &Facts) -> Option<chrono::DateTime<chrono::FixedOffset>> {
    let nanos = u32::try_from(facts.now.subsec_nanosecond()).ok()?;
    chrono::DateTime::from_timestamp(facts.now.as_second(), nanos).map(|at| at.fixed_offset())
}

fn traits(facts: &Facts) -> Box<dyn Val> {
    let traits = facts.traits;
    let flags = [
        traits.public_source.holds(),
        traits.secret_data.holds(),
        traits.public_sink.holds(),
        traits.dangerous_writes.holds(),
        traits.read_only,
    ];
    let entries = TRAITS.into_iter().zip(flags);
    let map: HashMap<CelMapKey<'static>, Box<dyn Val>> = entries
        .map(|(name, flag)| -> (_, Box<dyn Val>) {
            (CelMapKey::from(name), Box::new(CelBool::from(flag)))
        })
        .collect();
    Box::new(CelMap::from(map))
}

/// JSON as CEL: whole numbers are `int`, and only those too large for it `uint`, so that `args.n == 5`
/// means what it says.
fn value(json: &Value) -> Box<dyn Val + '_> {
    match json {
        Value::Null => Box::new(CelNull),
        Value::Bool(flag) => Box::new(CelBool::from(*flag)),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Box::new(CelInt::from(whole)),
            (None, Some(whole)) => Box::new(CelUInt::from(whole)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Value::String(text) => Box::new(CelString::from(text.as_str())),
        Value::Array(items) => {
            let items: Vec<Box<dyn Val + '_>> = items.iter().map(value).collect();
            Box::new(CelList::from(items))
        }
        Value::Object(members) => {
            let map: HashMap<CelMapKey<'_>, Box<dyn Val + '_>> = members
                .iter()
                .map(|(name, member)| (CelMapKey::from(name.as_str()), value(member)))
                .collect();
            Box::new(CelMap::from(map))
        }
    }
}

fn size(json: &Value) -> (u64, u64) {
    match json {
        Value::Null | Value::Bool(_) | Value::Number(_) => (1, 0),
        Value::String(text) => (1, text.len() as u64),
        Value::Array(items) => items.iter().map(size).fold((1, 0), add),
        Value::Object(members) => members.iter().fold((1, 0), |sum, (name, member)| {
            add(add(sum, size(member)), (0, name.len() as u64))
        }),
    }
}

fn add(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    (a.0.saturating_add(b.0), a.1.saturating_add(b.1))
}

/// A pattern that was compiled with its condition.
#[derive(Debug)]
struct Pattern(Regex);

static PATTERN_TYPE: Type = Type::new_unspecified_type("pattern");

impl Val for Pattern {
    fn get_type(&self) -> &Type {
        &PATTERN_TYPE
    }

    fn cel_type() -> &'static Type {
        &PATTERN_TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(Self(self.0.clone()))
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Pattern {}

/// `text.matches(pattern)` and `matches(text, pattern)`, over patterns that are compiled.
pub(super) fn add_matches(env: &mut Env) -> Result<(), DeclarationError> {
    let args = || vec![PATTERN_TYPE.to_owned()];
    env.add_member_overload(
        "matches",
        "text_matches",
        types::STRING_TYPE,
        args(),
        matches,
    )?;
    let args = vec![types::STRING_TYPE, PATTERN_TYPE.to_owned()];
    env.add_overload("matches", "matches_text", args, matches)
}

fn matches<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let text = args
        .first()
        .and_then(|text| text.downcast_ref::<CelString>());
    let pattern = args
        .get(1)
        .and_then(|pattern| pattern.downcast_ref::<Pattern>());
    let (Some(text), Some(pattern)) = (text, pattern) else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    Ok(CowVal::owned(CelBool::from(
        pattern.0.is_match(text.inner()),
    )))
}
