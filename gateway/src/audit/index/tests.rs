use policy::record::Outcome;
use serde_json::json;

use super::*;
use crate::audit::testing::Log;

#[tokio::test]
async fn words_parts_of_addresses_and_beginnings_find_their_stories_newest_first() {
    let log = Log::open().await;
    log.decided(
        "act_1",
        "work",
        "send",
        json!({"to": "ana@example.org", "body": "Grüße, 東京で会う"}),
    )
    .await;
    log.decided(
        "act_2",
        "work",
        "send",
        json!({"to": "bo@example.org", "n": 4711}),
    )
    .await;
    for (text, ids) in [
        ("example.org", ["act_2", "act_1"].as_slice()),
        ("ana@example.org", &["act_1"]),
        ("GRUSSE", &[]),
        ("grüße", &["act_1"]),
        ("grusse", &[]),
        ("gruße", &["act_1"]),
        ("京で", &["act_1"]),
        ("4711 bo", &["act_2"]),
        ("mail__send ana", &["act_1"]),
        ("\"example ana\"", &[]),
        ("exam", &["act_2", "act_1"]),
        ("exam*", &["act_2", "act_1"]),
        ("act_1", &["act_1"]),
        ("nowhere", &[]),
        ("%", &[]),
    ] {
        assert_eq!(log.search(text).await, ids, "{text}");
    }
}

#[tokio::test]
async fn a_story_is_found_by_what_it_became() {
    let log = Log::open().await;
    for n in 1..=3 {
        log.decided(
            &format!("act_{n}"),
            if n == 2 { "home" } else { "work" },
            "send",
            json!({}),
        )
        .await;
    }
    let outcome = |outcome: &str| Wanted {
        outcome: outcome.to_owned(),
        ..Wanted::default()
    };
    assert_eq!(log.found(outcome("running")).await.len(), 3);
    log.closed("act_2", Outcome::Error).await;
    assert_eq!(log.found(outcome("error")).await, ["act_2"]);
    assert_eq!(log.found(outcome("running")).await, ["act_3", "act_1"]);
    let group = Wanted {
        group: "home".to_owned(),
        ..outcome("error")
    };
    assert_eq!(log.found(group.clone()).await, ["act_2"]);
    assert_eq!(
        log.found(Wanted {
            group: "work".to_owned(),
            ..group
        })
        .await,
        [""; 0]
    );
    let principal = Wanted {
        principal: "token:tok_1".to_owned(),
        server: "mail".to_owned(),
        ..Wanted::default()
    };
    assert_eq!(log.found(principal).await.len(), 3);
    let seen = ["home".to_owned()];
    let (found, _) = log
        .index
        .find(&Wanted::default(), Some(&seen), 10, |_| true)
        .await
        .unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
}

#[tokio::test]
async fn pages_follow_each_other_without_a_gap() {
    let log = Log::open().await;
    for n in 0..130 {
        log.decided(&format!("act_{n:03}"), "work", "send", json!({}))
            .await;
    }
    let mut wanted = Wanted {
        text: "send".to_owned(),
        ..Wanted::default()
    };
    let mut seen = Vec::new();
    loop {
        let (page, next) = log.index.find(&wanted, None, 40, |_| true).await.unwrap();
        seen.extend(page.into_iter().map(|story| story.id.to_string()));
        wanted.before = next;
        if next.is_none() {
            break;
        }
    }
    let all: Vec<String> = (0..130).rev().map(|n| format!("act_{n:03}")).collect();
    assert_eq!(seen, all);
}

#[tokio::test]
async fn an_index_that_is_gone_damaged_or_of_another_log_is_made_anew() {
    let log = Log::open().await;
    log.decided("act_1", "work", "send", json!({"word": "anemone"}))
        .await;
    assert_eq!(log.search("anemone").await, ["act_1"]);

    let file = log.data.path().join(crate::db::search::FILE);
    std::fs::write(
        &file,
        b"this is no database, nor was it ever one, and it is long enough to be read as one",
    )
    .unwrap();
    let again = Index::open(log.data.path(), log.db.clone()).await.unwrap();
    let wanted = Wanted {
        text: "anemone".to_owned(),
        ..Wanted::default()
    };
    assert_eq!(
        again
            .find(&wanted, None, 10, |_| true)
            .await
            .unwrap()
            .0
            .len(),
        1
    );

    let other = Log::open().await;
    other
        .decided("act_9", "work", "send", json!({"word": "bluebell"}))
        .await;
    let moved = Index {
        db: other.db.clone(),
        search: again.search.clone(),
    };
    assert_eq!(
        moved
            .find(&wanted, None, 10, |_| true)
            .await
            .unwrap()
            .0
            .len(),
        0
    );
    let wanted = Wanted {
        text: "bluebell".to_owned(),
        ..Wanted::default()
    };
    assert_eq!(
        moved
            .find(&wanted, None, 10, |_| true)
            .await
            .unwrap()
            .0
            .len(),
        1
    );
}
