"""`run`, `create` and `explain`: one declaration of flags, three uses."""

from __future__ import annotations

from rootless import output
from rootless.cli.declaration import CommandRules, Session, command, pass_session, switch_option
from rootless.cli.run_flags import container_options, end_of_following, options_from_flags, terminal_options
from rootless.engine import verbs
from rootless.engine.types import AttachOptions

_RUN_EXAMPLES = """
rootless run --rm -it debian bash
rootless run -d --name web -p 8080:80 -v site:/usr/share/nginx/html:ro nginx
rootless run --rm -v "$PWD":/work -w /work --userns=keep-id python:3 python script.py
"""


@command(
    "run",
    "Create and run a new container from an image",
    description="Everything after IMAGE belongs to the container. The exit code is the command's; 125 is an error of "
    "rootless itself, 126 a command that cannot be executed, 127 one that does not exist.",
    examples=_RUN_EXAMPLES,
    rules=CommandRules(own_error=125, command_first=True, short_help_flag=False, grouped=True),
)
@switch_option("-d", "--detach", help="Run in the background and print the container's id")
@switch_option("-q", "--quiet", help="Do not show the progress of a pull")
@terminal_options
@container_options
@pass_session
def run(
    session: Session, /, detach: bool, quiet: bool, detach_keys: str | None, sig_proxy: bool, **flags: object
) -> int:
    """Create and start a container, and stay with it."""
    attach = AttachOptions(detach=detach, detach_keys=detach_keys, sig_proxy=sig_proxy)
    session.quiet = quiet
    outcome = verbs.run_container(session.engine, options_from_flags(flags), attach)
    if detach:
        output.line(outcome.container_id)
        return 0
    return end_of_following(outcome.exit_code)


@command(
    "create",
    "Create a new container",
    description="Like run -d, and the container is not started: its id is printed.",
    rules=CommandRules(own_error=125, command_first=True, short_help_flag=False, grouped=True),
)
@switch_option("-q", "--quiet", help="Do not show the progress of a pull")
@container_options
@pass_session
def create(session: Session, /, quiet: bool, **flags: object) -> None:
    """Create a container that is not started."""
    session.quiet = quiet
    output.line(verbs.create_container(session.engine, options_from_flags(flags)))


@command(
    ("explain",),
    "Show what `run` would do, step by step, and do nothing",
    description="Takes the flags of run. The image must be there.",
    examples="rootless explain --read-only -v data:/data busybox sh",
    rules=CommandRules(own_error=125, command_first=True, short_help_flag=False, grouped=True),
)
@switch_option("--json", help="Print the OCI configuration, the launch record and the steps as JSON")
@container_options
@pass_session
def explain(session: Session, /, json: bool, **flags: object) -> None:
    """Print the plan of a container."""
    explanation = verbs.explain_container(session.engine, options_from_flags(flags))
    if json:
        output.line(output.json_text(explanation._asdict()))
        return
    for number, step in enumerate(explanation.steps, 1):
        output.line(f"{number:3} {step}")
