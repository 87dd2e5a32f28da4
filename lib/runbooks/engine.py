"""A papermill engine under which a notebook says truly how far its run came, and why it ended.

Papermill's own marks every cell that never ran as completed when the kernel dies, a cell takes too long or somebody
presses Ctrl-C, and writes in place. Here one coroutine starts the kernel, sends the cells and ends the kernel,
whatever happens; then the ending is written down once, and nothing touches the file after that.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty
from typing import Any

import nbformat
import papermill
from jupyter_client import AsyncKernelManager
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, NotebookExecutionManager, papermill_engines
from papermill.iorw import LocalHandler, papermill_io
from papermill.log import logger

from runbooks.disclosure import folder_for_sockets
from runbooks.errors import UsageError
from runbooks.keeper import MIME, Ending, Interrupted, Keeper, NoKeeper, Reason
from runbooks.output_file import OutputFile
from runbooks.presence import SESSION

NAME = "runbooks.run"  # as `runbooks run` calls it; the plug-in's name is `runbooks`

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHARE = 0.1  # of the run time that writing the notebook may take
_GRACE_S = 2  # in which an interrupted cell may say where it was
_IOPUB_TIMEOUT_S = 60  # for what a cell has put out already; a large output takes its time on a busy machine
_NOTE_SIZE = 1024  # of what is said in place of an output, for one cell or two
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class CellFailed(papermill.PapermillExecutionError):  # type: ignore[misc]
    """A cell raised, or called a command that failed.

    Args:
        cell: its id.
        facts: what papermill's own exception holds.
    """

    def __init__(self, cell: str, **facts: Any) -> None:
        super().__init__(**facts)
        self.cell = cell

    def __str__(self) -> str:
        return f"the cell {self.cell} failed\n{super().__str__().strip()}"


class CellTimedOut(TimeoutError):
    """A cell took longer than it may."""


class KernelDied(DeadKernelError):  # type: ignore[misc]
    """The kernel's process ended while it was needed; papermill's command line exits with 138."""


class _Refused(Exception):
    """The keeper raised, which is this exception's cause."""


def execute(
    source: Path, target: Path, parameters: Mapping[str, Any], *, keeper: Keeper | None = None, **options: Any
) -> None:
    """Execute a notebook in a kernel of its own.

    Args:
        source: the notebook.
        target: where the executed one is written; there must be none yet.
        parameters: names and values, as they go into the notebook.
        keeper: who keeps the record.
        options: more arguments of ``papermill.execute_notebook``.

    Raises:
        UsageError: the target cannot be written or is there already; nothing was run.
        CellFailed: a cell raised, or called a command that failed.
        CellTimedOut: a cell took longer than it may.
        KernelDied: the kernel's process ended.
        OSError: the notebook could not be written; what was written before is still there.
        Interrupted: a signal asked this process to end.
        Exception: whatever the keeper raised.
    """
    papermill.execute_notebook(
        _literal(source),
        _literal(target),
        parameters=dict(parameters),
        engine_name=NAME,
        kernel_name="python3",
        progress_bar=False,
        keeper=keeper,
        **options,
    )


def _literal(path: Path) -> str:
    """A path that papermill's ``str.format`` leaves as it is."""
    return str(path).replace("{", "{{").replace("}", "}}")


class RunbookEngine(Engine):  # type: ignore[misc]
    """What papermill calls."""

    @classmethod
    def execute_notebook(
        cls,
        nb: Any,
        kernel_name: str,
        output_path: str | None = None,  # noqa: ARG003 - None under --no-request-save-on-cell-execute
        progress_bar: bool | dict[str, Any] = True,
        log_output: bool = False,
        autosave_cell_every: int = 0,  # noqa: ARG003 - the share of the run time decides
        *,
        keeper: Keeper | None = None,
        **options: Any,
    ) -> Any:
        """Execute a notebook; see ``execute``."""
        keeper = keeper or NoKeeper()
        target = nb.metadata.papermill["output_path"]
        state = _State(nb, OutputFile(_local(target)), log_output=log_output, progress_bar=progress_bar)
        with _Signals() as signals:
            client = _Client(state, keeper, signals, **_traits(kernel_name, log_output, **options))
            state.notebook_start()
            error = _kept(client, state, keeper)
        if error is not None:
            raise error
        if signals.received:  # too late to stop this run, not too late for what would follow it
            raise Interrupted(signals.received)
        papermill_io.register(target, _Sealed(target))
        return nb


papermill_engines.register(NAME, RunbookEngine)


def _local(target: str | None) -> Path:
    """The output's path on this machine, as seen from where papermill was started."""
    handler = papermill_io.get_handler(target)
    if not target or not isinstance(handler, LocalHandler):
        said = "a record is kept in a file on this machine"
        raise UsageError(
            f"writing the executed notebook to {target or 'nowhere'}", said, "name a file; nothing was run"
        )
    return Path(handler._cwd or ".", target).absolute()


def _traits(
    kernel_name: str,
    log_output: bool,
    start_timeout: int = 60,
    execution_timeout: int | None = None,
    input_path: object = None,  # noqa: ARG001 - papermill gives it to every engine
    **more: Any,
) -> dict[str, Any]:
    return {
        "iopub_timeout": _IOPUB_TIMEOUT_S,
        **more,
        "kernel_name": kernel_name,
        "log": logger,
        "log_output": log_output,
        "startup_timeout": start_timeout,
        "timeout": execution_timeout,
        "force_raise_errors": True,  # a tag cannot make a failure of a success
    }


class _Sealed:
    """Takes the one write that papermill makes after its engine: the file is final already, and perhaps signed."""

    def __init__(self, target: str) -> None:
        self._entry = (target, self)

    def write(self, content: str, path: str) -> None:  # noqa: ARG002
        papermill_io._handlers.remove(self._entry)

    def pretty_path(self, path: str) -> str:
        return path


# --- signals -----------------------------------------------------------------------------------------------------


class _Signals:
    """Keeps a signal from ending the process before its kernel has ended and its record is written.

    A handler that raised would do so anywhere, also in the middle of a write; this one cancels the coroutine, which
    stops where it waits. A second signal changes nothing: what is left to do is short. An ignored signal stays ignored
    (nohup), and outside of the main thread the process's own handlers stay.
    """

    def __init__(self) -> None:
        self.received = 0
        self.cancel: Callable[[], object] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, signum: int, _: object) -> None:
        if not self.received:
            self.received = signum
            if self.cancel:
                self.cancel()


# --- what the notebook says of its own run -----------------------------------------------------------------------


class _State(NotebookExecutionManager):  # type: ignore[misc]
    """The states of the cells and of the whole, in memory and on the disk."""

    def __init__(self, nb: Any, file: OutputFile, **options: Any) -> None:
        super().__init__(nb, **options)
        self.file = file
        self.running: Any = None
        self.trouble: OSError | None = None
        self._claimed = False
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def save(self, **_: Any) -> None:
        """Write the notebook now."""
        began = time.monotonic()
        content = _content(self.nb)
        if self._claimed:
            self.file.write(content)
        else:
            self.file.claim(content)
        self._claimed = True
        ended = time.monotonic()
        self._due = ended + (ended - began) * (1 / _SHARE - 1)

    def autosave_cell(self, **_: Any) -> None:
        """Write the notebook as soon as its share of the time allows; an error ends the run before the next cell."""
        if self._timer is None and self.trouble is None:
            if (wait := self._due - time.monotonic()) <= 0:
                self._save_on_time()
            else:
                self._timer = asyncio.get_running_loop().call_later(wait, self._save_on_time)

    def _save_on_time(self) -> None:
        self._timer = None
        try:
            self.save()
        except OSError as error:
            self.trouble = error

    def cell_start(self, cell: Any, cell_index: int | None = None, **_: Any) -> None:
        """A cell is sent next."""
        if self.log_output:
            logger.info(f"Executing cell {cell.get('id', cell_index)}")
        cell.metadata.papermill.update(start_time=self.now().isoformat(), status=self.RUNNING, exception=False)
        self.running = cell
        self.autosave_cell()

    def cell_complete(self, cell: Any, cell_index: int | None = None, **_: Any) -> None:
        """A cell has done what it should."""
        if self.log_output:
            logger.info(f"Ending cell {cell.get('id', cell_index)}")
        self._end_cell(self.COMPLETED)
        self.autosave_cell()
        if self.pbar:
            self.pbar.update(1)

    def _end_cell(self, status: str) -> None:
        said = self.running.metadata.papermill
        took = self.now() - self.now().fromisoformat(said["start_time"])
        said.update(end_time=self.now().isoformat(), duration=took.total_seconds(), status=status)
        said["exception"] = status == self.FAILED
        self.running = None

    def finish(self, ending: Ending) -> Ending:
        """Write the notebook for the last time; returns the ending that it says.

        Raises:
            OSError: it cannot be written at all; the state before is still there.
        """
        self.cleanup_pbar()
        self._say(ending)
        try:
            self.file.write(_content(self.nb), last=True)
        except OSError as error:
            ending = _not_written(error, ending.cell)
            self._say(ending)
            self._drop_outputs(ending)
            self.file.write(_content(self.nb), last=True)
        finally:
            self.file.close()
        return ending

    def _say(self, ending: Ending) -> None:
        self.end_time = self.now()
        whole = self.nb.metadata.papermill
        whole["end_time"] = self.end_time.isoformat()
        whole["duration"] = (self.end_time - self.start_time).total_seconds()
        whole["exception"] = True if ending.reason is not Reason.COMPLETED else None
        whole["ended"] = ending.as_dict()
        if self.running is not None:
            if ending.reason is not Reason.EXCEPTION or not _errors(self.running):
                _add_error(self.running, ending)
            self._end_cell(self.FAILED)

    def _drop_outputs(self, ending: Ending) -> None:
        """Leave out outputs, the newest first, until the notebook fits into the room that was kept for it.

        The room is larger than the state on the disk, so nothing is left out that was written before.
        """
        note = nbformat.v4.new_output("stream", text=f"More output is lost: {ending.said}\n")
        excess = len(_content(self.nb)) + _NOTE_SIZE - self.file.room if self.file.room else 0
        for cell in reversed(self.nb.cells):
            lost = 0
            while excess > 0 and cell.get("outputs"):
                excess -= len(json.dumps(cell.outputs.pop(), ensure_ascii=False).encode("utf-8", "replace"))
                lost += 1
            if lost:
                cell.outputs.append(note)


def _content(notebook: Any) -> bytes:
    """As nbformat writes it, without its validation, which takes ten times as long; lone surrogates stay readable."""
    text: str = nbformat.v4.writes(notebook)
    return f"{text}\n".encode("utf-8", "backslashreplace")


def _errors(cell: Any) -> list[Any]:
    return [output for output in cell.get("outputs", []) if output.output_type == "error"]


def _add_error(cell: Any, ending: Ending) -> None:
    if cell.cell_type == "code":
        name = str(ending.reason).title().replace(" ", "").replace("-", "")
        cell.outputs.append(nbformat.v4.new_output("error", ename=name, evalue=ending.said, traceback=[ending.said]))


def _not_written(error: OSError, cell: str) -> Ending:
    reason = Reason.OUT_OF_DISK if error.errno in _DISK_FULL else Reason.NOT_WRITTEN
    return Ending(reason, f"the notebook could not be written: {error.strerror or error}", cell)


# --- the kernel --------------------------------------------------------------------------------------------------


class _Client(PapermillNotebookClient):  # type: ignore[misc]
    """Starts the kernel, sends it the cells, and ends it."""

    def __init__(self, state: _State, keeper: Keeper, signals: _Signals, **traits: Any) -> None:
        super().__init__(state, **traits)
        self._state, self._keeper, self._signals = state, keeper, signals
        self._overdue_s = 0
        self._exit_code: int | None = None
        self._cancel: Callable[[], object] = bool

    async def run(self) -> None:
        """Run the cells until one fails or something comes in between; no kernel is left in any case."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None, "a coroutine runs in a task"
        self._cancel = task.cancel
        self._signals.cancel = lambda: loop.call_soon_threadsafe(lambda: self._cancel())
        self.reset_execution_trackers()
        with folder_for_sockets() as folder:
            try:
                await self._start_kernel(Path(folder))
                for index, cell in enumerate(self.nb.cells):
                    await self._pass(cell, index)
                self._stop_if_asked()
            finally:
                self._cancel = bool  # a signal comes too late to keep the kernel from being ended
                self.set_widgets_metadata()
                await self._end_kernel()

    def _stop_if_asked(self) -> None:
        if self._signals.received:
            raise asyncio.CancelledError
        if self._state.trouble:
            raise self._state.trouble

    async def _pass(self, cell: Any, index: int) -> None:
        self._stop_if_asked()
        if self.skip_cells_with_tag in cell.metadata.get("tags", []):
            return  # it does not run, so it stays pending
        self._state.cell_start(cell, index)
        await self.async_execute_cell(cell, index)
        self._state.cell_complete(cell, index)
        if cell.get("id") == "plan" and (value := _structured(cell)):
            try:
                self._keeper.planned(value)
            except Exception as error:
                raise _Refused from error

    async def _start_kernel(self, folder: Path) -> None:
        self._stop_if_asked()
        self.km = AsyncKernelManager(
            kernel_name=self.kernel_name, transport="ipc", connection_file=str(folder / "kernel.json")
        )
        arguments = []
        if any("ipykernel" in argument for argument in self.km.kernel_spec.argv):
            # no history on the disk, and `!false` raises
            arguments = ["--HistoryManager.enabled=False", "--InteractiveShell.system_raise_on_error=True"]
        # nobody sits before this kernel, also where a notebook that somebody steps through has started this process
        environment = {name: value for name, value in os.environ.items() if name != SESSION}
        # what the kernel leaves there goes with the folder: the client's own key, for example, since it is killed
        environment["TMPDIR"] = str(folder)
        await self.km.start_kernel(extra_arguments=arguments, env=environment)
        self.kc = self.km.client()
        self.kc.start_channels(stdin=False, hb=False)
        self.kc.allow_stdin = False
        try:
            info = await asyncio.wait_for(self._kernel_info(), self.startup_timeout)
        except TimeoutError:
            raise DeadKernelError(f"Kernel did not answer within {self.startup_timeout} s") from None
        self.nb.metadata["language_info"] = info["language_info"]

    async def _kernel_info(self) -> Any:
        """Ask until both channels answer.

        jupyter_client then listens for strays for another 200 ms; here each message is known by its parent.
        """
        assert self.kc is not None, "the channels are open"
        while True:
            self.kc.kernel_info()
            try:
                reply = await self.kc.shell_channel.get_msg(timeout=1)
                await self.kc.iopub_channel.get_msg(timeout=0.2)
            except Empty:
                await self._async_check_alive()
            else:
                return reply["content"]

    async def _end_kernel(self) -> None:
        """Kill the kernel and its children, and wait until it is gone."""
        if self.km is None:
            return
        if provisioner := self.km.provisioner if self.km.has_kernel else None:
            self._exit_code = await provisioner.poll()
            await provisioner.kill()
            while await provisioner.poll() is None:
                await asyncio.sleep(0.005)  # jupyter_client looks ten times a second
            await provisioner.wait()
        await self._async_cleanup_kernel()

    async def _async_check_alive(self) -> None:
        if not await self.km.is_alive():
            raise DeadKernelError("Kernel died")  # without nbclient's line on the screen: the record says it

    async def _async_handle_timeout(self, timeout: int, cell: Any = None) -> Any:  # noqa: ARG002
        """Interrupt the cell, so that it says where it was; it has failed, whatever it makes of the interrupt."""
        self._overdue_s, self.iopub_timeout = timeout, _GRACE_S
        await self.km.interrupt_kernel()
        return {"content": {"status": "error", "ename": "CellTimedOut", "evalue": "", "traceback": []}}

    async def _check_raise_for_error(self, cell: Any, cell_index: int, exec_reply: Any) -> None:
        await super()._check_raise_for_error(cell, cell_index, exec_reply)
        if any(part.get("source") == "ask_exit" for part in exec_reply["content"].get("payload", ())):
            raise CellExecutionError("", "QuitCalled", "the cell asked the kernel to quit")
        if errors := _errors(cell):  # shown, but not raised: papermill would fail the run for it after the last cell
            raise CellExecutionError("", errors[-1].ename, errors[-1].evalue)

    def judged(self, error: BaseException | None) -> tuple[Ending, BaseException | None]:
        """How the run ended, and what to raise for it."""
        cell = "" if self._state.running is None else self._state.running.get("id", "")
        where = f" in the cell {cell}" if cell else ""
        if error is None:
            return Ending(Reason.COMPLETED), None
        if isinstance(error, CellExecutionError) and not self._overdue_s:
            return self._failed(cell, error)
        if signum := self._signals.received:
            said = f"ended by {signal.Signals(signum).name}{where}"
            return Ending(Reason.SIGNAL, said, cell), Interrupted(signum)
        if self._overdue_s or isinstance(error, CellTimeoutError):
            said = f"no end{where} after {self._overdue_s} s" if self._overdue_s else str(error)
            return Ending(Reason.TIMED_OUT, said, cell), CellTimedOut(said)
        if isinstance(error, DeadKernelError):
            said = f"the kernel died{where}: {_exit(self._exit_code)}"
            return Ending(Reason.KERNEL_DIED, said, cell), KernelDied(said)
        if isinstance(error, OSError) and error is self._state.trouble:
            return _not_written(error, cell), error
        if isinstance(error, _Refused):
            return Ending(Reason.NOT_RECORDED, str(error.__cause__)), error.__cause__
        return Ending(Reason.STOPPED, f"{type(error).__name__}: {error}", cell), error

    def _failed(self, cell: str, error: Any) -> tuple[Ending, BaseException]:
        said = f"{error.ename}: {error.evalue}".strip(": ")
        shown = _errors(self._state.running) or [nbformat.from_dict({"traceback": [said]})]
        failed = CellFailed(
            cell,
            cell_index=self.nb.cells.index(self._state.running),
            exec_count=self._state.running.get("execution_count"),
            source=self._state.running.source,
            ename=error.ename,
            evalue=error.evalue,
            traceback=shown[-1].traceback,
        )
        return Ending(Reason.EXCEPTION, said, cell), failed


def _structured(cell: Any) -> dict[str, Any]:
    """The structured value that a cell put out; empty where there is none."""
    for output in cell.get("outputs", []):
        if value := output.get("data", {}).get(MIME):
            return dict(value)
    return {}


def _exit(code: int | None) -> str:
    if code is None:
        return "it does not answer"
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (", as the system does when memory runs out" if name == "SIGKILL" else "")
    return f"its process ended with exit code {code}"


def _driven(client: _Client) -> BaseException | None:
    """Run the cells to their end; returns what ended them before it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _caught(client)
    with concurrent.futures.ThreadPoolExecutor(1) as other:  # called from a notebook
        return other.submit(_caught, client).result()


def _caught(client: _Client) -> BaseException | None:
    try:
        asyncio.run(client.run())
    except BaseException as error:  # a cancelled task too: whatever it was, the record says it
        return error
    return None


def _kept(client: _Client, state: _State, keeper: Keeper) -> BaseException | None:
    """One run from its beginning to its end, the keeper knowing of both; returns what has to be raised.

    Raises:
        Exception: the keeper could not be told, or the notebook could not be written for the last time.
    """
    try:
        keeper.began()
    except Exception as error:
        state.finish(Ending(Reason.NOT_RECORDED, str(error)))
        raise
    ending, cause = client.judged(_driven(client))
    try:
        written = state.finish(ending)
        if written is not ending:
            ending, cause = written, cause or OSError(written.said)
    finally:
        try:
            keeper.ended(state.file.path, ending.as_dict())
        except Exception as error:
            if not isinstance(cause, Interrupted):
                raise
            cause.__cause__ = error  # whoever asked for the end gets it, and nothing else is begun
    return cause
