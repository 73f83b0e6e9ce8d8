//! Questions of the agent, put to who sits at the keyboard.

use super::happening::Question;
use super::keyboard::{Keyboard, Typed};
use super::screen::Screen;
use super::tool;
use crate::failure::Failure;
use crate::output::human::printable;
use hostel_client::AnswerQuestion;
use hostel_client::model::Verdict;
use serde_json::{Map, Value};

/// What came of asking.
#[derive(Debug, PartialEq)]
pub(super) enum Asked {
    /// Somebody decided.
    Answer(AnswerQuestion),
    /// Somebody pressed Ctrl-C.
    Interrupt,
    /// Nobody is there any more.
    End,
}

/// Puts a question. Cancel safe.
///
/// # Errors
/// When nothing can be read or written.
pub(super) async fn ask(
    screen: &mut Screen,
    keyboard: &mut Keyboard,
    question: &Question,
) -> Result<Asked, Failure> {
    if question.tool == "AskUserQuestion"
        && let Some(questions) = question.input.get("questions").and_then(Value::as_array)
    {
        return choose(screen, keyboard, question, questions).await;
    }
    let paint = screen.paint();
    let what = tool::describe(&question.tool, Some(&question.input));
    screen.aside(&format!("{} {}", paint.yellow("?"), paint.bold(&what)))?;
    for line in details(question) {
        screen.aside(&paint.dim(&format!("  {line}")))?;
    }
    loop {
        let prompt = "  Allow? y / always / n, or n and why: ";
        match line(screen, keyboard, prompt).await? {
            Typed::Interrupt => return Ok(Asked::Interrupt),
            Typed::End => return Ok(Asked::End),
            Typed::Line(text) => match parse(&text) {
                Some(answer) => return Ok(Asked::Answer(answer)),
                None => screen.aside("  y lets it, always lets it and the like from now on, n does not")?,
            },
        }
    }
}

async fn line(screen: &mut Screen, keyboard: &mut Keyboard, prompt: &str) -> Result<Typed, Failure> {
    screen.quiet();
    keyboard.line(prompt, false).await
}

/// What the tool would do, where one line does not say it: the beginning of a change.
fn details(question: &Question) -> Vec<String> {
    const LINES: usize = 12;
    let text = |key: &str| question.input.get(key).and_then(Value::as_str);
    let body = text("content").or_else(|| text("new_string")).or_else(|| text("plan"));
    let command = text("command").filter(|command| command.lines().count() > 1);
    let shown = body.or(command).unwrap_or_default();
    let mut lines: Vec<_> = shown.lines().take(LINES).map(printable).collect();
    let more = shown.lines().count().saturating_sub(LINES);
    lines.extend((more > 0).then(|| format!("… {more} lines more")));
    lines.extend(question.description.iter().map(|text| printable(text)).filter(|_| shown.is_empty()));
    lines
}

/// What is decided by a word.
fn parse(text: &str) -> Option<AnswerQuestion> {
    let text = text.trim();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let verdict = match word.trim_end_matches([',', ':']).to_lowercase().as_str() {
        "y" | "yes" => Verdict::Allow,
        "a" | "always" => Verdict::AllowForSession,
        "n" | "no" => Verdict::Deny,
        _ => return None,
    };
    let reason = Some(rest.trim()).filter(|reason| !reason.is_empty());
    if verdict != Verdict::Deny && reason.is_some() {
        return None;
    }
    Some(answer(verdict, reason.map(str::to_owned), None))
}

fn answer(verdict: Verdict, message: Option<String>, input: Option<Value>) -> AnswerQuestion {
    let decided_by = std::env::var("USER").ok().filter(|name| !name.is_empty());
    AnswerQuestion { verdict, message, input, interrupt: false, decided_by }
}

/// The agent asks people to choose: each question has its options, or an answer in words.
async fn choose(
    screen: &mut Screen,
    keyboard: &mut Keyboard,
    question: &Question,
    questions: &[Value],
) -> Result<Asked, Failure> {
    let paint = screen.paint();
    let mut answers = Map::new();
    for asked in questions {
        let text = asked.get("question").and_then(Value::as_str).unwrap_or_default();
        screen.aside(&format!("{} {}", paint.yellow("?"), paint.bold(&printable(text))))?;
        let labels: Vec<_> = asked
            .get("options")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|option| option.get("label").and_then(Value::as_str))
            .collect();
        for (index, label) in labels.iter().enumerate() {
            screen.aside(&format!("  {} {}", index + 1, printable(label)))?;
        }
        match line(screen, keyboard, "  A number, or in words: ").await? {
            Typed::Interrupt => return Ok(Asked::Interrupt),
            Typed::End => return Ok(Asked::End),
            Typed::Line(typed) => {
                answers.insert(text.to_owned(), Value::String(chosen(&typed, &labels)));
            }
        }
    }
    let mut input = question.input.clone();
    if let Some(input) = input.as_object_mut() {
        input.insert("answers".to_owned(), Value::Object(answers));
    }
    Ok(Asked::Answer(answer(Verdict::Allow, None, Some(input))))
}

/// The options whose numbers were typed, or the words.
fn chosen(typed: &str, labels: &[&str]) -> String {
    let numbers = typed.split([',', ' ']).filter(|part| !part.is_empty());
    let named: Option<Vec<&str>> =
        numbers.map(|number| labels.get(number.parse::<usize>().ok()?.checked_sub(1)?).copied()).collect();
    named.filter(|named| !named.is_empty()).map_or_else(|| typed.trim().to_owned(), |named| named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_decide() {
        let verdict = |text| parse(text).map(|answer| (answer.verdict, answer.message));
        assert_eq!(verdict(" Y "), Some((Verdict::Allow, None)));
        assert_eq!(verdict("always"), Some((Verdict::AllowForSession, None)));
        assert_eq!(verdict("n"), Some((Verdict::Deny, None)));
        assert_eq!(verdict("no, not there"), Some((Verdict::Deny, Some("not there".to_owned()))));
        // Not understood is asked again: a slip lets nothing through.
        assert_eq!([verdict(""), verdict("yes but"), verdict("ok")], [None, None, None]);
    }

    #[test]
    fn options_are_chosen_by_number_or_answered_in_words() {
        let labels = ["red", "blue"];
        assert_eq!(chosen("2", &labels), "blue");
        assert_eq!(chosen("1, 2", &labels), "red, blue");
        assert_eq!(chosen("3 ", &labels), "3");
        assert_eq!(chosen(" green ", &labels), "green");
    }
}
