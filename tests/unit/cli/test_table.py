"""Tables and filters: docker's columns, words and errors."""

from __future__ import annotations

import pytest

from rootless.cli.container.ps import ports_text, ps_layout
from rootless.cli.declaration import parse_filters
from rootless.cli.table import align_columns
from rootless.engine.types import ContainerSummary, PortBinding
from rootless.errors import UsageError


def summary(**changes: object) -> ContainerSummary:
    row = ContainerSummary(
        id="0123456789abcdef" * 4,
        name="web",
        image="nginx",
        image_id="sha256:" + "a" * 64,
        command=("nginx", "-g", "daemon off; and more"),
        created=0.0,
        started=0.0,
        finished=0.0,
        state="running",
        status="Up 3 minutes",
        exit_code=0,
        health="",
        ports=(PortBinding("", 8080, 80, "tcp"),),
        exposed=("443/tcp",),
        labels={"com.example.my-key": "v", "a": "b"},
        mounts=("data", "/host/dir"),
        networks=("pasta",),
    )
    return row._replace(**changes)


def printed(
    capsys: pytest.CaptureFixture[str],
    format: str | None = None,
    *,
    quiet: bool = False,
    no_trunc: bool = False,
    size: bool = False,
    rows: list[ContainerSummary] | None = None,
) -> str:
    ps_layout(no_trunc=no_trunc, with_size=size).print(
        [summary()] if rows is None else rows, format=format, quiet=quiet
    )
    return capsys.readouterr().out


def test_ps_has_docker_s_columns(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = (
        "CONTAINER ID   IMAGE     COMMAND                  CREATED   STATUS         "
        "PORTS                           NAMES\n"
        '0123456789ab   nginx     "nginx -g daemon off…"   N/A       Up 3 minutes   '
        "0.0.0.0:8080->80/tcp, 443/tcp   web\n"
    )
    assert printed(capsys) == wanted


def test_an_empty_list_has_its_heading(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, rows=[]) == "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"


def test_quiet_prints_ids(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, quiet=True) == "0123456789ab\n"
    assert printed(capsys, "{{.Names}}", quiet=True) == "0123456789ab\n"
    assert printed(capsys, quiet=True, no_trunc=True) == "0123456789abcdef" * 4 + "\n"


def test_table_directive_with_a_template(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = "NAMES     my key    STATUS\nweb       v         Up 3 minutes\n"
    assert printed(capsys, 'table {{.Names}}\t{{.Label "com.example.my-key"}}\t{{.Status}}') == wanted
    assert printed(capsys, 'table {{.Names}}\\t{{.Label "com.example.my-key"}}\\t{{.Status}}') == wanted


def test_heading_functions_leave_headings_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "table {{upper .Names}}\t{{.ID}}").splitlines() == [
        "NAMES     CONTAINER ID",
        "WEB       0123456789ab",
    ]


def test_json_has_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "json")
    assert text.startswith('{"Command":"\\"nginx -g daemon off…\\"","CreatedAt":')
    assert '"Labels":"com.example.my-key=v,a=b","LocalVolumes":"1","Mounts":"data,/host/dir","Names":"web"' in text


def test_unknown_fields_are_errors() -> None:
    with pytest.raises(UsageError, match=r"can't evaluate field Name.*'\.Names'"):
        ps_layout(no_trunc=False, with_size=False).print([summary()], format="{{.Name}}", quiet=False)


def test_sizes_appear_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [summary(size_rw=1234, size_root=7_800_000)]
    assert printed(capsys, size=True, rows=rows).splitlines()[1].endswith("web       1.23kB (virtual 7.8MB)")


@pytest.mark.parametrize(
    ("bindings", "exposed", "text"),
    [
        ([("", 80, 80, "tcp"), ("::", 80, 80, "tcp")], [], "0.0.0.0:80->80/tcp, [::]:80->80/tcp"),
        ([("127.0.0.1", 8000 + n, 80 + n, "tcp") for n in range(3)], [], "127.0.0.1:8000-8002->80-82/tcp"),
        ([("", 5353, 53, "udp")], ["80/tcp", "81/tcp", "53/tcp"], "53/tcp, 0.0.0.0:5353->53/udp, 80-81/tcp"),
        ([], [], ""),
    ],
)
def test_ports(bindings: list[tuple[str, int, int, str]], exposed: list[str], text: str) -> None:
    assert ports_text([PortBinding(*one) for one in bindings], exposed) == text


def test_columns_align_within_runs_of_rows() -> None:
    rows = [["a", "b"], ["a long first cell", "b"], ["alone"], ["x", "y"]]
    assert align_columns(rows) == "a                   b\na long first cell   b\nalone\nx         y\n"
    assert align_columns([]) == ""


def test_filters_collect_by_key() -> None:
    assert parse_filters(["status=exited", "status=created", "label=a=b", "label!=c"]) == {
        "status": ["exited", "created"],
        "label": ["a=b"],
        "label!": ["c"],
    }
    for wrong in ("status", "=x", "!=x"):
        with pytest.raises(UsageError, match="invalid filter"):
            parse_filters([wrong])
