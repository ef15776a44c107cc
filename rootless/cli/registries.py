"""Commands that talk to registries: `push`, `login`, `logout` and `search`; and the flags that say how to reach one."""

from __future__ import annotations

from collections.abc import Callable

import click

from rootless import output
from rootless.cli.declaration import (
    Declared,
    Option,
    Session,
    command,
    complete_names,
    pass_session,
    repeated_option,
    switch_option,
    value_option,
)
from rootless.engine import verbs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.image_types import RegistryOptions, RepositoryTag, SearchResult

_PUSH_EXAMPLES = """
rootless push registry.example.org/team/app:1.2
rootless push app registry.example.org/team/app:1.2
rootless push --compression zstd --digestfile digest app localhost:5000/app
"""


def registry_options(*, prefix: str = "", whose: str = "") -> Callable[[Declared], Declared]:
    """Declare --authfile, --cert-dir, --creds, --tls-verify. prefix: `src-` or `dest-`; whose: words for the help."""
    name = prefix.replace("-", "_")

    def declare(function: Declared) -> Declared:
        for option in reversed(
            (
                value_option(
                    f"--{prefix}authfile",
                    f"{name}authfile",
                    metavar="FILE",
                    help=f"Credentials{whose}, in the form of docker's config.json",
                ),
                value_option(
                    f"--{prefix}cert-dir",
                    f"{name}cert_dir",
                    metavar="DIR",
                    help=f"Directory with certificates{whose}: *.crt, *.cert, *.key",
                ),
                value_option(
                    f"--{prefix}creds",
                    f"{name}creds",
                    metavar="USER[:PASSWORD]",
                    help=f"Credentials{whose}; without a password it is asked for",
                ),
                click.option(
                    f"--{prefix}tls-verify",
                    f"{name}tls_verify",
                    cls=Option,
                    is_flag=True,
                    flag_value=True,
                    default=None,
                    help=f"Check the registry's certificate{whose} (default true); false allows plain HTTP too",
                ),
            )
        ):
            function = option(function)
        return function

    return declare


def take_registry_options(flags: dict[str, object], prefix: str = "") -> RegistryOptions:
    """What the options of `registry_options` say; their values are taken out of `flags`.

    A password that --creds leaves out is asked for: on a command line every user of the host could read it.
    """
    from rootless.engine.image_types import RegistryOptions

    authfile, cert_dir, creds = (_take_text(flags, f"{prefix}{name}") for name in ("authfile", "cert_dir", "creds"))
    tls_verify = flags.pop(f"{prefix}tls_verify")
    if creds and ":" not in creds:
        creds = f"{creds}:{click.prompt('Password', hide_input=True, err=True)}"
    return RegistryOptions(
        tls_verify=tls_verify if isinstance(tls_verify, bool) else None,
        authfile=authfile,
        credentials=creds or None,
        certificates=cert_dir,
    )


def _take_text(flags: dict[str, object], name: str) -> str | None:
    value = flags.pop(name)
    return value if isinstance(value, str) else None


def compression_options(function: Declared) -> Declared:
    """Declare --compression and --compression-level."""
    function = value_option(
        "--compression-level",
        metavar="N",
        type=int,
        help="Level: 1 to 9 for gzip, 1 to 22 for zstd (default: a fast one)",
    )(function)
    return click.option(
        "--compression",
        "--compression-format",
        "compression",
        type=click.Choice(["gzip", "zstd", "none"]),
        help="Compress every layer so (default: as they are, and gzip for those that are not compressed)",
    )(function)


format_option = click.option(
    "-f", "--format", type=click.Choice(["oci", "v2s2"]), help="Media types of the manifest (default: as the image has)"
)
digestfile_option = value_option("--digestfile", metavar="FILE", help="Write the digest that the registry has to FILE")


def write_digest(path: str | None, digest: str) -> None:
    """Write `digest` to the file of --digestfile, None = no such option. Raises HostLimit."""
    if path is None:
        return
    from rootless.errors import HostLimit

    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(digest)
    except OSError as e:
        raise HostLimit(f"cannot write '{path}': {e.strerror}") from e


@command(
    ("image push", "push"),
    "Upload an image to a registry",
    description="Layers that the registry has are not sent; those that another of its repositories has are mounted. An "
    "image goes to where its name says, or to DESTINATION.",
    examples=_PUSH_EXAMPLES,
)
@switch_option("--all", "all", help="Push every platform of an index, and the index")
@switch_option("-a", "--all-tags", help="Push every tag of the repository that IMAGE names")
@value_option("--chunk-size", metavar="SIZE", help="Send at most SIZE per request (default: a layer in one stream)")
@compression_options
@digestfile_option
@format_option
@value_option("--platform", metavar="OS/ARCH[/VARIANT]", help="Push only the image for it, without its index")
@switch_option("-q", "--quiet", help="Show no progress, only the result")
@registry_options()
@click.argument("image", shell_complete=complete_names("images"))
@click.argument("destination", required=False, metavar="[DESTINATION]")
@pass_session
def push(
    session: Session,
    /,
    all: bool,
    all_tags: bool,
    chunk_size: str | None,
    compression: str | None,
    compression_level: int | None,
    digestfile: str | None,
    format: str | None,
    platform: str | None,
    quiet: bool,
    image: str,
    destination: str | None,
    **flags: object,
) -> None:
    """Upload the image, or every tag of its repository."""
    from rootless.cli.progress import PullProgress
    from rootless.engine.image_types import PushOptions
    from rootless.errors import UsageError
    from rootless.units import parse_size

    chunk = parse_size(chunk_size, "--chunk-size") if chunk_size else None
    if chunk is not None and chunk < 1:
        raise UsageError("--chunk-size must be at least one byte")
    options = PushOptions(format, compression, compression_level, all, chunk, take_registry_options(flags), platform)
    if all_tags and destination:
        raise UsageError("--all-tags and a destination do not go together")
    names = verbs.repository_tags(session.engine, image) if all_tags else [image]
    with PullProgress(quiet=quiet) as progress:
        for name in names:
            pushed = verbs.push_image(session.engine, name, destination, options, progress=progress.event)
            write_digest(digestfile, pushed.digest)
            if quiet:
                output.line(pushed.name)


@command(
    ("login",),
    "Log in to a registry",
    description="User and password are tried with the registry, then kept in the first of the files that podman and "
    "docker read, or with the credential helper that it names. REGISTRY is docker.io when it is not given.",
    examples="rootless login registry.example.org\n"
    "rootless login -u me --password-stdin localhost:5000 < password\n"
    "rootless login --get-login registry.example.org",
)
@value_option("--authfile", metavar="FILE", help="Keep the credentials in FILE [env: REGISTRY_AUTH_FILE]")
@value_option("--cert-dir", metavar="DIR", help="Directory with certificates: *.crt, *.cert, *.key")
@switch_option("--get-login", help="Print the user who is logged in, and do nothing")
@value_option(
    "-p", "--password", metavar="PASSWORD", help="Password; others on this host can see it: use --password-stdin"
)
@switch_option("--password-stdin", help="Read the password from standard input")
@click.option(
    "--tls-verify",
    cls=Option,
    is_flag=True,
    flag_value=True,
    default=None,
    help="Check the registry's certificate (default true); false allows plain HTTP too",
)
@value_option("-u", "--username", metavar="USER", help="User; asked for when not given")
@click.argument("registry", required=False, metavar="[REGISTRY]")
@pass_session
def login(
    session: Session,
    /,
    authfile: str | None,
    cert_dir: str | None,
    get_login: bool,
    password: str | None,
    password_stdin: bool,
    tls_verify: bool | None,
    username: str | None,
    registry: str | None,
) -> None:
    """Try user and password with the registry, and keep them when it takes them."""
    from rootless.engine.image_types import RegistryOptions
    from rootless.errors import NotFound
    from rootless.image.distribution.auth import Secret

    options = RegistryOptions(tls_verify=tls_verify, authfile=authfile, certificates=cert_dir)
    if get_login:
        output.line(verbs.logged_in_user(registry, options))
        return
    known = ""
    # The user who is logged in is offered at the prompt. An authfile that this login is going to make has none
    if username is None:
        try:
            known = verbs.logged_in_user(registry, RegistryOptions(authfile=authfile if _exists(authfile) else None))
        except NotFound:
            pass
    secret = Secret(_password(password, password_stdin=password_stdin, username=username))
    if username is None:
        username = click.prompt("Username", default=known or None, err=True)
    if not secret.reveal():
        secret = Secret(click.prompt("Password", hide_input=True, err=True))
    kept = verbs.login(session.engine, registry, username, secret, options)
    if not kept.program:
        output.warn(f"the password is stored unencrypted in '{kept.path}'; a credential helper would keep it safe")
    output.line("Login Succeeded")


def _exists(path: str | None) -> bool:
    import os

    return path is not None and os.path.exists(path)


def _password(given: str | None, *, password_stdin: bool, username: str | None) -> str:
    """The password of flags or of standard input; "" = it must be asked for."""
    import sys

    from rootless.errors import UsageError

    if password_stdin:
        if given is not None:
            raise UsageError("--password and --password-stdin do not go together")
        if username is None:
            raise UsageError("--password-stdin needs --username")
        password = sys.stdin.buffer.read(1 << 16).decode("utf-8", "surrogateescape").rstrip("\r\n")
        if not password:
            raise UsageError("standard input has no password")
        return password
    if given:
        output.warn("a password on the command line is seen by others on this host: use --password-stdin")
        return given
    if not output.is_terminal(sys.stdin):
        raise UsageError("cannot ask for a password: standard input is no terminal", hint="use --password-stdin")
    return ""


@command(("logout",), "Log out from a registry", description="REGISTRY is docker.io when it is not given.")
@switch_option("-a", "--all", help="Forget all credentials")
@value_option("--authfile", metavar="FILE", help="Forget those in FILE [env: REGISTRY_AUTH_FILE]")
@click.argument("registry", required=False, metavar="[REGISTRY]")
@pass_session
def logout(session: Session, /, all: bool, authfile: str | None, registry: str | None) -> None:
    """Remove what `login` kept; each registry that it was for is printed."""

    for key in dict.fromkeys(verbs.logout(session.engine, registry, all=all, authfile=authfile)):
        output.line(f"Removed login credentials for {key}")


@command(
    ("search",),
    "Search a registry for images",
    description="docker.io is asked by docker's search; a registry without one by its catalog, where TERM is part of a "
    "name.",
    examples="rootless search debian\nrootless search localhost:5000/app\n"
    "rootless search --list-tags localhost:5000/app",
)
@repeated_option("-f", "--filter", metavar="KEY=VALUE", help="Show only: stars=N, is-official=BOOL, is-automated=BOOL")
@value_option("--format", metavar="FORMAT", help="'json', 'table' with a template, or a Go template of fields")
@value_option("--limit", metavar="N", type=int, help="Most lines to show (default 25; tags: 1000)")
@switch_option("--list-tags", help="List the tags of the repository TERM instead")
@switch_option("--no-trunc", help="Do not shorten the output")
@registry_options()
@click.argument("term")
@pass_session
def search(
    session: Session,
    /,
    filter: tuple[str, ...],
    format: str | None,
    limit: int | None,
    list_tags: bool,
    no_trunc: bool,
    term: str,
    **flags: object,
) -> None:
    """Print what the registry finds."""
    from rootless.cli.declaration import parse_filters
    from rootless.cli.table import Column, Layout, shorten

    registry = take_registry_options(flags)
    if list_tags:
        tags = verbs.list_registry_tags(session.engine, term, limit=limit or 1000, options=registry)
        of_tags: list[Column[RepositoryTag]] = [
            Column("Name", "NAME", lambda row: row.name),
            Column("Tag", "TAG", lambda row: row.tag),
        ]
        Layout(of_tags, ["Name", "Tag"], quiet="Tag").print(tags, format=format, quiet=False)
        return
    limit = 25 if limit is None else limit
    found = verbs.search_registry(session.engine, term, limit=limit, filters=parse_filters(filter), options=registry)
    columns: list[Column[SearchResult]] = [
        Column("Automated", "AUTOMATED", lambda row: "[OK]" if row.automated else ""),
        Column(
            "Description",
            "DESCRIPTION",
            lambda row: row.description if no_trunc else shorten(row.description, 45),
        ),
        Column("Index", "INDEX", lambda row: row.registry),
        Column("Name", "NAME", lambda row: row.name),
        Column("Official", "OFFICIAL", lambda row: "[OK]" if row.official else ""),
        Column("Stars", "STARS", lambda row: str(row.stars) if row.stars >= 0 else ""),
    ]
    Layout(columns, ["Name", "Description", "Stars", "Official"], quiet="Name").print(found, format=format, quiet=False)
