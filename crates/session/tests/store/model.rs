//! Any commits, beside a model in memory that is too simple to be wrong.

use crate::place::Place;
use crate::records::{agent, event, id, message, numbers, question, session};
use hostel_session::{
    AgentState, Commit, Compaction, Error, EventKind, Message, MessageState, NewSession, Question,
    QuestionState, Session, Store, TranscriptPiece,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Something that is done to a session.
#[derive(Debug, Clone)]
enum Step {
    /// A commit, made of what fits.
    Commit {
        /// Of each whether it is a delta.
        events: Vec<bool>,
        record: bool,
        agents: Vec<u64>,
        messages: Vec<(u8, MessageState)>,
        questions: Vec<(u8, QuestionState)>,
        lines: Vec<u8>,
        /// Ranges from the end of the journal.
        compact: Vec<(u64, u64)>,
    },
    /// One whose first event is not the next; by how much.
    WrongNumber(i64),
    /// One of a former owner.
    Fenced,
    /// Another owner.
    Take,
}

#[derive(Default)]
struct Model {
    session: Option<Session>,
    generation: u64,
    events: Vec<(u64, bool)>,
    agents: BTreeMap<String, AgentState>,
    messages: BTreeMap<String, Message>,
    questions: BTreeMap<String, Question>,
    transcripts: BTreeMap<String, String>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    use {MessageState as M, QuestionState as Q};
    let states = prop::sample::select(vec![M::Queued, M::Running, M::Done, M::Cancelled]);
    let questions = prop::sample::select(vec![Q::Pending, Q::Answered, Q::Withdrawn]);
    let commit = (
        prop::collection::vec(any::<bool>(), 0..80),
        any::<bool>(),
        prop::collection::vec(0..3_u64, 0..3),
        prop::collection::vec((0..4_u8, states), 0..4),
        prop::collection::vec((0..3_u8, questions), 0..3),
        prop::collection::vec(0..3_u8, 0..4),
        prop::collection::vec((0..100_u64, 0..100_u64), 0..2),
    )
        .prop_map(|(events, record, agents, messages, questions, lines, compact)| Step::Commit {
            events,
            record,
            agents,
            messages,
            questions,
            lines,
            compact,
        });
    let step = prop_oneof![
        8 => commit,
        1 => prop_oneof![-3..0_i64, 1..3_i64].prop_map(Step::WrongNumber),
        1 => Just(Step::Fenced),
        1 => Just(Step::Take),
    ];
    prop::collection::vec(step, 1..12)
}

pub(crate) async fn as_a_model_says(place: &Place) {
    let store = place.open().await;
    let mut runner = TestRunner::new(Config { cases: 48, ..Config::default() });
    for case in 0..48 {
        let steps = steps().new_tree(&mut runner).unwrap().current();
        let name = format!("case{case}");
        let mut model = Model { session: Some(session(&name)), ..Model::default() };
        store.create(NewSession::of(session(&name))).await.unwrap();
        model.generation = store.take(&id(&name)).await.unwrap().generation;
        for step in &steps {
            model.step(&*store, step).await;
        }
        model.check(&*store, &steps).await;
    }
    store.close().await;
}

impl Model {
    fn session(&mut self) -> &mut Session {
        self.session.as_mut().unwrap()
    }

    async fn step(&mut self, store: &dyn Store, step: &Step) {
        let last = self.session().last_event;
        let id = self.session().id.clone();
        match step {
            Step::Commit { .. } => {
                let commit = self.apply(step);
                store.commit(commit).await.unwrap_or_else(|error| panic!("{error}: {step:?}"));
            }
            Step::WrongNumber(by) => {
                let Some(first) = (last + 1).checked_add_signed(*by) else { return };
                let mut wrong = Commit::new(id, self.generation);
                wrong.events = vec![event(first, EventKind::Log, &json!({}))];
                wrong.agents = vec![agent("wrong", 1)];
                let refused = store.commit(wrong).await;
                assert!(matches!(refused, Err(Error::Store { .. })), "{refused:?}");
            }
            Step::Fenced => {
                let mut fenced = Commit::new(id, self.generation - 1);
                fenced.events = vec![event(last + 1, EventKind::Log, &json!({}))];
                fenced.agents = vec![agent("fenced", 1)];
                assert!(matches!(store.commit(fenced).await, Err(Error::Fenced)));
            }
            Step::Take => {
                let taken = store.take(&id).await.unwrap();
                assert_eq!(taken.generation, self.generation + 1);
                self.generation = taken.generation;
            }
        }
    }

    /// The commit of a step, done to the model.
    fn apply(&mut self, step: &Step) -> Commit {
        let Step::Commit { events, record, agents, messages, questions, lines, compact } = step else {
            unreachable!("only commits are applied")
        };
        let mut commit = Commit::new(self.session().id.clone(), self.generation);
        for delta in events {
            self.session().last_event += 1;
            let seq = self.session().last_event;
            self.events.push((seq, *delta));
            let kind = if *delta { EventKind::BlockDelta } else { EventKind::BlockComplete };
            commit.events.push(event(seq, kind, &json!({ "n": seq })));
        }
        if *record {
            self.session().num_turns += 1;
            commit.session.clone_from(&self.session);
        }
        for attempt in agents {
            let agent = agent(&format!("agent{attempt}"), self.session().last_event);
            self.agents.insert(agent.name.clone(), agent.clone());
            commit.agents.push(agent);
        }
        for (name, state) in messages {
            let message = message(&format!("m{name}"), *state, u64::from(*name));
            self.messages.insert(message.id.clone(), message.clone());
            commit.messages.push(message);
        }
        for (name, state) in questions {
            let question = question(&format!("q{name}"), *state);
            self.questions.insert(question.id.clone(), question.clone());
            commit.questions.push(question);
        }
        for path in lines {
            let piece =
                TranscriptPiece { path: format!("/{path}"), lines: format!("{}\n", self.transcripts.len()) };
            self.transcripts.entry(piece.path.clone()).or_default().push_str(&piece.lines);
            commit.transcript.push(piece);
        }
        for (back, length) in compact {
            let from = self.session().last_event.saturating_sub(*back);
            let to = from + length;
            self.events.retain(|(seq, delta)| !(*delta && (from..=to).contains(seq)));
            commit.compact.push(Compaction { from, to });
        }
        commit
    }

    async fn check(&mut self, store: &dyn Store, steps: &[Step]) {
        let session = self.session().clone();
        let taken = store.take(&session.id).await.unwrap();
        assert_eq!(taken.session, session, "{steps:?}");
        assert!(taken.agents.iter().eq(self.agents.values()), "{steps:?}");
        let waits =
            |message: &&Message| matches!(message.state, MessageState::Queued | MessageState::Running);
        assert!(taken.queue.iter().eq(self.messages.values().filter(waits)), "{steps:?}");
        let open = |question: &&Question| question.state == QuestionState::Pending;
        assert!(taken.questions.iter().eq(self.questions.values().filter(open)), "{steps:?}");
        for message in self.messages.values() {
            assert_eq!(store.message(&session.id, &message.id).await.unwrap(), *message);
        }
        let read: Vec<Arc<_>> = store.events(&session.id, 0, 10_000).await.unwrap();
        let kept: Vec<u64> = self.events.iter().map(|(seq, _)| *seq).collect();
        assert_eq!(numbers(&read), kept, "{steps:?}");
        let files = store.transcripts(&session.id).await.unwrap();
        let files: BTreeMap<_, _> = files.into_iter().map(|file| (file.path, file.content)).collect();
        assert_eq!(files, self.transcripts);
    }
}
