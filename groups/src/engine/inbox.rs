//! From the inbox into the queue.

use channels::inbox::Received;
use policy::ids::GroupName;

use super::{Groups, said};
use crate::bounds::{QUEUED, SAID_BYTES};
use crate::db::{DbError, Placed, conversation_of};

/// How many messages are read at a time.
const BATCH: u64 = 50;

impl Groups {
    /// Takes what arrives, until everything ends.
    pub(super) async fn read(&self) {
        let mut arrivals = self.web.arrivals();
        loop {
            arrivals.mark_unchanged();
            match self.take_some().await {
                Ok(true) => {}
                Ok(false) => {
                    let more = self.stopping.run_until_cancelled(arrivals.changed());
                    if !matches!(more.await, Some(Ok(()))) {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!("the inbox cannot be read: {error}");
                    if self.pause().await.is_break() {
                        return;
                    }
                }
            }
        }
    }

    /// Takes some messages; false: there was none.
    async fn take_some(&self) -> Result<bool, DbError> {
        let mut cursor = self.db.read_up_to().await?;
        let received = self.web.received(cursor, BATCH).await?;
        for message in &received {
            if self.stopping.is_cancelled() {
                return Ok(false);
            }
            self.take(cursor, message).await?;
            cursor = message.seq;
        }
        // What could not be told a moment ago may be possible now.
        self.show_refusals().await?;
        Ok(!received.is_empty())
    }

    async fn take(&self, cursor: i64, message: &Received) -> Result<(), DbError> {
        let place = message.said.place.parse::<GroupName>().ok();
        let Some(room) = place.and_then(|group| self.rooms.get(&group)) else {
            tracing::info!("message {} is for no group that there is", message.seq);
            return self.db.skip(cursor, message.seq).await;
        };
        let group = &room.settings.name;
        let text = &message.said.text;
        let refusal = if !room.admits(&message.said.by) {
            Some("only members of this group may speak here; this message was not read".to_owned())
        } else if text.trim().is_empty() {
            Some("a message without words was not read".to_owned())
        } else if text.len() > SAID_BYTES {
            let most = SAID_BYTES / 1024;
            Some(format!(
                "this message is longer than {most} KiB and was not read; write it in pieces"
            ))
        } else {
            None
        };
        if refusal.is_none() {
            let by = &message.said.by;
            self.host
                .heard(&conversation_of(group), by, message.seq, text)
                .await;
        }
        let _one = room.order.lock().await;
        let placed = self.db.place(cursor, message, group, refusal, QUEUED);
        match placed.await? {
            Placed::Refused => {}
            Placed::Joined(run) => {
                room.live(|live| {
                    if live.key.run == run {
                        live.say(message.seq, said(text));
                    }
                });
            }
            Placed::New { run, waits } => {
                room.wake.notify_one();
                if let (true, Some(run)) = (waits, self.db.run(&run).await?) {
                    self.put_run(&run, None).await?;
                }
            }
        }
        Ok(())
    }
}
