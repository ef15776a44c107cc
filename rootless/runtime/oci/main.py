"""The entry point of rootless-oci: from words to a verb, logging, exit codes. Verbs and their flags live beside it."""

from __future__ import annotations

import os
import sys

from rootless import output
from rootless.errors import CommandNotExecutable, CommandNotFound, NotFound, RootlessError
from rootless.host.interpreter import restart_by_loader
from rootless.paths import runtime_base
from rootless.runtime.oci import flags
from rootless.runtime.oci.flags import FlagValues

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    import click

    from rootless.runtime.oci.life_verbs import CreateOptions
    from rootless.runtime.oci.oci_records import Records


class OciSession:
    """What the global flags say: where records live (has_root: --root was given), where messages go."""

    __slots__ = ("cgroup_manager", "debug", "has_root", "log", "log_format", "root", "strict")

    def __init__(self) -> None:
        runtime = runtime_base() if os.environ.get("XDG_RUNTIME_DIR") else None
        # In /tmp anybody may have been first: Records looks who owns the directory before it reads or writes there
        self.root = f"{runtime}/rootless-oci" if runtime else f"/tmp/rootless-oci-{os.geteuid()}"  # noqa: S108
        self.has_root = False
        self.log: str | None = None
        self.log_format = "text"
        self.debug = False
        self.cgroup_manager = "cgroupfs"
        self.strict = os.environ.get("ROOTLESS_OCI_LIMITS") != "warn"

    def take(self, overall: FlagValues) -> None:
        """Take over what the global flags of the line say; what they leave open stays as the environment has it.

        Raises UsageError when the log cannot be written: whoever asks for one reads the reasons of failures there.
        """
        self.has_root = bool(overall.optional_text("root"))
        self.root = os.path.abspath(overall.optional_text("root") or self.root)
        log = overall.optional_text("log")
        if log:
            from rootless.errors import UsageError

            try:
                open(log, "ab").close()
            except OSError as e:
                raise UsageError(f"cannot open log '{log}': {e.strerror}") from e
        self.log = log
        self.log_format = overall.text("log_format")
        self.debug = overall.switch("debug") or overall.optional_text("log_level") == "debug"
        manager = "systemd" if overall.switch("systemd_cgroup") else "cgroupfs"
        self.cgroup_manager = overall.optional_text("cgroup_manager") or manager
        limits = overall.optional_text("limits")
        if limits:
            self.strict = limits == "strict"

    def warn(self, text: str) -> None:
        """Write `text`, one line, as a warning: what was asked for is done, and something about it is weaker."""
        self.write("warning", text)

    def write(self, level: str, text: str) -> None:
        """A message to the log, when there is one; errors go to stderr in any case."""
        if self.log:
            try:
                with open(self.log, "a", encoding="utf-8", errors="surrogateescape") as file:
                    file.write(self._line(level, text))
            except OSError:
                pass  # the message still goes to stderr
        if level == "error":
            output.line(f"rootless-oci: {output.escape(text)}", sys.stderr)
        elif not self.log:
            output.line(f"{level}: {output.escape(text)}", sys.stderr)

    def _line(self, level: str, text: str) -> str:
        if self.log_format != "json":
            return f"{level}: {output.escape(text)}\n"
        import json
        import time

        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return json.dumps({"level": level, "msg": text, "time": stamp}) + "\n"


def perform(session: OciSession, overall: Mapping[str, object], verb: str, given: Mapping[str, object]) -> int:
    """Carry out one parsed line; the exit status.

    overall, given: the values of the global flags, and of the verb's flags and arguments, by their names.
    """
    session.take(FlagValues(overall))
    values = FlagValues(given)
    if session.debug:
        from rootless import __version__

        session.write("debug", f"rootless-oci {__version__}: {verb} with the records in '{session.root}'")
    if verb in ("create", "run", "exec"):
        restart_by_loader()
    from rootless.runtime.oci.oci_records import Records

    records = Records(session.root)
    if verb in ("checkpoint", "restore"):
        _refuse_checkpoint(records, verb, values.text("container_id"))
    if verb in ("update", "events"):
        return _limits(records, verb, values)
    if verb in ("list", "ps", "state", "features"):
        return _report(session, records, verb, values)
    if verb == "spec":
        return _write_spec(values.text("bundle"))
    if verb == "exec":
        return _exec(session, records, values)
    from rootless.runtime.oci import life_verbs

    container_id = values.text("container_id")
    if verb == "create":
        life_verbs.create(records, container_id, _options(session, values), session.warn)
    elif verb == "start":
        notify_socket = os.environ.get("NOTIFY_SOCKET")
        life_verbs.start(records, container_id, session.warn, notify_socket=notify_socket)
    elif verb == "run":
        options = _options(session, values)
        options.detach, options.keep = values.switch("detach"), values.switch("keep")
        return life_verbs.run(records, container_id, options, session.warn)
    elif verb == "pause":
        life_verbs.pause(records, container_id)
    elif verb == "resume":
        life_verbs.resume(records, container_id)
    elif verb == "kill":
        life_verbs.kill(records, container_id, values.text("signal"), everything=values.switch("everything"))
    else:
        life_verbs.delete_each(records, _named(records, values), session.warn, force=values.switch("force"))
    return 0


def _named(records: Records, values: FlagValues) -> list[str]:
    """The ids of the containers that `delete` means: the one that is named, or with --regex those that match."""
    word = values.text("container_id")
    if not values.switch("regex"):
        return [word]
    import re

    from rootless.errors import UsageError

    try:
        pattern = re.compile(word)
    except re.error as e:
        raise UsageError(f"invalid regular expression '{word}': {e}") from e
    return [record.id for record in records.all() if pattern.search(record.id)]


def _refuse_checkpoint(records: Records, verb: str, container_id: str) -> NoReturn:
    from rootless.errors import HostLimit

    if verb == "checkpoint":
        records.get(container_id)
    raise HostLimit(
        f"cannot {verb} container '{container_id}': criu needs CAP_CHECKPOINT_RESTORE on the host, "
        "and root for processes with a user namespace of their own",
        hint="keep what must survive in a volume, or ask for a virtual machine",
    )


def _limits(records: Records, verb: str, values: FlagValues) -> int:
    from rootless.runtime.oci import bundle_cgroup, update_values

    record = records.get(values.text("container_id"))
    if verb == "update":
        with record.lock():
            bundle_cgroup.update(record, update_values.changes(values))
    elif values.switch("stats"):
        output.line(output.json_text(bundle_cgroup.statistics(record), indent=None))
    else:
        for event in bundle_cgroup.events(record, update_values.seconds(values.text("interval"))):
            output.line(output.json_text(event, indent=None))
            sys.stdout.flush()
    return 0


def _options(session: OciSession, values: FlagValues) -> CreateOptions:
    from rootless.runtime.oci.bundle_cgroup import Policy
    from rootless.runtime.oci.life_verbs import CreateOptions

    options = CreateOptions(values.text("bundle"), values.text("config"))
    options.pid_file = values.optional_text("pid_file")
    options.console_socket = values.optional_text("console_socket")
    options.listen_fds = _listen_fds()
    options.preserve_fds = values.number("preserve_fds") + options.listen_fds
    options.keyring = not values.switch("no_new_keyring")
    options.pivot = not values.switch("no_pivot")
    options.notify = os.environ.get("NOTIFY_SOCKET")
    options.cgroups = Policy(session.cgroup_manager, strict=session.strict)
    if session.debug:
        from rootless.runtime import plan
        from rootless.runtime.spec.oci_config import load_config

        facts = plan.RootFacts(options.bundle, lambda gid: True, pivot=options.pivot)
        for line in plan.describe(plan.operations(load_config(options.config_path), facts)):
            session.write("debug", line)
    return options


def _listen_fds() -> int:
    """Sockets that systemd passed to us (sd_listen_fds(3)) are the container's."""
    from rootless.units import whole_number

    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return 0
    return whole_number(os.environ.get("LISTEN_FDS", ""), 1 << 20) or 0


def _exec(session: OciSession, records: Records, values: FlagValues) -> int:
    from rootless.runtime.oci.exec_verb import OciExecOptions, execute

    options = OciExecOptions()
    options.additional_gids = values.numbers("additional_gids")
    options.apparmor = values.optional_text("apparmor")
    options.cgroups = values.texts("cgroup")
    options.capabilities = values.texts("cap")
    options.console_socket = values.optional_text("console_socket")
    options.cwd = values.optional_text("cwd")
    options.detach = values.switch("detach")
    options.environment = values.texts("env")
    options.ignore_paused = values.switch("ignore_paused")
    options.no_new_privileges = values.switch("no_new_privs")
    options.pid_file = values.optional_text("pid_file")
    options.preserve_fds = values.number("preserve_fds")
    options.process_file = values.optional_text("process")
    options.process_label = values.optional_text("process_label")
    options.tty = values.switch("tty")
    options.user = values.optional_text("user")
    return execute(records, values.text("container_id"), values.texts("command"), options, session.warn)


def _report(session: OciSession, records: Records, verb: str, values: FlagValues) -> int:
    if verb == "state":
        output.line(output.json_text(records.get(values.text("container_id")).oci_state().to_json()))
        return 0
    from rootless.runtime.oci import report

    if verb == "features":
        output.line(output.json_text(report.features()))
    elif verb == "ps":
        pids = report.process_ids(records.get(values.text("container_id")))
        if values.text("format") == "json":
            output.line(output.json_text(pids, indent=None))
        else:
            output.line(report.process_table(pids, values.texts("options")))
    elif session.has_root and not os.path.isdir(session.root):
        raise NotFound(f"no containers are recorded in '{session.root}': there is no such directory")
    elif values.switch("quiet"):
        for state in report.states(records):
            output.line(state.id)
    else:
        states = report.states(records)
        as_json = values.text("format") == "json"
        if as_json:
            output.line(output.json_text([state.to_json() for state in states], indent=None))
        else:
            output.line(report.table(states))
    return 0


def _write_spec(bundle: str) -> int:
    from rootless.errors import AlreadyExists, UsageError
    from rootless.runtime.oci.template import default_config

    path = os.path.join(bundle, "config.json")
    content = output.json_text(default_config(os.geteuid(), os.getegid())) + "\n"
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError:
        raise AlreadyExists(f"'{path}' exists", hint="remove it first") from None
    except OSError as e:
        raise UsageError(f"cannot write '{path}': {e.strerror}") from e
    return 0


def __getattr__(name: str) -> click.Group:
    """`cli`, the click group that manual pages and completions are made from."""
    if name != "cli":
        raise AttributeError(name)
    from rootless.runtime.oci.cli import group

    return group(lambda overall, verb, values: perform(OciSession(), overall, verb, values))


def _by_click(session: OciSession, words: list[str]) -> int:
    """Help, completion, and lines that the quick parser did not take; click prints what is wrong with them."""
    import click

    from rootless.runtime.oci.cli import group

    root = group(lambda overall, verb, values: perform(session, overall, verb, values))
    try:
        status = root.main(words, "rootless-oci", standalone_mode=False)
    except click.exceptions.Exit as e:
        return e.exit_code
    except click.ClickException as e:
        e.show()
        return 1
    except click.Abort:
        return 130
    return status if isinstance(status, int) else 0


def _flush_output() -> OSError | None:
    """Write out what was printed; why standard output does not take it, None when it does."""
    if sys.stdout is None or sys.stdout.closed:
        return None
    try:
        sys.stdout.flush()
        return None
    except OSError as e:
        nowhere = os.open(os.devnull, os.O_WRONLY)  # or the interpreter tries again at its end, and complains
        os.dup2(nowhere, 1)
        os.close(nowhere)
        return e


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status: the container's, 126 or 127 for its command, else 1."""
    session = OciSession()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        line = None if "_ROOTLESS_OCI_COMPLETE" in os.environ else flags.parse(words)
        status = _by_click(session, words) if line is None else perform(session, *line)
        refused = _flush_output()  # half a list must not look like a whole one
        if refused is None:
            return status
        if not isinstance(refused, BrokenPipeError):
            session.write("error", f"cannot write standard output: {refused.strerror}")
        return status or 1
    except RootlessError as e:
        session.write("error", str(e))
        return e.exit_code if isinstance(e, CommandNotFound | CommandNotExecutable) else 1
    except KeyboardInterrupt:
        return 130
    except Exception as e:
        if session.debug:
            import traceback

            traceback.print_exc()
        session.write("error", f"{type(e).__name__}: {e}")
        _flush_output()
        return 1
