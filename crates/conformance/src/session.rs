//! An attachment under observation: every rule about its order and offsets is checked as it is read.

use crate::failure::{Failure, Outcome, ensure, ensure_eq};
use crate::patience::patience;
use bytes::Bytes;
use hostel_sandbox::process::{
    AttachOptions, Attachment, ExitReason, ExitStatus, Input, MAX_CHUNK, Output, OutputStream, ProcessInfo,
};
use std::ops::Range;
use tokio::sync::mpsc;

/// Waits for something at most as long as [`patience`] says.
#[track_caller]
pub(crate) fn patiently<T>(
    what: impl Into<String>,
    future: impl Future<Output = T>,
) -> impl Future<Output = Outcome<T>> {
    let patience = patience();
    let late = Failure::new(format!("{} took more than {} s", what.into(), patience.as_secs()));
    async move { tokio::time::timeout(patience, future).await.map_err(|_| late) }
}

/// Everything that a process left, once it ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Bytes of standard output that were read.
    pub stdout: Vec<u8>,
    /// Bytes of standard error that were read.
    pub stderr: Vec<u8>,
    /// Ranges that were no longer held.
    pub gaps: Vec<(OutputStream, Range<u64>)>,
    /// How it ended.
    pub exit: ExitStatus,
    /// The process, as it was when it was attached to.
    pub process: ProcessInfo,
}

impl Finished {
    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn complaint(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The exit code, if it returned.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.exit.code.filter(|_| self.exit.reason == ExitReason::Exited)
    }

    /// Itself, if it returned 0.
    ///
    /// # Errors
    /// With what it printed.
    #[track_caller]
    pub fn success(self) -> Outcome<Self> {
        if self.code() == Some(0) && self.gaps.is_empty() {
            return Ok(self);
        }
        let tail = |text: String| {
            text.chars().rev().take(400).collect::<Vec<_>>().into_iter().rev().collect::<String>()
        };
        Err(Failure::new(format!(
            "{:?} ended with {:?}, gaps {:?}, stdout {:?}, stderr {:?}",
            self.process.argv,
            self.exit,
            self.gaps,
            tail(self.text()),
            tail(self.complaint())
        )))
    }
}

/// The writing side of an attachment.
#[derive(Debug)]
pub struct Stdin {
    input: mpsc::Sender<Input>,
    /// Offset of the next byte of standard input.
    pub offset: u64,
}

impl Stdin {
    /// Writes bytes, in pieces, and waits while the process does not read.
    ///
    /// # Errors
    /// Where the attachment is gone.
    pub async fn send(&mut self, data: impl Into<Bytes>) -> Outcome {
        let mut data: Bytes = data.into();
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(64 << 10));
            let length = piece.len() as u64;
            self.input(Input::Stdin { offset: self.offset, data: piece }).await?;
            self.offset += length;
        }
        Ok(())
    }

    /// Ends standard input.
    ///
    /// # Errors
    /// Where the attachment is gone.
    pub async fn close(&self) -> Outcome {
        self.input(Input::CloseStdin).await
    }

    /// Sends anything.
    ///
    /// # Errors
    /// Where the attachment is gone.
    pub async fn input(&self, input: Input) -> Outcome {
        let sent = patiently("sending input", self.input.send(input)).await?;
        sent.map_err(|_| Failure::new("the attachment takes no input any more"))
    }

    /// Writes all and ends, and does not mind a process that ended before it read everything.
    pub async fn send_all(mut self, data: impl Into<Bytes>) {
        if self.send(data).await.is_ok() {
            let _ = self.close().await;
        }
        // The channel stays open until the reader is done: closing it is no end of standard input.
        self.input.closed().await;
    }
}

/// The reading side of an attachment.
#[derive(Debug)]
pub struct Reader {
    output: mpsc::Receiver<hostel_sandbox::Result<Output>>,
    next: [Option<u64>; 2],
    /// The process, as it was when it was attached to.
    pub process: ProcessInfo,
    /// Bytes of standard output so far.
    pub stdout: Vec<u8>,
    /// Bytes of standard error so far.
    pub stderr: Vec<u8>,
    /// Ranges that were no longer held, so far.
    pub gaps: Vec<(OutputStream, Range<u64>)>,
    /// Standard input that was accepted, so far.
    pub accepted: u64,
    exit: Option<ExitStatus>,
}

fn index(stream: OutputStream) -> usize {
    match stream {
        OutputStream::Stdout => 0,
        OutputStream::Stderr => 1,
    }
}

impl Reader {
    /// The next event, with every rule checked that can be checked on it.
    ///
    /// # Errors
    /// Where the attachment broke or broke a rule.
    pub async fn next(&mut self) -> Outcome<Output> {
        ensure!(self.exit.is_none(), "read after the exit");
        let Some(output) = patiently("the next output", self.output.recv()).await? else {
            return Err(Failure::new("the attachment ended without an exit and without an error"));
        };
        let output = output?;
        match &output {
            Output::Opened(_) => return Err(Failure::new("opened twice")),
            Output::Data { stream, offset, data } => {
                ensure!(!data.is_empty() && data.len() <= MAX_CHUNK, "a piece of {} bytes", data.len());
                let next = &mut self.next[index(*stream)];
                ensure!(next.is_none_or(|next| next == *offset), "{stream:?} at {offset}, expected {next:?}");
                *next = Some(offset + data.len() as u64);
            }
            Output::Gap { stream, missing } => {
                ensure!(!missing.is_empty(), "an empty gap {missing:?}");
                let next = &mut self.next[index(*stream)];
                ensure!(next.is_none_or(|next| next == missing.start), "gap {missing:?}, expected {next:?}");
                *next = Some(missing.end);
                self.gaps.push((*stream, missing.clone()));
            }
            Output::StdinAccepted { offset } => {
                ensure!(*offset >= self.accepted, "accepted {offset} after {}", self.accepted);
                self.accepted = *offset;
            }
            Output::Exited(exit) => {
                self.exit = Some(exit.clone());
                let after = patiently("the end after the exit", self.output.recv()).await?;
                ensure!(after.is_none(), "after the exit came {after:?}");
                check_exit(exit)?;
            }
        }
        Ok(output)
    }

    /// Reads to the end and keeps everything.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn finish(mut self) -> Outcome<Finished> {
        let exit = loop {
            match self.next().await? {
                Output::Exited(exit) => break exit,
                output => self.keep(output),
            }
        };
        Ok(Finished {
            stdout: self.stdout,
            stderr: self.stderr,
            gaps: self.gaps,
            exit,
            process: self.process,
        })
    }

    /// Reads to the end, gives every piece to `check` and keeps none.
    ///
    /// # Errors
    /// As [`Self::next`], and what `check` says.
    pub async fn finish_with(
        mut self,
        mut check: impl FnMut(OutputStream, u64, &[u8]) -> Outcome,
    ) -> Outcome<Finished> {
        loop {
            match self.next().await? {
                Output::Exited(exit) => {
                    let (stdout, stderr) = (self.stdout, self.stderr);
                    return Ok(Finished { stdout, stderr, gaps: self.gaps, exit, process: self.process });
                }
                Output::Data { stream, offset, data } => check(stream, offset, &data)?,
                _ => {}
            }
        }
    }

    /// Reads until standard output holds a text.
    ///
    /// # Errors
    /// As [`Self::next`], or where the process ended before.
    pub async fn until(&mut self, text: &str) -> Outcome {
        while !String::from_utf8_lossy(&self.stdout).contains(text) {
            match self.next().await? {
                Output::Exited(exit) => {
                    let seen = String::from_utf8_lossy(&self.stdout).into_owned();
                    let error = String::from_utf8_lossy(&self.stderr).into_owned();
                    return Err(Failure::new(format!(
                        "ended with {exit:?} before it wrote {text:?}; stdout {seen:?}, stderr {error:?}"
                    )));
                }
                output => self.keep(output),
            }
        }
        Ok(())
    }

    fn keep(&mut self, output: Output) {
        if let Output::Data { stream, data, .. } = output {
            match stream {
                OutputStream::Stdout => self.stdout.extend_from_slice(&data),
                OutputStream::Stderr => self.stderr.extend_from_slice(&data),
            }
        }
    }
}

/// Reason, code and signal must agree.
fn check_exit(exit: &ExitStatus) -> Outcome {
    match exit.reason {
        ExitReason::Exited => {
            ensure!(
                exit.code.is_some_and(|code| (0..=255).contains(&code)),
                "exited without a code: {exit:?}"
            );
            ensure_eq!(exit.signal, None);
        }
        ExitReason::Signaled | ExitReason::OutOfMemory => {
            ensure!(exit.signal.is_some_and(|signal| (1..=64).contains(&signal)), "no signal: {exit:?}");
            ensure_eq!(exit.code, None);
        }
        ExitReason::TimedOut | ExitReason::SandboxGone => {}
    }
    Ok(())
}

/// Both sides of an attachment.
#[derive(Debug)]
pub struct Session {
    /// To the process.
    pub stdin: Stdin,
    /// From the process.
    pub reader: Reader,
}

impl Session {
    /// Takes an attachment that was asked for with those options, and its first event.
    ///
    /// # Errors
    /// Where the first event is not that it opened.
    pub async fn open(mut attachment: Attachment, options: &AttachOptions) -> Outcome<Self> {
        let process = match patiently("opening", attachment.output.recv()).await? {
            Some(Ok(Output::Opened(process))) => process,
            Some(Err(error)) => return Err(error.into()),
            other => return Err(Failure::new(format!("the first event is {other:?}"))),
        };
        let reader = Reader {
            output: attachment.output,
            next: [options.stdout_from, options.stderr_from],
            process,
            stdout: Vec::new(),
            stderr: Vec::new(),
            gaps: Vec::new(),
            accepted: 0,
            exit: None,
        };
        Ok(Self { stdin: Stdin { input: attachment.input, offset: 0 }, reader })
    }

    /// Writes all to standard input and reads all output, at the same time.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub async fn talk(self, data: impl Into<Bytes>) -> Outcome<Finished> {
        let Self { stdin, reader } = self;
        let mut reading = std::pin::pin!(reader.finish());
        tokio::select! {
            biased;
            finished = &mut reading => finished,
            () = stdin.send_all(data) => reading.await,
        }
    }

    /// Reads to the end, with the writing side kept open.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub async fn finish(self) -> Outcome<Finished> {
        let Self { stdin, reader } = self;
        let finished = reader.finish().await;
        drop(stdin);
        finished
    }
}
