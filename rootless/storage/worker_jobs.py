"""The form that every job for a worker process has, and every answer that the worker gives.

Jobs and answers travel as JSON objects. Both processes import the same class for a job, so that neither can misspell a
member; the class's `operation` is the name under which the job travels. How the messages are carried, and which process
does a job, each kind of worker decides for itself: storage.layers.worker_client, builder.worker.job_channel.
"""

from __future__ import annotations

from rootless.errors import InvalidInput, RuntimeFailure
from rootless.records.fields import Fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol, TypeVar

    Json = dict[str, object]
    _Told = TypeVar("_Told", covariant=True)
    _Answer = TypeVar("_Answer")
    _AnyJob = TypeVar("_AnyJob")

    class Job(Protocol[_Told]):
        """Something for a worker to do."""

        @property
        def operation(self) -> str:
            """The name of what is to be done."""

        def to_json(self) -> Json:
            """The members of the job, without `operation`."""

        def read_answer(self, fields: Fields) -> _Told:
            """The answer that the worker gave to this job. Raises InvalidInput."""

    class Answer(Protocol):
        """What a worker reports when it has done a job."""

        def to_json(self) -> Json:
            """The members of the answer."""


class NoAnswer:
    """The answer to a job of which the caller needs to know only that it was done."""

    __slots__ = ()

    def to_json(self) -> Json:
        """An object without members."""
        return {}


class QuietJob:
    """A job whose answer is NoAnswer."""

    __slots__ = ()

    def read_answer(self, fields: Fields) -> None:
        """The answer has no members to read: that it came says that the job was done."""


def job_message(job: Job[object]) -> Json:
    """`job` as a JSON object, which the worker reads with `read_job`."""
    return {"operation": job.operation, "job": job.to_json()}


def read_job(message: Fields, readers: Mapping[str, Callable[[Fields], _AnyJob]]) -> _AnyJob:
    """The job in `message`, which `job_message` has made. readers: for each operation that the worker can do, what
    reads its job.

    Raises InvalidInput for a malformed message and for an operation that is not in `readers`.
    """
    operation = message.text("operation")
    read = readers.get(operation)
    if read is None:
        raise InvalidInput(f"this worker knows no job '{operation}'")
    return read(message.require_member("job"))


def read_answer(job: Job[_Answer], content: object) -> _Answer:
    """The answer to `job` in a JSON object that a worker wrote.

    Every member is checked: a worker handles files of a container, and a container that has taken it over could write
    anything. Raises RuntimeFailure for an answer that is not of the expected form.
    """
    try:
        return job.read_answer(Fields(content, f"answer to '{job.operation}'"))
    except InvalidInput as e:
        raise RuntimeFailure(e.message) from e
