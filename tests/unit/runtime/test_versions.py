"""The two versions of the runtime specification: what we write declares one, what we implement is another."""

from __future__ import annotations

from rootless.runtime import CONFIG_VERSION, SPECIFICATION_VERSION
from rootless.runtime.oci.report import features
from rootless.runtime.oci.template import default_config


def test_a_written_configuration_is_taken_by_older_runtimes() -> None:
    assert CONFIG_VERSION == "1.0.2", "crun 1.8 of Debian 12 takes no newer one"
    assert default_config(1000, 1000)["ociVersion"] == CONFIG_VERSION


def test_features_tell_what_is_implemented() -> None:
    assert features()["ociVersionMax"] == SPECIFICATION_VERSION == "1.3.0"
