//! Styles and scripts, built in, under addresses that change with their content.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use policy::action::Digest;

/// A file of the console.
#[derive(Debug)]
struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

const STYLE: Asset = Asset {
    name: "console.css",
    kind: "text/css; charset=utf-8",
    text: concat!(
        include_str!("../../console/assets/base.css"),
        include_str!("../../console/assets/pages.css"),
        include_str!("../../console/assets/chat.css"),
    ),
};
const SCRIPT: Asset = Asset {
    name: "console.js",
    kind: "text/javascript; charset=utf-8",
    text: concat!(
        include_str!("../../console/assets/text.js"),
        include_str!("../../console/assets/server.js"),
        include_str!("../../console/assets/cards.js"),
        include_str!("../../console/assets/choices.js"),
        include_str!("../../console/assets/chat.js"),
        include_str!("../../console/assets/pages.js"),
    ),
};
const LOGIN: Asset = Asset {
    name: "login.js",
    kind: "text/javascript; charset=utf-8",
    text: include_str!("../../console/assets/login.js"),
};
const ICON: Asset = Asset {
    name: "icon.svg",
    kind: "image/svg+xml",
    text: include_str!("../../console/assets/icon.svg"),
};
const ALL: [&Asset; 4] = [&STYLE, &SCRIPT, &LOGIN, &ICON];

/// Which content this program carries.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let all: String = ALL.iter().map(|asset| asset.text).collect();
    Digest::of(all.as_bytes())
        .as_str()
        .chars()
        .take(12)
        .collect()
});

/// The addresses that pages name.
#[derive(Debug)]
pub(super) struct Addresses {
    /// Of the style sheet.
    pub(super) style: String,
    /// Of the script of every page.
    pub(super) script: String,
    /// Of the script of the login page.
    pub(super) login: String,
    /// Of the icon.
    pub(super) icon: String,
}

pub(super) static ADDRESSES: LazyLock<Addresses> = LazyLock::new(|| {
    let of = |asset: &Asset| format!("/assets/{}/{}", *VERSION, asset.name);
    Addresses {
        style: of(&STYLE),
        script: of(&SCRIPT),
        login: of(&LOGIN),
        icon: of(&ICON),
    }
});

/// Serves a file. Another version than ours is none: an old page must not run with a new script.
pub(super) async fn serve(Path((version, name)): Path<(String, String)>) -> Response {
    let asset = ALL.iter().find(|asset| asset.name == name);
    match asset {
        Some(asset) if version == *VERSION => (
            [
                (header::CONTENT_TYPE, asset.kind),
                (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
            ],
            asset.text,
        )
            .into_response(),
        Some(_) | None => StatusCode::NOT_FOUND.into_response(),
    }
}
