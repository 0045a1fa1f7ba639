//! Servers that are not what was pinned of them, as cards: what was and what is, whole.

use askama::Template;

use super::view::{Text, Time};
use crate::api::pins::{self, PinView};
use crate::api::{Api, Who};
use crate::catalog::diff::{Part, cut};

/// One side of a place: what it has in common with the other, and what not.
struct Side {
    before: Text,
    middle: Text,
    after: Text,
}

#[expect(
    clippy::struct_field_names,
    reason = "the place is what the card calls it"
)]
struct Place {
    place: Text,
    was: Option<Side>,
    is: Option<Side>,
}

impl From<&Part> for Place {
    fn from(part: &Part) -> Self {
        let [was, is] = [&part.was, &part.is].map(|one| one.as_deref().unwrap_or_default());
        let parted = cut(was, is);
        let side = |middle: &str| Side {
            before: Text::lines(parted.before),
            middle: Text::lines(middle),
            after: Text::lines(parted.after),
        };
        Self {
            place: Text::line(if part.place.is_empty() {
                "text"
            } else {
                &part.place
            }),
            was: part.was.is_some().then(|| side(parted.was)),
            is: part.is.is_some().then(|| side(parted.is)),
        }
    }
}

struct Differs {
    told: Text,
    parts: Vec<Place>,
}

/// A changed server as a card.
#[derive(Template)]
#[template(path = "pin.html")]
pub(super) struct PinCard {
    server: String,
    since: Option<Time>,
    question: String,
    differences: Vec<Differs>,
    warnings: Vec<Text>,
    /// Why the reader cannot answer it, if so.
    barred: Option<String>,
}

impl PinCard {
    fn new(api: &Api, who: &Who, pin: &PinView) -> Self {
        let barred = if pins::may_answer(api, who, &pin.server) {
            who.barred(&api.broker.config.now()).map(str::to_owned)
        } else {
            Some("You see this; answering it is for approvers of a group that uses it.".to_owned())
        };
        let differences = pin.differences.iter();
        Self {
            server: pin.server.clone(),
            since: pin.pinned_at.map(Time::from),
            question: pin.question.to_string(),
            differences: differences
                .map(|one| Differs {
                    told: Text::line(&one.told),
                    parts: one.parts.iter().map(Place::from).collect(),
                })
                .collect(),
            warnings: pin
                .warnings
                .iter()
                .map(|one| Text::line(&format!("`{}` {}", one.tool, one.text)))
                .collect(),
            barred,
        }
    }
}

/// The changed servers that a person sees.
pub(super) async fn cards(api: &Api, who: &Who) -> Vec<PinCard> {
    let open = pins::open(api, who).await;
    open.iter().map(|pin| PinCard::new(api, who, pin)).collect()
}
