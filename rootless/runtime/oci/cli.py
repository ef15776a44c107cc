"""rootless-oci as a click group, for help, completion, manual pages and complaints; the flags are those of `flags`."""

from __future__ import annotations

import click

from rootless.runtime.oci.flags import GLOBAL, VERBS, ChoiceFlag, Flag, NumberFlag, SwitchFlag, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Action = Callable[[Mapping[str, object], str, Mapping[str, object]], int]


_EXAMPLES = {
    "checkpoint": "rootless-oci checkpoint box",
    "create": "rootless-oci spec && rootless-oci create --bundle . --pid-file box.pid box",
    "delete": "rootless-oci delete box\nrootless-oci delete --force box",
    "events": "rootless-oci events --stats box\nrootless-oci events --interval 10s box",
    "exec": "rootless-oci exec --tty box sh\nrootless-oci exec --process process.json box",
    "features": "rootless-oci features",
    "kill": "rootless-oci kill box TERM\nrootless-oci kill box 9",
    "list": "rootless-oci list\nrootless-oci list --format json",
    "pause": "rootless-oci pause box",
    "ps": "rootless-oci ps box\nrootless-oci ps box -ef",
    "restore": "rootless-oci restore box",
    "resume": "rootless-oci resume box",
    "run": "rootless-oci spec && rootless-oci run --bundle . box",
    "spec": "mkdir rootfs && rootless export web | tar -C rootfs -x && rootless-oci spec",
    "start": "rootless-oci start box",
    "state": "rootless-oci state box",
    "update": "rootless-oci update --memory 536870912 box",
}


def group(action: Action) -> click.Group:
    """The command tree; `action` gets what `flags.parse` would have returned, and gives the exit status."""

    def overall(**values: object) -> None:
        click.get_current_context().obj = values

    root = click.Group(
        "rootless-oci",
        callback=overall,
        help="An OCI runtime for ordinary users. Flags are runc's, so that podman, containerd and Slurm can call it.",
        params=[*(_option(flag) for flag in GLOBAL), _version_option()],
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name, verb in VERBS.items():
        root.add_command(_command(name, verb, action))
    return root


def _command(name: str, verb: Verb, action: Action) -> click.Command:
    def callback(**values: object) -> int:
        return action(click.get_current_context().obj, name, values)

    params: list[click.Parameter] = [_option(flag) for flag in verb.flags]
    params += [click.Argument([argument], metavar="ID") for argument in verb.arguments]
    settings: dict[str, bool] = {}
    if verb.optional is not None:
        params.append(click.Argument([verb.optional[0]], required=False, default=verb.optional[1]))
    if verb.rest is not None:
        params.append(click.Argument([verb.rest], nargs=-1, type=click.UNPROCESSED))
        settings["allow_interspersed_args"] = False
    epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in _EXAMPLES[name].splitlines())
    return click.Command(
        name, callback=callback, params=params, help=verb.help, context_settings=settings, epilog=epilog
    )


def _option(flag: Flag) -> click.Option:
    names = [flag.name, *flag.names]
    if isinstance(flag, SwitchFlag):
        return click.Option(names, is_flag=True, help=flag.help)
    choice = click.Choice(list(flag.choices)) if isinstance(flag, ChoiceFlag) else click.STRING
    kind = click.IntRange(0, flag.highest) if isinstance(flag, NumberFlag) else choice
    default = None if flag.many else flag.default
    return click.Option(names, type=kind, multiple=flag.many, default=default, metavar=flag.metavar, help=flag.help)


def _version_option() -> click.Option:
    def show(context: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted:
            from rootless import __version__
            from rootless.runtime import SPECIFICATION_VERSION

            click.echo(f"rootless-oci version {__version__}\nspec: {SPECIFICATION_VERSION}")
            context.exit()

    return click.Option(
        ["-v", "--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help="Show the version of the program and of the specification.",
    )
