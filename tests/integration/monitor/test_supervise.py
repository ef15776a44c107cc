"""The monitor's process with plain host processes as containers: streams, exit, detach, stop, restart, errors."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rootless.engine.container import attach_client
from rootless.errors import CommandNotFound, InvalidState, RootlessError, RuntimeFailure
from rootless.monitor import protocol, reap
from tests.conftest import runs
from tests.integration.monitor.fake_run import Attached, container, monitor

pytestmark = pytest.mark.once


def state(directory: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(Path(directory, "state.json").read_text())
    return value


def log(directory: str) -> str:
    return "".join(json.loads(line)["log"] for line in Path(directory, "log").read_text().splitlines())


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def socket_path(root: Path) -> str:
    return str(root / "run/containers/c0ffee.sock")


def stop(directory: str) -> None:
    os.kill(state(directory)["monitor_pid"], signal.SIGTERM)
    until(lambda: not reap.is_supervised(directory))


def test_output_exit_code_log_and_state(tmp_path: Path) -> None:
    directory = container(tmp_path, "sh", "-c", "echo out; echo err >&2; printf partial; exit 7")
    client = Attached((monitor(), directory))
    assert client.outcome().exit_code == 7
    assert client.output == [b"out\npartial", b"err\n"]
    assert "partial" in log(directory)
    told = state(directory)
    assert (told["status"], told["exit_code"], told["pid"], told["error"]) == ("exited", 7, 0, "")
    assert told["started_at"] < told["finished_at"]
    assert not os.path.exists(socket_path(tmp_path))


def test_killed_by_a_signal_is_128_plus_n(tmp_path: Path) -> None:
    client = Attached((monitor(), container(tmp_path, "sh", "-c", "kill -9 $$")))
    assert client.outcome().exit_code == 137


def test_no_output_is_lost(tmp_path: Path) -> None:
    directory = container(tmp_path, "sh", "-c", "seq 1 300000; seq 1 300000 >&2")
    client = Attached((monitor(), directory))
    assert client.outcome().exit_code == 0
    wanted = "".join(f"{n}\n" for n in range(1, 300001)).encode()
    assert client.output[0] == wanted
    assert client.output[1] == wanted
    assert Path(directory, "log").read_text().count("\n") == 600000


def test_stdin_flows_with_backpressure_and_eof(tmp_path: Path) -> None:
    directory = container(tmp_path, "sh", "-c", "sleep 0.3; cat", open_stdin=True, stdin_once=True)
    client = Attached((monitor(), directory), given=b"x")
    block = os.urandom(1 << 16) * 48

    def feed() -> None:  # beside us: a monitor that has failed reads nothing, and the test must end all the same
        os.write(client.input_write, block)
        client.close_input()

    threading.Thread(target=feed, daemon=True).start()
    assert client.outcome().exit_code == 0
    assert client.output[0] == b"x" + block


def test_stdin_stays_open_without_stdin_once(tmp_path: Path) -> None:
    directory = container(tmp_path, "sh", "-c", "read a; echo got; read b; echo $a $b", open_stdin=True)
    first = Attached((monitor(), directory), given=b"one\n")
    first.close_input()
    until(lambda: b"got\n" in first.output[0])  # what the first one typed has arrived
    second = Attached(socket_path(tmp_path), given=b"two\n")
    assert second.outcome().exit_code == 0
    assert second.output[0] == b"one two\n"
    assert first.outcome().exit_code == 0


def test_without_open_stdin_the_container_reads_nothing(tmp_path: Path) -> None:
    client = Attached((monitor(), container(tmp_path, "cat")), given=b"ignored\n")
    assert client.outcome().exit_code == 0
    assert client.output[0] == b""


def test_failing_launch_tells_kind_hint_and_code(tmp_path: Path) -> None:
    directory = container(tmp_path, "missing")
    with pytest.raises(CommandNotFound, match="not found") as caught:
        attach_client.launch_detached(monitor(), directory)
    assert caught.value.hint == "use another command"
    until(lambda: not reap.is_supervised(directory))
    assert (state(directory)["status"], state(directory)["exit_code"]) == ("created", 127)


def test_directory_without_launch_json_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match=r"launch\.json"):
        attach_client.launch_detached(monitor(), str(tmp_path))


def test_engine_that_goes_away_before_launching_leaves_nothing() -> None:
    connection = monitor()
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(1) == b""


def test_detached_container_runs_on_and_takes_later_clients(tmp_path: Path) -> None:
    directory = container(tmp_path, "sh", "-c", "echo early; read x; echo got $x", open_stdin=True)
    pid = attach_client.launch_detached(monitor(), directory)
    assert state(directory)["pid"] == pid
    assert state(directory)["status"] == "running"
    assert reap.is_supervised(directory)
    until(lambda: Path(directory, "log").read_text())
    client = Attached(socket_path(tmp_path), given=b"late\n")
    assert client.outcome().exit_code == 0
    assert client.output[0] == b"got late\n"
    assert log(directory) == "early\ngot late\n"


def test_second_monitor_is_refused(tmp_path: Path) -> None:
    directory = container(tmp_path, "sleep", "60")
    attach_client.launch_detached(monitor(), directory)
    with pytest.raises(RuntimeFailure, match="already running"):
        attach_client.launch_detached(monitor(), directory)
    assert state(directory)["status"] == "running"
    stop(directory)


def test_attaching_to_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidState):
        attach_client.attach(str(tmp_path / "none.sock"), attach_client.StreamOptions())


def test_terminal_size_echo_and_detach_keys(tmp_path: Path) -> None:
    directory = container(
        tmp_path, "sh", "-c", "read a; echo got $a; read b; exit 3", terminal=True, open_stdin=True, stdin_once=True
    )
    client = Attached((monitor(), directory), given=b"x\x10y\n", terminal=True)
    until(lambda: b"got" in client.output[0])
    os.write(client.input_write, b"\x10")
    time.sleep(0.1)
    os.write(client.input_write, b"\x11")
    assert client.outcome().detached
    assert b"got x\x10y\r\n" in client.output[0]
    assert state(directory)["status"] == "running"
    again = Attached(socket_path(tmp_path), given=b"\n", terminal=True, detach_keys="ctrl-a")
    assert again.outcome().exit_code == 3


def test_terminal_gets_the_clients_size(tmp_path: Path) -> None:
    directory = container(tmp_path, "sh", "-c", "trap 'stty size; exit' WINCH; stty size; while :; do sleep 0.05; done")
    settings = json.loads(Path(directory, "launch.json").read_text())
    Path(directory, "launch.json").write_text(json.dumps(settings | {"terminal": True}))
    connection = monitor()
    wanted = protocol.AttachRequest(stdin=False, stdout=True, stderr=False, size=(33, 99))
    connection.sendall(protocol.encode_message(protocol.LaunchRequest(directory, wanted)))
    decoder, output, resized = protocol.Decoder(), b"", False
    while received := connection.recv(65536):
        for kind, payload in decoder.feed(received):
            output += payload if kind == protocol.STDOUT else b""
        if b"33 99" in output and not resized:
            resized = True
            connection.sendall(protocol.encode_resize(44, 55))
    assert output == b"33 99\r\n44 55\r\n"


def test_last_bytes_of_a_terminal_are_not_lost(tmp_path: Path) -> None:
    for _ in range(5):
        directory = container(tmp_path, "sh", "-c", "seq 1 2000; printf end", terminal=True)
        client = Attached((monitor(), directory), terminal=True)
        assert client.outcome().exit_code == 0
        assert client.output[0].endswith(b"1999\r\n2000\r\nend")


def test_slow_client_loses_nothing_and_does_not_keep_the_state_back(tmp_path: Path) -> None:
    directory = container(tmp_path, "sh", "-c", "head -c 4000000 /dev/zero | tr '\\0' x")
    connection = monitor()
    wanted = protocol.AttachRequest(stdin=False, stdout=True, stderr=True, size=(0, 0))
    connection.sendall(protocol.encode_message(protocol.LaunchRequest(directory, wanted)))
    deadline = time.monotonic() + 30
    while not Path(directory, "state.json").exists():
        assert time.monotonic() < deadline, "it does not start"
        time.sleep(0.05)
    time.sleep(0.5)
    assert state(directory)["status"] == "running"  # held back by the pipe, as it would be by `| less`
    decoder, count, code = protocol.Decoder(), 0, None
    while received := connection.recv(65536):
        for kind, payload in decoder.feed(received):
            count += len(payload) if kind == protocol.STDOUT else 0
            code = (
                protocol.ExitNotice.from_json(protocol.read_payload(payload)).exit_code
                if kind == protocol.EXIT
                else code
            )
    assert (count, code) == (4000000, 0)


def test_client_that_vanishes_does_not_stop_the_container(tmp_path: Path) -> None:
    directory = container(tmp_path, "sh", "-c", "seq 1 500000; echo done")
    connection = monitor()
    wanted = protocol.AttachRequest(stdin=False, stdout=True, stderr=True, size=(0, 0))
    connection.sendall(protocol.encode_message(protocol.LaunchRequest(directory, wanted)))
    connection.recv(100)
    connection.close()
    until(lambda: state(directory)["status"] == "exited")
    assert log(directory).endswith("500000\ndone\n")


def test_signals_reach_the_container(tmp_path: Path) -> None:
    directory = container(tmp_path, "sh", "-c", "trap 'echo usr1; exit 5' USR1; echo up; while :; do sleep 0.05; done")
    client = Attached((monitor(), directory))
    until(lambda: client.output[0])
    with attach_client._connect(socket_path(tmp_path)) as connection:
        connection.sendall(protocol.encode_frame(protocol.SIGNAL, bytes((signal.SIGUSR1,))))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(100):
            pass  # the monitor closes after it has sent the signal
    assert client.outcome().exit_code == 5
    assert client.output[0] == b"up\nusr1\n"


def test_wait_tells_the_exit_code(tmp_path: Path) -> None:
    directory = container(tmp_path, "sh", "-c", "sleep 0.3; exit 9")
    attach_client.launch_detached(monitor(), directory)
    assert attach_client.wait(socket_path(tmp_path)) == 9
    assert attach_client.wait(socket_path(tmp_path)) is None


def test_sigterm_stops_in_order_then_kills(tmp_path: Path) -> None:
    script = "trap 'echo term; exit 4' TERM; echo up; while :; do sleep 0.05; done"
    directory = container(tmp_path, "sh", "-c", script, restart={"name": "always"})
    attach_client.launch_detached(monitor(), directory)
    until(lambda: log(directory))
    stop(directory)
    assert (state(directory)["status"], state(directory)["exit_code"]) == ("exited", 4)
    directory = container(tmp_path, "sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done", stop_timeout=0.3)
    attach_client.launch_detached(monitor(), directory)
    until(lambda: log(directory).endswith("term\nup\n"))
    stop(directory)
    assert state(directory)["exit_code"] == 137


def test_restart_on_failure_counts_and_then_stays_ended(tmp_path: Path) -> None:
    restart = {"name": "on-failure", "maximum_retry_count": 2}
    directory = container(tmp_path, "sh", "-c", "echo run; exit 3", restart=restart)
    attach_client.launch_detached(monitor(), directory)
    until(lambda: not reap.is_supervised(directory))
    assert log(directory) == "run\n" * 3
    told = state(directory)
    assert (told["status"], told["exit_code"], told["restart_count"]) == ("exited", 3, 2)


def test_stop_request_ends_the_restarts(tmp_path: Path) -> None:
    directory = container(tmp_path, "sh", "-c", "echo run; exit 0", restart={"name": "always"})
    attach_client.launch_detached(monitor(), directory)
    until(lambda: state(directory)["status"] == "restarting")
    stop(directory)
    assert state(directory)["status"] == "exited"
    Path(directory, "stop-requested").touch()
    attach_client.launch_detached(monitor(), directory)
    until(lambda: not reap.is_supervised(directory))
    assert state(directory)["restart_count"] == 0


def test_rm_removes_before_exit_is_told(tmp_path: Path) -> None:
    directory = container(tmp_path, "true", remove={"directory": str(tmp_path / "containers/c0ffee")})
    client = Attached((monitor(), directory))
    assert client.outcome().exit_code == 0
    assert not os.path.exists(directory)


def test_orphans_are_reaped(tmp_path: Path) -> None:
    directory = container(tmp_path, "sh", "-c", "(sleep 0.1; exit 1) & (sleep 0.1) & exec sleep 60")
    attach_client.launch_detached(monitor(), directory)
    children = Path(f"/proc/{state(directory)['monitor_pid']}/task/{state(directory)['monitor_pid']}/children")
    until(lambda: len(children.read_text().split()) == 1)
    stop(directory)


def test_defect_of_ours_is_told_and_noted(tmp_path: Path) -> None:
    directory = container(tmp_path, "defect")
    with pytest.raises(RuntimeFailure, match="monitor failed"):
        attach_client.launch_detached(monitor(), directory)
    assert "ZeroDivisionError" in Path(directory, "monitor.log").read_text()
    until(lambda: not reap.is_supervised(directory))


def test_client_that_does_not_speak_the_protocol_is_dropped(tmp_path: Path) -> None:
    directory = container(tmp_path, "sleep", "60")
    pid = attach_client.launch_detached(monitor(), directory)
    connection = attach_client._connect(socket_path(tmp_path))  # the path may be longer than sockets take
    connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert connection.recv(1) == b""
    os.kill(pid, 0)
    stop(directory)


def test_killed_monitor_is_noticed_and_put_right(tmp_path: Path) -> None:
    directory = container(tmp_path, "sleep", "60")
    pid = attach_client.launch_detached(monitor(), directory)
    assert not reap.clean_up_after_monitor(directory)
    os.kill(state(directory)["monitor_pid"], signal.SIGKILL)
    until(lambda: not reap.is_supervised(directory))
    assert reap.clean_up_after_monitor(directory)
    assert not reap.clean_up_after_monitor(directory)
    until(lambda: not runs(pid))
    told = state(directory)
    assert (told["status"], told["exit_code"], told["error"]) == ("exited", 137, "monitor died")


def test_reaping_spares_a_process_that_only_has_the_same_number(tmp_path: Path) -> None:
    """TRAPS 3.15: open the pidfd, then compare the start time, then signal."""
    directory = container(tmp_path, "sleep", "60")
    pid = attach_client.launch_detached(monitor(), directory)
    monitor_pid = state(directory)["monitor_pid"]
    os.kill(monitor_pid, signal.SIGKILL)
    until(lambda: not reap.is_supervised(directory))
    told = state(directory)
    Path(directory, "state.json").write_text(json.dumps(told | {"pid_start": told["pid_start"] + 1}))
    assert reap.clean_up_after_monitor(directory)
    os.kill(pid, signal.SIGKILL)  # ProcessLookupError if it was killed by its number alone


def test_errors_reach_every_kind_of_client(tmp_path: Path) -> None:
    with pytest.raises(RootlessError):
        Attached((monitor(), container(tmp_path, "missing"))).outcome()
