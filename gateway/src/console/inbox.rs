//! The questions: those that wait, and those that were answered lately.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;

use super::cards::CardView;
use super::pins::{self, PinCard};
use super::view::page;
use crate::api::card::cards;
use crate::api::{Api, Refused, Who, approvals};

/// How many answered questions are shown.
const RECENT: usize = 20;

#[derive(Template)]
#[template(path = "inbox.html")]
struct Inbox {
    changed: Vec<PinCard>,
    open: Vec<CardView>,
    recent: Vec<CardView>,
}

/// The page.
pub(super) async fn inbox(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
) -> Result<Response, Refused> {
    let mut seen = approvals::open(&api, &who).await?;
    seen.extend(approvals::settled(&api, &who, RECENT).await?);
    let all = cards(&api, seen).await?;
    // What was answered between the two is there twice, and is settled.
    let mut views: Vec<CardView> = Vec::new();
    for view in all.iter().map(|card| CardView::new(&api, &who, card)) {
        views.retain(|other| other.id != view.id);
        views.push(view);
    }
    let (open, recent) = views.into_iter().partition(|view| view.open);
    Ok(page(&Inbox {
        changed: pins::cards(&api, &who).await,
        open,
        recent,
    }))
}

#[derive(Template)]
#[template(path = "question.html")]
struct Question {
    card: CardView,
}

/// One question on a page of its own.
pub(super) async fn question(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    let card = approvals::card(&api, &who, &id).await?;
    let card = CardView::new(&api, &who, &card);
    Ok(page(&Question { card }))
}
