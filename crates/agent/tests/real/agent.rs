//! A process and its driver.

use hostel_agent::{
    AgentDriver, AgentEvent, AgentKind, Block, BlockKind, Content, Launch, LaunchOptions, Meaning, Prompt,
    Request, Stream, TurnResult,
};
use hostel_testkit::{ModelOptions, ModelServer};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};

/// Where an agent works, and the model that it asks.
pub(crate) struct Place {
    pub(crate) model: ModelServer,
    pub(crate) workspace: TempDir,
    pub(crate) state: TempDir,
}

impl Place {
    pub(crate) async fn new() -> Self {
        let directory = || tempfile::Builder::new().prefix("hostel-agent-").tempdir().expect("a directory");
        let model = ModelServer::start(ModelOptions::default()).await.expect("a model");
        Self { model, workspace: directory(), state: directory() }
    }

    /// Options for the CLI; `None` where there is none.
    pub(crate) fn options(&self) -> Option<LaunchOptions> {
        let mut options = LaunchOptions {
            program: Some(super::binary::claude()?.display().to_string()),
            workspace: self.workspace.path().display().to_string(),
            state_directory: Some(self.state.path().display().to_string()),
            ..LaunchOptions::default()
        };
        for (name, value) in [
            ("ANTHROPIC_BASE_URL", self.model.url()),
            ("ANTHROPIC_API_KEY", "test".to_owned()),
            ("HOME", self.state.path().display().to_string()),
            ("CLAUDE_CODE_TMPDIR", self.state.path().display().to_string()),
        ] {
            options.env.insert(name.to_owned(), value);
        }
        Some(options)
    }

    /// How often the model was asked for an answer.
    pub(crate) fn asked(&self) -> usize {
        self.model.requests().iter().filter(|request| request.path == "/v1/messages").count()
    }

    /// The last request for an answer, as text.
    pub(crate) fn last_request(&self) -> String {
        let requests = self.model.requests();
        let last = requests.iter().rfind(|request| request.path == "/v1/messages").expect("a request");
        String::from_utf8_lossy(&last.body).into_owned()
    }
}

/// A process with its driver. After every read the driver is saved and restored, so that every test is one of that
/// too.
pub(crate) struct Agent {
    kind: AgentKind,
    pub(crate) driver: Box<dyn AgentDriver>,
    pub(crate) child: Child,
    stdin: Option<ChildStdin>,
    /// Bytes that the driver has not dealt with, of stdout and stderr.
    rest: [Vec<u8>; 2],
    /// How much of each was read.
    read: [u64; 2],
    stderr_ended: bool,
    pub(crate) events: Vec<AgentEvent>,
    /// Where the lines of stdout go, to look at them or to record them.
    record: Option<std::fs::File>,
}

impl Agent {
    pub(crate) fn start(kind: AgentKind, options: &LaunchOptions) -> Self {
        let (launch, driver) = kind.launch(options).expect("options");
        let child = spawn(&launch);
        Self::with(kind, driver, child)
    }

    pub(crate) fn claude(options: &LaunchOptions) -> Self {
        Self::start(AgentKind::Claude, options)
    }

    pub(crate) fn with(kind: AgentKind, driver: Box<dyn AgentDriver>, mut child: Child) -> Self {
        let stdin = child.stdin.take();
        let record = std::env::var_os("HOSTEL_RECORD").map(|directory| {
            let test = std::thread::current().name().unwrap_or("test").replace("::", "-");
            let file = PathBuf::from(directory).join(format!("{test}.jsonl"));
            std::fs::OpenOptions::new().create(true).append(true).open(file).expect("a file")
        });
        Self {
            kind,
            driver,
            child,
            stdin,
            rest: Default::default(),
            read: [0; 2],
            stderr_ended: false,
            events: Vec::new(),
            record,
        }
    }

    pub(crate) fn prompt(&mut self, text: &str) -> String {
        self.send(vec![Content::Text { text: text.to_owned() }])
    }

    pub(crate) fn send(&mut self, content: Vec<Content>) -> String {
        let uuid = uuid::Uuid::new_v4().to_string();
        self.ask(Request::Prompt(Prompt { uuid: uuid.clone(), content }));
        uuid
    }

    pub(crate) fn ask(&mut self, request: Request) {
        self.driver.request(request).expect("a request");
    }

    pub(crate) async fn write(&mut self) {
        let input = self.driver.take_input();
        if let Some(stdin) = &mut self.stdin {
            // Who has ended does not read; what it said before is told by its output.
            let _ = stdin.write_all(&input).await;
            let _ = stdin.flush().await;
            if self.driver.wants_end_of_input() {
                self.stdin = None;
            }
        }
    }

    /// Reads once. Whether there was anything.
    async fn step(&mut self) -> bool {
        self.write().await;
        let (mut out, mut err) = ([0; 7000], [0; 700]);
        let stdout = self.child.stdout.as_mut().expect("stdout");
        let stderr = self.child.stderr.as_mut().expect("stderr");
        let (stream, data) = tokio::select! {
            biased;
            count = stdout.read(&mut out) => (Stream::Stdout, &out[..count.expect("output")]),
            count = stderr.read(&mut err), if !self.stderr_ended => match count.expect("output") {
                0 => {
                    self.stderr_ended = true;
                    return true;
                }
                count => (Stream::Stderr, &err[..count]),
            },
        };
        if data.is_empty() {
            return false;
        }
        if let Some(file) = self.record.as_mut().filter(|_| stream == Stream::Stdout) {
            file.write_all(data).expect("a file");
        }
        let data = data.to_vec();
        self.take(stream, &data);
        self.write().await;
        true
    }

    fn take(&mut self, stream: Stream, data: &[u8]) {
        let index = usize::from(stream == Stream::Stderr);
        self.read[index] += data.len() as u64;
        self.rest[index].extend_from_slice(data);
        let bytes = self.rest[index].clone();
        self.events.extend(self.driver.output(stream, &bytes));
        let left = usize::try_from(self.read[index] - self.driver.consumed(stream)).expect("a length");
        self.rest[index] = bytes[bytes.len() - left..].to_vec();
        self.driver = self.kind.restore(&self.driver.save()).expect("what was saved");
    }

    /// Reads until something happened; gives where in the events.
    pub(crate) async fn until(&mut self, from: usize, what: impl Fn(&Meaning) -> bool) -> usize {
        let search = async {
            let mut seen = from;
            loop {
                while let Some(event) = self.events.get(seen) {
                    seen += 1;
                    if what(&event.meaning) {
                        return Some(seen - 1);
                    }
                }
                if !self.step().await {
                    return None;
                }
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(60), search).await;
        match found {
            Ok(Some(found)) => found,
            Ok(None) => panic!("the agent ended; events: {}", self.told(from)),
            Err(_) => panic!("it does not happen; events: {}", self.told(from)),
        }
    }

    fn told(&self, from: usize) -> String {
        let short = |event: &AgentEvent| format!("{:?}", event.meaning).chars().take(300).collect::<String>();
        let told: Vec<String> = self.events.iter().skip(from).map(short).collect();
        told.join("\n")
    }

    /// Reads until the agent is idle; gives the results since `from`, and where it is idle.
    pub(crate) async fn idle(&mut self, from: usize) -> (Vec<TurnResult>, usize) {
        let idle = self.until(from, |meaning| matches!(meaning, Meaning::Idle)).await;
        let results = self.events[from..=idle].iter().filter_map(|event| match &event.meaning {
            Meaning::Result(result) => Some(result.clone()),
            _ => None,
        });
        (results.collect(), idle + 1)
    }

    /// One turn; gives its result.
    pub(crate) async fn turn(&mut self, text: &str) -> TurnResult {
        let from = self.events.len();
        self.prompt(text);
        let (mut results, _) = self.idle(from).await;
        assert_eq!(results.len(), 1, "{}", self.told(from));
        results.remove(0)
    }

    /// The answer to a request.
    pub(crate) async fn answered(&mut self, id: &str) -> Result<serde_json::Value, String> {
        let at =
            self.until(0, |meaning| matches!(meaning, Meaning::Answered { id: of, .. } if of == id)).await;
        match &self.events[at].meaning {
            Meaning::Answered { result, .. } => result.clone(),
            _ => unreachable!(),
        }
    }

    /// Reads to the end of the process; gives its code.
    pub(crate) async fn end(&mut self) -> Option<i32> {
        tokio::time::timeout(Duration::from_secs(60), async { while self.step().await {} })
            .await
            .expect("the process ends");
        let mut complaints = Vec::new();
        let stderr = self.child.stderr.as_mut().expect("stderr");
        stderr.read_to_end(&mut complaints).await.expect("output");
        if !complaints.is_empty() {
            self.take(Stream::Stderr, &complaints);
        }
        let code = self.child.wait().await.expect("a status").code();
        self.events.extend(self.driver.exited(code));
        code
    }

    /// All blocks that were completed, of the main conversation.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let main = self.events.iter().filter(|event| event.subagent.is_none());
        main.filter_map(|event| match &event.meaning {
            Meaning::BlockComplete(block) => Some(block.clone()),
            _ => None,
        })
        .collect()
    }

    /// What the agent said.
    pub(crate) fn texts(&self) -> Vec<String> {
        let texts = self.blocks().into_iter().filter_map(|block| match block.kind {
            BlockKind::AssistantText { text } => Some(text),
            _ => None,
        });
        texts.collect()
    }

    pub(crate) fn count(&self, what: impl Fn(&Meaning) -> bool) -> usize {
        self.events.iter().filter(|event| what(&event.meaning)).count()
    }
}

/// Starts a process as it was said.
pub(crate) fn spawn(launch: &Launch) -> Child {
    let mut command = Command::new(&launch.argv[0]);
    command.args(&launch.argv[1..]).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").envs(&launch.env);
    if let Some(directory) = &launch.cwd {
        command.current_dir(directory);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().expect("a process")
}
