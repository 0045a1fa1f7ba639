//! The statements of one commit of the log. Each is one for many rows: with a statement a row,
//! running them costs more than the disk does.

use std::collections::BTreeMap;

use policy::record::Entry;
use sea_orm::{ConnectionTrait, DatabaseTransaction, Statement, Value};
use serde_json::json;

use super::{Link, Opens};
use crate::db::DbError;

/// How many entries a statement adds: few sizes, so that each is prepared once and kept.
const SIZES: [usize; 4] = [64, 16, 4, 1];

pub(super) async fn entries(tx: &DatabaseTransaction, links: &[Link]) -> Result<(), DbError> {
    let mut rest = links;
    for size in SIZES {
        while let Some((some, others)) = rest.split_at_checked(size) {
            add(tx, some).await?;
            rest = others;
        }
    }
    Ok(())
}

async fn add(tx: &DatabaseTransaction, links: &[Link]) -> Result<(), DbError> {
    let mut sql = "INSERT INTO audit (seq, id, at, body, prev, hash) VALUES ".to_owned();
    let mut values: Vec<Value> = Vec::with_capacity(links.len() * 6);
    for (n, link) in links.iter().enumerate() {
        sql.push_str(if n == 0 {
            "(?,?,?,?,?,?)"
        } else {
            ",(?,?,?,?,?,?)"
        });
        let Entry {
            seq,
            id,
            at,
            body,
            prev,
            hash,
        } = link.entry.clone();
        values.extend([
            seq.into(),
            id.into(),
            at.into(),
            body.into(),
            prev.into(),
            hash.into(),
        ]);
    }
    run(tx, sql, values).await
}

/// The large values of entries, each once; a row knows the last entry that names it.
pub(super) async fn payloads(tx: &DatabaseTransaction, links: &[Link]) -> Result<(), DbError> {
    for link in links {
        for (digest, body) in &link.apart {
            let sql = "INSERT INTO payloads (digest, body, seq) VALUES (?, ?, ?) \
                       ON CONFLICT (digest) DO UPDATE SET seq = excluded.seq";
            let values = vec![
                digest.as_str().into(),
                body.as_str().into(),
                link.entry.seq.into(),
            ];
            run(tx, sql, values).await?;
        }
    }
    Ok(())
}

/// Where the chain ends from now on.
pub(super) async fn end(
    tx: &DatabaseTransaction,
    last: &Entry,
    mac: String,
) -> Result<(), DbError> {
    let sql = "INSERT INTO chain_end (one, seq, hash, mac) VALUES (1, ?, ?, ?) ON CONFLICT (one) \
               DO UPDATE SET seq = excluded.seq, hash = excluded.hash, mac = excluded.mac";
    let values = vec![last.seq.into(), last.hash.clone().into(), mac.into()];
    run(tx, sql, values).await
}

/// The list of open actions. Of an action with several entries here the last one counts.
pub(super) async fn open(tx: &DatabaseTransaction, links: &[Link]) -> Result<(), DbError> {
    let mut last = BTreeMap::new();
    for link in links.iter().filter(|link| link.opens != Opens::No) {
        last.insert(link.entry.id.as_str(), link.opens);
    }
    let (ended, opened): (Vec<_>, Vec<_>) = last
        .into_iter()
        .partition(|(_, opens)| *opens == Opens::Ends);
    if !opened.is_empty() {
        let sql = "INSERT INTO running (id, doing) SELECT value ->> 0, value ->> 1 FROM json_each(?) WHERE true \
                   ON CONFLICT (id) DO UPDATE SET doing = excluded.doing";
        let rows = opened
            .iter()
            .map(|(id, opens)| json!([id, *opens == Opens::Begins]));
        run(tx, sql, vec![json(rows)]).await?;
    }
    if !ended.is_empty() {
        let sql = "DELETE FROM running WHERE id IN (SELECT value FROM json_each(?))";
        let rows = ended.iter().map(|(id, _)| json!(id));
        run(tx, sql, vec![json(rows)]).await?;
    }
    Ok(())
}

/// The labels that conversations take on; those that are there already keep where they came from.
pub(super) async fn labels(tx: &DatabaseTransaction, links: &[Link]) -> Result<(), DbError> {
    if links.iter().all(|link| link.labels.is_empty()) {
        return Ok(());
    }
    let sql = "INSERT INTO labels (conversation, label, action, tool, at) \
               SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?) WHERE true \
               ON CONFLICT (conversation, label) DO NOTHING";
    let mut rows = Vec::new();
    for link in links {
        for (conversation, label, from) in &link.labels {
            let at = from.at.as_millisecond();
            rows.push(json!([
                conversation,
                label.as_str(),
                from.action,
                from.tool,
                at
            ]));
        }
    }
    run(tx, sql, vec![json(rows.into_iter())]).await
}

/// The labels that conversations lose.
pub(super) async fn lost(tx: &DatabaseTransaction, links: &[Link]) -> Result<(), DbError> {
    for (conversation, lost) in links.iter().filter_map(|link| link.loses.as_ref()) {
        for label in lost {
            let sql = "DELETE FROM labels WHERE conversation = ? AND label = ?";
            let values = vec![conversation.as_str().into(), label.as_str().into()];
            run(tx, sql, values).await?;
        }
    }
    Ok(())
}

/// Rows as one JSON array.
fn json(rows: impl Iterator<Item = serde_json::Value>) -> Value {
    serde_json::Value::Array(rows.collect()).to_string().into()
}

async fn run(
    tx: &DatabaseTransaction,
    sql: impl Into<String>,
    values: Vec<Value>,
) -> Result<(), DbError> {
    let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
    tx.execute_raw(statement).await?;
    Ok(())
}
