use super::*;

fn mailbox() -> (tempfile::TempDir, Mailbox) {
    let dir = tempfile::tempdir().unwrap();
    let mailbox = Mailbox::open(&dir.path().join("mail"), "me@home.example".into()).unwrap();
    (dir, mailbox)
}

fn sent(mailbox: &Mailbox) -> Vec<String> {
    let entries = fs::read_dir(mailbox.folder.join("sent")).unwrap();
    entries
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect()
}

#[test]
fn letters_are_listed_newest_first_and_read_whole() {
    let (_dir, mailbox) = mailbox();
    let put = |name: &str, text: &str| mailbox.put(name, text.as_bytes()).unwrap();
    put(
        "old.eml",
        "From: a@x\nSubject: =?utf-8?q?caf=C3=A9?=\nDate: Mon, 2 Nov 2026 10:00:00 +0100\n\nold",
    );
    put(
        "new.eml",
        "From: Bo <b@x>\nTo: c@x, D <d@x>\nSubject: new\nDate: Tue, 3 Nov 2026 10:00:00 +0000\n\
         Content-Type: text/html\nContent-Transfer-Encoding: base64\n\n\
         PHA+aGVsbG88L3A+PHAgc3R5bGU9ImRpc3BsYXk6bm9uZSI+aGlkZGVuPC9wPg==",
    );
    put("odd.eml", "");
    put("notes.txt", "From: no\n\nletter");
    let (heads, left_out) = mailbox.list().unwrap();
    let ids: Vec<_> = heads.iter().map(|head| head.id.as_str()).collect();
    assert_eq!(
        (ids.as_slice(), left_out),
        (["new", "old", "odd"].as_slice(), 0)
    );
    assert_eq!(heads[1].subject, "café");
    assert_eq!(heads[1].date, "2026-11-02T10:00:00+01:00");
    let (head, body) = mailbox.read("new").unwrap();
    assert_eq!(
        (head.from.as_str(), head.to.as_str()),
        ("Bo <b@x>", "c@x, D <d@x>")
    );
    // Nothing that a model would read is kept from whoever looks at what it read.
    assert!(body.contains("hello") && body.contains("hidden"), "{body}");
    assert_eq!(mailbox.read("old").unwrap().1, "old");
}

#[test]
fn only_the_newest_are_listed() {
    let (_dir, mailbox) = mailbox();
    for n in 0..LISTED + 5 {
        let text = format!(
            "Subject: {n}\nDate: Tue, 3 Nov 2026 {:02}:{:02}:00 +0000\n\n",
            n / 60,
            n % 60
        );
        fs::write(mailbox.folder.join(format!("{n}.eml")), text).unwrap();
    }
    let (heads, left_out) = mailbox.list().unwrap();
    assert_eq!((heads.len(), left_out), (LISTED, 5));
    assert_eq!(heads[0].subject, (LISTED + 4).to_string());
}

#[test]
fn no_id_leads_out_of_the_folder() {
    let (dir, mailbox) = mailbox();
    let folder = &mailbox.folder;
    fs::write(dir.path().join("outside.eml"), "From: a@x\n\nsecret").unwrap();
    std::os::unix::fs::symlink("../outside.eml", folder.join("link.eml")).unwrap();
    fs::create_dir(folder.join("dir.eml")).unwrap();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        folder.join("pipe.eml"),
        rustix::fs::Mode::RWXU,
    )
    .unwrap();
    let outside = dir.path().join("outside");
    let ids = [
        "../outside",
        outside.to_str().unwrap(),
        "link",
        "dir",
        "pipe",
        "",
        ".",
        "..",
        "sent/x",
        "none",
        "a\0b",
        ".hidden",
        &"x".repeat(300),
    ];
    for id in ids {
        let refused = mailbox.read(id).unwrap_err();
        assert!(matches!(refused, MailError::NoLetter(_)), "{id}: {refused}");
    }
    assert_eq!(mailbox.list().unwrap().0, []);
}

#[test]
fn a_letter_that_is_too_long_is_listed_and_not_read() {
    let (_dir, mailbox) = mailbox();
    let long = format!(
        "Subject: long\n\n{}",
        "x".repeat(usize::try_from(LETTER).unwrap())
    );
    fs::write(mailbox.folder.join("long.eml"), long).unwrap();
    assert_eq!(mailbox.list().unwrap().0[0].subject, "long");
    assert!(matches!(mailbox.read("long"), Err(MailError::TooLong(_))));
}

#[test]
fn what_is_sent_is_one_whole_letter() {
    let (_dir, mailbox) = mailbox();
    let at = Timestamp::from_second(1_800_000_000).unwrap();
    let id = mailbox
        .send("bo@x.example", "Grüße", "one\ntwo", at)
        .unwrap();
    let other = mailbox
        .send("bo@x.example", "Grüße", "one\ntwo", at)
        .unwrap();
    assert_ne!(id, other);
    let all = sent(&mailbox);
    assert_eq!(all.len(), 2);
    let message = MessageParser::default().parse(&all[0]).unwrap();
    assert_eq!(people(message.to()), "bo@x.example");
    assert_eq!(people(message.from()), "me@home.example");
    assert_eq!(message.subject(), Some("Grüße"));
    assert_eq!(message.date().unwrap().to_timestamp(), 1_800_000_000);
    assert_eq!(message.body_text(0).unwrap(), "one\ntwo\n");
    assert_eq!(
        mailbox.list().unwrap().0,
        [],
        "what was sent is not in the box"
    );
}

#[test]
fn nothing_is_smuggled_into_a_header() {
    let (_dir, mailbox) = mailbox();
    let send = |to: &str, subject: &str| mailbox.send(to, subject, "", Timestamp::UNIX_EPOCH);
    let addresses = [
        "",
        "bo",
        "@x",
        "bo@",
        "a@x,b@y",
        "a@x b@y",
        "a@x\nBcc: b@y",
        "A <a@x>",
        "a@b@c",
        "a@x;b@y",
    ];
    for to in addresses {
        assert!(matches!(send(to, ""), Err(MailError::NoAddress(_))), "{to}");
    }
    for subject in ["a\nBcc: b@y", "a\r", "a\0", &"x".repeat(LINE + 1)] {
        assert!(matches!(send("a@x", subject), Err(MailError::Subject)));
    }
    let long = "x".repeat(BODY + 1);
    let refused = mailbox.send("a@x", "", &long, Timestamp::UNIX_EPOCH);
    assert!(matches!(refused, Err(MailError::Body)));
    assert_eq!(sent(&mailbox), [""; 0]);
}

#[test]
fn the_demo_is_there_once() {
    let (_dir, mailbox) = mailbox();
    let now = Timestamp::now();
    crate::demo::seed(&mailbox, now).unwrap();
    let (heads, _) = mailbox.list().unwrap();
    let ids: Vec<_> = heads.iter().map(|head| head.id.as_str()).collect();
    assert_eq!(ids, ["booking", "library", "lunch"]);
    assert!(
        heads
            .iter()
            .all(|head| head.to == crate::demo::OWNER && !head.from.is_empty())
    );
    let hidden = mailbox.read("booking").unwrap().1;
    assert!(hidden.contains("collector@outside.example"), "{hidden}");
    fs::remove_file(mailbox.folder.join("lunch.eml")).unwrap();
    crate::demo::seed(&mailbox, now).unwrap();
    assert_eq!(mailbox.list().unwrap().0.len(), 2);
}
