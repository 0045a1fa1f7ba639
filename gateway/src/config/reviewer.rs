//! `[reviewer]`: a model that looks at what the matrix would have a person look at.

use std::collections::BTreeMap;
use std::time::Duration;

use policy::ids::ModelName;

use super::models::{self, Api, Model, ModelRef};
use super::read::Table;

/// The reviewer model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reviewer {
    /// Which.
    pub model: ModelRef,
    /// How long it may take; then a person is asked.
    pub timeout: Duration,
    /// How often it is asked in one run; then a person is.
    pub max_per_run: usize,
}

/// Reads it; `providers` are the names of all, `read` those that could be read.
pub(super) fn read(
    table: &Table<'_>,
    providers: &[String],
    read: &BTreeMap<ModelName, Model>,
) -> Option<Reviewer> {
    const LONGEST: Duration = Duration::from_mins(1);
    let item = table.get("model");
    if item.is_none() {
        let accepted = "accepted: `model` = \"PROVIDER/MODEL\"";
        table.problem("it does not say which model reviews", accepted);
    }
    let model = item
        .as_ref()
        .and_then(|item| models::of_group(item, providers));
    if let (Some(item), Some(model)) = (&item, &model)
        && let Some(provider) = read.get(&model.provider)
        && provider.api == Api::Scripted
    {
        let accepted = "accepted: a provider whose `api` is \"anthropic\"";
        item.problem("a script cannot review", accepted);
    }
    let timeout = table.get("timeout").and_then(|item| {
        let timeout = item.duration()?;
        if timeout.is_zero() || timeout > LONGEST {
            item.problem(
                "it is not a time that fits here",
                "accepted: from 1 ms to 1 m",
            );
            return None;
        }
        Some(timeout)
    });
    let most = table
        .get("max_per_run")
        .and_then(|item| item.number(1..=10_000));
    table.done();
    Some(Reviewer {
        model: model?,
        timeout: timeout.unwrap_or(Duration::from_secs(5)),
        max_per_run: most.unwrap_or(50),
    })
}
