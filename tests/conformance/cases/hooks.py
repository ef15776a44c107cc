"""config.md, POSIX-platform hooks; runtime.md, lifecycle: when they run, where, with what, and what a failure does."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from tests.conformance.harness import Box, case

HOOKS = "config.md#posix-platform-hooks"
OUTSIDE = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
"""Those whose path is looked up on the host."""


def _install(box: Box, *names: str, script: str = "") -> None:
    """Hooks that append a line `NAME MNTNS STATE` to a log; those outside on the host, startContainer inside."""
    log = box.directory / "log"
    for name in names:
        inside = name == "startContainer"
        program = f"hook-{len(script)}"
        path = box.root / program if inside else box.directory / program
        target = "/log" if inside else str(log)
        path.write_text(f'#!/bin/sh\necho "$1 $(readlink /proc/self/ns/mnt) $(cat)" >> {target}\n{script}\n')
        path.chmod(0o755)
        entry = {"path": f"/{program}" if inside else str(path), "args": ["hook", name], "env": ["PATH=/bin:/usr/bin"]}
        box.config.setdefault("hooks", {}).setdefault(name, []).append(entry)


def _lines(box: Box, *, inside: bool = False) -> list[tuple[str, str, dict[str, Any]]]:
    path = box.root / "log" if inside else box.directory / "log"
    lines = [line.split(" ", 2) for line in path.read_text().splitlines()] if path.exists() else []
    return [(name, space, json.loads(state)) for name, space, state in lines]


def _full_life(box: Box) -> None:
    box.create("/bin/true")
    box.start()
    box.until_status("stopped")
    assert not box.call("delete", box.id).failed


@case("runtime.md#lifecycle")
def order_of_all_kinds(box: Box) -> None:
    """prestart, createRuntime, createContainer come in create, poststart after start, poststop after delete"""
    _install(box, *OUTSIDE)
    box.create("/bin/true")
    assert [name for name, _, _ in _lines(box)] == ["prestart", "createRuntime", "createContainer"]
    box.start()
    box.until(lambda: len(_lines(box)) == 4, "poststart")
    box.until_status("stopped")
    assert [name for name, _, _ in _lines(box)][3:] == ["poststart"]
    box.call("delete", box.id)
    assert [name for name, _, _ in _lines(box)][4:] == ["poststop"]


@case("runtime.md#lifecycle")
def start_container_runs_inside_before_the_program(box: Box) -> None:
    """startContainer runs in start, inside the container, before the program"""
    _install(box, "startContainer")
    box.create("/bin/sh", "-c", "cat /log > /seen")
    assert not (box.root / "log").exists()
    box.start()
    box.until_status("stopped")
    assert (box.root / "seen").read_text().startswith("startContainer ")


@case(HOOKS)
def listed_order(box: Box) -> None:
    """hooks of one kind run in the order of the list"""
    _install(box, "createRuntime", "createRuntime", "createRuntime")
    for index, hook in enumerate(box.config["hooks"]["createRuntime"]):
        hook["args"] = ["hook", str(index)]
    box.create()
    assert [name for name, _, _ in _lines(box)] == ["0", "1", "2"]


@case(HOOKS)
def state_on_stdin(box: Box) -> None:
    """every hook gets the state on stdin, with the id, the bundle and a pid"""
    _install(box, *OUTSIDE)
    _full_life(box)
    for name, _, state in _lines(box):
        assert state["id"] == box.id and state["bundle"] == str(box.path), name
        assert name == "poststop" or state["pid"] > 0, name


@case("runtime.md#state")
def status_in_the_state(box: Box) -> None:
    """the state of hooks says creating during create, running in poststart, stopped in poststop"""
    _install(box, *OUTSIDE)
    _full_life(box)
    assert [state["status"] for _, _, state in _lines(box)] == ["creating"] * 3 + ["running", "stopped"]


@case(HOOKS)
def namespaces_of_hooks(box: Box) -> None:
    """prestart, createRuntime, poststart and poststop run in the runtime's namespaces, the others in the container's"""
    _install(box, *OUTSIDE, "startContainer")
    _full_life(box)
    spaces = {name: space for name, space, _ in [*_lines(box), *_lines(box, inside=True)]}
    here = os.readlink("/proc/self/ns/mnt")
    for name in ("createRuntime", "poststart", "poststop"):
        assert spaces[name] == here, name
    assert spaces["createContainer"] != here and spaces["createContainer"] == spaces["startContainer"]


@case(HOOKS)
def arguments_and_environment(box: Box) -> None:
    """args and env of a hook are exactly those given"""
    path = box.directory / "hook"
    path.write_text(f'#!/bin/sh\n(echo "$0" "$@"; /usr/bin/env) > {box.directory}/log\n')
    path.chmod(0o755)
    box.config["hooks"] = {
        "createRuntime": [{"path": str(path), "args": ["x", "a b", "c"], "env": ["ONE=1", "TWO=2 2"]}]
    }
    box.create()
    lines = (box.directory / "log").read_text().splitlines()
    # the interpreter of a script gets the script's path in place of args[0]; PWD, SHLVL and _ are the shell's own
    assert lines[0].endswith(" a b c")
    assert {line for line in lines[1:] if not line.startswith(("PWD=", "SHLVL=", "_=", "OLDPWD="))} == {
        "ONE=1",
        "TWO=2 2",
    }


def _failing(box: Box, name: str) -> None:
    _install(box, name, script="exit 3")
    _install(box, "poststop")


@case("runtime.md#lifecycle")
def failing_prestart(box: Box) -> None:
    """a failing prestart hook fails create, and nothing is left"""
    _failing(box, "prestart")
    box.must_fail()


@case("runtime.md#lifecycle")
def failing_create_runtime(box: Box) -> None:
    """a failing createRuntime hook fails create, and nothing is left"""
    _failing(box, "createRuntime")
    box.must_fail()


@case("runtime.md#lifecycle")
def failing_create_container(box: Box) -> None:
    """a failing createContainer hook fails create, and nothing is left"""
    _failing(box, "createContainer")
    box.must_fail()


@case("runtime.md#lifecycle")
def failing_create_hook_runs_poststop(box: Box) -> None:
    """after a failed hook of create the container is destroyed, and poststop hooks run"""
    _failing(box, "createRuntime")
    box.must_fail()
    assert [name for name, _, _ in _lines(box)] == ["createRuntime", "poststop"]


@case("runtime.md#lifecycle")
def later_hooks_do_not_run_after_a_failure(box: Box) -> None:
    """hooks after the failed one are not run"""
    _failing(box, "createRuntime")
    _install(box, "createContainer")
    box.config["hooks"]["createRuntime"] *= 2
    box.must_fail()
    assert [name for name, _, _ in _lines(box) if name != "poststop"] == ["createRuntime"]


@case("runtime.md#lifecycle")
def failing_start_container(box: Box) -> None:
    """a failing startContainer hook fails start, and the program does not run"""
    _install(box, "startContainer", script="exit 3")
    box.create("/bin/touch", "/tmp/ran")
    assert box.background("start", box.id).failed
    box.until(lambda: box.call("state", box.id).failed or box.status() == "stopped", "the end")
    assert not (box.root / "tmp/ran").exists()


@case("runtime.md#lifecycle (1.3)")
def failing_poststart(box: Box) -> None:
    """a failing poststart hook is an error, and the container is stopped"""
    _install(box, "poststart", script="exit 3")
    box.create()
    assert box.background("start", box.id).failed
    box.until(lambda: box.call("state", box.id).failed or box.status() == "stopped", "the end")


@case("runtime.md#lifecycle")
def failing_poststop(box: Box) -> None:
    """a failing poststop hook is no error: the later ones run, and the container is gone"""
    _install(box, "poststop", script="exit 3")
    box.config["hooks"]["poststop"] *= 2
    _full_life(box)
    assert len(_lines(box)) == 2 and box.call("state", box.id).failed


@case(HOOKS)
def timeout(box: Box) -> None:
    """a hook that takes longer than its timeout fails"""
    box.config["hooks"] = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "300"], "timeout": 1}]}
    started = time.monotonic()
    box.must_fail()
    assert time.monotonic() - started < 100


@case(HOOKS)
def timeout_of_nothing_is_an_error(box: Box) -> None:
    """a timeout has to be greater than zero"""
    box.config["hooks"] = {"createRuntime": [{"path": "/bin/true", "timeout": -1}]}
    box.must_fail()
    box.config["hooks"] = {"createRuntime": [{"path": "/bin/true", "timeout": 0}]}
    box.must_fail()


@case(HOOKS)
def relative_path_is_an_error(box: Box) -> None:
    """the path of a hook has to be absolute"""
    box.config["hooks"] = {"createRuntime": [{"path": "bin/true"}]}
    box.must_fail()


@case(HOOKS)
def missing_hook_is_an_error(box: Box) -> None:
    """a hook whose program does not exist fails create"""
    box.config["hooks"] = {"createRuntime": [{"path": "/nonexistent/hook"}]}
    box.must_fail()
