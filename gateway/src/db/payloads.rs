//! Rows of large values that entries name by their digest: each is there once.

use std::collections::HashMap;

use policy::record::{Entry, apart};
use sea_orm::{ConnectionTrait, Statement};

use super::{Db, DbError};

impl Db {
    /// Values by their digests; those that are not there are left out.
    ///
    /// # Errors
    /// [`DbError`], if they cannot be read.
    pub async fn payloads(&self, digests: Vec<String>) -> Result<HashMap<String, String>, DbError> {
        if digests.is_empty() {
            return Ok(HashMap::new());
        }
        let sql =
            "SELECT digest, body FROM payloads WHERE digest IN (SELECT value FROM json_each(?))";
        let digests = serde_json::Value::from(digests).to_string();
        let backend = self.conn.get_database_backend();
        let query = Statement::from_sql_and_values(backend, sql, [digests.into()]);
        let rows = self.conn.query_all_raw(query).await?;
        rows.into_iter()
            .map(|row| Ok((row.try_get("", "digest")?, row.try_get("", "body")?)))
            .collect()
    }

    /// Entries as they were written, with the large values in their places. Their hashes are over the
    /// text without these.
    ///
    /// # Errors
    /// [`DbError`], if the values cannot be read.
    pub async fn whole(&self, mut entries: Vec<Entry>) -> Result<Vec<Entry>, DbError> {
        let parts = entries.iter().flat_map(|entry| apart::parts(&entry.body));
        let digests: Vec<String> = parts.map(|part| part.digest.to_string()).collect();
        if digests.is_empty() {
            return Ok(entries);
        }
        let values = self.payloads(digests).await?;
        for entry in &mut entries {
            if !apart::parts(&entry.body).is_empty() {
                entry.body =
                    apart::put_back(&entry.body, |digest| values.get(digest.as_str()).cloned());
            }
        }
        Ok(entries)
    }
}
