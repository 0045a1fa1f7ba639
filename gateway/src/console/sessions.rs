//! Who is at the browser: one-time links, and the sessions that they open.
//!
//! A session is two secrets. The cookie comes with every request that a browser makes to this host,
//! whatever the port and whoever made it do so; the token is kept by the pages of this origin alone,
//! and no other origin can read or send it. Neither does anything without the other.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{constant_time, rand};
use axum::http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;
use policy::action::{Digest, hex};
use policy::ids::UserName;

use crate::config::Role;
pub use crate::db::sessions::Origin;
use crate::db::sessions::{Link, Row};
use crate::db::{Db, DbError};
use crate::keys::short_id;
use crate::live::Live;

/// The header that carries the page's token.
pub const TOKEN_HEADER: &str = "x-portcullis-token";
/// How long a link can be used.
const LINK_LIVES: Duration = Duration::from_mins(10);
/// How long a session lives.
const LONGEST: Duration = Duration::from_hours(30 * 24);
/// How long it lives without being used.
const IDLE: Duration = Duration::from_hours(7 * 24);
/// How exactly it is known when a session was last used.
const SEEN_EVERY: Duration = Duration::from_mins(5);

/// A person at a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its id, which is no secret.
    pub id: String,
    /// Who it is.
    pub person: UserName,
    /// What they may do.
    pub role: Role,
    /// Who asked for the link that opened it.
    pub origin: Origin,
}

/// What the credentials of a request say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing that counts.
    Nobody,
    /// There is a session, and nothing that shows that one of our pages asks.
    CookieAlone,
    /// One of our pages asks for this person.
    Person(Session),
}

/// A session that has just begun, with its secrets: they are in no other place.
#[derive(Debug)]
pub struct Begun {
    /// The session.
    pub session: Session,
    /// For the cookie.
    pub cookie: String,
    /// For the page.
    pub token: String,
}

/// A link that opens nothing.
#[derive(Debug, thiserror::Error)]
pub enum NoEntry {
    /// It is none, or it is too old.
    #[error("this link is not valid any more; `portcullis login` prints a new one")]
    NotValid,
    /// It was used before.
    #[error("this link was used before; `portcullis login` prints a new one")]
    Used {
        /// Which.
        link: String,
        /// Whose it was.
        person: UserName,
        /// How often it was tried since.
        times: i64,
    },
    /// The database said no.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// No randomness, no secret.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The system has none.
    #[error("the system has no randomness")]
    NoRandomness,
    /// The database said no.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<LinkError> for NoEntry {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::NoRandomness => Self::NotValid,
            LinkError::Db(error) => Self::Db(error),
        }
    }
}

/// All links and sessions of an instance.
#[derive(Debug)]
pub struct Sessions {
    db: Db,
    config: Arc<Live>,
    cookie: String,
}

impl Sessions {
    /// The sessions of the instance that listens at this port. Cookies ignore ports, so the port is
    /// in the cookie's name: two instances on one host do not overwrite each other's.
    pub fn new(db: Db, config: Arc<Live>, port: u16) -> Self {
        Self {
            db,
            config,
            cookie: format!("portcullis_{port}"),
        }
    }

    /// Makes a one-time link's secret.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn link(
        &self,
        person: &UserName,
        origin: Origin,
        now: Timestamp,
    ) -> Result<(String, String), LinkError> {
        let id = format!("link_{}", short_id(8));
        let secret = secret::<16>()?;
        let link = Link {
            id: id.clone(),
            secret: digest(&secret),
            person: person.clone(),
            origin,
            created_at: now,
            expires_at: now.checked_add(LINK_LIVES).unwrap_or(now),
            used: false,
        };
        self.db.link_add(&link).await?;
        Ok((format!("{id}.{secret}"), id))
    }

    /// Uses a link up, and begins a session.
    ///
    /// # Errors
    /// [`NoEntry`].
    pub async fn redeem(&self, given: &str, now: Timestamp) -> Result<Begun, NoEntry> {
        let (id, given) = given.split_once('.').ok_or(NoEntry::NotValid)?;
        let link = self.db.link(id).await?.ok_or(NoEntry::NotValid)?;
        if !same(&link.secret, given) {
            return Err(NoEntry::NotValid);
        }
        let role = self
            .config
            .now()
            .users
            .get(&link.person)
            .map(|user| user.role);
        let role = role.ok_or(NoEntry::NotValid)?;
        if !link.used && now >= link.expires_at {
            return Err(NoEntry::NotValid);
        }
        let (cookie, token) = (secret::<32>()?, secret::<32>()?);
        let session = Session {
            id: format!("ses_{}", short_id(12)),
            person: link.person.clone(),
            role,
            origin: link.origin,
        };
        let row = Row {
            id: session.id.clone(),
            cookie: digest(&cookie),
            token: digest(&token),
            person: link.person.clone(),
            origin: link.origin,
            created_at: now,
            seen_at: now,
            expires_at: now.checked_add(LONGEST).unwrap_or(now),
            ended: false,
        };
        if link.used || !self.db.link_use(&link.id, &row).await? {
            let times = self.db.link_refused(&link.id).await?;
            return Err(NoEntry::Used {
                link: link.id,
                person: link.person,
                times,
            });
        }
        Ok(Begun {
            cookie: format!("{}.{cookie}", session.id),
            token,
            session,
        })
    }

    /// Whose request this is.
    ///
    /// # Errors
    /// [`DbError`], if sessions cannot be read.
    pub async fn of(&self, headers: &HeaderMap, now: Timestamp) -> Result<Found, DbError> {
        let Some(cookie) = self.cookie_of(headers) else {
            return Ok(Found::Nobody);
        };
        let Some((id, secret)) = cookie.split_once('.') else {
            return Ok(Found::Nobody);
        };
        let Some(row) = self.db.session(id).await? else {
            return Ok(Found::Nobody);
        };
        if !same(&row.cookie, secret) {
            return Ok(Found::Nobody);
        }
        let Some(session) = self.living(&row, now) else {
            return Ok(Found::Nobody);
        };
        let mut tokens = headers.get_all(TOKEN_HEADER).iter();
        match (tokens.next(), tokens.next()) {
            (None, _) => return Ok(Found::CookieAlone),
            (Some(token), None) if token.to_str().is_ok_and(|given| same(&row.token, given)) => {}
            (Some(_), _) => return Ok(Found::Nobody),
        }
        if row.seen_at.checked_add(SEEN_EVERY).is_ok_and(|at| at < now) {
            self.db.session_seen(id, now).await?;
        }
        Ok(Found::Person(session))
    }

    /// Whether a session still counts.
    pub async fn lives(&self, id: &str, now: Timestamp) -> bool {
        let row = self.db.session(id).await.ok().flatten();
        row.is_some_and(|row| self.living(&row, now).is_some())
    }

    fn living(&self, row: &Row, now: Timestamp) -> Option<Session> {
        let idle = row.seen_at.checked_add(IDLE).ok()?;
        if row.ended || now >= row.expires_at || now >= idle {
            return None;
        }
        // Who was taken out of the configuration is nobody from then on.
        let role = self.config.now().users.get(&row.person)?.role;
        Some(Session {
            id: row.id.clone(),
            person: row.person.clone(),
            role,
            origin: row.origin,
        })
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written.
    pub async fn end(&self, id: &str, now: Timestamp) -> Result<(), DbError> {
        self.db.session_end(id, now).await
    }

    /// The header that sets the cookie of a session that has begun, or takes it away.
    pub fn set_cookie(&self, begun: Option<&Begun>, headers: &HeaderMap) -> Option<HeaderValue> {
        let name = &self.cookie;
        let (value, age) =
            begun.map_or(("", 0), |begun| (begun.cookie.as_str(), LONGEST.as_secs()));
        let secure = if self.over_tls(headers) {
            "; Secure"
        } else {
            ""
        };
        let text =
            format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age}{secure}");
        HeaderValue::from_str(&text).ok()
    }

    /// Whether this request came by the public address, and that is one of TLS.
    fn over_tls(&self, headers: &HeaderMap) -> bool {
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        let config = self.config.now();
        let public = config.public_url.as_deref();
        let public = public.and_then(|url| url.strip_prefix("https://"));
        public
            .zip(host)
            .is_some_and(|(public, host)| public.trim_end_matches('/').eq_ignore_ascii_case(host))
    }

    /// The one cookie of ours; two of the name are none.
    fn cookie_of<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let mut ours = headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(name, _)| *name == self.cookie)
            .map(|(_, value)| value);
        match (ours.next(), ours.next()) {
            (Some(one), None) => Some(one),
            _ => None,
        }
    }
}

fn secret<const BYTES: usize>() -> Result<String, LinkError> {
    let mut bytes = [0; BYTES];
    rand::fill(&mut bytes).map_err(|_| LinkError::NoRandomness)?;
    Ok(hex(&bytes))
}

/// Secrets have 128 bits and more, so that a plain digest of one tells nothing.
fn digest(secret: &str) -> String {
    Digest::of(secret.as_bytes()).to_string()
}

fn same(stored: &str, given: &str) -> bool {
    constant_time::verify_slices_are_equal(stored.as_bytes(), digest(given).as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sessions(folder: &tempfile::TempDir) -> Sessions {
        let db = Db::open(folder.path()).await.unwrap();
        let config = crate::config::Config::parse("", std::path::Path::new("t.toml"));
        Sessions::new(db, Live::new(config.unwrap()), 4010)
    }

    fn local() -> UserName {
        "local".parse().unwrap()
    }

    fn sent(cookie: &str, token: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let line = format!("other=1; portcullis_4010={cookie}");
        headers.insert(header::COOKIE, line.parse().unwrap());
        if let Some(token) = token {
            headers.insert(TOKEN_HEADER, token.parse().unwrap());
        }
        headers
    }

    fn later(minutes: u64) -> Timestamp {
        Timestamp::UNIX_EPOCH + Duration::from_mins(1_000_000 + minutes)
    }

    #[tokio::test]
    async fn a_link_opens_once_and_for_ten_minutes() {
        let folder = tempfile::tempdir().unwrap();
        let sessions = sessions(&folder).await;
        let link = async || {
            let link = sessions.link(&local(), Origin::Start, later(0)).await;
            link.unwrap().0
        };
        let (first, late, wrong) = (link().await, link().await, link().await);
        assert!(sessions.redeem(&first, later(9)).await.is_ok());
        for _ in 0..2 {
            let again = sessions.redeem(&first, later(9)).await;
            assert!(matches!(again, Err(NoEntry::Used { .. })), "{again:?}");
        }
        let (id, _) = wrong.split_once('.').unwrap();
        for given in [
            late,
            format!("{id}.00"),
            format!("{id}."),
            id.to_owned(),
            ".".to_owned(),
        ] {
            let refused = sessions.redeem(&given, later(10)).await;
            assert!(matches!(refused, Err(NoEntry::NotValid)), "{refused:?}");
        }
        assert!(sessions.redeem(&wrong, later(9)).await.is_ok());
    }

    #[tokio::test]
    async fn a_session_needs_both_secrets_and_ends() {
        let folder = tempfile::tempdir().unwrap();
        let sessions = sessions(&folder).await;
        let begin = async || {
            let link = sessions.link(&local(), Origin::Command, later(0)).await;
            sessions.redeem(&link.unwrap().0, later(0)).await.unwrap()
        };
        let (one, two) = (begin().await, begin().await);
        let found = async |cookie: &str, token: Option<&str>, at| {
            sessions.of(&sent(cookie, token), at).await.unwrap()
        };
        let token = Some(one.token.as_str());
        assert_eq!(
            found(&one.cookie, token, later(1)).await,
            Found::Person(one.session.clone())
        );
        assert_eq!(found(&one.cookie, None, later(1)).await, Found::CookieAlone);
        for (cookie, token) in [
            (one.cookie.as_str(), Some(two.token.as_str())),
            (one.cookie.as_str(), Some("")),
            (two.cookie.as_str(), token),
            (one.session.id.as_str(), token),
            ("", token),
        ] {
            assert_eq!(found(cookie, token, later(1)).await, Found::Nobody);
        }
        // Used every six days, it lives for thirty.
        for day in [6, 12, 18, 24] {
            let at = later(day * 24 * 60);
            assert!(matches!(
                found(&one.cookie, token, at).await,
                Found::Person(_)
            ));
        }
        assert_eq!(
            found(&one.cookie, token, later(30 * 24 * 60)).await,
            Found::Nobody
        );
        let idle = found(&two.cookie, Some(&two.token), later(7 * 24 * 60)).await;
        assert_eq!(idle, Found::Nobody);
        let three = begin().await;
        sessions.end(&three.session.id, later(1)).await.unwrap();
        let ended = found(&three.cookie, Some(&three.token), later(1)).await;
        assert_eq!(ended, Found::Nobody);
    }
}
