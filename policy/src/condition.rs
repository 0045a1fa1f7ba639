//! The `when` of a rule: an expression in CEL (Common Expression Language) over what is asked.
//!
//! It is read, checked and compiled once. What an agent sends can neither make it slow nor choose a
//! pattern that it is matched against: the cost is bounded before it runs (`cost`), patterns are
//! written in the rule, and whatever cannot be told is an error, which counts against the call.

mod check;
mod cost;
mod scope;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};
use std::thread;

use cel::common::types::CelBool;
use cel::{Context, Env, ExecutionError, IdedExpr, Value};
use regex::Regex;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use check::{Path, Step};
pub(crate) use scope::Scope;

/// The longest condition, in bytes.
pub const LONGEST: usize = 2048;
/// How deep the brackets of a condition may lie in each other.
const DEEPEST: u16 = 16;
/// The most operators of a condition.
const OPERATORS: usize = 200;

/// What a condition is read with for a stack, in bytes.
const READER_STACK: usize = 64 << 20;

/// One environment for every condition: to build it takes longer than a thousand decisions.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    // Neither fails on an environment that has nothing of the kind; a function that was not added
    // would be an error at every evaluation, and a test evaluates each.
    let _ = env.add_extension(cel::extensions::strings);
    let _ = scope::add_matches(&mut env);
    Arc::new(env)
});

/// A compiled condition; its text is what it is stored and compared as.
#[derive(Clone)]
pub struct Condition(Arc<Compiled>);

struct Compiled {
    source: String,
    expression: IdedExpr,
    patterns: BTreeMap<String, Regex>,
    checked: check::Checked,
}

/// Something wrong with the text of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Where, in bytes of the text.
    pub at: Range<usize>,
    /// What.
    pub message: String,
    /// What is accepted instead.
    pub accepted: String,
}

/// Why a condition cannot be told. It never holds a value of the call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Untold(pub(crate) String);

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the text.
    pub fn parse(source: &str) -> Result<Self, Vec<Flaw>> {
        let whole = |message: String, accepted: &str| {
            vec![Flaw {
                at: 0..source.len(),
                message,
                accepted: accepted.to_owned(),
            }]
        };
        if source.len() > LONGEST {
            return Err(whole(
                format!("the condition is longer than {LONGEST} bytes"),
                "make several rules of it",
            ));
        }
        let (deepest, operators) = check::shape(source);
        if deepest > usize::from(DEEPEST) || operators > OPERATORS {
            return Err(whole(
                "the condition has too many parts".to_owned(),
                "make several rules of it",
            ));
        }
        // The parser is not ours: it descends deeper than an ordinary stack holds, and a text that it
        // cannot stand is a text that is refused.
        let read = thread::scope(|scope| {
            let builder = thread::Builder::new().stack_size(READER_STACK);
            let reading = builder.spawn_scoped(scope, || {
                let parser = ENV
                    .parser()
                    .max_recursion_depth(DEEPEST)
                    .error_recovery_limit(4);
                let (mut expression, info) = parser
                    .parse_with_source_info(source)
                    .map_err(|errors| check::unreadable(source, &errors))?;
                let mut patterns = BTreeMap::new();
                let checked = check::check(source, &info, &mut expression, &mut patterns)?;
                Ok::<_, Vec<Flaw>>((expression, patterns, checked))
            });
            reading.ok().and_then(|reading| reading.join().ok())
        });
        let Some(read) = read else {
            return Err(whole(
                "the condition cannot be read".to_owned(),
                "write it more simply",
            ));
        };
        let (expression, patterns, checked) = read?;
        Ok(Self(Arc::new(Compiled {
            source: source.to_owned(),
            expression,
            patterns,
            checked,
        })))
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// What it reads of the arguments.
    pub fn paths(&self) -> &[Path] {
        &self.0.checked.paths
    }

    /// Whether it reads a variable.
    pub fn reads(&self, variable: &str) -> bool {
        self.0.checked.reads.contains(variable)
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// [`Untold`], if that cannot be told.
    pub(crate) fn holds(&self, scope: &Scope<'_>) -> Result<bool, Untold> {
        let compiled = &*self.0;
        let (nodes, bytes) = scope.size();
        if !cost::affordable(&compiled.expression, nodes, bytes) {
            return Err(Untold("the arguments are too large for it".to_owned()));
        }
        let names = scope::Names {
            scope,
            patterns: &compiled.patterns,
        };
        let evaluate = || {
            let mut context = Context::with_env(Arc::clone(&ENV));
            context.set_variable_resolver(&names);
            let value =
                Value::resolve_val(&compiled.expression, &context).map_err(|e| self.told(&e))?;
            value
                .downcast_ref::<CelBool>()
                .map(|flag| *flag.inner())
                .ok_or_else(|| Untold("it says neither true nor false".to_owned()))
        };
        // Nothing that an agent sends may take the gateway down, whatever the evaluator thinks of it.
        catch_unwind(AssertUnwindSafe(evaluate))
            .unwrap_or_else(|_| Err(Untold("it cannot be worked out".to_owned())))
    }

    /// An error in words of ours: the evaluator's own quote the values that it met.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the evaluator adds to its errors freely; what is not known here is told in general"
    )]
    fn told(&self, error: &ExecutionError) -> Untold {
        Untold(match error {
            ExecutionError::NoSuchKey(key) if self.names(key) => format!("there is no `{key}`"),
            ExecutionError::NoSuchKey(_) | ExecutionError::IndexOutOfBounds(_) => {
                "something it reads is not there".to_owned()
            }
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
                "it divides by zero".to_owned()
            }
            ExecutionError::Overflow(..) => "a number is too large for it".to_owned(),
            ExecutionError::FunctionError { function, .. } if self.names(function) => {
                format!("`{function}` cannot be worked out")
            }
            _ => "a value is of a kind that it does not expect".to_owned(),
        })
    }

    fn names(&self, word: &str) -> bool {
        !word.is_empty() && self.0.source.contains(word)
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.0.source == other.0.source
    }
}

impl Eq for Condition {}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.0.source).finish()
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.source)
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0.source)
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let source = String::deserialize(from)?;
        Self::parse(&source).map_err(|flaws| {
            let flaws: Vec<String> = flaws.into_iter().map(|flaw| flaw.message).collect();
            de::Error::custom(flaws.join("; "))
        })
    }
}

#[cfg(test)]
mod tests;
