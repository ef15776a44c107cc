"""config.json for another runtime, which is called from inside the container's user namespace."""

from __future__ import annotations

import pytest

from rootless.errors import InvalidInput
from rootless.monitor.foreign_agent import adapt_config, root_path


def test_what_is_outside_of_the_user_namespace_goes() -> None:
    linux = {
        "namespaces": [{"type": "user"}, {"type": "pid"}],
        "resources": {"pids": {"limit": 3}},
        "cgroupsPath": "/a",
        "uidMappings": [],
        "maskedPaths": ["/proc/kcore"],
    }
    adapted = adapt_config({"ociVersion": "1.2.0", "root": {"path": "/r"}, "linux": linux, "vendor": {"a": 1}}, "/b")
    assert adapted["linux"] == {"namespaces": [{"type": "pid"}], "maskedPaths": ["/proc/kcore"]}
    assert adapted["vendor"] == {"a": 1}
    assert len(linux["namespaces"]) == 2  # what was given stays as it is


def test_relative_paths_are_those_of_the_bundle() -> None:
    mounts = [
        {"destination": "/a", "type": "bind", "source": "files/a"},
        {"destination": "/b", "source": "../b", "options": ["rbind", "ro"]},
        {"destination": "/c", "type": "tmpfs", "source": "tmpfs"},
    ]
    adapted = adapt_config({"root": {"readonly": True}, "mounts": mounts}, "/bundles/one")
    assert adapted["root"] == {"readonly": True, "path": "/bundles/one/rootfs"}
    assert isinstance(adapted["mounts"], list)
    assert [each["source"] for each in adapted["mounts"]] == ["/bundles/one/files/a", "/bundles/b", "tmpfs"]
    assert root_path({"root": {"path": "../tree"}}, "/bundles/one") == "/bundles/tree"


@pytest.mark.parametrize("config", [{"mounts": [3]}, {"linux": []}, {"root": {"path": 1}}])
def test_malformed_members_are_errors(config: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        adapt_config(config, "/b")
