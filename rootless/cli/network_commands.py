"""`network create`, `connect`, `disconnect`, `ls`, `inspect`, `rm`, `prune` and `exists`."""

from __future__ import annotations

import click

from rootless import output
from rootless.cli.declaration import (
    CommandRules,
    Session,
    command,
    complete_names,
    do_for_each,
    pass_session,
    repeated_option,
    switch_option,
    value_option,
)
from rootless.cli.run_flags import (
    confirm,
    filter_option,
    filter_option_prune,
    force_option,
    format_option,
    no_heading_option,
    no_trunc_option,
)
from rootless.engine import verbs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.types import NetworkSummary

_NETWORKS = click.argument(
    "names", nargs=-1, required=True, metavar="NETWORK...", shell_complete=complete_names("networks")
)


@command("create", "Create a network")
@switch_option("--disable-dns", help="Do not let containers find each other by name")
@value_option("-d", "--driver", metavar="NAME", default="bridge", help="Driver (default bridge)")
@repeated_option("--gateway", metavar="ADDRESS", help="Gateway of the subnet (default its first address)")
@switch_option("--internal", help="Let nothing outside be reached")
@repeated_option("--ip-range", metavar="SUBNET", help="Give addresses of this part of the subnet only")
@switch_option("--ipv6", help="Refused: there is no IPv6 yet")
@repeated_option("--label", metavar="KEY[=VALUE]", help="Set a label")
@repeated_option("-o", "--opt", metavar="KEY=VALUE", help="Set an option: mtu, com.docker.network.driver.mtu, ...")
@repeated_option("--subnet", metavar="SUBNET", help="Addresses, such as 10.90.0.0/24 (default a free subnet)")
@click.argument("name", metavar="NETWORK")
@pass_session
def create(session: Session, /, name: str, **flags: object) -> None:
    """Make a network, and print its id."""
    from rootless.engine.network.network_verbs import NetworkOptions

    output.line(
        verbs.create_network(session.engine, name, NetworkOptions._make(map(flags.get, NetworkOptions._fields)))
    )


@command("connect", "Put a container on a network")
@repeated_option("--alias", metavar="NAME", help="Further name of the container on the network")
@value_option("--ip", metavar="ADDRESS", help="IPv4 address of the container on the network")
@value_option("--mac-address", metavar="ADDRESS", help="Address of the link layer there")
@click.argument("network", shell_complete=complete_names("networks"))
@click.argument("container", shell_complete=complete_names("containers"))
@pass_session
def connect(
    session: Session, alias: tuple[str, ...], ip: str | None, mac_address: str | None, network: str, container: str
) -> None:
    """Connect a container, which may run, with one more network."""
    words = [*(f"alias={name}" for name in alias)]
    words += [f"{key}={value}" for key, value in (("ip", ip), ("mac", mac_address)) if value]
    verbs.connect_network(session.engine, network, container, words)


@command("disconnect", "Let a container leave a network")
@switch_option("-f", "--force", help="Forget the network even if the container cannot leave it now")
@click.argument("network", shell_complete=complete_names("networks"))
@click.argument("container", shell_complete=complete_names("containers"))
@pass_session
def disconnect(session: Session, force: bool, network: str, container: str) -> None:
    """Disconnect a container, which may run, from a network."""
    verbs.disconnect_network(session.engine, network, container, force=force)


@command("ls", "List networks")
@filter_option
@format_option
@no_heading_option
@no_trunc_option
@switch_option("-q", "--quiet", help="Only print ids")
@pass_session
def ls(
    session: Session, filter: tuple[str, ...], format: str | None, noheading: bool, no_trunc: bool, quiet: bool
) -> None:
    """Print one line per network."""
    from rootless import units
    from rootless.cli.declaration import parse_filters
    from rootless.cli.table import Column, Layout, short_id

    def labels(row: NetworkSummary) -> str:
        return ",".join(f"{key}={value}" for key, value in row.labels.items())

    columns: list[Column[NetworkSummary]] = [
        Column("CreatedAt", "CREATED AT", lambda row: units.local_time(row.created)),
        Column("Driver", "DRIVER", lambda row: row.driver),
        Column("ID", "NETWORK ID", lambda row: row.id if no_trunc else short_id(row.id)),
        Column("IPv4", "IPV4", lambda row: "true"),
        Column("IPv6", "IPV6", lambda row: "false"),
        Column("Internal", "INTERNAL", lambda row: "true" if row.internal else "false"),
        Column("Labels", "LABELS", labels),
        Column("Name", "NAME", lambda row: row.name),
        Column("Scope", "SCOPE", lambda row: "local"),
    ]
    layout = Layout(
        columns,
        ["ID", "Name", "Driver", "Scope"],
        quiet="ID",
        methods={"Label": lambda row, key: row.labels.get(key, "")},
    )
    rows = verbs.list_networks(session.engine, filters=parse_filters(filter))
    layout.print(rows, format=format, quiet=quiet, headings=not noheading)


@command("inspect", "Display detailed information on networks")
@value_option("-f", "--format", metavar="FORMAT", help="'json' or a Go template over the object")
@_NETWORKS
@pass_session
def inspect(session: Session, format: str | None, names: tuple[str, ...]) -> int:
    """Print each network as JSON, or as the template says."""
    from rootless.cli.inspect_any import print_objects

    return print_objects(names, lambda name: verbs.inspect_network(session.engine, name), format)


@command(
    "exists", "Tell by the exit code whether a network exists: 0 for yes, 1 for no", rules=CommandRules(own_error=125)
)
@click.argument("name", metavar="NETWORK", shell_complete=complete_names("networks"))
@pass_session
def exists(session: Session, name: str) -> int:
    """Look for a network, and print nothing."""
    return 0 if verbs.network_exists(session.engine, name) else 1


@command("rm", "Remove networks")
@switch_option("-f", "--force", help="An unknown network is no error")
@_NETWORKS
@pass_session
def rm(session: Session, force: bool, names: tuple[str, ...]) -> int:
    """Remove each network, unless a running container uses it, and print its name."""

    def remove_one(name: str) -> str:
        verbs.remove_network(session.engine, name, force=force)
        return name

    return do_for_each(names, remove_one)


@command("prune", "Remove unused networks")
@force_option
@filter_option_prune
@pass_session
def prune(session: Session, force: bool, filter: tuple[str, ...]) -> None:
    """Ask, then remove the networks that no container uses, and print what was removed."""
    from rootless.cli.declaration import parse_filters

    filters = parse_filters(filter)
    if confirm("This will remove all custom networks not used by at least one container.", force=force):
        removed = verbs.prune_networks(session.engine, filters=filters).networks
        if removed:
            output.line("Deleted Networks:")
            for name in removed:
                output.line(name)
