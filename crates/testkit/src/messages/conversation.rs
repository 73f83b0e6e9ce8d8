//! Where a conversation stands: its last prompts, and how many answers came after them.

use super::request::Message;
use crate::script::MARK;

/// What the CLI says for the user who interrupted it.
const INTERRUPTED: &str = "[Request interrupted by user";
/// What the CLI adds to prompts by itself.
const REMINDER: &str = "<system-reminder>";

/// The prompts that matter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Conversation {
    /// The last prompt with a script, unless it was interrupted.
    pub(crate) scripted: Option<Prompt>,
    /// The last prompt without a script, if it is later than every one with a script.
    pub(crate) plain: Option<Prompt>,
}

/// A prompt and where it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Prompt {
    pub(crate) text: String,
    /// Its index in the conversation.
    pub(crate) place: usize,
    /// How many answers came since.
    pub(crate) answers: usize,
}

impl Conversation {
    pub(crate) fn of(messages: &[Message]) -> Self {
        let mut answers = Answers::default();
        let (mut plain, mut interrupted) = (None, false);
        for (place, message) in messages.iter().enumerate().rev() {
            answers.pass(message);
            if message.role != "user" {
                continue;
            }
            let texts = message.texts();
            let prompt = |text: &str| Prompt { text: text.to_owned(), place, answers: answers.count };
            if let Some(text) = texts.iter().rev().find(|text| text.contains(MARK)) {
                let scripted = (!interrupted).then(|| prompt(text));
                return Self { scripted, plain };
            }
            if texts.iter().any(|text| text.starts_with(INTERRUPTED)) {
                interrupted = true;
            } else if plain.is_none() && !message.has_tool_result() {
                let said = |text: &&&str| !text.trim_start().starts_with(REMINDER) && !text.trim().is_empty();
                plain = texts.iter().rev().find(said).map(|text| prompt(text));
            }
        }
        Self { scripted: None, plain }
    }
}

/// Counts answers backwards. Assistant messages with nothing of the user's between them are one answer.
#[derive(Default)]
struct Answers {
    count: usize,
    within: bool,
}

impl Answers {
    fn pass(&mut self, message: &Message) {
        match message.role.as_str() {
            "assistant" if !self.within => {
                self.count += 1;
                self.within = true;
            }
            "user" => self.within = false,
            _ => {}
        }
    }
}
