"""A client of hostel.v1 that shares nothing with ours but the .proto files.

usage: client.py ADDRESS, as gRPC spells it: unix:///path or 127.0.0.1:port
"""

import queue
import sys

import grpc
from hostel.v1 import attachment_pb2 as attachment
from hostel.v1 import file_pb2, process_pb2
from hostel.v1 import file_service_pb2 as files
from hostel.v1 import file_service_pb2_grpc as files_grpc
from hostel.v1 import process_service_pb2 as processes
from hostel.v1 import process_service_pb2_grpc as processes_grpc
from hostel.v1 import sandbox_pb2
from hostel.v1 import sandbox_service_pb2 as sandboxes
from hostel.v1 import sandbox_service_pb2_grpc as sandboxes_grpc

TIMEOUT = 30


class Requests:
    """Messages of a stream, sent as they are put in."""

    def __init__(self, *first):
        self.waiting = queue.SimpleQueue()
        for message in first:
            self.waiting.put(message)

    def put(self, message):
        self.waiting.put(message)

    def end(self):
        self.waiting.put(None)

    def __iter__(self):
        return iter(self.waiting.get, None)


def refused(code, call, request):
    """The refusal of a call, which must have this code."""
    try:
        call(request, timeout=TIMEOUT)
    except grpc.RpcError as error:
        assert error.code() == code, error
        return error
    raise AssertionError(f"{request} was taken")


def execute(stub, sandbox):
    """Talks to a process: what it says depends on what it hears."""
    start = processes.StartProcessRequest(
        sandbox_id=sandbox,
        spec=process_pb2.ProcessSpec(
            command=["sh", "-c", "while read line; do echo heard $line; done; echo over >&2; exit 4"], stdin=True
        ),
    )
    requests = Requests(processes.ExecProcessRequest(open=processes.ExecOpen(start=start)))
    said = {process_pb2.OUTPUT_STREAM_STDOUT: b"", process_pb2.OUTPUT_STREAM_STDERR: b""}
    offset, lines, exit_status = 0, [b"one\n", b"two\n", b"three\n"], None

    def speak():
        nonlocal offset
        if lines:
            line = lines.pop(0)
            data = attachment.StdinData(offset=offset, data=line)
            offset += len(line)
            requests.put(processes.ExecProcessRequest(input=attachment.ProcessInput(stdin=data)))
        else:
            end = attachment.ProcessInput(close_stdin=attachment.StdinEnd())
            requests.put(processes.ExecProcessRequest(input=end))

    for response in stub.ExecProcess(iter(requests), timeout=TIMEOUT):
        kind = response.event.WhichOneof("event")
        assert exit_status is None, "something came after the end"
        if kind == "opened":
            assert response.event.opened.process.state == process_pb2.PROCESS_STATE_RUNNING
            speak()
        elif kind == "output":
            output = response.event.output
            assert output.offset == len(said[output.stream])
            said[output.stream] += output.data
            if output.stream == process_pb2.OUTPUT_STREAM_STDOUT and output.data.endswith(b"\n"):
                speak()
        elif kind == "exited":
            exit_status = response.event.exited
    requests.end()
    assert list(said.values()) == [b"heard one\nheard two\nheard three\n", b"over\n"], said
    assert exit_status.reason == process_pb2.EXIT_REASON_EXITED and exit_status.exit_code == 4, exit_status


def write(stub, sandbox, path, content):
    """Writes a file in pieces."""

    def frames():
        yield files.WriteFileRequest(open=files.WriteFileOpen(sandbox_id=sandbox, path=path, create_parents=True))
        for start in range(0, len(content), 100_000):
            yield files.WriteFileRequest(data=content[start : start + 100_000])

    response = stub.WriteFile(frames(), timeout=TIMEOUT)
    assert response.bytes_written == response.info.size_bytes == len(content), response


def read(stub, sandbox, path, **part):
    """Reads a file or a part of it."""
    frames = list(stub.ReadFile(files.ReadFileRequest(sandbox_id=sandbox, path=path, **part), timeout=TIMEOUT))
    assert frames[0].info.path == path
    return b"".join(frame.data for frame in frames[1:])


def use_files(stub, sandbox):
    """Files go in and come out, and changes are told."""
    watch = stub.WatchFiles(
        files.WatchFilesRequest(sandbox_id=sandbox, path="/workspace", recursive=True), timeout=TIMEOUT
    )
    assert next(watch).event.kind == file_pb2.FILE_EVENT_KIND_WATCHING
    content = bytes(range(256)) * 4001
    write(stub, sandbox, "/workspace/data", content)
    paths = (response.event.path for response in watch)
    assert "/workspace/data" in paths
    watch.cancel()
    assert read(stub, sandbox, "/workspace/data") == content
    assert read(stub, sandbox, "/workspace/data", offset=1000, length=5) == content[1000:1005]
    listed = stub.ListFiles(files.ListFilesRequest(sandbox_id=sandbox, path="/workspace"), timeout=TIMEOUT)
    assert [entry.path for entry in listed.files] == ["/workspace/data"], listed
    stub.RemoveFile(files.RemoveFileRequest(sandbox_id=sandbox, path="/workspace/data"), timeout=TIMEOUT)
    gone = files.StatFileRequest(sandbox_id=sandbox, path="/workspace/data")
    refused(grpc.StatusCode.NOT_FOUND, stub.StatFile, gone)


def main(address):
    with grpc.insecure_channel(address) as channel:
        sandbox_stub = sandboxes_grpc.SandboxServiceStub(channel)
        watch = sandbox_stub.WatchSandboxes(sandboxes.WatchSandboxesRequest(), timeout=TIMEOUT)
        assert next(watch).WhichOneof("item") == "bookmark"
        create = sandboxes.CreateSandboxRequest(request_id="python-1", labels={"from": "python"}, env={"A": "b"})
        made = sandbox_stub.CreateSandbox(create, timeout=TIMEOUT).sandbox
        assert made.state == sandbox_pb2.SANDBOX_STATE_READY, made
        assert sandbox_stub.CreateSandbox(create, timeout=TIMEOUT).sandbox.id == made.id
        create.labels["from"] = "elsewhere"
        error = refused(grpc.StatusCode.ALREADY_EXISTS, sandbox_stub.CreateSandbox, create)
        details = dict(error.trailing_metadata())["grpc-status-details-bin"]
        assert b"request_id_reused" in details and b"hostel" in details, details

        execute(processes_grpc.ProcessServiceStub(channel), made.id)
        use_files(files_grpc.FileServiceStub(channel), made.id)

        sandbox_stub.DeleteSandbox(sandboxes.DeleteSandboxRequest(sandbox_id=made.id), timeout=TIMEOUT)
        get = sandboxes.GetSandboxRequest(sandbox_id=made.id)
        refused(grpc.StatusCode.NOT_FOUND, sandbox_stub.GetSandbox, get)
        kinds = []
        for response in watch:
            if response.WhichOneof("item") == "event" and response.event.sandbox_id == made.id:
                kinds.append(response.event.kind)
                if response.event.kind == sandbox_pb2.SANDBOX_EVENT_KIND_DELETED:
                    break
        watch.cancel()
        assert kinds[0] == sandbox_pb2.SANDBOX_EVENT_KIND_CREATED, kinds
    print("all is well")


if __name__ == "__main__":
    main(sys.argv[1])
