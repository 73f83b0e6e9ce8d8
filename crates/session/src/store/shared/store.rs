//! The store, over a database of which is known how to read and write it.
#![expect(
    clippy::duplicate_mod,
    reason = "compiled for each database, whose types differ and whose SQL does not"
)]

use super::{Pooled, Stored, read};
use crate::error::Result;
use crate::event::Event;
use crate::host::{ListSessions, SessionPage};
use crate::id::SessionId;
use crate::message::Message;
use crate::question::Question;
use crate::session::Session;
use crate::stats::Statistics;
use crate::store::failure::{failed, in_time};
use crate::store::work::{Done, Work};
use crate::store::{Commit, NewSession, Store, StoredSession, TranscriptFile};
use async_trait::async_trait;
use std::sync::Arc;

impl Stored {
    /// A connection to read with.
    async fn reader(&self) -> Result<Pooled> {
        self.readers.acquire().await.map_err(failed("read the store"))
    }
}

#[async_trait]
impl Store for Stored {
    fn name(&self) -> &str {
        &self.name
    }

    async fn create(&self, new: NewSession) -> Result<Option<Session>> {
        match self.write(Work::Create(Box::new(new))).await? {
            Done::Created(before) => Ok(before.map(|before| *before)),
            _ => Ok(None),
        }
    }

    async fn get(&self, id: &SessionId) -> Result<Session> {
        let mut reader = self.reader().await?;
        in_time("read a session", read::session(&mut reader, id)).await
    }

    async fn take(&self, id: &SessionId) -> Result<StoredSession> {
        match self.write(Work::Take(id.clone())).await? {
            Done::Taken(session) => Ok(*session),
            _ => Err(crate::Error::NotFound { id: id.clone() }),
        }
    }

    async fn unfinished(&self) -> Result<Vec<SessionId>> {
        let mut reader = self.reader().await?;
        in_time("list unfinished sessions", read::unfinished(&mut reader)).await
    }

    async fn find(&self, name: &str) -> Result<Option<SessionId>> {
        let mut reader = self.reader().await?;
        in_time("look a session up", read::find(&mut reader, name)).await
    }

    async fn list(&self, list: &ListSessions) -> Result<SessionPage> {
        let mut reader = self.reader().await?;
        in_time("list sessions", read::list(&mut reader, list)).await
    }

    async fn commit(&self, commit: Commit) -> Result<()> {
        self.write(Work::Commit(Box::new(commit))).await.map(|_| ())
    }

    async fn events(&self, id: &SessionId, after: u64, limit: usize) -> Result<Vec<Arc<Event>>> {
        let mut reader = self.reader().await?;
        in_time("read events", read::events(&mut reader, id, after, limit)).await
    }

    async fn queue(&self, id: &SessionId) -> Result<Vec<Message>> {
        let mut reader = self.reader().await?;
        in_time("read what waits", read::queue(&mut reader, id)).await
    }

    async fn pending_questions(&self, id: &SessionId) -> Result<Vec<Question>> {
        let mut reader = self.reader().await?;
        in_time("read what is asked", read::pending_questions(&mut reader, id)).await
    }

    async fn message(&self, id: &SessionId, message: &str) -> Result<Message> {
        let mut reader = self.reader().await?;
        in_time("read a message", read::message(&mut reader, id, message)).await
    }

    async fn message_by_key(&self, id: &SessionId, key: &str) -> Result<Option<Message>> {
        let mut reader = self.reader().await?;
        in_time("read a message", read::message_by_key(&mut reader, id, key)).await
    }

    async fn question(&self, id: &SessionId, question: &str) -> Result<Question> {
        let mut reader = self.reader().await?;
        in_time("read a question", read::question(&mut reader, id, question)).await
    }

    async fn has_transcripts(&self, id: &SessionId) -> Result<bool> {
        let mut reader = self.reader().await?;
        in_time("look for transcripts", read::has_transcripts(&mut reader, id)).await
    }

    async fn transcript_paths(&self, id: &SessionId) -> Result<Vec<String>> {
        let mut reader = self.reader().await?;
        in_time("look for transcripts", read::transcript_paths(&mut reader, id)).await
    }

    async fn transcript(&self, id: &SessionId, path: &str) -> Result<String> {
        let mut reader = self.reader().await?;
        in_time("read a transcript", read::transcript(&mut reader, id, path)).await
    }

    async fn transcripts(&self, id: &SessionId) -> Result<Vec<TranscriptFile>> {
        let mut reader = self.reader().await?;
        in_time("read transcripts", read::transcripts(&mut reader, id)).await
    }

    async fn statistics(&self) -> Result<Statistics> {
        let mut reader = self.reader().await?;
        in_time("read figures", read::statistics(&mut reader)).await
    }

    async fn delete(&self, id: &SessionId) -> Result<bool> {
        // The record goes last, so that a deletion that broke off can be repeated.
        while matches!(self.write(Work::Prune(id.clone())).await?, Done::Deleted(true)) {}
        Ok(matches!(self.write(Work::Delete(id.clone())).await?, Done::Deleted(true)))
    }

    async fn check(&self) -> Result<()> {
        self.write(Work::Check).await?;
        let mut reader = self.reader().await?;
        in_time("check the store", read::check(&mut reader)).await
    }

    async fn close(&self) {
        self.end().await;
    }
}
