"""What a process asks of a worker of its own, and what that answers: the form that jobs and answers of every kind have.

Both travel as JSON objects. A job is a class of which both ends share one definition, so that neither can misspell a
member; `operation` is its name on the way.
"""

from __future__ import annotations

from rootless.errors import InvalidInput, RuntimeFailure
from rootless.records.fields import Fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol, TypeVar

    Json = dict[str, object]
    _Told = TypeVar("_Told", covariant=True)
    _Answer = TypeVar("_Answer")

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


def read_answer(job: Job[_Answer], content: object) -> _Answer:
    """The answer to `job` in a JSON object that a worker wrote.

    A container may have taken over the process that wrote it, so each member is checked. Raises RuntimeFailure.
    """
    try:
        return job.read_answer(Fields(content, f"answer to '{job.operation}'"))
    except InvalidInput as e:
        raise RuntimeFailure(e.message) from e
