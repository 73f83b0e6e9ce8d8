//! What people type: with line editing where there is a terminal, plain lines where there is none.

use crate::failure::Failure;
use crate::terminal;
use rustyline::completion::Completer;
use rustyline::config::Behavior;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{
    Cmd, CompletionType, Config, Context, Editor, EventHandler, Helper, KeyCode, KeyEvent, Modifiers,
};
use rustyline::{highlight::Highlighter, hint::Hinter};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};
use tokio::task::JoinHandle;

/// Lines of history that are kept.
const HISTORY: usize = 1000;

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Typed {
    /// A line, or several.
    Line(String),
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D, or the end of stdin.
    End,
}

/// Where it is typed.
pub(crate) enum Keyboard {
    /// A terminal, with line editing and history.
    Terminal(Box<Console>),
    /// Anything else: one line after the other.
    Lines(Lines<BufReader<Stdin>>),
}

impl Keyboard {
    /// Where stdin is. `commands` are completed by Tab.
    ///
    /// # Errors
    /// When the terminal cannot be used.
    pub(crate) fn open(commands: &'static [&'static str]) -> Result<Self, Failure> {
        if terminal::stdin_is_terminal() {
            return Ok(Self::Terminal(Box::new(Console::open(commands)?)));
        }
        Ok(Self::Lines(BufReader::new(tokio::io::stdin()).lines()))
    }

    /// Whether somebody sits there.
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// Asks for a line. Cancel safe: what is typed for a question that nobody waits for any more is thrown away, and
    /// the next question waits for that.
    ///
    /// # Errors
    /// When nothing can be read.
    pub(crate) async fn line(&mut self, prompt: &str, remember: bool) -> Result<Typed, Failure> {
        match self {
            Self::Terminal(console) => console.line(prompt, remember).await,
            Self::Lines(lines) => match lines.next_line().await {
                Ok(Some(line)) => Ok(Typed::Line(line)),
                Ok(None) => Ok(Typed::End),
                Err(error) => Err(Failure::other("STDIN", format!("cannot read stdin: {error}"))),
            },
        }
    }
}

type Reading = JoinHandle<(LineEditor, Result<Typed, Failure>)>;
type LineEditor = Editor<Commands, FileHistory>;

/// A terminal with somebody in front of it.
pub(crate) struct Console {
    /// Not here while a line is being read.
    editor: Option<LineEditor>,
    reading: Option<Reading>,
    /// Whether what is being read is for a question that was given up.
    stale: bool,
    history: Option<PathBuf>,
}

impl Console {
    fn open(commands: &'static [&'static str]) -> Result<Self, Failure> {
        let failed =
            |error: ReadlineError| Failure::other("TERMINAL", format!("cannot use the terminal: {error}"));
        // What is typed is shown to whoever types; another stdout is for the agent's words alone.
        let behavior = if terminal::stdout_is_terminal() { Behavior::Stdio } else { Behavior::PreferTerm };
        let config = Config::builder()
            .behavior(behavior)
            .completion_type(CompletionType::List)
            .max_history_size(HISTORY)
            .and_then(|config| config.history_ignore_dups(true))
            .map_err(failed)?
            .bracketed_paste(true)
            .build();
        let mut editor = LineEditor::with_config(config).map_err(failed)?;
        editor.set_helper(Some(Commands(commands)));
        let newline = EventHandler::Simple(Cmd::Newline);
        editor.bind_sequence(KeyEvent(KeyCode::Enter, Modifiers::ALT), newline);
        let history = history_file();
        if let Some(path) = &history {
            // The first time there is none.
            let _ = editor.load_history(path);
        }
        Ok(Self { editor: Some(editor), reading: None, stale: false, history })
    }

    async fn line(&mut self, prompt: &str, remember: bool) -> Result<Typed, Failure> {
        loop {
            let Some(reading) = &mut self.reading else {
                let Some(editor) = self.editor.take() else {
                    return Err(Failure::other("TERMINAL", "the line editor is gone"));
                };
                let prompt = prompt.to_owned();
                self.reading = Some(tokio::task::spawn_blocking(move || read(editor, &prompt)));
                // Until somebody takes the line it may be given up.
                self.stale = false;
                continue;
            };
            if self.stale {
                let done = reading.await;
                self.back(done)?;
                continue;
            }
            // Where we are dropped here the line is for nobody.
            self.stale = true;
            let done = reading.await;
            self.stale = false;
            let typed = self.back(done)?;
            if let (true, Typed::Line(line)) = (remember, &typed) {
                self.remember(line);
            }
            return Ok(typed);
        }
    }

    /// Has the editor back after a line.
    fn back(
        &mut self,
        done: Result<(LineEditor, Result<Typed, Failure>), tokio::task::JoinError>,
    ) -> Result<Typed, Failure> {
        self.reading = None;
        self.stale = false;
        let (editor, typed) =
            done.map_err(|error| Failure::other("TERMINAL", format!("the line editor failed: {error}")))?;
        self.editor = Some(editor);
        typed
    }

    fn remember(&mut self, line: &str) {
        let Some(editor) = &mut self.editor else { return };
        if line.trim().is_empty() || !matches!(editor.add_history_entry(line), Ok(true)) {
            return;
        }
        if let Some(path) = &self.history {
            // A history that cannot be kept is no reason to stop talking.
            let _ = editor.append_history(path);
        }
    }
}

fn read(mut editor: LineEditor, prompt: &str) -> (LineEditor, Result<Typed, Failure>) {
    let typed = match editor.readline(prompt) {
        Ok(line) => Ok(Typed::Line(line.replace("\\\n", "\n"))),
        Err(ReadlineError::Interrupted) => Ok(Typed::Interrupt),
        Err(ReadlineError::Eof) => Ok(Typed::End),
        Err(error) => Err(Failure::other("TERMINAL", format!("cannot read a line: {error}"))),
    };
    (editor, typed)
}

/// Where the history is, by the XDG base directories: readable by its owner only.
fn history_file() -> Option<PathBuf> {
    use std::os::unix::fs::DirBuilderExt as _;
    let given = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
    let directory = given.or_else(home)?.join("hostel");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).ok()?;
    Some(directory.join("chat_history"))
}

/// Completes commands, and knows when a line goes on.
struct Commands(&'static [&'static str]);

impl Completer for Commands {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..position).unwrap_or_default();
        let fits = self.0.iter().filter(|command| !typed.is_empty() && command.starts_with(typed));
        Ok((0, fits.map(ToString::to_string).collect()))
    }
}

impl Validator for Commands {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let goes_on = context.input().ends_with('\\');
        Ok(if goes_on { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

impl Hinter for Commands {
    type Hint = String;
}

impl Highlighter for Commands {}

impl Helper for Commands {}
