//! Who is calling: bearer tokens for agents, signed, listed and revocable.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode,
};
use policy::ids::{ConversationId, GroupName};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::db::tokens::Issued;
use crate::db::{Db, DbError};
use crate::keys::{Keys, short_id};

/// The longest a token may live.
pub const LONGEST: Duration = Duration::from_hours(8784);

/// Who a call is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The group whose grants it has.
    pub group: GroupName,
    /// The token's id.
    pub token: String,
    /// The token's name.
    pub name: String,
}

impl Principal {
    /// An outside token is one conversation for its whole life, whatever sessions it opens.
    pub fn conversation(&self) -> ConversationId {
        ConversationId::new(format!("token:{}", self.token))
    }

    /// As the log names it.
    pub fn label(&self) -> String {
        if self.name.is_empty() {
            format!("token:{}", self.token)
        } else {
            format!("token:{} ({})", self.token, self.name)
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

/// Issues and checks tokens.
#[derive(Debug)]
pub struct Identity {
    keys: Arc<Keys>,
    db: Db,
    audience: String,
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
            keys,
            db,
            audience,
            live: RwLock::new(live),
        })
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
        let header = Header {
            kid: Some(issued.kid.clone()),
            ..Header::new(Algorithm::HS256)
        };
        let token = encode(
            &header,
            &claims,
            &EncodingKey::from_secret(&self.keys.token),
        )
        .map_err(IssueError::Unsigned)?;
        self.db.token_add(&issued).await?;
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
        let mut valid = Validation::new(Algorithm::HS256);
        valid.set_audience(&[&self.audience]);
        valid.set_issuer(&[&self.audience]);
        valid.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        valid.leeway = 0;
        let claims = decode::<Claims>(token, &DecodingKey::from_secret(&self.keys.token), &valid)
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
            token: issued.id.clone(),
            name: issued.name.clone(),
        })
    }

    /// Is cancelled when a token is revoked; at once for one that nobody knows.
    pub fn revocation(&self, id: &str) -> CancellationToken {
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
