"""The runner: whatever a task does to its process, the caller gets a result or an error, in bounded time."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import runner_tasks
from judging import REPOSITORY
from proofhold.errors import Misuse
from proofhold.runner import (
    MAX_KEPT,
    InlineRunner,
    ProcessRunner,
    RunnerError,
    TaskRaised,
    WorkerDied,
    WorkerTimedOut,
)
from proofhold.runner_channel import MAX_MESSAGE_BYTES, Channel

SHORT_S = 0.4


@pytest.fixture(scope="module")
def shared() -> Iterator[ProcessRunner]:
    with ProcessRunner(1) as runner:
        assert runner.run(runner_tasks.echo, b"warm") == b"warm"
        yield runner


@pytest.fixture
def one(shared: ProcessRunner) -> ProcessRunner:
    """A runner whose one worker is up: only a fresh one is given more time."""
    shared.run(runner_tasks.echo)
    return shared


def works(runner: ProcessRunner) -> bool:
    return runner.run(runner_tasks.echo, b"a", b"", b"c") == b"a||c"


def gone(pid: int, within_s: float) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            status = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if status == "Z":  # dead; whoever inherited it has not looked yet
            return True
        time.sleep(0.02)
    return False


# --- results --------------------------------------------------------------------------------------------


def test_a_task_gets_its_parts_and_gives_its_bytes(one: ProcessRunner) -> None:
    assert one.run(runner_tasks.echo, b"a", b"", bytes(range(256))) == b"a||" + bytes(range(256))
    assert one.run(runner_tasks.echo) == b""


def test_large_parts_go_through(one: ProcessRunner) -> None:
    data = os.urandom(5 * 2**20)
    assert one.run(runner_tasks.echo, data) == data


def test_a_worker_is_another_process_and_serves_again(one: ProcessRunner) -> None:
    first, second = one.run(runner_tasks.pid), one.run(runner_tasks.pid)
    assert first == second
    assert int(first) != os.getpid()


def test_native_code_gets_one_thread_unless_told_otherwise(one: ProcessRunner) -> None:
    assert one.run(runner_tasks.environment, b"RAYON_NUM_THREADS") == b"1"
    assert one.run(runner_tasks.environment, b"OMP_NUM_THREADS") == b"1"
    with ProcessRunner(threads=3) as three:
        assert three.run(runner_tasks.environment, b"RAYON_NUM_THREADS") == b"3"


def test_a_worker_is_replaced_after_its_share_of_tasks() -> None:
    with ProcessRunner(tasks_per_worker=2) as runner:
        counted = [runner.run(runner_tasks.count).split(b" of ") for _ in range(4)]
    assert [number for number, _ in counted] == [b"1", b"2", b"1", b"2"]
    assert len({process for _, process in counted}) == 2


def test_a_worker_has_no_streams_of_ours(one: ProcessRunner, capfd: pytest.CaptureFixture[str]) -> None:
    assert one.run(runner_tasks.shout) == b"heard nothing"
    assert capfd.readouterr() == ("", "")


# --- what a task can do to its process ------------------------------------------------------------------


def test_a_hang_without_the_interpreters_lock_is_killed(one: ProcessRunner, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(WorkerTimedOut) as caught:
        one.run(runner_tasks.hang_with_the_lock, str(tmp_path).encode(), deadline_s=SHORT_S)
    assert caught.value.code == "runner.timeout"
    assert SHORT_S <= time.monotonic() - began < 5
    assert gone(int((tmp_path / "pid").read_text()), within_s=1)
    assert works(one)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_death_by_signal_is_an_error(one: ProcessRunner, number: signal.Signals) -> None:
    with pytest.raises(WorkerDied, match=f"exit status -{number.value}") as caught:
        one.run(runner_tasks.die, str(number.value).encode())
    assert caught.value.code == "runner.died"
    assert works(one)


def test_an_abort_is_an_error(one: ProcessRunner) -> None:
    with pytest.raises(WorkerDied):
        one.run(runner_tasks.abort)
    assert works(one)


def test_an_exit_past_the_interpreter_is_an_error(one: ProcessRunner) -> None:
    with pytest.raises(WorkerDied, match="exit status 7"):
        one.run(runner_tasks.leave)
    assert works(one)


def test_a_worker_that_died_while_idle_is_replaced(one: ProcessRunner) -> None:
    process = int(one.run(runner_tasks.pid))
    os.kill(process, signal.SIGKILL)
    assert gone(process, within_s=2)
    assert works(one)


def test_an_exception_crosses_as_name_and_message(one: ProcessRunner) -> None:
    with pytest.raises(TaskRaised) as caught:
        one.run(runner_tasks.fail, b"why")
    assert (caught.value.kind, str(caught.value), caught.value.code) == (
        "ValueError",
        "ValueError: why",
        "runner.raised",
    )
    assert works(one)


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        (runner_tasks.panic, "Panic"),
        (runner_tasks.end, "SystemExit"),
        (runner_tasks.interrupt, "KeyboardInterrupt"),
    ],
)
def test_what_is_no_exception_is_an_error_too(one: ProcessRunner, task: object, kind: str) -> None:
    before = one.run(runner_tasks.pid)
    with pytest.raises(TaskRaised) as caught:
        one.run(task)  # type: ignore[arg-type]
    assert caught.value.kind == kind
    assert one.run(runner_tasks.pid) == before


def test_a_message_that_is_no_text_is_an_error(one: ProcessRunner) -> None:
    with pytest.raises(TaskRaised):
        one.run(runner_tasks.fail, b"\xff\xfe")
    assert works(one)


def test_a_message_is_cut(one: ProcessRunner) -> None:
    with pytest.raises(TaskRaised) as caught:
        one.run(runner_tasks.fail, b"x" * 100_000)
    assert len(str(caught.value)) < 1_000


def test_a_result_that_is_no_bytes_is_an_error(one: ProcessRunner) -> None:
    with pytest.raises(WorkerDied):
        one.run(runner_tasks.give_no_bytes)
    assert works(one)


def test_memory_is_limited() -> None:
    with ProcessRunner(memory_bytes=512 * 2**20) as runner:
        assert runner.run(runner_tasks.allocate, b"16") == str(16 * 2**20).encode()
        with pytest.raises(RunnerError) as caught:
            runner.run(runner_tasks.allocate, b"600")
        assert works(runner)
    assert isinstance(caught.value, WorkerDied) or caught.value.kind == "MemoryError"  # type: ignore[attr-defined]


def test_limits_are_as_asked_and_no_core_is_dumped(one: ProcessRunner) -> None:
    assert one.run(runner_tasks.limits) == repr((4 * 2**30, 0)).encode()
    with ProcessRunner(memory_bytes=None) as unlimited:
        assert unlimited.run(runner_tasks.limits) == b"(-1, 0)"


def _message(*parts: bytes) -> bytes:
    return struct.pack(f"!{1 + len(parts)}I", len(parts), *map(len, parts)) + b"".join(parts)


@pytest.mark.parametrize(
    "message",
    [
        _message(),
        _message(b"nonsense"),
        _message(b"\x00"),
        _message(b"\x07", b"x"),
        _message(b"\x00", b"x", b"y"),
        _message(b"\x01", b"x"),
        _message(b"\x01", b"x", b"y", b"z"),
        struct.pack("!I", 2**32 - 1),
        struct.pack("!3I", 2, 1, MAX_MESSAGE_BYTES),
        struct.pack("!4I", 3, 1, 2**32 - 1, 2**32 - 1),
        struct.pack("!4I", 3, 1, 1, 1) + b"\x00x",
        b"\x00",
    ],
)
def test_a_worker_that_was_taken_over_can_say_nonsense_and_no_more(
    one: ProcessRunner, message: bytes
) -> None:
    with pytest.raises(WorkerDied):
        one.run(runner_tasks.take_over, message, b"leave")
    assert works(one)


@pytest.mark.parametrize("message", [b"\x00", _message(b"\x00", b"x")[:-1], struct.pack("!I", 2)])
def test_a_worker_that_was_taken_over_cannot_keep_us_waiting_in_mid_message(
    one: ProcessRunner, message: bytes
) -> None:
    began = time.monotonic()
    with pytest.raises(WorkerTimedOut):
        one.run(runner_tasks.take_over, message, b"stay", deadline_s=SHORT_S)
    assert time.monotonic() - began < 5
    assert works(one)


def test_a_worker_that_was_taken_over_cannot_keep_us_by_speaking_slowly(one: ProcessRunner) -> None:
    began = time.monotonic()
    with pytest.raises(WorkerTimedOut):
        one.run(runner_tasks.drip, b"0.05", deadline_s=SHORT_S)
    assert time.monotonic() - began < 5
    assert works(one)


def test_too_many_parts_are_no_message() -> None:
    ours, theirs = map(Channel, socket.socketpair())
    ours.send(*[b""] * 3)
    with pytest.raises(ValueError, match="3 parts, expected 1 to 2"):
        theirs.receive(max_parts=2)
    ours.close()
    theirs.close()


def test_a_false_failure_of_a_worker_that_was_taken_over_is_text_and_no_more(one: ProcessRunner) -> None:
    with pytest.raises(TaskRaised) as caught:
        one.run(runner_tasks.take_over, _message(b"\x01", b"\xff", b"\xfe"), b"leave")
    assert caught.value.kind == "\ufffd"
    with contextlib.suppress(WorkerDied):  # having answered, it may still be about to end
        one.run(runner_tasks.echo)
    assert works(one)


# --- threads, processes, scripts ------------------------------------------------------------------------


def test_tasks_of_many_threads_each_get_their_own_result() -> None:
    results: dict[int, set[bytes]] = {}
    with ProcessRunner(2) as runner:

        def work(number: int) -> None:
            text = str(number).encode()
            results[number] = {runner.run(runner_tasks.echo, text, bytes([i])) for i in range(30)}

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    expected = {n: {str(n).encode() + b"|" + bytes([i]) for i in range(30)} for n in range(6)}
    assert results == expected


def test_two_workers_work_at_once() -> None:
    spans: list[list[float]] = []
    with ProcessRunner(2) as runner:

        def work() -> None:
            began, ended = runner.run(runner_tasks.pause, b"1").split()
            spans.append([float(began), float(ended)])

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    (one_began, one_ended), (two_began, two_ended) = spans
    assert max(one_began, two_began) < min(one_ended, two_ended)


def test_no_process_is_started_before_it_is_needed_nor_left_behind() -> None:
    runner = ProcessRunner()
    process = int(runner.run(runner_tasks.pid))
    runner.close()
    assert gone(process, within_s=1)
    with pytest.raises(Misuse, match="closed"):
        runner.run(runner_tasks.echo)
    runner.close()


def test_a_worker_that_cannot_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with ProcessRunner() as runner, pytest.raises(WorkerDied, match="could be started"):
        runner.run(runner_tasks.echo)


def test_a_pool_has_a_worker() -> None:
    with pytest.raises(Misuse):
        ProcessRunner(0)


class _Holder:
    @staticmethod
    def method() -> bytes:
        return b""


@pytest.mark.parametrize("task", [lambda: b"", _Holder.method])
def test_only_functions_of_a_module_are_tasks(one: ProcessRunner, task: object) -> None:
    with pytest.raises(Misuse, match="module-level"):
        one.run(task)  # type: ignore[arg-type]
    assert works(one)


def _script(path: Path, body: str) -> subprocess.Popen[str]:
    path.write_text(body)
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(str(REPOSITORY / name) for name in ("tests", "verifier"))
    command = [sys.executable, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=path.parent)


SCRIPT = """
import runner_tasks
from proofhold.runner import ProcessRunner
print("once", flush=True)
runner = ProcessRunner()
print(runner.run(runner_tasks.echo, b"hello").decode(), flush=True)
"""


def test_it_works_from_a_script_without_a_guarded_main(tmp_path: Path) -> None:
    process = _script(tmp_path / "script.py", SCRIPT)
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, said.split()) == (0, ["once", "hello"])


def test_an_idle_worker_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    body = SCRIPT + "print(runner.run(runner_tasks.pid).decode(), flush=True)\nimport time; time.sleep(60)\n"
    process = _script(tmp_path / "script.py", body)
    assert process.stdout is not None
    worker = int([process.stdout.readline() for _ in range(3)][-1])
    process.kill()
    process.wait()
    process.stdout.close()
    assert gone(worker, within_s=5)


def test_a_hung_worker_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Native code that keeps the interpreter's lock hears of nothing: the kernel ends it."""
    folder = str(tmp_path).encode()
    body = SCRIPT + f"runner.run(runner_tasks.hang_with_the_lock, {folder!r}, deadline_s=600)\n"
    process = _script(tmp_path / "script.py", body)
    until = time.monotonic() + 30
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < until
        time.sleep(0.01)
    worker = int((tmp_path / "pid").read_text())
    assert not gone(worker, within_s=0.2)
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    assert gone(worker, within_s=5)


def test_an_interrupt_from_the_terminal_is_for_the_parent_to_hear(one: ProcessRunner) -> None:
    before = int(one.run(runner_tasks.pid))
    assert one.run(runner_tasks.die, str(signal.SIGINT.value).encode()) == b""
    assert int(one.run(runner_tasks.pid)) == before


def test_what_a_task_leaves_behind_goes_with_its_worker() -> None:
    """Also when it was killed in the middle, and could not tidy up."""
    with ProcessRunner(tasks_per_worker=3) as runner:
        idle = Path(runner.run(runner_tasks.litter, b"answer").decode())
        assert idle.read_bytes() == b"litter"
        with pytest.raises(WorkerTimedOut):
            runner.run(runner_tasks.litter, b"hang", deadline_s=SHORT_S)
        assert not idle.parent.exists()
        last = Path(runner.run(runner_tasks.litter, b"answer").decode())
        assert last.parent != idle.parent
    assert not last.parent.exists()


def test_a_pool_that_nobody_closed_leaves_nothing_either(tmp_path: Path) -> None:
    body = SCRIPT + "print(runner.run(runner_tasks.litter, b'answer').decode(), flush=True)\n"
    said, _ = _script(tmp_path / "script.py", body).communicate(timeout=60)
    assert not Path(said.split()[-1]).parent.exists()


# --- what workers keep ----------------------------------------------------------------------------------


def test_a_kept_part_is_not_sent_again_and_is_one_object_in_each_task() -> None:
    large = bytes(2**20)
    with ProcessRunner(kept=[large, b"small", large]) as runner:
        same = [runner.run(runner_tasks.identity, part) for part in (large, bytes(2**20), b"small", b"small")]
        assert same[0] == same[1] != same[2] == same[3]
        assert runner.run(runner_tasks.echo, b"x", b"small", b"", b"y") == b"x|small||y"


def test_a_worker_that_replaces_another_keeps_the_same() -> None:
    with ProcessRunner(kept=[b"a", b"b"], tasks_per_worker=1) as runner:
        assert [runner.run(runner_tasks.echo, b"b", b"c", b"a") for _ in range(2)] == [b"b|c|a"] * 2


def test_each_worker_warms_up_on_what_it_keeps_before_its_first_task() -> None:
    with ProcessRunner(2, kept=[b"a", b"b"], warm_up=runner_tasks.remember) as runner:
        runner.start()
        assert runner.run(runner_tasks.remembered) == b"a|b"
        process = int(runner.run(runner_tasks.pid))
        os.kill(process, signal.SIGKILL)
        assert gone(process, within_s=2)
        assert {runner.run(runner_tasks.remembered) for _ in range(3)} == {b"a|b"}


def test_start_brings_every_worker_up() -> None:
    with ProcessRunner(2) as runner:
        assert [worker._process for worker in runner._idle.queue] == [None, None]
        runner.start()
        processes = [worker._process for worker in runner._idle.queue]
        assert len({process.pid for process in processes if process}) == 2
    assert all(process and gone(process.pid, within_s=1) for process in processes), "none outlives its pool"
    with pytest.raises(Misuse, match="closed"):
        runner.start()


def test_who_waits_for_a_worker_when_the_pool_closes_gets_none() -> None:
    runner, caught = ProcessRunner(), []
    runner.start()

    def wait() -> None:
        with pytest.raises(Misuse, match="closed") as error:
            runner.run(runner_tasks.echo)
        caught.append(error)

    with runner._all_workers():
        waiting = threading.Thread(target=wait)
        waiting.start()
        closing = threading.Thread(target=runner.close)
        runner._closed = True
        closing.start()
    waiting.join(30)
    closing.join(30)
    assert len(caught) == 1
    assert [worker._process for worker in runner._idle.queue] == [None]


def test_a_pool_may_be_started_and_closed_by_many_at_once() -> None:
    runner = ProcessRunner(2)
    actions = [runner.start, runner.start, runner.start, runner.close, runner.close]

    def do(action: Callable[[], None]) -> None:
        with contextlib.suppress(Misuse):  # closed before it was started
            action()

    threads = [threading.Thread(target=do, args=(action,), daemon=True) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    runner.close()


def test_a_worker_that_cannot_warm_up_is_an_error() -> None:
    with ProcessRunner(warm_up=runner_tasks.fail) as runner:
        with pytest.raises(WorkerDied):
            runner.start()
        with pytest.raises(WorkerDied):
            runner.run(runner_tasks.echo)


def test_what_workers_keep_is_bounded() -> None:
    with pytest.raises(Misuse, match="kept parts"):
        ProcessRunner(kept=(str(number).encode() for number in range(MAX_KEPT + 1)))


# --- inline ---------------------------------------------------------------------------------------------


def test_inline_a_task_runs_here() -> None:
    assert InlineRunner().run(runner_tasks.pid) == str(os.getpid()).encode()


def test_inline_a_panic_is_an_error_as_in_a_worker() -> None:
    with pytest.raises(TaskRaised, match="Panic: a panic"):
        InlineRunner().run(runner_tasks.panic)


@pytest.mark.parametrize(
    ("task", "error"), [(runner_tasks.end, SystemExit), (runner_tasks.interrupt, KeyboardInterrupt)]
)
def test_inline_whoever_wants_to_stop_us_stops_us(task: object, error: type[BaseException]) -> None:
    with pytest.raises(error):
        InlineRunner().run(task)  # type: ignore[arg-type]
