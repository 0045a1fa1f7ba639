//! `policy test`: what a file says of calls, held against what the configuration decides of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use jiff::Timestamp;
use policy::decision::{Decision, Why, explain};
use policy::label::Label;
use policy::rule::Gate;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::Failure;
use super::super::output::Output;
use super::{Call, Circumstances};
use crate::config::Config;
use crate::text::printable;

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    group: String,
    tool: String,
    #[serde(default)]
    args: BTreeMap<String, Value>,
    #[serde(default)]
    labels: BTreeSet<Label>,
    person: Option<String>,
    now: Option<Timestamp>,
    expect: Expected,
}

/// What is not said is not looked at.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    decision: Decision,
    gates: Option<BTreeSet<Gate>>,
    rules: Option<BTreeSet<String>>,
}

/// How a case went.
#[derive(Debug, Serialize)]
struct Result {
    name: String,
    ok: bool,
    decision: Decision,
    gates: BTreeSet<Gate>,
    rules: Vec<String>,
    reasons: Vec<String>,
    wrong: Vec<String>,
}

pub(super) fn run(config: &Config, file: &Path, out: Output) -> std::result::Result<(), Failure> {
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::Usage(format!("{shown} cannot be read: {error}")))?;
    let cases: Cases = toml::from_str(&text)
        .map_err(|error| Failure::Usage(format!("{shown}: {error}").trim_end().to_owned()))?;
    let mut results = Vec::new();
    for case in cases.cases {
        let name = case.name.clone();
        let result = one(config, case).map_err(|error| match error {
            Failure::Usage(text) => Failure::Usage(format!("{shown}: case `{name}`: {text}")),
            Failure::Failed(_) | Failure::Told(_) => error,
        })?;
        results.push(result);
    }
    let failed = results.iter().filter(|result| !result.ok).count();
    let value = serde_json::json!({
        "ok": failed == 0,
        "passed": results.len() - failed,
        "failed": failed,
        "cases": results,
    });
    out.print(&value, || told(&results, failed, out))?;
    if failed == 0 {
        Ok(())
    } else {
        Err(Failure::Told(1))
    }
}

fn one(config: &Config, case: Case) -> std::result::Result<Result, Failure> {
    let args = Value::Object(case.args.into_iter().collect());
    let call = Call::of(config, &case.group, &case.tool, args)?;
    let circumstances = Circumstances {
        labels: case.labels,
        person: case.person,
        now: case.now.unwrap_or_else(Timestamp::now),
        hints: None,
    };
    let facts = call.facts(config, &circumstances);
    let mut why = explain(&config.policy, &facts);
    call.without_grant(config, &mut why);
    let wrong = case.expect.wrong(&why);
    Ok(Result {
        name: case.name,
        ok: wrong.is_empty(),
        decision: why.decision,
        gates: why.gates,
        rules: why.rules,
        reasons: why.reasons,
        wrong,
    })
}

impl Expected {
    fn wrong(&self, why: &Why) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.decision != why.decision {
            let (expected, is) = (self.decision.as_str(), why.decision.as_str());
            wrong.push(format!("decision: expected {expected}, is {is}"));
        }
        let listed = |names: Vec<&str>| {
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        };
        if let Some(gates) = self.gates.as_ref().filter(|gates| **gates != why.gates) {
            let names = |gates: &BTreeSet<Gate>| listed(gates.iter().map(|g| g.as_str()).collect());
            let (expected, is) = (names(gates), names(&why.gates));
            wrong.push(format!("gates: expected {expected}, closed are {is}"));
        }
        let rules: BTreeSet<String> = why.rules.iter().cloned().collect();
        if let Some(expected) = self.rules.as_ref().filter(|expected| **expected != rules) {
            let names =
                |rules: &BTreeSet<String>| listed(rules.iter().map(String::as_str).collect());
            let (expected, is) = (names(expected), names(&rules));
            wrong.push(format!("rules: expected {expected}, had a say {is}"));
        }
        wrong
    }
}

fn told(results: &[Result], failed: usize, out: Output) -> String {
    let mut text = String::new();
    for result in results.iter().filter(|result| !result.ok) {
        let _ = writeln!(text, "{}: {}", out.word("failed"), printable(&result.name));
        for line in &result.wrong {
            let _ = writeln!(text, "    {}", printable(line));
        }
        for reason in &result.reasons {
            let _ = writeln!(text, "    for {}", printable(reason));
        }
    }
    let _ = writeln!(text, "{} passed, {failed} failed", results.len() - failed);
    text
}
