"""What a process asks of a worker of its own, and what that answers: the form that jobs and answers of every kind have.

Both travel as JSON objects. A job is a class of which both ends share one definition, so that neither can misspell a
member; `operation` is its name on the way. What carries them, and who does a job, is the business of each kind of
worker: storage.layers.worker_client, builder.worker.job_channel.
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
        """What a worker tells when it has done a job."""

        def to_json(self) -> Json:
            """The members of the answer."""


class NoAnswer:
    """The answer to a job of which there is nothing to tell but that it was done."""

    __slots__ = ()

    def to_json(self) -> Json:
        """An object without members."""
        return {}


class QuietJob:
    """A job whose answer is NoAnswer."""

    __slots__ = ()

    def read_answer(self, fields: Fields) -> None:
        """Nothing is in it."""


def job_message(job: Job[object]) -> Json:
    """`job` as `read_job` of its worker reads it."""
    return {"operation": job.operation, "job": job.to_json()}


def read_job(message: Fields, readers: Mapping[str, Callable[[Fields], _AnyJob]]) -> _AnyJob:
    """The job in a `job_message`. readers: what the worker can do, by operation.

    Raises InvalidInput for what is no job, and for one that the worker does not know.
    """
    operation = message.text("operation")
    read = readers.get(operation)
    if read is None:
        raise InvalidInput(f"this worker knows no job '{operation}'")
    return read(message.require_member("job"))


def read_answer(job: Job[_Answer], content: object) -> _Answer:
    """The answer to `job` in a JSON object that a worker wrote.

    A container may have taken over the process that wrote it, so each member is checked. Raises RuntimeFailure.
    """
    try:
        return job.read_answer(Fields(content, f"answer to '{job.operation}'"))
    except InvalidInput as e:
        raise RuntimeFailure(e.message) from e
