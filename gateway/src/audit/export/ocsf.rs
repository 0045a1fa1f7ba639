//! A story as an event of the Open Cybersecurity Schema Framework: *API Activity* of version 1.3.0.

use policy::decision::Decision;
use policy::record::{Outcome, Story};
use serde_json::{Value, json};

use crate::audit::find;

/// The version of the schema.
const VERSION: &str = "1.3.0";
/// *Application Activity*.
const CATEGORY: u32 = 6;
/// *API Activity*.
const CLASS: u32 = 6003;

/// The event.
pub(super) fn event(story: &Story) -> Value {
    let (activity, activity_name) = activity(story);
    let (severity, severity_name) = severity(story);
    let (status, status_name) = match story.outcome {
        Outcome::Ok => (1, "Success"),
        Outcome::Error | Outcome::Refused => (2, "Failure"),
        Outcome::Unknown => (0, "Unknown"),
        Outcome::Running => (99, "Running"),
    };
    let kind = find::kind(story);
    // 1 is a person, 3 what acts by itself.
    let person = story.principal.starts_with("user:");
    let mut event = json!({
        "activity_id": activity,
        "activity_name": activity_name,
        "category_uid": CATEGORY,
        "category_name": "Application Activity",
        "class_uid": CLASS,
        "class_name": "API Activity",
        "type_uid": CLASS * 100 + activity,
        "type_name": format!("API Activity: {activity_name}"),
        "severity_id": severity,
        "severity": severity_name,
        "status_id": status,
        "status": status_name,
        "time": story.at.as_millisecond(),
        "start_time": story.at.as_millisecond(),
        "actor": { "user": { "name": story.principal, "type_id": if person { 1 } else { 3 } } },
        "api": {
            "operation": story.tool,
            "group": { "name": story.group },
            "request": { "uid": story.id, "data": story.args },
        },
        // Who asks is known by a credential, not by an address.
        "src_endpoint": { "name": if story.conversation.is_empty() { &story.principal } else { &story.conversation } },
        "metadata": {
            "version": VERSION,
            "product": {
                "name": "Portcullis",
                "vendor_name": "Portcullis",
                "version": env!("CARGO_PKG_VERSION"),
            },
            "uid": story.id,
            "sequence": story.seq,
            "log_name": "audit",
            "correlation_uid": story.conversation,
        },
        "message": story.reasons.join("; "),
        "unmapped": {
            "kind": kind,
            "decision": story.decision,
            "rules": story.rules,
            "labels": story.labels,
            "approval": story.approval,
            "answer": story.answer,
            "hash": story.hash,
            "prev": story.prev,
        },
    });
    if let Some(members) = event.as_object_mut() {
        if let Some(detail) = &story.detail {
            members.insert("status_detail".to_owned(), json!(detail));
        }
        if let Some(at) = story.closed_at {
            members.insert("end_time".to_owned(), json!(at.as_millisecond()));
        }
    }
    event
}

/// What was done, in the words of the class. Whether a call of a tool creates or deletes is not known.
fn activity(story: &Story) -> (u32, &'static str) {
    let reads = ["resources/read", "prompts/get", "completion/complete"];
    if reads
        .iter()
        .any(|method| story.tool.contains(&format!(" {method} ")))
    {
        (2, "Read")
    } else {
        (99, "Other")
    }
}

fn severity(story: &Story) -> (u32, &'static str) {
    match (story.decision, story.outcome) {
        (_, Outcome::Unknown) => (3, "Medium"),
        (Decision::Deny, _) if story.conversation.is_empty() => (3, "Medium"),
        (Decision::Deny, _) | (_, Outcome::Refused | Outcome::Error) => (2, "Low"),
        (Decision::Allow | Decision::Ask, Outcome::Ok | Outcome::Running) => (1, "Informational"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the schema requires of the class and of the objects that we fill.
    const REQUIRED: [&str; 14] = [
        "/activity_id",
        "/actor",
        "/api",
        "/api/operation",
        "/api/request/uid",
        "/category_uid",
        "/class_uid",
        "/metadata/product/vendor_name",
        "/metadata/version",
        "/severity_id",
        "/src_endpoint",
        "/time",
        "/type_uid",
        "/actor/user/name",
    ];

    #[test]
    fn an_event_has_what_its_class_requires_and_its_type_is_of_its_class() {
        let story = crate::audit::export::tests::story();
        let event = event(&story);
        for place in REQUIRED {
            assert!(
                event.pointer(place).is_some_and(|value| !value.is_null()),
                "{place}"
            );
        }
        let number = |place: &str| event.pointer(place).unwrap().as_u64().unwrap();
        assert_eq!(number("/class_uid") / 1000, number("/category_uid"));
        assert_eq!(
            number("/type_uid"),
            number("/class_uid") * 100 + number("/activity_id")
        );
        assert_eq!(
            number("/time"),
            u64::try_from(story.at.as_millisecond()).unwrap()
        );
    }
}
