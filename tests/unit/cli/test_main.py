"""From an error to one line and docker's exit code. The engine is a double: only what the command line does is seen."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rootless import errors
from rootless.cli.declaration import Session
from rootless.cli.main import run as main
from rootless.engine import verbs
from rootless.engine.container.endings import Ended
from rootless.engine.image_types import ImageTree, ImageTreeNode
from rootless.engine.types import AttachOptions, ExecOptions, ExecSession, PruneReport, RunOutcome
from rootless.records.container_options import ContainerOptions

COMPLETIONS = Path(__file__).resolve().parents[3] / "contrib/completions"


class Verbs:
    """Records each call, and raises or returns what the test says."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            assert isinstance(arguments[0], FakeEngine)
            self.calls.append((verb, arguments[1:], named))
            answer = self.answers.get(verb)
            if callable(answer):
                answer = answer(*arguments, **named)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return call


class FakeEngine:
    pass


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Verbs]:
    """A door whose verbs answer as the test says."""

    def make(**answers: Any) -> Verbs:
        monkeypatch.setattr(Session, "engine", FakeEngine())
        unknown = set(answers) - set(verbs.MODULES)
        assert not unknown
        double = Verbs(answers)
        for name in verbs.MODULES:
            monkeypatch.setitem(vars(verbs), name, getattr(double, name))
        return double

    return make


def last_error(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("rootless: ")
    return lines[0].removeprefix("rootless: ")


@pytest.mark.parametrize(
    ("words", "error", "code"),
    [
        (["run", "x"], errors.NotFound("no"), 125),
        (["run", "x"], errors.ImageNotFound("no"), 125),
        (["run", "x"], errors.CommandNotExecutable("no"), 126),
        (["run", "x"], errors.CommandNotFound("no"), 127),
        (["run", "x"], OSError(errno.ENOSPC, "No space left on device", "/x"), 125),
        (["run", "x"], KeyError("x"), 125),
        (["create", "x"], errors.InvalidState("no"), 125),
        (["start", "x"], errors.NotFound("no"), 125),
        (["exec", "x", "y"], errors.NotFound("no"), 125),
        (["exec", "x", "y"], errors.CommandNotFound("no"), 127),
        (["stop", "x"], errors.NotFound("no"), 1),
        (["rm", "x"], errors.InvalidState("no"), 1),
        (["inspect", "x"], errors.ImageNotFound("no"), 1),
        (["rmi", "x"], errors.ImageNotFound("no"), 1),
        (["history", "x"], errors.ImageNotFound("no"), 1),
        (["rename", "x", "y"], errors.AlreadyExists("no"), 1),
        (["logs", "x"], errors.UsageError("no"), 125),
        (["logs", "x"], OSError(errno.EIO, "Input/output error"), 1),
        (["logs", "x"], KeyboardInterrupt(), 130),
        (["logs", "x"], BrokenPipeError(), 141),
    ],
)
def test_exit_codes(
    engine: Callable[..., Verbs],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    error: BaseException,
    code: int,
) -> None:
    monkeypatch.setattr("rootless.cli.main._give_up_stdout", lambda: None)
    engine(**dict.fromkeys(verbs.MODULES, error))
    assert main(words) == code


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rnu"], "no such command 'rnu', did you mean 'run'? (see 'rootless --help')"),
        (["image", "pul", "x"], "no such command 'pul', did you mean 'pull'? (see 'rootless image --help')"),
        (
            ["run", "--privilged", "x"],
            "no such option '--privilged', did you mean '--privileged' or '--pid'? (see 'rootless run --help')",
        ),
        (["run"], "missing argument 'IMAGE' (see 'rootless run --help')"),
        (
            ["run", "--rm=maybe", "x"],
            "invalid value 'maybe' for switch '--rm': true or false (see 'rootless run --help')",
        ),
        (
            ["run", "--pull=often", "x"],
            "invalid value for '--pull': 'often' is not one of 'always', 'missing', 'never', 'newer' "
            "(see 'rootless run --help')",
        ),
        (["ps", "--filter", "x"], "invalid filter 'x' (a filter is KEY=VALUE, such as status=exited)"),
        (["logs", "-n", "x", "c"], "invalid --tail 'x' (a number of lines, or all)"),
        (["start", "-a", "x", "y"], "cannot attach to several containers at once (give one, or leave -a and -i out)"),
    ],
)
def test_usage_errors(
    engine: Callable[..., Verbs], capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    engine()
    assert main(words) == 125
    assert last_error(capsys) == message


def test_a_full_disk_is_one_line(engine: Callable[..., Verbs], capsys: pytest.CaptureFixture[str]) -> None:
    engine(create_container=OSError(errno.ENOSPC, "No space left on device", "/x"))
    main(["create", "x"])
    assert (
        last_error(capsys)
        == "'/x': No space left on device (free some space: 'rootless system prune' removes what is not used)"
    )


def test_an_unexpected_error_is_one_line_and_a_traceback_on_request(
    engine: Callable[..., Verbs], capsys: pytest.CaptureFixture[str]
) -> None:
    engine(create_container=ValueError("a\nb"))
    main(["create", "x"])
    assert (
        last_error(capsys)
        == "unexpected error: ValueError: a b (this is a bug; the same command with --debug shows where)"
    )
    main(["--debug", "create", "x"])
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_messages_from_outside_are_escaped(engine: Callable[..., Verbs], capsys: pytest.CaptureFixture[str]) -> None:
    engine(create_container=errors.RegistryError("the registry says '\x1b[2J\nrootless: all is well'"))
    main(["create", "x"])
    assert last_error(capsys) == "the registry says '\\x1b[2J\\nrootless: all is well'"


def test_several_names_are_independent(engine: Callable[..., Verbs], capsys: pytest.CaptureFixture[str]) -> None:
    def stop(engine: Any, names: tuple[str, ...], **_: Any) -> list[Ended]:
        return [Ended(2), Ended(1, errors.NotFound(f"no such container: '{names[1]}'")), Ended(0)]

    engine(stop_containers=stop)
    assert main(["stop", "-t", "3", "a", "b", "c"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "a\nc\n"
    assert captured.err == "rootless: no such container: 'b'\n"


def test_run_gives_the_engine_what_was_asked(engine: Callable[..., Verbs], capsys: pytest.CaptureFixture[str]) -> None:
    fake = engine(run_container=RunOutcome("f" * 64, 7))
    assert main(["run", "--rm", "-eA=b", "--detach-keys", "ctrl-x", "image", "cmd", "-x"]) == 7
    options = ContainerOptions(image="image", command=("cmd", "-x"), rm=True, env=("A=b",))
    assert fake.calls == [("run_container", (options, AttachOptions(detach_keys="ctrl-x")), {})]
    assert capsys.readouterr().out == ""
    engine(run_container=RunOutcome("f" * 64, None))
    assert main(["container", "run", "-d", "image"]) == 0
    assert capsys.readouterr().out == "f" * 64 + "\n"


def test_exec_gives_the_engine_what_was_asked(engine: Callable[..., Verbs]) -> None:
    fake = engine(exec_in_container=ExecSession(1, 3))
    assert main(["exec", "-it", "-u", "me", "c", "sh", "-c", "exit 3"]) == 3
    options = ExecOptions(("sh", "-c", "exit 3"), interactive=True, tty=True, user="me")
    assert fake.calls == [("exec_in_container", ("c", options), {})]


def test_rm_force_of_an_unknown_container_is_no_failure(engine: Callable[..., Verbs]) -> None:
    engine(remove_containers=[Ended(0, errors.NotFound("no such container: 'x'"))])
    assert main(["rm", "x"]) == 1
    assert main(["rm", "-f", "x"]) == 0


def test_inspect_prints_the_others_first(engine: Callable[..., Verbs], capsys: pytest.CaptureFixture[str]) -> None:
    def read(engine: Any, name: str, **_: Any) -> Any:
        return (
            {"Id": name, "State": {"Running": True}} if name == "a" else errors.NotFound(f"no such container: '{name}'")
        )

    absent = errors.NotFound("no")
    engine(inspect_container=read, inspect_image=absent, inspect_volume=absent, inspect_network=absent)
    assert main(["inspect", "-f", "{{.Id}} {{.State.Running}}", "b", "a"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "a true\n"
    assert captured.err == "rootless: no such object: 'b'\n"
    assert main(["container", "inspect", "b"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "[]\n"
    assert captured.err == "rootless: no such container: 'b'\n"
    assert main(["container", "inspect", "a"]) == 0
    assert capsys.readouterr().out.startswith('[\n    {\n        "Id": "a",')


def test_prune_asks_first(
    engine: Callable[..., Verbs], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    fake = engine(prune_containers=PruneReport(containers=("a",), reclaimed=1500))
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert main(["container", "prune"]) == 0
    assert fake.calls == []
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["container", "prune", "--filter", "until=1h"]) == 0
    assert fake.calls == [("prune_containers", (), {"filters": {"until": ["1h"]}})]
    assert capsys.readouterr().out.endswith("Deleted Containers:\na\n\nTotal reclaimed space: 1.5kB\n")


def test_version_and_help_need_no_engine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert main([]) == 0
    assert main(["-h"]) == 0
    assert main(["run", "--help"]) == 0
    assert main(["image"]) == 0
    assert capsys.readouterr().out.startswith("rootless version ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "-h"], "option '-h' requires an argument (see 'rootless run --help')"),
        (["run", "-t=maybe", "x"], "invalid value 'maybe' for switch '-t': true or false (see 'rootless run --help')"),
        (["compose", "up"], "no such command 'compose' (compose needs docker's API, which rootless does not serve)"),
        (["run", "--link=db", "x"], "no such option '--link' (containers on a network with a name find each other"),
        (["help", "nope"], "no such command 'nope' (see 'rootless --help')"),
        (["help", "run", "x"], "'run' has no subcommands (see 'rootless help run')"),
    ],
)
def test_what_a_newcomer_types_is_answered_with_what_to_do(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(words) == 125
    assert last_error(capsys).startswith(message)


@pytest.mark.parametrize("words", [["run"], ["volume", "create"], ["volume"], []])
def test_help_of_a_command_is_its_own_help(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main([*words, "--help"]) == 0
    own = capsys.readouterr().out
    assert main(["help", *words]) == 0
    assert capsys.readouterr().out == own


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_the_completion_script_is_the_packaged_one(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    place = {"bash": "bash/rootless", "fish": "fish/rootless.fish", "zsh": "zsh/_rootless"}[shell]
    assert main(["completion", shell]) == 0
    assert capsys.readouterr().out.rstrip() == (COMPLETIONS / place).read_text().rstrip()


@pytest.mark.parametrize(("flag", "value"), [("-i=true", True), ("-i=false", False), ("-i", True)])
def test_a_short_switch_takes_a_value(engine: Callable[..., Verbs], flag: str, value: bool) -> None:
    double = engine(run_container=RunOutcome("f" * 64, 0))
    assert main(["run", flag, "x"]) == 0
    assert double.calls[0][1][0].interactive is value


def test_a_tree_of_a_thousand_layers_is_printed(
    engine: Callable[..., Verbs], capsys: pytest.CaptureFixture[str]
) -> None:
    node = ImageTreeNode("sha256:0", "sha256:0", 1, "", (), 1, ())
    for number in range(999):
        node = ImageTreeNode(f"sha256:{number}", f"sha256:{number}", 1, "", (), 1, (node,))
    engine(image_tree=ImageTree((node,), 1, 1000, 1000, 1000))
    limit = sys.getrecursionlimit()
    try:
        assert main(["tree", "--format", "json"]) == 0
    finally:
        sys.setrecursionlimit(limit)
    assert capsys.readouterr().out.count('"Children"') == 1000


def test_log_level(engine: Callable[..., Verbs], capsys: pytest.CaptureFixture[str]) -> None:
    engine(create_container=ValueError("a"))
    assert main(["-l", "debug", "create", "x"]) == 125
    assert "Traceback" in capsys.readouterr().err
    assert main(["--log-level=info", "create", "x"]) == 125
    assert "Traceback" not in capsys.readouterr().err
    assert main(["--log-level", "loud", "ps"]) == 125
    assert last_error(capsys).startswith("invalid --log-level 'loud' (use one of: trace, debug,")


@pytest.mark.parametrize(("level", "shown"), [("warn", "warning: careful\n"), ("error", ""), ("FATAL", "")])
def test_log_level_error_takes_warnings_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, level: str, shown: str
) -> None:
    def list_containers(engine: Any, **_: Any) -> list[Any]:
        engine.warn("careful")
        return []

    monkeypatch.setitem(vars(verbs), "list_containers", list_containers)
    assert main(["--root", str(tmp_path), "--log-level", level, "ps", "-q"]) == 0
    assert capsys.readouterr().err == shown


def test_global_flags_of_a_client_and_its_daemon(
    engine: Callable[..., Verbs], capsys: pytest.CaptureFixture[str]
) -> None:
    engine(list_containers=[])
    assert main(["--context", "default", "ps", "-q"]) == 0
    assert main(["-c", "remote", "ps"]) == 125
    assert last_error(capsys).startswith("there is no context 'remote' (there is one engine")
    for words in (["-H", "ssh://there"], ["--host=tcp://there:2375"], ["--remote"], ["--tls"]):
        assert main([*words, "ps"]) == 125
        assert "(there is no daemon to talk to" in last_error(capsys)
    assert main(["--config", "/x", "ps"]) == 125
    assert "--authfile" in last_error(capsys)
    assert main(["ps", "--host", "x"]) == 125
    assert "daemon" not in last_error(capsys)


def test_pull_every_tag(engine: Callable[..., Verbs], capsys: pytest.CaptureFixture[str]) -> None:
    from rootless.engine.image_types import PulledImage, RepositoryTag

    double = engine(
        list_registry_tags=[RepositoryTag("registry.example/a", tag) for tag in ("1", "2")],
        pull_image=lambda engine, name, *_, **__: PulledImage("sha256:0", f"full/{name}"),
    )
    assert main(["pull", "-q", "-a", "registry.example/a"]) == 0
    assert capsys.readouterr().out == "full/registry.example/a:1\nfull/registry.example/a:2\n"
    assert [call[1][0] for call in double.calls if call[0] == "pull_image"] == [
        "registry.example/a:1",
        "registry.example/a:2",
    ]
    for name in ("a:1", f"a@sha256:{'0' * 64}"):
        assert main(["pull", "-a", name]) == 125
        assert last_error(capsys) == "tag can't be used with --all-tags/-a (name the repository alone)"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["run", "--rootfs", "/x"], "make an image of the directory: tar"),
        (["logs", "--color", "x"], "logs shows those of one"),
        (["logs", "--names", "x"], "logs shows those of one"),
    ],
)
def test_what_is_refused_has_a_reason(
    engine: Callable[..., Verbs], capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    engine()
    assert main(words) == 125
    assert reason in last_error(capsys)
