use std::time::Duration;

use jiff::Timestamp;
use policy::record::Outcome;
use serde_json::json;

use super::checkpoint;
use super::read::{behind, verify};
use super::retention::Retention;
use super::testing::Log;
use crate::db::Db;

const WEEK: Duration = Duration::from_hours(7 * 24);

fn later() -> Timestamp {
    Timestamp::now().checked_add(2 * WEEK).unwrap()
}

async fn prune(log: &Log) -> i64 {
    let retention = Retention {
        db: &log.db,
        audit: &log.audit,
        keys: &log.keys,
        index: &log.index,
    };
    retention.prune(WEEK, later()).await.unwrap()
}

#[tokio::test]
async fn an_older_copy_of_the_database_is_found_out_whether_or_not_it_went_on() {
    let log = Log::open().await;
    for what in ["one", "two", "three"] {
        log.noted(what).await;
    }
    let data = log.stop().await;
    let (file, copy) = (data.path().join(crate::db::FILE), data.path().join("copy"));
    std::fs::copy(&file, &copy).unwrap();
    let log = Log::open_in(data).await;
    log.noted("four").await;
    log.noted("five").await;
    let data = log.stop().await;
    assert_eq!(verify(data.path(), &[]).await.unwrap().signed_to, 5);

    std::fs::copy(&copy, &file).unwrap();
    let db = Db::open(data.path()).await.unwrap();
    let told = behind(data.path(), &db).await.unwrap();
    assert!(told.contains("without record 5"), "{told}");
    db.close().await;
    let log = Log::open_in(data).await;
    assert_eq!(log.first_bad().await, Some(4));
    for what in ["another four", "another five", "six"] {
        log.noted(what).await;
    }
    assert_eq!(log.first_bad().await, Some(5));
}

#[tokio::test]
async fn whoever_has_a_checkpoint_elsewhere_finds_out_a_whole_directory_that_was_put_back() {
    let log = Log::open().await;
    log.noted("one").await;
    let data = log.stop().await;
    let before = tempfile::tempdir().unwrap();
    for name in [crate::db::FILE, checkpoint::FILE] {
        let to = before.path().join(name.replace('/', "-"));
        std::fs::copy(data.path().join(name), to).unwrap();
    }
    let log = Log::open_in(data).await;
    log.noted("two").await;
    let data = log.stop().await;
    let elsewhere = before.path().join("elsewhere");
    std::fs::copy(data.path().join(checkpoint::FILE), &elsewhere).unwrap();
    for name in [crate::db::FILE, checkpoint::FILE] {
        let from = before.path().join(name.replace('/', "-"));
        std::fs::copy(from, data.path().join(name)).unwrap();
    }
    assert!(verify(data.path(), &[]).await.is_ok());
    assert!(verify(data.path(), &[elsewhere]).await.is_err());
}

#[tokio::test]
async fn what_is_old_goes_from_the_beginning_and_the_rest_is_still_verified() {
    let log = Log::open().await;
    log.noted("oldest").await;
    log.decided("act_1", "work", "send", json!({})).await;
    log.decided("act_2", "work", "send", json!({})).await;
    log.closed("act_1", Outcome::Ok).await;
    log.noted("newer").await;
    // What is open stays, and all that came after it.
    log.closed("act_2", Outcome::Ok).await;
    log.decided("act_3", "work", "send", json!({})).await;
    log.noted("newest").await;
    assert_eq!(prune(&log).await, 6);
    assert_eq!(log.first_bad().await, None);
    let verified = verify(log.data.path(), &[]).await.unwrap();
    assert_eq!((verified.removed, verified.entries), (6, 3));
    assert_eq!(prune(&log).await, 0);
    assert_eq!(log.search("oldest").await, [""; 0]);
    assert_eq!(log.search("newest").await.len(), 1);
    assert_eq!(log.search("send").await, ["act_3"]);
    log.closed("act_3", Outcome::Ok).await;
    assert!(prune(&log).await > 0);
    assert_eq!(log.first_bad().await, None);

    // Nothing else can be taken away, and nobody else can say where the log begins.
    let log = Log::open_in(log.stop().await).await;
    assert_eq!(log.first_bad().await, None);
    log.db.by_hand("UPDATE chain_start SET seq = seq + 1").await;
    assert!(log.first_bad().await.is_some());
}

#[tokio::test]
async fn no_statement_changes_the_log_and_none_removes_but_from_its_beginning() {
    let log = Log::open().await;
    log.noted("one").await;
    log.noted("two").await;
    for sql in [
        "UPDATE audit SET body = '{}' WHERE seq = 1",
        "DELETE FROM audit WHERE seq = 1",
        "DELETE FROM audit",
    ] {
        assert!(log.db.try_by_hand(sql).await.is_err(), "{sql}");
    }
    assert_eq!(log.first_bad().await, None);
}

#[tokio::test]
async fn a_large_value_is_stored_once_comes_back_whole_and_is_verified() {
    let log = Log::open().await;
    let letter = "a long letter; ".repeat(1000);
    for n in 0..3 {
        let args = json!({ "to": n, "body": letter });
        log.decided(&format!("act_{n}"), "work", "send", args).await;
    }
    let rows = log.db.payloads_stored().await;
    assert_eq!(rows, 1);
    let (entries, story) = {
        let entries = log.db.entries_of(vec!["act_1".to_owned()]).await.unwrap();
        let story = super::read::told(&entries).unwrap();
        (log.db.chain_page(0, 10).await.unwrap(), story)
    };
    assert!(entries.iter().all(|entry| entry.body.len() < 3000));
    assert_eq!(story.args, json!({ "to": 1, "body": letter }));
    assert_eq!(log.search("\"a long letter\"").await.len(), 3);
    assert_eq!(log.first_bad().await, None);
    log.db
        .by_hand("UPDATE payloads SET body = replace(body, 'letter', 'ladder')")
        .await;
    assert_eq!(log.first_bad().await, Some(1));
    log.db.by_hand("DELETE FROM payloads").await;
    assert_eq!(log.first_bad().await, Some(1));
}
