"""--ssh ID=KEYFILE: an ssh-agent of the build's own, which holds the keys of these files. No key is read here."""

from __future__ import annotations

import os
import signal
import subprocess

from rootless.errors import HostLimit, UsageError
from rootless.host.facts import find_helper

# ssh-agent starts this as its command, and ends soon after it. It waits for the end of its standard input, which comes
# with the end of the build, however that ends: no agent with keys is left behind
_COMMAND = '"$0" -q -- "$@" </dev/null && echo "$SSH_AGENT_PID $SSH_AUTH_SOCK" && exec cat >/dev/null'
_TIMEOUT = 30  # seconds: ssh-add reads files of the user's own home, which may be slow


class KeyAgent:
    """A running ssh-agent with the keys of `files`. socket: its path.

    Raises UsageError for a file that is no usable key, HostLimit where the host has no OpenSSH client.
    """

    def __init__(self, id: str, files: tuple[str, ...]) -> None:
        agent, adder = find_helper("ssh-agent"), find_helper("ssh-add")
        if agent is None or adder is None:
            hint = "ask the administrator for: apt-get install openssh-client"
            raise HostLimit(f"--ssh {id}: ssh-agent and ssh-add are not installed", hint=hint)
        # Without a terminal ssh-add cannot ask for a passphrase, for which a build would wait without end
        environment = {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}
        environment.pop("SSH_AUTH_SOCK", None)
        self._process = subprocess.Popen(
            [agent, "/bin/sh", "-c", _COMMAND, adder, *files],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        assert self._process.stdout is not None
        pid, _, self.socket = self._process.stdout.readline().strip().partition(" ")
        if not self.socket:
            _, said = self._process.communicate(timeout=_TIMEOUT)
            why = " ".join(said.split()) or "ssh-add has failed"
            hint = "a key with a passphrase has to be given to your own agent: ssh-add FILE, and --ssh default"
            raise UsageError(f"--ssh {id}: {why}", hint=hint)
        self._agent = int(pid)

    def close(self) -> None:
        """End the agent, which removes its socket."""
        try:
            os.kill(self._agent, signal.SIGTERM)  # it lives as long as its command, and so nobody else has this pid
        except ProcessLookupError:
            pass
        self._process.communicate()
