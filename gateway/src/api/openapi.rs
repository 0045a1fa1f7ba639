//! What the routes are, for programs.

use axum::http::header;
use axum::response::IntoResponse;

const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn the_document_tells_every_route_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(super::DOCUMENT).unwrap();
        let told = document["paths"].as_object().unwrap();
        let told: BTreeSet<&str> = told.keys().map(String::as_str).collect();
        let routes = super::super::routes();
        let routes = routes
            .iter()
            .map(|(path, _)| *path)
            .filter(|path| *path != "/");
        assert_eq!(told, routes.collect());
    }
}
