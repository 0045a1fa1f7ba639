//! Rules that came of a person's *always*: kept in the database, part of the policy that decides.

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use policy::action::Digest;
use policy::decision::Policy;
use policy::proposal;
use policy::record::About;
use serde_json::json;

use super::{Approvals, DecideError, lock};
use crate::audit::Write;
use crate::db::always::Kept;
use crate::db::{Db, DbError};

/// The most rules of this kind that count at a time.
const MOST: usize = 1000;

/// What decides: the rules of the configuration and those that people made since.
#[derive(Debug)]
pub struct Effective {
    /// The rules.
    pub policy: Policy,
    /// Which they are, for the record.
    pub revision: String,
}

#[derive(Debug)]
struct Made {
    of: String,
    from: Arc<Vec<Kept>>,
    effective: Arc<Effective>,
}

/// The rules, and the policy that was last made with them.
#[derive(Debug)]
pub(super) struct Always {
    kept: Mutex<Arc<Vec<Kept>>>,
    made: Mutex<Option<Made>>,
}

impl Always {
    pub(super) async fn open(db: &Db) -> Result<Self, DbError> {
        Ok(Self {
            kept: Mutex::new(Arc::new(db.always().await?)),
            made: Mutex::default(),
        })
    }

    fn kept(&self) -> Arc<Vec<Kept>> {
        lock(&self.kept).clone()
    }
}

impl Approvals {
    /// Every rule of this kind that there was, newest first.
    pub fn rules(&self) -> Arc<Vec<Kept>> {
        self.always.kept()
    }

    /// A configuration's policy with the rules that people made since; `revision` is the
    /// configuration's.
    pub fn effective(&self, policy: &Policy, revision: &str) -> Arc<Effective> {
        let kept = self.always.kept();
        let mut made = lock(&self.always.made);
        if let Some(made) = made.as_ref()
            && made.of == revision
            && Arc::ptr_eq(&made.from, &kept)
        {
            return made.effective.clone();
        }
        // What is spent says nothing, and stays in: time passes without a new revision.
        let added: Vec<_> = kept.iter().filter(|one| one.revoked.is_none()).collect();
        let mut rules = policy.rules.clone();
        rules.extend(added.iter().map(|one| one.rule.clone()));
        let named = if added.is_empty() {
            revision.to_owned()
        } else {
            let all: Vec<_> = added.iter().map(|one| &one.rule).collect();
            let digest = Digest::of_json(&json!([revision, all]));
            digest.as_str().chars().take(12).collect()
        };
        let effective = Arc::new(Effective {
            policy: Policy { rules },
            revision: named,
        });
        *made = Some(Made {
            of: revision.to_owned(),
            from: kept,
            effective: effective.clone(),
        });
        effective
    }

    /// Whether there is room for one more.
    ///
    /// # Errors
    /// [`DecideError::Full`].
    pub(super) fn room_for_rule(&self, now: Timestamp) -> Result<(), DecideError> {
        let kept = self.always.kept();
        let count = kept.iter().filter(|one| one.counts(now)).count();
        if count >= MOST {
            return Err(DecideError::Full(count));
        }
        Ok(())
    }

    /// A rule is recorded before it is stored.
    pub(super) async fn record_rule(&self, kept: &Kept) -> Result<(), DecideError> {
        let what = format!(
            "rule from question {} on: {}\n{}",
            kept.question,
            kept.words,
            proposal::toml(&kept.rule)
        );
        self.note(&kept.by, what).await
    }

    async fn note(&self, by: &str, what: String) -> Result<(), DecideError> {
        let write = Write::noted(format!("user:{by}"), Some(About::Policy), what);
        Ok(self.audit.write(write).await?)
    }

    /// A rule that is stored counts from now on.
    pub(super) fn rule_counts(&self, kept: Kept) {
        let mut all = lock(&self.always.kept);
        *all = Arc::new([kept].into_iter().chain(all.iter().cloned()).collect());
    }

    /// Keeps a rule that comes of a question which was answered before.
    ///
    /// # Errors
    /// [`DecideError`], and then nothing changed.
    pub async fn keep_rule(&self, kept: Kept) -> Result<(), DecideError> {
        let _one = self.deciding.lock().await;
        self.room_for_rule(kept.at)?;
        if self.rules().iter().any(|one| one.question == kept.question) {
            return Err(DecideError::Ruled(kept.question));
        }
        self.record_rule(&kept).await?;
        self.db.always_add(&kept).await?;
        self.rule_counts(kept);
        Ok(())
    }

    /// A person takes a rule back.
    ///
    /// # Errors
    /// [`DecideError`], and then nothing changed.
    pub async fn revoke_rule(
        &self,
        question: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<(), DecideError> {
        let _one = self.deciding.lock().await;
        let kept = self.rules();
        let found = kept.iter().find(|one| one.question == question);
        let Some(kept) = found.filter(|one| one.revoked.is_none()) else {
            return Err(DecideError::NoRule(question.to_owned()));
        };
        let what = format!("rule from question {question} on revoked: {}", kept.words);
        self.note(by, what).await?;
        self.db.always_revoke(question, by, now).await?;
        let mut all = lock(&self.always.kept);
        let revoked = |one: &Kept| Kept {
            revoked: (one.question == question)
                .then(|| (by.to_owned(), now))
                .or_else(|| one.revoked.clone()),
            ..one.clone()
        };
        *all = Arc::new(all.iter().map(revoked).collect());
        Ok(())
    }
}
