//! Who is calling: bearer tokens for agents, signed, listed and revocable; and those of hosted runs,
//! which are in no list and die with the run.

pub mod runs;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode,
};
use policy::ids::{ConversationId, GroupName, RunId};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::db::tokens::Issued;
use crate::db::{Db, DbError};
use crate::fault;
use crate::keys::{Keys, short_id};
use runs::Runs;

/// The longest a token may live.
pub const LONGEST: Duration = Duration::from_hours(8784);

/// Who a call is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The group whose grants it has.
    pub group: GroupName,
    /// By which credential.
    pub by: Credential,
}

/// What a caller showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// The token of an outside agent.
    Token {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
    },
    /// The token of a hosted run.
    Run {
        /// The run.
        run: RunId,
        /// Which process of it, counted in this life of the gateway.
        launch: u64,
        /// The person it works for.
        person: String,
        /// The group's conversation.
        conversation: ConversationId,
    },
}

impl Principal {
    /// The conversation: of a hosted run its group's; an outside token is one for its whole life,
    /// whatever sessions it opens.
    pub fn conversation(&self) -> ConversationId {
        match &self.by {
            Credential::Token { id, .. } => ConversationId::new(format!("token:{id}")),
            Credential::Run { conversation, .. } => conversation.clone(),
        }
    }

    /// The hosted run, where it is one.
    pub fn run(&self) -> Option<&RunId> {
        match &self.by {
            Credential::Token { .. } => None,
            Credential::Run { run, .. } => Some(run),
        }
    }

    /// What is the same for two requests of one credential, and for no others.
    pub fn key(&self) -> String {
        match &self.by {
            Credential::Token { id, .. } => format!("token:{id}"),
            Credential::Run { run, launch, .. } => format!("run:{run}/{launch}"),
        }
    }

    /// As the log names it.
    pub fn label(&self) -> String {
        match &self.by {
            Credential::Token { id, name } if name.is_empty() => format!("token:{id}"),
            Credential::Token { id, name } => format!("token:{id} ({name})"),
            Credential::Run { run, person, .. } => format!("run:{run} (for {person})"),
        }
    }
}

/// A credential that is not accepted. It says nothing about why: a stranger learns nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the credential is not accepted")]
pub struct NotAccepted;

/// A token that could not be issued or revoked.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// It would live too long, or not at all.
    #[error("a token lives between a second and a year; give `--ttl` such a time, as in `30d`")]
    Lifetime,
    /// It cannot be signed.
    #[error("the token cannot be signed: {0}")]
    Unsigned(#[source] jsonwebtoken::errors::Error),
    /// It cannot be stored.
    #[error(transparent)]
    Db(#[from] DbError),
    /// It is for a run that is not under way.
    #[error("the run is over")]
    Over,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    jti: String,
    name: String,
    iat: i64,
    exp: i64,
}

/// What a run's token says. It has no end of its own: the run's is.
#[derive(Debug, Serialize, Deserialize)]
struct RunClaims {
    iss: String,
    aud: String,
    sub: String,
    jti: String,
    iat: i64,
}

/// Issues and checks tokens.
#[derive(Debug)]
pub struct Identity {
    /// The hosted runs that are under way.
    pub runs: Runs,
    keys: Arc<Keys>,
    db: Db,
    audience: String,
    /// The audience of run tokens: neither kind passes for the other.
    run_audience: String,
    live: RwLock<HashMap<String, Live>>,
}

/// A token and whoever acts on its end.
#[derive(Debug)]
struct Live {
    issued: Issued,
    revoked: CancellationToken,
}

impl From<Issued> for Live {
    fn from(issued: Issued) -> Self {
        let revoked = CancellationToken::new();
        if issued.revoked_at.is_some() {
            revoked.cancel();
        }
        Self { issued, revoked }
    }
}

impl Identity {
    /// Reads which tokens there are.
    ///
    /// # Errors
    /// [`DbError`], if they cannot be read.
    pub async fn open(keys: Arc<Keys>, db: Db) -> Result<Self, DbError> {
        let live = db
            .tokens()
            .await?
            .into_iter()
            .map(|token| (token.id.clone(), Live::from(token)))
            .collect();
        let audience = format!("portcullis:{}", keys.instance);
        Ok(Self {
            runs: Runs::default(),
            run_audience: format!("{audience}:run"),
            keys,
            db,
            audience,
            live: RwLock::new(live),
        })
    }

    /// The token of a new process of a run; those of its older processes are dead from here on.
    ///
    /// # Errors
    /// [`IssueError`], if the run is over or the token cannot be signed.
    pub fn issue_for_run(&self, run: &RunId) -> Result<SecretString, IssueError> {
        let claims = RunClaims {
            iss: self.audience.clone(),
            aud: self.run_audience.clone(),
            sub: run.to_string(),
            jti: uuid::Uuid::new_v4().simple().to_string(),
            iat: Timestamp::now().as_second(),
        };
        let token = self.sign(&claims)?;
        self.runs.launch(run, claims.jti).ok_or(IssueError::Over)?;
        Ok(SecretString::from(token))
    }

    fn sign(&self, claims: &impl Serialize) -> Result<String, IssueError> {
        let header = Header {
            kid: Some(self.keys.token_kid.clone()),
            ..Header::new(Algorithm::HS256)
        };
        let key = EncodingKey::from_secret(&self.keys.token);
        encode(&header, claims, &key).map_err(IssueError::Unsigned)
    }

    /// Issues a token; the text is in no other place.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn issue(
        &self,
        group: GroupName,
        name: String,
        ttl: Duration,
    ) -> Result<(Issued, String), IssueError> {
        if ttl > LONGEST || ttl < Duration::from_secs(1) {
            return Err(IssueError::Lifetime);
        }
        // Whole seconds, as in the token itself (RFC 7519, NumericDate).
        let now = Timestamp::now();
        let created = Timestamp::from_second(now.as_second()).map_err(|_| IssueError::Lifetime)?;
        let issued = Issued {
            id: format!("tok_{}", short_id(12)),
            group,
            name,
            kid: self.keys.token_kid.clone(),
            created_at: created,
            expires_at: created.checked_add(ttl).map_err(|_| IssueError::Lifetime)?,
            revoked_at: None,
        };
        let claims = Claims {
            iss: self.audience.clone(),
            aud: self.audience.clone(),
            sub: issued.group.to_string(),
            jti: issued.id.clone(),
            name: issued.name.clone(),
            iat: issued.created_at.as_second(),
            exp: issued.expires_at.as_second(),
        };
        let token = self.sign(&claims)?;
        self.db.token_add(&issued).await?;
        fault::point("token.stored").await;
        self.live
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(issued.id.clone(), issued.clone().into());
        Ok((issued, token))
    }

    /// Revokes a token from this moment on; `None` if there is none of that id, `false` if it was
    /// revoked before.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written.
    pub async fn revoke(&self, id: &str) -> Result<Option<bool>, DbError> {
        if !self
            .live
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(id)
        {
            return Ok(None);
        }
        let now = Timestamp::now();
        let first = self.db.token_revoke(id, now).await?;
        fault::point("token.revoked").await;
        if let Some(token) = self
            .live
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(id)
        {
            token.issued.revoked_at.get_or_insert(now);
            token.revoked.cancel();
        }
        Ok(Some(first))
    }

    /// Every token ever issued, oldest first.
    pub fn list(&self) -> Vec<Issued> {
        let mut all: Vec<Issued> = self
            .live
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .map(|token| token.issued.clone())
            .collect();
        all.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        all
    }

    /// Who a token is for.
    ///
    /// # Errors
    /// [`NotAccepted`], whatever is wrong with it.
    pub fn check(&self, token: &str) -> Result<Principal, NotAccepted> {
        let header = decode_header(token).map_err(|_| NotAccepted)?;
        if header.kid.as_deref() != Some(self.keys.token_kid.as_str()) {
            return Err(NotAccepted);
        }
        let key = DecodingKey::from_secret(&self.keys.token);
        let mut valid = Validation::new(Algorithm::HS256);
        valid.set_issuer(&[&self.audience]);
        valid.leeway = 0;
        let mut of_run = valid.clone();
        of_run.set_audience(&[&self.run_audience]);
        of_run.set_required_spec_claims(&["aud", "iss", "sub"]);
        of_run.validate_exp = false;
        if let Ok(run) = decode::<RunClaims>(token, &key, &of_run) {
            let RunClaims { sub, jti, .. } = run.claims;
            return self.runs.who(&RunId::new(sub), &jti).ok_or(NotAccepted);
        }
        valid.set_audience(&[&self.audience]);
        valid.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        let claims = decode::<Claims>(token, &key, &valid)
            .map_err(|_| NotAccepted)?
            .claims;
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let issued = &live.get(&claims.jti).ok_or(NotAccepted)?.issued;
        if issued.revoked_at.is_some()
            || issued.group.as_str() != claims.sub
            || issued.expires_at <= Timestamp::now()
        {
            return Err(NotAccepted);
        }
        Ok(Principal {
            group: issued.group.clone(),
            by: Credential::Token {
                id: issued.id.clone(),
                name: issued.name.clone(),
            },
        })
    }

    /// Is cancelled when a credential ends before its time: a token that is revoked, a run that is
    /// over or spoken for by another process. At once for one that nobody knows.
    pub fn revocation(&self, principal: &Principal) -> CancellationToken {
        let id = match &principal.by {
            Credential::Token { id, .. } => id,
            Credential::Run { run, launch, .. } => return self.runs.speaks(run, *launch),
        };
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.get(id).map_or_else(
            || {
                let revoked = CancellationToken::new();
                revoked.cancel();
                revoked
            },
            |token| token.revoked.clone(),
        )
    }

    /// Whether a token of this id was issued and not revoked. It may have expired since: a person's
    /// yes to what it asked before stands.
    pub fn not_revoked(&self, id: &str) -> bool {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.get(id)
            .is_some_and(|token| token.issued.revoked_at.is_none())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use secrecy::ExposeSecret as _;

    use super::runs::Hosted;
    use super::*;

    async fn identity(data: &std::path::Path) -> Identity {
        let keys = Arc::new(Keys::open(data).unwrap());
        Identity::open(keys, Db::open(data).await.unwrap())
            .await
            .unwrap()
    }

    fn hosted() -> Hosted {
        Hosted {
            run: RunId::new("run_1"),
            group: "demo".parse().unwrap(),
            conversation: ConversationId::new("group:demo"),
            person: "ana".to_owned(),
        }
    }

    #[tokio::test]
    async fn only_the_newest_process_of_a_run_that_is_under_way_speaks_for_it() {
        let data = tempfile::tempdir().unwrap();
        let identity = identity(data.path()).await;
        let run = hosted().run;
        assert!(matches!(
            identity.issue_for_run(&run),
            Err(IssueError::Over)
        ));
        identity.runs.open(hosted(), HashSet::new());
        let first = identity.issue_for_run(&run).unwrap();
        let who = identity.check(first.expose_secret()).unwrap();
        assert_eq!(who.label(), "run:run_1 (for ana)");
        assert_eq!(who.conversation().as_str(), "group:demo");
        let speaks = identity.runs.speaks(&run, 1);

        let second = identity.issue_for_run(&run).unwrap();
        assert_eq!(identity.check(first.expose_secret()), Err(NotAccepted));
        assert!(speaks.is_cancelled());
        assert_ne!(
            identity.check(second.expose_secret()).unwrap().key(),
            who.key()
        );
        identity.runs.over(&run);
        assert_eq!(identity.check(second.expose_secret()), Err(NotAccepted));
        // Not even where the run is under way again in another life of the gateway.
        identity.runs.open(hosted(), HashSet::new());
        identity.issue_for_run(&run).unwrap();
        assert_eq!(identity.check(second.expose_secret()), Err(NotAccepted));
    }
}
