//! What a condition can cost at most, told before it runs from how large the arguments are.
//!
//! A step is about what it takes to look at one value. The bound is on the safe side: a loop is
//! charged for every value that there is, and for its largest.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators};

/// The most steps of one condition; some milliseconds.
const MOST: u64 = 100_000;
/// A call no larger than this is always affordable: a condition that is not is refused when loaded.
pub(super) const SMALL: (u64, u64) = (32, 2048);
/// Bytes that are copied or compared in one step.
const COPIED: u64 = 64;
/// Bytes of a text that a function works through in one step.
const WORKED: u64 = 16;
/// Bytes that a pattern is tried on in one step.
const MATCHED: u64 = 4;

/// Whether it can be evaluated over arguments of so many values and bytes of text.
pub(super) fn affordable(expression: &IdedExpr, nodes: u64, bytes: u64) -> bool {
    let small = nodes <= SMALL.0 && bytes <= SMALL.1;
    small || estimate(expression, Size { nodes, bytes }).steps <= MOST
}

/// Whether it costs too much even for a [`SMALL`] call.
pub(super) fn excessive(expression: &IdedExpr) -> bool {
    let (nodes, bytes) = SMALL;
    estimate(expression, Size { nodes, bytes }).steps > MOST
}

/// How large a value can be.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    nodes: u64,
    bytes: u64,
}

impl Size {
    fn plus(self, other: Self) -> Self {
        Self {
            nodes: self.nodes.saturating_add(other.nodes),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn times(self, n: u64) -> Self {
        Self {
            nodes: self.nodes.saturating_mul(n),
            bytes: self.bytes.saturating_mul(n),
        }
    }

    /// What it takes to go through it, so many bytes a step.
    fn walk(self, bytes: u64) -> u64 {
        self.nodes.saturating_add(self.bytes / bytes)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    steps: u64,
    size: Size,
}

/// The variables of loops, from outer to inner.
type Bound<'e> = Vec<(&'e str, Size)>;

fn estimate(expression: &IdedExpr, args: Size) -> Cost {
    cost(expression, args, &mut Vec::new())
}

fn cost<'e>(expression: &'e IdedExpr, args: Size, bound: &mut Bound<'e>) -> Cost {
    match &expression.expr {
        Expr::Unspecified => Cost::default(),
        Expr::Literal(literal) => Cost {
            steps: 1,
            size: Size {
                nodes: 1,
                bytes: match literal {
                    LiteralValue::String(text) => text.inner().len() as u64,
                    LiteralValue::Bytes(bytes) => bytes.inner().len() as u64,
                    LiteralValue::Boolean(_)
                    | LiteralValue::Double(_)
                    | LiteralValue::Int(_)
                    | LiteralValue::Null
                    | LiteralValue::UInt(_) => 0,
                },
            },
        },
        Expr::Ident(name) => Cost {
            steps: 2,
            size: bound
                .iter()
                .rev()
                .find(|(one, _)| one == name)
                .map_or(args, |(_, size)| *size),
        },
        Expr::Select(select) => {
            let operand = cost(&select.operand, args, bound);
            Cost {
                steps: operand.steps.saturating_add(2),
                ..operand
            }
        }
        Expr::Call(call) => of_call(call, args, bound),
        Expr::Comprehension(whole) => of_loop(whole, args, bound),
        Expr::List(list) => all(list.elements.iter(), args, bound),
        Expr::Map(map) => {
            let parts = map.entries.iter().flat_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
                EntryExpr::StructField(field) => vec![&field.value],
            });
            all(parts, args, bound)
        }
        Expr::Struct(whole) => {
            let parts = whole.entries.iter().map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => &entry.value,
                EntryExpr::StructField(field) => &field.value,
            });
            all(parts, args, bound)
        }
    }
}

/// Several values put together: each is copied.
fn all<'e>(parts: impl Iterator<Item = &'e IdedExpr>, args: Size, bound: &mut Bound<'e>) -> Cost {
    let one = Cost {
        steps: 1,
        size: Size { nodes: 1, bytes: 0 },
    };
    parts.fold(one, |sum, part| {
        let part = cost(part, args, bound);
        Cost {
            steps: sum
                .steps
                .saturating_add(part.steps)
                .saturating_add(part.size.walk(COPIED)),
            size: sum.size.plus(part.size),
        }
    })
}

fn of_call<'e>(call: &'e CallExpr, args: Size, bound: &mut Bound<'e>) -> Cost {
    let parts = call.target.as_deref().into_iter().chain(&call.args);
    let parts = parts.fold(Cost::default(), |sum, part| {
        let part = cost(part, args, bound);
        Cost {
            steps: sum.steps.saturating_add(part.steps),
            size: sum.size.plus(part.size),
        }
    });
    let flag = Size::default();
    let (work, size) = match call.func_name.as_str() {
        operators::LOGICAL_AND
        | operators::LOGICAL_OR
        | operators::LOGICAL_NOT
        | operators::NOT_STRICTLY_FALSE => (1, flag),
        operators::EQUALS
        | operators::NOT_EQUALS
        | operators::LESS
        | operators::LESS_EQUALS
        | operators::GREATER
        | operators::GREATER_EQUALS
        | operators::IN
        | "size"
        | "contains"
        | "startsWith"
        | "endsWith"
        | "hasValue" => (parts.size.walk(COPIED), flag),
        "matches" => (parts.size.walk(MATCHED), flag),
        operators::CONDITIONAL | operators::INDEX => (2, parts.size),
        // A text falls into as many parts as it has bytes.
        "split" => (
            parts.size.walk(1),
            Size {
                nodes: parts.size.nodes.saturating_add(parts.size.bytes),
                ..parts.size
            },
        ),
        _ => (parts.size.walk(WORKED).saturating_add(2), parts.size),
    };
    Cost {
        steps: parts.steps.saturating_add(work).saturating_add(1),
        size,
    }
}

/// A loop over values that are together no larger than what it goes over: as many turns as there are
/// values with nothing in them, and one with all of it.
fn of_loop<'e>(whole: &'e ComprehensionExpr, args: Size, bound: &mut Bound<'e>) -> Cost {
    let range = cost(&whole.iter_range, args, bound);
    let init = cost(&whole.accu_init, args, bound);
    let mut turn = |size: Size| {
        let depth = bound.len();
        bound.push((&whole.accu_var, Size::default()));
        bound.push((&whole.iter_var, size));
        if let Some(second) = &whole.iter_var2 {
            bound.push((second, size));
        }
        let again = cost(&whole.loop_cond, args, bound);
        let step = cost(&whole.loop_step, args, bound);
        bound.truncate(depth);
        Cost {
            steps: again
                .steps
                .saturating_add(step.steps)
                .saturating_add(size.walk(COPIED))
                .saturating_add(2),
            size: step.size,
        }
    };
    let (empty, full) = (turn(Size::default()), turn(range.size));
    let turns = range.size.nodes;
    let size = empty.size.times(turns).plus(full.size);
    bound.push((&whole.accu_var, size));
    let result = cost(&whole.result, args, bound);
    bound.pop();
    Cost {
        steps: [
            range.steps,
            init.steps,
            empty.steps.saturating_mul(turns),
            full.steps,
            result.steps,
        ]
        .into_iter()
        .fold(0, u64::saturating_add),
        size: result.size,
    }
}
