//! Servers over standard input and output.

use futures::future::join_all;
use gateway::upstreams::List;

use super::*;

#[tokio::test]
async fn concurrent_first_calls_start_the_server_once() {
    let mark = tempfile::tempdir().unwrap();
    fs::set_permissions(mark.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let starts = mark.path().join("starts");
    let house = house(vec![python(&[
        ("STARTS", starts.to_str().unwrap()),
        ("SLOW_START", "0.2"),
    ])]);
    let calls = join_all((0..8).map(|n| house.call("echo", json!({ "n": n })))).await;
    for (n, answer) in calls.into_iter().enumerate() {
        assert_eq!(answer.unwrap()["args"]["n"], n);
    }
    assert_eq!(fs::read_to_string(&starts).unwrap(), "x");
    assert_eq!(house.status().state, State::Ready);
    assert_eq!(house.status().calls, 8);
    assert_eq!(house.upstreams.supervisors(), [house.status().pid.unwrap()]);
    house.upstreams.shutdown().await;
    assert!(house.upstreams.supervisors().is_empty());
    let after = house.call("echo", json!({})).await.unwrap_err();
    assert!(matches!(after, UpstreamError::NotStarted { .. }));
}

#[tokio::test]
async fn results_and_errors_pass_as_they_came() {
    let house = house(vec![python(&[])]);
    let Reply::Result(raw) = house.send(request("echo", json!({}))).await.unwrap() else {
        panic!("no result")
    };
    assert!(raw.get().contains("\"odd\": 1.0"), "{raw}");
    let unknown = Request {
        method: "no/such".into(),
        ..request("", json!({}))
    };
    let Reply::Error(error) = house.send(unknown).await.unwrap() else {
        panic!("no error")
    };
    assert_eq!(
        error,
        json!({ "code": -32601, "message": "unknown", "data": { "a": 1 } })
    );
    let greeting = house.upstreams.greet("python").await.unwrap();
    assert_eq!(greeting.instructions.as_deref(), Some("be kind"));
    assert_eq!(greeting.protocol, "2025-11-25");
    assert_eq!(
        greeting.capabilities,
        json!({ "tools": { "vendor": true } })
    );
    let nobody = house.upstreams.greet("nobody").await.unwrap_err();
    assert_eq!(nobody, UpstreamError::Unknown);
    house.upstreams.shutdown().await;
}

#[tokio::test]
async fn a_server_of_the_newer_era_gets_what_each_request_must_carry() {
    let mut house = house(vec![python(&[("MODERN", "1")])]);
    let answer = house.call("echo", json!({})).await.unwrap();
    assert_eq!(
        answer["meta"]["io.modelcontextprotocol/protocolVersion"],
        "2026-07-28"
    );
    let greeting = house.upstreams.greet("python").await.unwrap();
    assert_eq!(greeting.server_info["version"], "2");
    loop {
        if let Event::ListChanged { what, .. } = house.events.recv().await.unwrap() {
            assert_eq!(what, List::Tools);
            break;
        }
    }
    house.upstreams.shutdown().await;
}

#[tokio::test]
async fn progress_reaches_the_caller_and_meta_is_replaced() {
    let house = house(vec![python(&[])]);
    let (tx, mut progress) = mpsc::channel(2);
    let request = Request {
        params: json!({ "name": "progress", "_meta": { "progressToken": "caller's" } }),
        progress: Some(tx),
        ..request("", json!({}))
    };
    house.send(request).await.unwrap();
    let first = progress.recv().await.unwrap();
    assert_eq!(
        (&first["progress"], &first["extra"]),
        (&json!(0), &json!("kept"))
    );
    assert_eq!(progress.recv().await.unwrap()["progress"], 1);
    assert!(
        progress.recv().await.is_none(),
        "what does not fit is dropped"
    );
    house.upstreams.shutdown().await;
}

#[tokio::test]
async fn a_cancelled_a_late_and_a_forgotten_call_are_cancelled_at_the_server() {
    let house = house(vec![python(&[])]);
    house.call("echo", json!({})).await.unwrap();

    let cancel = CancellationToken::new();
    let cancelled = house.send(Request {
        cancel: cancel.clone(),
        ..request("never", json!({}))
    });
    let (cancelled, ()) =
        tokio::join!(cancelled, async { cancel_when_sent(&house, &cancel).await });
    assert_eq!(cancelled.unwrap_err(), UpstreamError::Cancelled);

    let deadline = Duration::from_millis(200);
    let late = house
        .send(Request {
            deadline,
            ..request("never", json!({}))
        })
        .await
        .unwrap_err();
    assert_eq!(late, UpstreamError::TimedOut(deadline));

    let forgotten = house.send(request("never", json!({})));
    _ = tokio::time::timeout(deadline, forgotten).await;

    let seen = house.call("cancelled", json!({})).await.unwrap();
    assert_eq!(seen.as_array().unwrap().len(), 3, "{seen}");
    assert_eq!(house.status().in_flight, 0);
    house.upstreams.shutdown().await;
}

/// A later call that was answered shows that the earlier one was written.
async fn cancel_when_sent(house: &House, cancel: &CancellationToken) {
    house.call("echo", json!({})).await.unwrap();
    cancel.cancel();
}

#[tokio::test]
async fn a_death_fails_all_calls_and_the_next_one_starts_it_again() {
    let house = house(vec![python(&[])]);
    house.call("echo", json!({})).await.unwrap();
    let first = house.status().pid;
    let (waiting, dying) = tokio::join!(
        house.send(request("never", json!({}))),
        house.send(request("die", json!({})))
    );
    assert_eq!(waiting.unwrap_err(), UpstreamError::Died);
    assert_eq!(dying.unwrap_err(), UpstreamError::Died);
    assert_eq!(
        house.call("echo", json!({})).await.unwrap()["args"],
        json!({})
    );
    assert_ne!(house.status().pid, first);
    house.upstreams.shutdown().await;

    let alone = super::house(vec![python(&[])]);
    alone.call("die", json!({})).await.unwrap_err();
    alone
        .until("the death is noted", |status| status.last_error.is_some())
        .await;
    let error = alone.status().last_error.unwrap();
    assert!(error.contains("exit status: 3: dying as asked"), "{error}");
}

#[tokio::test]
async fn garbage_floods_and_pings_disturb_nothing() {
    let mut house = house(vec![python(&[])]);
    assert_eq!(
        house.call("garbage", json!({})).await.unwrap(),
        "after garbage"
    );
    let flooded = house
        .call("flood", json!({ "count": 20_000 }))
        .await
        .unwrap();
    assert_eq!(flooded, "after the flood");
    let pongs = house.call("ping", json!({})).await.unwrap();
    assert_eq!(pongs[0], json!({ "id": "theirs", "result": {} }));
    assert_eq!(pongs[1]["error"]["code"], -32601);
    house.upstreams.shutdown().await;
    let events = std::iter::from_fn(|| house.events.try_recv().ok()).count();
    assert!(events < 4_000, "{events} of 40000 events got through");
}

#[tokio::test]
async fn a_line_that_is_too_long_ends_the_connection() {
    let house = house(vec![Spec {
        max_message: 100_000,
        ..python(&[])
    }]);
    let long = house
        .call("long", json!({ "bytes": 200_000 }))
        .await
        .unwrap_err();
    assert_eq!(long, UpstreamError::TooLarge);
    assert_eq!(
        house.call("long", json!({ "bytes": 50 })).await.unwrap(),
        "x".repeat(50)
    );
    house.upstreams.shutdown().await;
}

#[tokio::test]
async fn a_server_that_does_not_read_blocks_nobody_beyond_the_deadline() {
    let house = house(vec![python(&[])]);
    house.call("deaf", json!({})).await.unwrap();
    let deadline = Duration::from_millis(300);
    let big = json!({ "x": "x".repeat(100_000) });
    let calls = (0..50).map(|_| {
        house.send(Request {
            deadline,
            ..request("echo", big.clone())
        })
    });
    let answers = join_all(calls).await;
    let unsent = answers
        .iter()
        .filter(|answer| !answer.as_ref().unwrap_err().sent())
        .count();
    assert!(
        (48..50).contains(&unsent),
        "{unsent} of 50 were never written"
    );
    house.upstreams.shutdown().await;
}

#[tokio::test]
async fn an_idle_server_is_stopped_and_never_one_at_work() {
    let idle = Duration::from_millis(100);
    let house = house(vec![Spec {
        idle_timeout: idle,
        ..python(&[])
    }]);
    house.call("echo", json!({})).await.unwrap();
    house
        .until("it was stopped", |status| status.state == State::Stopped)
        .await;
    until("nothing of it is left", || {
        house.upstreams.supervisors().is_empty()
    })
    .await;

    let deadline = Duration::from_millis(500);
    let busy = house
        .send(Request {
            deadline,
            ..request("never", json!({}))
        })
        .await
        .unwrap_err();
    assert_eq!(busy, UpstreamError::TimedOut(deadline));
    house.upstreams.shutdown().await;
}

#[tokio::test]
async fn a_failed_start_says_why_to_the_operator_and_backs_off() {
    let mark = tempfile::tempdir().unwrap();
    fs::set_permissions(mark.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let starts = mark.path().join("starts");
    let house = house(vec![python(&[
        ("FAIL", "1"),
        ("STARTS", starts.to_str().unwrap()),
    ])]);
    let error = house.call("echo", json!({})).await.unwrap_err();
    assert!(
        !error.sent() && !error.to_string().contains("database"),
        "{error}"
    );
    let told = house.status().last_error.unwrap();
    assert!(told.contains("exit status: 4: no such database"), "{told}");
    assert_eq!(house.status().state, State::Failed);
    house.call("echo", json!({})).await.unwrap_err();
    assert_eq!(
        fs::read_to_string(&starts).unwrap(),
        "x",
        "not tried again at once"
    );
    let mut tick = interval(Duration::from_millis(100));
    while fs::read_to_string(&starts).unwrap() == "x" {
        tick.tick().await;
        house.call("echo", json!({})).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_command_that_cannot_run_says_how_to_fix_it() {
    let nowhere = |command: &str| {
        let command = command.to_owned();
        spec(
            "bad",
            Transport::Stdio {
                command,
                args: vec![],
                env: BTreeMap::new(),
                cwd: None,
            },
        )
    };
    let missing = house(vec![nowhere("surely-no-such-program")]);
    missing.call("echo", json!({})).await.unwrap_err();
    let told = missing.status().last_error.unwrap();
    assert!(
        told.contains("cannot run `surely-no-such-program`"),
        "{told}"
    );
    assert!(told.contains("check that it is installed"), "{told}");
    let forbidden = house(vec![nowhere("/etc/passwd")]);
    forbidden.call("echo", json!({})).await.unwrap_err();
    let told = forbidden.status().last_error.unwrap();
    assert!(told.contains("where every user may reach them"), "{told}");
}

#[tokio::test]
async fn a_start_that_takes_too_long_leaves_nothing() {
    let start_timeout = Duration::from_millis(300);
    let slow = Spec {
        start_timeout,
        ..python(&[("SLOW_START", "60")])
    };
    let house = house(vec![slow]);
    assert!(!house.call("echo", json!({})).await.unwrap_err().sent());
    assert!(house.upstreams.supervisors().is_empty());
    house.upstreams.shutdown().await;
}
