//! What the agent's output means for the journal and the record.

use super::Worker;
use super::draft::Kept;
use super::options::agent_budget;
use crate::event::EventKind;
use crate::machine::{Input, Phase, Turn};
use crate::question::{Question, QuestionState};
use crate::usd::Usd;
use hostel_agent::{
    AgentEvent, Answer, Block, BlockKind, Decision, HostAnswer, Meaning, MessageState, Request,
    SubagentState, ToolStatus, TurnResult, Usage,
};
use serde::Serialize;
use serde_json::{Value, json};

/// Names of tools that are remembered, and characters of one.
const MAX_TOOLS: usize = 256;
const MAX_TOOL_NAME: usize = 128;
/// Questions that may wait for an answer, and bytes of what they ask about.
const MAX_QUESTIONS: usize = 64;
const MAX_ASKED: usize = 4 << 20;
/// Characters of what an agent calls its conversation, or a task.
const MAX_NAME: usize = 512;
/// Characters of what an agent says of its end that are kept with the session.
const MAX_WORDS: usize = 2000;
/// The most that is counted, of anything: what floating point has exactly, so that JSON has it too.
const MAX_COUNT: u64 = 1 << 53;
/// What a driver says of a turn whose agent has ended.
const GONE: &str = "agent_exited";
/// What an agent says of a turn that it ends for its own budget.
const BUDGET_SPENT: &str = "error_max_budget_usd";
/// What a driver says of a prompt that the conversation has already.
const REPEATED: &str = "repeated";

/// How the ids of those requests begin that change something of the agent; what follows is what, and a part that makes
/// them unique. So it is known also by who has the session later.
const CHANGE: &str = "hostel:change:";

/// A new id for a request that changes something.
pub(super) fn change_of(what: &str) -> String {
    format!("{CHANGE}{what}:{}", crate::id::new_id())
}

/// A line of the agent, as the journal has it. These borrow: what an agent writes may be large.
#[derive(Serialize)]
struct Line<'a> {
    message: &'a Value,
}

/// A part of a conversation, as the journal has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Part<'a> {
    conversation_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<&'a Block>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updates: Option<&'a Block>,
}

/// A question, as the journal has it.
#[derive(Serialize)]
struct Asked<'a> {
    question: &'a Question,
}

impl Worker {
    /// Takes what a driver understood.
    pub(super) fn understand(&mut self, events: Vec<AgentEvent>) {
        for event in events {
            if event.subagent.is_none() {
                self.count_model_call(event.raw.as_ref());
            }
            let raw = event.raw.filter(|_| !matches!(event.meaning, Meaning::Transcript { .. }));
            if let Some(raw) = &raw {
                self.journal(EventKind::AgentMessage, &Line { message: raw });
            }
            let conversation = event.subagent.as_deref().unwrap_or("main");
            self.understood(conversation, event.meaning, raw.as_ref());
        }
        self.listen_to_driver();
    }

    fn understood(&mut self, conversation: &str, meaning: Meaning, raw: Option<&Value>) {
        match meaning {
            Meaning::Ready(ready) => {
                if let Some(id) = ready.conversation {
                    self.conversation(id);
                }
            }
            Meaning::Conversation { id, model: _ } => self.conversation(id),
            Meaning::Running => self.happened(Input::Running),
            Meaning::Idle => self.idle(),
            Meaning::Prompt { uuid, state: MessageState::Started } => self.happened(Input::Begun(uuid)),
            Meaning::Answered { id, result: Err(problem) } => self.refused(&id, &problem),
            Meaning::Prompt { .. } | Meaning::Answered { .. } | Meaning::Other { .. } => {}
            Meaning::BlockStart(block) => {
                let start = Part {
                    conversation_id: conversation,
                    block_id: None,
                    block: Some(&block),
                    updates: None,
                };
                self.journal(EventKind::BlockStart, &start);
            }
            Meaning::BlockDelta { block, index, kind, delta } => {
                let before = self.agent.journaled;
                let seq = self.journal(
                    EventKind::BlockDelta,
                    &json!({ "conversationId": conversation, "blockId": block, "index": index, "kind": kind, "delta": delta }),
                );
                self.deltas.note(&block, seq, self.agent.journaled.saturating_sub(before));
            }
            Meaning::BlockUpdate(block) => {
                self.tool(&block, raw);
                let (block_id, updates) = (Some(block.id.as_str()), Some(&block));
                let update = Part { conversation_id: conversation, block_id, block: None, updates };
                self.journal(EventKind::BlockUpdate, &update);
            }
            Meaning::BlockComplete(block) => {
                self.tool(&block, raw);
                let block_id = Some(block.id.as_str());
                let complete =
                    Part { conversation_id: conversation, block_id, block: Some(&block), updates: None };
                self.journal(EventKind::BlockComplete, &complete);
                self.compact(&block.id);
            }
            Meaning::BlockAbandoned { block } => {
                let updates = json!({ "abandoned": true });
                self.journal(
                    EventKind::BlockUpdate,
                    &json!({ "conversationId": conversation, "blockId": block, "updates": updates }),
                );
                self.compact(&block);
            }
            Meaning::Question(question) => self.asked(question),
            Meaning::QuestionWithdrawn { id } => self.withdraw(&id, "withdrawn"),
            Meaning::HostCall { id, name, .. } => {
                let result = Err(format!("this host has no {name:?}"));
                self.answer_by_itself(Request::HostAnswer(HostAnswer { call: id, result }));
            }
            Meaning::Result(result) => self.result(result, raw),
            Meaning::Retry(retry) => {
                self.journal(EventKind::ModelRetry, &retry);
            }
            Meaning::Subagent { id, state, description } => self.subagent(&id, state, &description),
            Meaning::Transcript { path, entries } => self.transcribe(path, &entries),
            Meaning::Log { level, message } => {
                self.journal(EventKind::Log, &json!({ "level": level, "message": message }));
            }
            Meaning::Malformed { problem } => {
                self.journal(EventKind::OutputDamaged, &json!({ "problem": problem }));
            }
            _ => {}
        }
    }

    /// The agent did not do what it was asked for. Who changed something is not to believe that it holds.
    fn refused(&mut self, id: &str, problem: &str) {
        let Some((what, _)) = id.strip_prefix(CHANGE).and_then(|rest| rest.split_once(':')) else { return };
        let message = format!("the agent did not change {what}; it will at its next start: {problem}");
        self.journal(EventKind::Log, &json!({ "level": "warn", "message": message }));
    }

    /// The deltas of a block need not be kept any more.
    fn compact(&mut self, block: &str) {
        let Kept { runs, bytes } = self.deltas.complete(block);
        self.agent.journaled = self.agent.journaled.saturating_sub(bytes);
        self.draft.compact.extend(runs);
    }

    fn conversation(&mut self, id: String) {
        if id.len() > MAX_NAME {
            return;
        }
        if self.session.session_id != id {
            self.session.session_id = id;
            let fields = json!({ "fields": { "sessionId": self.session.session_id } });
            self.journal(EventKind::MetadataUpdate, &fields);
        }
    }

    /// The model was asked once more where a new message of it begins. A turn that asks too often is stopped, also one
    /// that the agent began by itself.
    fn count_model_call(&mut self, raw: Option<&Value>) {
        if !raw.is_some_and(|raw| self.model_calls.note(raw)) {
            return;
        }
        let may_stop = |turn: &Turn| matches!(turn.phase, Phase::Starting | Phase::Running);
        let runs = self.goes_on() && self.machine.turn().is_none_or(may_stop);
        let most = self.session.limits.max_turns;
        if runs && most.is_some_and(|most| self.session.num_turns + self.model_calls.count() > most) {
            self.limit(crate::status::EndReason::MaxTurns);
            self.run_inputs();
        }
    }

    /// Keeps account of tools, and of the files that they make.
    fn tool(&mut self, block: &Block, raw: Option<&Value>) {
        let BlockKind::ToolUse { name, status, .. } = &block.kind else { return };
        let name: String = name.chars().take(MAX_TOOL_NAME).collect();
        let name = &name;
        if !self.session.tools_used.contains(name) && self.session.tools_used.len() < MAX_TOOLS {
            self.session.tools_used.push(name.clone());
            self.session.tools_used.sort();
        }
        if self.tools.len() < MAX_TOOLS {
            self.tools.insert(name.clone());
        }
        let running = matches!(status, ToolStatus::Pending | ToolStatus::Running);
        if let Some(turn) = &mut self.session.active_turn {
            turn.current_tool = running.then(|| name.clone());
        }
        let writes = matches!(name.as_str(), "Write" | "Edit" | "MultiEdit" | "NotebookEdit");
        let result = raw.map(|raw| &raw["tool_use_result"]);
        if *status == ToolStatus::Success
            && writes
            && let Some(result) = result
            && let Some(path) = result["filePath"].as_str()
        {
            let kind =
                if result["type"] == "create" { EventKind::FileCreated } else { EventKind::FileModified };
            self.journal(kind, &json!({ "path": path }));
        }
    }

    fn asked(&mut self, question: hostel_agent::Question) {
        let size = input_size(&question.input);
        if self.questions.len() >= MAX_QUESTIONS || self.asked + size > MAX_ASKED {
            let message = "more is asked at a time than anybody can answer".to_owned();
            let decision = Decision::Deny { message, interrupt: false };
            return self.answer_by_itself(Request::Answer(Answer { question: question.id, decision }));
        }
        let now = crate::clock::now();
        let expires_at = now
            .checked_add(
                jiff::SignedDuration::try_from(self.shared.config.question_timeout).unwrap_or_default(),
            )
            .unwrap_or(now);
        let question = Question {
            id: question.id,
            tool: question.tool,
            input: question.input,
            description: question.description,
            tool_use_id: question.tool_use_id,
            state: QuestionState::Pending,
            asked_at: now,
            expires_at,
            verdict: None,
            decided_by: None,
        };
        self.journal(EventKind::PermissionRequested, &Asked { question: &question });
        self.draft.questions.insert(question.id.clone(), question.clone());
        self.asked += size;
        self.questions.push(question);
    }

    /// Takes one out of those that wait.
    pub(super) fn take_question(&mut self, place: usize) -> Question {
        let question = self.questions.remove(place);
        self.asked = self.asked.saturating_sub(input_size(&question.input));
        question
    }

    /// A question needs no answer any more.
    pub(super) fn withdraw(&mut self, id: &str, by: &str) {
        let Some(place) = self.questions.iter().position(|one| one.id == id) else { return };
        let mut question = self.take_question(place);
        question.state = QuestionState::Withdrawn;
        question.decided_by = Some(by.to_owned());
        self.journal(
            EventKind::PermissionResolved,
            &json!({ "questionId": id, "verdict": null, "decidedBy": by }),
        );
        self.draft.questions.insert(question.id.clone(), question);
    }

    /// What was asked in a turn that is over needs no answer of anybody; but an agent that still waits for one gets it.
    pub(super) fn deny_questions(&mut self) {
        for id in self.questions.iter().map(|one| one.id.clone()).collect::<Vec<_>>() {
            if let Some(driver) = &mut self.driver {
                let message = "The turn is over.".to_owned();
                let decision = Decision::Deny { message, interrupt: false };
                // One that has taken it back knows of no question any more.
                let _ = driver.request(Request::Answer(Answer { question: id.clone(), decision }));
            }
            self.withdraw(&id, "turn_ended");
        }
        self.listen_to_driver();
    }

    fn result(&mut self, result: TurnResult, raw: Option<&Value>) {
        let budget = agent_budget(&self.session, self.shared.config.gateway);
        let session = &mut self.session;
        session.agent_cost = session.agent_cost.plus(Usd::from_dollars(result.cost_usd).unwrap_or_default());
        // It counts more finely than the record: what it says is spent is.
        if result.subtype == BUDGET_SPENT
            && let Some(budget) = budget
            && self.driver.as_ref().is_some_and(|driver| driver.keeps_budget(Some(budget.dollars())))
        {
            session.agent_cost = session.agent_cost.max(budget);
        }
        // The sandbox says so: it may say anything.
        let add = |count: &mut u64, more: u64| *count = count.saturating_add(more).min(MAX_COUNT);
        add(&mut session.num_turns, u64::from(result.num_turns));
        add(&mut session.input_tokens, result.usage.input);
        add(&mut session.output_tokens, result.usage.output);
        add(&mut session.cached_tokens, result.usage.cache_creation);
        add(&mut session.cached_tokens, result.usage.cache_read);
        session.total_tokens = session.input_tokens.saturating_add(session.output_tokens).min(MAX_COUNT);
        let (usage, cost) = (result.usage, session.agent_cost);
        self.journal(EventKind::Usage, &json!({ "usage": usage, "agentCost": cost }));
        self.model_calls = Default::default();
        self.draft.session = true;
        if result.subtype == GONE && result.text.is_some() {
            // With its last words, which are in every answer about the session.
            self.session.environment.message = result.text.as_deref().map(clipped);
        }
        // One that had not begun is had by the next agent, and one that has its answer keeps it.
        let concerned = |turn: &&Turn| result.subtype != GONE || (turn.begun && !turn.answered);
        let Some(turn) = self.machine.turn().filter(concerned) else { return };
        let (turn, raw) = (turn.message.clone(), raw.cloned());
        let is_gone = result.subtype == GONE;
        // A turn that the agent began by itself may take our prompt in: then there is no other result for it.
        let answers = result.prompts.contains(&turn) || (!result.unasked && result.prompts.is_empty());
        self.outcome(&turn, |outcome| {
            outcome.usage = sum(outcome.usage, result.usage);
            outcome.num_turns = outcome.num_turns.saturating_add(result.num_turns);
            if answers || !result.unasked {
                outcome.is_error = result.is_error;
                outcome.result = result.subtype;
            }
            outcome.text = result.text.or(outcome.text.take());
            outcome.raw = raw.or(outcome.raw.take());
        });
        if result.terminal_reason.as_deref() == Some(REPEATED) {
            // The agent that began with it died of it, or soon after: there is no answer, and there will be none.
            self.outcome(&turn, |outcome| {
                outcome.is_error = true;
                outcome.result = GONE.to_owned();
                outcome.text = Some("the agent ended after it had begun with this message".to_owned());
            });
            self.happened(Input::Lost);
            return self.happened(Input::Idle);
        }
        // The last words of one that died are no answer: what its end is for the turn is told with that.
        if answers && !is_gone {
            self.happened(Input::Answered);
        }
    }

    fn subagent(&mut self, id: &str, state: SubagentState, description: &str) {
        let description: String = description.chars().take(MAX_NAME).collect();
        match state {
            SubagentState::Started => {
                let discovered = json!({ "subagentId": id, "description": description });
                self.journal(EventKind::SubagentDiscovered, &discovered);
            }
            SubagentState::Progress => {}
            SubagentState::Completed | SubagentState::Failed => {
                self.journal(EventKind::SubagentCompleted, &json!({ "subagentId": id, "status": state }));
            }
        }
    }
}

/// Bytes of what a question is about.
pub(super) fn input_size(input: &Value) -> usize {
    input.to_string().len()
}

/// The beginning of a text.
pub(super) fn clipped(text: &str) -> String {
    text.chars().take(MAX_WORDS).collect()
}

fn sum(one: Usage, other: Usage) -> Usage {
    Usage {
        input: one.input.saturating_add(other.input),
        output: one.output.saturating_add(other.output),
        cache_creation: one.cache_creation.saturating_add(other.cache_creation),
        cache_read: one.cache_read.saturating_add(other.cache_read),
    }
}
