"""The verb `explain`: the steps of a `run`, without taking them. It plans as `create` does and stops there."""

from __future__ import annotations

from rootless.engine import image_in_use
from rootless.engine.container.create import plan_container
from rootless.engine.plan.explanation import explain_plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.context import Engine
    from rootless.engine.report_types import Explanation
    from rootless.records.container_options import ContainerOptions


def explain_container(engine: Engine, options: ContainerOptions) -> Explanation:
    """The steps of a `run` in words, and the files that it would write; nothing is made, pulled or started.

    Raises the errors of the plan that `create` makes, and ImageNotFound when `run` would have to pull first.
    """
    with engine.store.using():
        image = image_in_use.image_for(engine, options.image, pull="never", platform=options.platform)
        return explain_plan(plan_container(engine, options, image))
