"""The exception tree: what failed, why, what to do, and the exit code. It imports nothing and prints nothing.

    RootlessError                    1   anything a user may meet
    ├── UsageError                 125   a flag or argument that cannot be right
    ├── NotFound                     1   no such image, container, volume, network
    │   └── ImageNotFound          125
    ├── AlreadyExists              125   a name in use
    ├── InvalidState                 1   the object is not in a state that allows this
    ├── InvalidInput               125   something from outside (archive, manifest, answer) breaks its specification
    │   ├── NewerFormat            125   a file that a newer program wrote
    │   └── DigestMismatch         125
    ├── HostLimit                  125   the host cannot do this (no user namespaces, no helper, no space, ...)
    ├── RegistryError              125   the registry refused or cannot be reached
    │   └── AuthenticationError    125
    └── RuntimeFailure             125   a step of starting a container failed
        ├── CommandNotExecutable   126
        ├── CommandNotFound        127
        └── HookFailed             125   a hook of the OCI configuration

The codes are docker's, which scripts rely on, for the commands that pass on the exit code of what they run: `run`,
`create`, `start`, `exec`, `explain` and `unshare`, which turn 1 into 125 too. Every other command ends with 1, and
with 125 for a UsageError (`cli.main`).
"""

from __future__ import annotations


class RootlessError(Exception):
    """An error meant for the user: `message` (lower case, no full stop, paths quoted) and an optional `hint`.

    The hint is an action that the user may take without root, or the exact line for the administrator. An `excerpt` is
    shown below the message: the lines of a file that are wrong.
    """

    exit_code = 1
    excerpt = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(RootlessError):
    """A flag or an argument that cannot be right."""

    exit_code = 125


class NotFound(RootlessError):
    """There is no object of that name or id."""


class ImageNotFound(NotFound):
    """There is no image of that name, here or in the registry or archive that was asked."""

    exit_code = 125


class AlreadyExists(RootlessError):
    """The name is in use."""

    exit_code = 125


class InvalidState(RootlessError):
    """The object is not in a state that allows the operation."""


class InvalidInput(RootlessError):
    """Bytes from outside (archive, manifest, registry answer, file) that break their specification or our bounds."""

    exit_code = 125


class NewerFormat(InvalidInput):
    """A file that a newer program wrote: nothing in it is damaged, and what it means is not known."""


class DigestMismatch(InvalidInput):
    """Content that is not what its digest or size says."""


class HostLimit(RootlessError):
    """The host cannot do this: a kernel feature, a helper program, ids or space are missing."""

    exit_code = 125


class RegistryError(RootlessError):
    """The registry refused, answered nonsense, or cannot be reached."""

    exit_code = 125


class AuthenticationError(RegistryError):
    """The registry did not accept the credentials, or wants some."""


class RuntimeFailure(RootlessError):
    """A step of setting up or starting a container's process failed."""

    exit_code = 125


class CommandNotExecutable(RuntimeFailure):
    """The container's command exists and cannot be executed."""

    exit_code = 126


class CommandNotFound(RuntimeFailure):
    """The container's command does not exist."""

    exit_code = 127


class HookFailed(RuntimeFailure):
    """A hook of a container's configuration failed: the container is destroyed, and its poststop hooks run."""
