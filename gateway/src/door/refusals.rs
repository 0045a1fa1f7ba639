//! Who was turned away at the door, counted: a row of the log for each source and minute, never one
//! for each request, so that nobody who may not come in can fill the log.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{ConnectInfo, Request};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use policy::record::Event;
use tokio_util::sync::CancellationToken;

use crate::audit::{Audit, Write};

/// The most sources that are told apart in a minute; what comes from others is one more.
const SOURCES: usize = 64;
const MINUTE: Duration = Duration::from_mins(1);

/// An answer whose reason is in the log already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recorded;

/// Marks an answer as being in the log.
pub(crate) fn recorded(mut response: Response) -> Response {
    response.extensions_mut().insert(Recorded);
    response
}

/// What was turned away in this minute.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    counts: Mutex<BTreeMap<(String, &'static str), u64>>,
}

impl Refusals {
    /// Where a request comes from, as far as that is known.
    pub(super) fn source(request: &Request) -> Option<IpAddr> {
        let info = request.extensions().get::<ConnectInfo<SocketAddr>>();
        info.map(|ConnectInfo(address)| address.ip().to_canonical())
    }

    /// Counts an answer that turns somebody away.
    pub(super) fn count(&self, source: Option<IpAddr>, response: &Response) {
        let why = match response.status() {
            StatusCode::UNAUTHORIZED => "without a credential that is good",
            StatusCode::FORBIDDEN => {
                "from a page or for a host that is not ours, or with a link that is none"
            }
            _ => return,
        };
        if response.extensions().get::<Recorded>().is_some() {
            return;
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut source = source.map_or_else(|| "somebody".to_owned(), name);
        if counts.len() >= SOURCES && !counts.contains_key(&(source.clone(), why)) {
            "others".clone_into(&mut source);
        }
        *counts.entry((source, why)).or_default() += 1;
    }

    /// Writes down every minute what was counted, and once more when the gateway stops.
    pub(crate) async fn tell(self: Arc<Self>, audit: Audit, stopping: CancellationToken) {
        loop {
            let since = Timestamp::now();
            tokio::select! {
                () = stopping.cancelled() => {
                    self.write(&audit, since).await;
                    return;
                }
                () = tokio::time::sleep(MINUTE) => self.write(&audit, since).await,
            }
        }
    }

    async fn write(&self, audit: &Audit, since: Timestamp) {
        let counts =
            std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner));
        for ((source, why), times) in counts {
            let requests = if times == 1 { "request" } else { "requests" };
            let at = since.strftime("%Y-%m-%d %H:%M:%S UTC");
            let event = Event::Refused {
                principal: source,
                attempt: format!("{times} {requests} {why}, in the minute from {at}"),
            };
            let id = format!("ref_{}", uuid::Uuid::now_v7().simple());
            if let Err(error) = audit.write(Write::new(id, event)).await {
                tracing::error!("{error}");
            }
        }
    }
}

/// A source as it is told apart: an address, or of version 6 the network that one customer has.
fn name(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) if ip.is_loopback() => ip.to_string(),
        IpAddr::V6(ip) => {
            let mut segments = ip.segments();
            segments[4..].fill(0);
            format!("{}/64", Ipv6Addr::from(segments))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::audit::find::Wanted;
    use crate::audit::index::Index;
    use crate::db::Db;
    use crate::keys::Keys;

    fn answer(status: StatusCode) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        response
    }

    #[tokio::test]
    async fn a_flood_is_a_row_for_each_source_and_the_rest_is_one_more() {
        let data = tempfile::tempdir().unwrap();
        let db = Db::open(data.path()).await.unwrap();
        let keys = Arc::new(Keys::open(data.path()).unwrap());
        let (audit, _writer) = Audit::start(db.clone(), keys, None).await.unwrap();
        let refusals = Arc::new(Refusals::default());
        for n in 0..1000_u32 {
            let source = IpAddr::V4((0x0a00_0000 + n).into());
            refusals.count(Some(source), &answer(StatusCode::UNAUTHORIZED));
            refusals.count(Some([127, 0, 0, 1].into()), &answer(StatusCode::FORBIDDEN));
            refusals.count(Some(source), &answer(StatusCode::OK));
            refusals.count(Some(source), &recorded(answer(StatusCode::FORBIDDEN)));
        }
        let stopping = CancellationToken::new();
        stopping.cancel();
        refusals.tell(audit, stopping).await;
        let index = Index::open(data.path(), db).await.unwrap();
        let (stories, _) = index
            .find(&Wanted::default(), None, 1000, |_| true)
            .await
            .unwrap();
        assert_eq!(stories.len(), SOURCES + 1);
        let told = |who: &str| {
            stories
                .iter()
                .find(|story| story.principal == who)
                .unwrap()
                .tool
                .clone()
        };
        assert!(
            told("127.0.0.1").starts_with("1000 requests from"),
            "{}",
            told("127.0.0.1")
        );
        assert!(
            told("others").starts_with("937 requests without"),
            "{}",
            told("others")
        );
    }

    #[test]
    fn a_customer_of_version_6_is_one_source() {
        let one = |ip: &str| name(ip.parse().unwrap());
        assert_eq!(one("2001:db8:1:2:3:4:5:6"), one("2001:db8:1:2::1"));
        assert_eq!(one("::1"), "::1");
        assert_eq!(one("10.0.0.1"), "10.0.0.1");
    }
}
