//! Processes: starting without attaching, listing, signalling, waiting. Attaching is in [`crate::exec`].

use crate::client::Client;
use crate::convert;
use crate::error::Result;
use crate::model::Process;
use crate::page;
use hostel_proto::v1;
use hostel_sandbox::process::{ProcessSpec, TerminalSize};
use hostel_sandbox::{ProcessId, SandboxId};
use std::time::Duration;

/// What to start, without attaching to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartProcess {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// Makes the call repeatable. Absent: each call starts a process.
    pub request_id: Option<String>,
    /// The program.
    pub spec: ProcessSpec,
}

impl Client {
    /// Starts a process that goes on by itself.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] before anything is sent, else the daemon's refusal.
    pub async fn start_process(&self, start: StartProcess) -> Result<Process> {
        start.spec.validate()?;
        let request = v1::StartProcessRequest {
            sandbox_id: start.sandbox.to_string(),
            request_id: start.request_id.unwrap_or_default(),
            process_id: start.spec.id.as_ref().map(ToString::to_string).unwrap_or_default(),
            spec: Some(convert::process_spec(&start.spec)),
        };
        let response = self.processes().start_process(request).await.map_err(convert::error)?;
        convert::process(convert::required(response.into_inner().process, "the process")?)
    }

    /// Tells about a process.
    ///
    /// # Errors
    /// The daemon's refusal, `NOT_FOUND` when there is none such.
    pub async fn get_process(&self, sandbox: &SandboxId, process: &ProcessId) -> Result<Process> {
        let request =
            v1::GetProcessRequest { sandbox_id: sandbox.to_string(), process_id: process.to_string() };
        let response = self.processes().get_process(request).await.map_err(convert::error)?;
        convert::process(convert::required(response.into_inner().process, "the process")?)
    }

    /// Lists the processes of a sandbox that were started through the API, oldest first, all pages.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn list_processes(&self, sandbox: &SandboxId) -> Result<Vec<Process>> {
        let mut processes = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListProcessesRequest {
                sandbox_id: sandbox.to_string(),
                page_size: 1000,
                page_token: page_token.clone(),
                states: Vec::new(),
            };
            let response =
                self.processes().list_processes(request).await.map_err(convert::error)?.into_inner();
            for process in response.processes {
                processes.push(convert::process(process)?);
            }
            if !page::turn(&mut page_token, response.next_page_token)? {
                return Ok(processes);
            }
        }
    }

    /// Sends a signal, 1 to 64, to the process group of a running process.
    ///
    /// # Errors
    /// The daemon's refusal, `PROCESS_ENDED` when it has ended.
    pub async fn signal_process(&self, sandbox: &SandboxId, process: &ProcessId, signal: i32) -> Result<()> {
        let request = v1::SignalProcessRequest {
            sandbox_id: sandbox.to_string(),
            process_id: process.to_string(),
            signal,
        };
        self.processes().signal_process(request).await.map_err(convert::error)?;
        Ok(())
    }

    /// Kills every process of a sandbox, those that others started inside it included. The sandbox stays.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn kill_all_processes(&self, sandbox: &SandboxId) -> Result<()> {
        let request = v1::KillAllProcessesRequest { sandbox_id: sandbox.to_string() };
        self.processes().kill_all_processes(request).await.map_err(convert::error)?;
        Ok(())
    }

    /// Changes the size of the terminal of a running process.
    ///
    /// # Errors
    /// The daemon's refusal, `NO_TERMINAL` when it has none.
    pub async fn resize_terminal(
        &self,
        sandbox: &SandboxId,
        process: &ProcessId,
        size: TerminalSize,
    ) -> Result<()> {
        let request = v1::ResizeTerminalRequest {
            sandbox_id: sandbox.to_string(),
            process_id: process.to_string(),
            size: Some(convert::terminal_size(size)),
        };
        self.processes().resize_terminal(request).await.map_err(convert::error)?;
        Ok(())
    }

    /// Waits until a process has ended, at most for `timeout`, and tells about it.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn wait_process(
        &self,
        sandbox: &SandboxId,
        process: &ProcessId,
        timeout: Option<Duration>,
    ) -> Result<Process> {
        let request = v1::WaitProcessRequest {
            sandbox_id: sandbox.to_string(),
            process_id: process.to_string(),
            timeout: timeout.map(convert::duration_to_wire),
        };
        let response = self.processes().wait_process(request).await.map_err(convert::error)?;
        convert::process(convert::required(response.into_inner().process, "the process")?)
    }
}
