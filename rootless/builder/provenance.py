"""The provenance of a build: a statement of what was built from what, by whom and when (SLSA, https://slsa.dev).

Its form is BuildKit's with `mode=min` (slsa-definitions.md), so that what reads BuildKit's reads this too. It holds no
values of build arguments, no labels and nothing about secrets, and is not signed.
"""

from __future__ import annotations

import json
import secrets
import time
from datetime import UTC, datetime
from typing import NamedTuple

from rootless.builder.dockerfile.instructions import Run
from rootless.builder.session.materials import image_uri, without_password
from rootless.builder.worker.step_jobs import ExportedStatement
from rootless.image.attestation import make_attestation
from rootless.image.platform import host_platform
from rootless.image.reference import parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.builder.build_options import BuildOptions, ProvenanceOptions
    from rootless.builder.dockerfile.graph import Graph
    from rootless.builder.session.build_session import BuildSession
    from rootless.builder.session.materials import Materials
    from rootless.image.attestation import Attestation
    from rootless.image.fields import Fields
    from rootless.image.manifest import Descriptor
    from rootless.image.platform import Platform

_FRONTEND = "dockerfile.v0"
_V02, _V1 = "https://slsa.dev/provenance/v0.2", "https://slsa.dev/provenance/v1"
_BUILD_TYPE = {
    "v0.2": "https://mobyproject.org/buildkit@v1",
    "v1": "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md",
}
_STATEMENT = {"v0.2": "https://in-toto.io/Statement/v0.1", "v1": "https://in-toto.io/Statement/v1"}
_PREDICATE = {"v0.2": _V02, "v1": _V1}
_EXTENSION = "https://mobyproject.org/buildkit@v1#"


class ProvenanceRun(NamedTuple):
    """One call of `rootless build` with provenance.

    session: of the build; wanted: what --provenance asks for; contexts: the materials that all platforms share; id: 25
    letters and digits at random; begun: seconds since the epoch.
    """

    session: BuildSession
    wanted: ProvenanceOptions
    contexts: Materials
    id: str
    begun: float

    @classmethod
    def begin(cls, session: BuildSession, wanted: ProvenanceOptions, begun: float) -> ProvenanceRun:
        """The call that began at the time `begun` and whose contexts are there."""
        letters = "abcdefghijklmnopqrstuvwxyz0123456789"
        contexts = session.materials.copy()
        contexts.is_complete = not session.options.volume
        session.materials = contexts.copy()
        return cls(session, wanted, contexts, "".join(secrets.choice(letters) for _ in range(25)), begun)

    def provenance(self, graph: Graph) -> Provenance:
        """That of the result which was built by `graph`. What is used from now on belongs to the next result."""
        materials = self.session.materials
        self.session.materials = self.contexts.copy()
        return Provenance(self, materials, uses_network=uses_network(self.session.options, graph))


class Provenance:
    """The provenance of what a build made for one platform.

    wanted: what --provenance asks for; run: the call, which all platforms share; materials: what of elsewhere was used;
    uses_network: whether a RUN could reach the network.
    """

    __slots__ = ("_materials", "_options", "_run", "_uses_network", "wanted")

    def __init__(self, run: ProvenanceRun, materials: Materials, *, uses_network: bool) -> None:
        self.wanted = run.wanted
        self._options = run.session.options
        self._run = run
        self._materials = materials
        self._uses_network = uses_network

    def predicate(self) -> Fields:
        """What is stated, without its subject. The end of the build is now."""
        return self._v1() if self.wanted.version == "v1" else self._v02()

    def attestation(self, image: Descriptor, platform: Platform, names: Sequence[str]) -> Attestation:
        """The attestation of an image. image: of its manifest; names: full references, of which it may have none."""
        algorithm, _, digits = image.digest.partition(":")
        uris = [image_uri(parse_reference(name), platform) for name in names] or ["_"]
        subjects: list[object] = [{"name": uri, "digest": {algorithm: digits}} for uri in uris]
        return make_attestation({**self._statement(), "subject": subjects})

    def exported(self, latest: int | None) -> ExportedStatement:
        """The statement as a file beside the files of the image. latest: as in `BuildSession`."""
        moment = int(time.time()) if latest is None else latest
        return ExportedStatement(self.wanted.filename, json.dumps(self._statement()), moment)

    def _statement(self) -> Fields:
        version = self.wanted.version
        return {
            "_type": _STATEMENT[version],
            "predicateType": _PREDICATE[version],
            "subject": [],
            "predicate": self.predicate(),
        }

    def _v02(self) -> Fields:
        materials = self._materials
        metadata: Fields = {
            "buildInvocationID": self._run.id,
            "buildStartedOn": _timestamp(self._run.begun),
            "buildFinishedOn": _timestamp(time.time()),
            "completeness": {
                "parameters": self._has_all_parameters,
                "environment": True,
                "materials": _is_complete(materials),
            },
            "reproducible": self.wanted.is_reproducible,
            f"{_EXTENSION}metadata": {},
        }
        if self._is_hermetic:
            metadata[f"{_EXTENSION}hermetic"] = True
        return {
            "builder": {"id": self.wanted.builder_id},
            "buildType": _BUILD_TYPE["v0.2"],
            "materials": [each.to_json() for each in materials.found],
            "invocation": {
                "configSource": _source(materials, "entryPoint"),
                "parameters": _parameters(self._options, materials),
                "environment": {"platform": str(host_platform())},
            },
            "metadata": metadata,
        }

    def _v1(self) -> Fields:
        materials = self._materials
        metadata: Fields = {
            "invocationId": self._run.id,
            "startedOn": _timestamp(self._run.begun),
            "finishedOn": _timestamp(time.time()),
            "buildkit_metadata": {},
            "buildkit_completeness": {
                "request": self._has_all_parameters,
                "resolvedDependencies": _is_complete(materials),
            },
            "buildkit_reproducible": self.wanted.is_reproducible,
        }
        if self._is_hermetic:
            metadata["buildkit_hermetic"] = True
        return {
            "buildDefinition": {
                "buildType": _BUILD_TYPE["v1"],
                "externalParameters": {
                    "configSource": _source(materials, "path"),
                    "request": _parameters(self._options, materials),
                },
                "internalParameters": {"builderPlatform": str(host_platform())},
                "resolvedDependencies": [each.to_json() for each in materials.found],
            },
            "runDetails": {"builder": {"id": self.wanted.builder_id}, "metadata": metadata},
        }

    @property
    def _has_all_parameters(self) -> bool:
        return not self._options.build_arg and not self._options.label

    @property
    def _is_hermetic(self) -> bool:
        return _is_complete(self._materials) and not self._uses_network


def uses_network(options: BuildOptions, graph: Graph) -> bool:
    """Whether a RUN of the stages that were built could reach the network. A flag of RUN wins over --network."""
    runs = [each for node in graph.order for each in node.instructions if isinstance(each, Run)]
    networks = [options.network if each.network in ("", "default") else each.network for each in runs]
    return any(each != "none" for each in networks)


def _is_complete(materials: Materials) -> bool:
    return materials.is_complete and not materials.locals


def _source(materials: Materials, name: str) -> Fields:
    """Where the Dockerfile is from. name: the member that has its path."""
    found: Fields = {} if materials.context is None else materials.context.to_json()
    if materials.entry_point:
        found[name] = materials.entry_point
    return found


def _parameters(options: BuildOptions, materials: Materials) -> Fields:
    """What the build was asked for, in the words in which BuildKit's frontend is asked."""
    args: dict[str, object] = {}
    if options.target:
        args["target"] = options.target
    if options.no_cache or options.no_cache_filter:
        args["no-cache"] = "" if options.no_cache else ",".join(options.no_cache_filter)
    if options.network in ("none", "host"):
        args["force-network-mode"] = options.network
    for text in options.build_context:
        name, _, value = text.partition("=")
        if value.startswith("oci-layout://"):
            value = f"oci-layout://{name}"  # without the path, which is of this machine alone
        elif name.lower() in materials.locals:
            value = f"local:{name}"
        args[f"context:{name}"] = without_password(value)
    found: Fields = {"frontend": _FRONTEND, "args": args}
    if materials.locals:
        found["locals"] = [{"name": name} for name in sorted(materials.locals)]
    return found


def _timestamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
