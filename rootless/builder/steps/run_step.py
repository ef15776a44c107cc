"""RUN: what the command is, what it sees, its cache key, and the job for a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from rootless.builder.dockerfile import texts
from rootless.builder.dockerfile.expand import proxy_variables
from rootless.builder.session.build_state import step_key
from rootless.builder.steps import run_mounts
from rootless.errors import RootlessError, UsageError

if TYPE_CHECKING:
    from rootless.builder.dockerfile.instructions import Run
    from rootless.builder.session.build_session import BuildSession
    from rootless.builder.session.build_state import BuildState
    from rootless.builder.session.tracker import StepSite
    from rootless.builder.steps.run_mounts import Finder
    from rootless.engine.types import ContainerOptions
    from rootless.network.mode import Mode

HOSTNAME = "buildkitsandbox"
_SCRIPT_DIRECTORY = "/dev/pipes"
_ZIP_EPOCH = 315_532_800  # 1980: archives cannot say earlier times, so tools refuse such an epoch


class StepFailed(RootlessError):
    """A command of a step ended with an exit code that is not 0."""

    def __init__(self, message: str, *, status: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class RunCommand(NamedTuple):
    """What RUN starts. script: (name, content) of a heredoc that is itself the program."""

    words: list[str]
    script: tuple[str, str] | None


def run(
    session: BuildSession,
    state: BuildState,
    instruction: Run,
    arguments: dict[str, str],
    finder: Finder,
    site: StepSite,
) -> BuildState:
    """The state after RUN. arguments: ARGs in scope. Raises StepFailed with the command's exit code."""
    step = site.step
    command = _command(instruction, state)
    env = _environment(state, arguments)
    cache_key = _key(session, state, instruction, command, env, finder)
    record = session.find(cache_key, state, site.stage, step)
    if record is not None:
        step.cached()
        return session.after(state, record, site.created_by)
    directory = session.make_directory("rootfs", "secret", "script")
    mounts = run_mounts.prepare(session, instruction, state, finder, directory)
    try:
        rootfs = session.plan(state, directory)
        job = _job(session, state, instruction, command, env, mounts, directory) | {"rootfs": rootfs.to_json()}
        result = session.on_worker(lambda worker: worker.run(job, step.output))
    finally:
        mounts.release()
    for warning in result["warnings"]:
        step.log(f"warning: {warning}")
    if result["exit_code"]:
        words = texts.one_line(" ".join(command.words))
        raise StepFailed(
            f'process "{words[:300]}" did not complete successfully: exit code: {result["exit_code"]}',
            status=result["exit_code"],
        )
    made = session.commit(rootfs, job["user"])
    session.done_with(directory)
    layer, size = made if made is not None else (None, 0)
    record = session.remember(cache_key, state, layer, moment=state.moment, size=size, text=site.created_by)
    step.done()
    return session.after(state, record, site.created_by)


def _command(instruction: Run, state: BuildState) -> RunCommand:
    if instruction.script is not None:
        name = instruction.script.name
        return RunCommand([f"{_SCRIPT_DIRECTORY}/{name}"], (name, instruction.script.content))
    return RunCommand(texts.command(instruction.command, state.shell), None)


def _environment(state: BuildState, arguments: dict[str, str]) -> dict[str, str]:
    """ENV over ARG: the image's value wins only for names that were given by ENV later, which `arguments` lacks."""
    from rootless.engine.plan.environment import DEFAULT_PATH

    env = dict(entry.partition("=")[::2] for entry in state.env)
    env.setdefault("PATH", DEFAULT_PATH)
    env.update(arguments)
    return env


def _key(
    session: BuildSession, state: BuildState, instruction: Run, command: RunCommand, env: dict[str, str], finder: Finder
) -> str:
    options = session.options
    return step_key(
        "run",
        state.chain,
        command=command.words,
        script=command.script,
        env=sorted(env.items()),
        user=state.config.get("User") or "",
        workdir=state.workdir,
        platform=str(state.platform),
        network=_network(session, instruction),
        security=instruction.security,
        mounts=run_mounts.facts(session, instruction, state, finder),
        latest=session.latest,
        add_host=options.add_host,
        ulimit=options.ulimit,
        shm_size=options.shm_size,
        security_opt=options.security_opt,
    )


def _network(session: BuildSession, instruction: Run) -> str:
    if instruction.network not in ("", "default"):
        return instruction.network
    return session.options.network or ""


def _allowed(session: BuildSession, instruction: Run) -> None:
    for word, needs in (("host", "network.host"), ("insecure", "security.insecure")):
        asked = instruction.network if word == "host" else instruction.security
        if asked == word and needs not in session.options.allow:
            flag = "--network=host" if word == "host" else "--security=insecure"
            raise UsageError(f"RUN {flag} is not allowed", hint=f"trust this Dockerfile with: --allow {needs}")


def _job(
    session: BuildSession,
    state: BuildState,
    instruction: Run,
    command: RunCommand,
    env: dict[str, str],
    mounts: run_mounts.Prepared,
    directory: str,
) -> dict[str, Any]:
    from rootless.engine.container import host_facts
    from rootless.engine.plan import networking, root_emulation
    from rootless.engine.plan.networking import Network
    from rootless.network.modes import recorded_mode

    _allowed(session, instruction)
    engine = session.engine
    asked = _container_options(session, instruction, command)
    chosen = networking.choose_network(engine, asked, (), starts=False)
    mode = recorded_mode(chosen.mode)
    if mode.joins_another:
        raise UsageError("--network=container: is not for builds", hint="use default, none or host")
    if chosen.options:
        # the steps of a build share one network
        raise UsageError(f"a build takes no options of {chosen.mode}", hint=f"use --network={chosen.mode}")
    networking.write_names_files(directory, HOSTNAME, asked, Network(chosen.mode))
    config = _config(session, state, asked, directory, network=mode)
    process = config["process"]
    process["env"] = _process_env(session, state, env, mounts.env, process["env"])
    emulation = None
    if root_emulation.is_wanted("auto", session.id_map, runtime="") and process["user"]["uid"] == 0:
        emulation = root_emulation.filters(engine)
        root_emulation.prepare_apt(directory, config)
    if command.script is not None:
        mounts.add_script(directory, *command.script, target=f"{_SCRIPT_DIRECTORY}/{command.script[0]}")
    config["mounts"] += mounts.tmpfs
    profile = host_facts.seccomp_profile(engine, asked, process["capabilities"]["bounding"])
    targets = [mount["destination"] for mount in config["mounts"]] + mounts.targets
    return {
        "do": "run",
        "directory": directory,
        "id_map": session.id_map.to_json(),
        "network": chosen.mode,
        "config": config,
        "seccomp": host_facts.filter_path(engine, profile),
        "root_emulation": emulation,
        "user": None if emulation is None else _named_user(session, state),
        "timestamp": state.moment if session.latest is None else session.latest,
        "targets": targets,
        "trees": mounts.trees,
        "binds": mounts.binds,
        "secrets": mounts.secrets,
    }


def _container_options(session: BuildSession, instruction: Run, command: RunCommand) -> ContainerOptions:
    from rootless.engine.types import ContainerOptions

    options = session.options
    return ContainerOptions(
        image="",
        command=tuple(command.words),
        entrypoint="",
        network=_network(session, instruction) or None,
        add_host=options.add_host,
        ulimit=options.ulimit,
        shm_size=options.shm_size,
        security_opt=options.security_opt,
        privileged=instruction.security == "insecure",
    )


def _config(
    session: BuildSession, state: BuildState, asked: ContainerOptions, directory: str, *, network: Mode
) -> dict[str, Any]:
    from rootless.engine.container.host_facts import hard_limits
    from rootless.engine.plan.bundle import BundleFacts, NamespaceChoice, make_config
    from rootless.engine.plan.identity import account_of
    from rootless.engine.types import ImageDefaults

    account = account_of(state.config.get("User") or "", session.lowerdirs(state), ())
    if session.id_map.kind == "single" and not session.id_map.has_uid(account.uid):
        # there is one id; with root's emulation it may still change to any other in name
        account = account._replace(uid=0, gid=0, groups=(0,))
    facts = BundleFacts(
        directory=directory,
        hostname="" if network.uses_host_names else HOSTNAME,
        id_map=session.id_map,
        account=account,
        namespaces=NamespaceChoice() if network.has_own_namespace else NamespaceChoice(network="host"),
        hard_limits=hard_limits() if asked.ulimit else {},
    )
    image = ImageDefaults(env=tuple(state.env), working_dir=state.workdir)
    config, warnings = make_config(asked, image, facts)
    for warning in warnings:
        session.engine.warn(warning)
    config["process"].setdefault("noNewPrivileges", False)
    return config


def _named_user(session: BuildSession, state: BuildState) -> tuple[int, int] | None:
    """USER in force, where it is not root: with one id, root stands in for it, and what it makes is that user's."""
    from rootless.engine.plan.identity import account_of

    account = account_of(state.config.get("User") or "", session.lowerdirs(state), ())
    return (account.uid, account.gid) if session.id_map.kind == "single" and account.uid else None


def _process_env(
    session: BuildSession, state: BuildState, env: dict[str, str], secret: dict[str, str], planned: list[str]
) -> list[str]:
    """The image's variables and the ARGs; HOME; proxies and secrets, which are in no key."""
    home = next((entry for entry in planned if entry.startswith("HOME=")), "HOME=/")
    build_args = dict(text.partition("=")[::2] for text in session.options.build_arg)
    merged = {"HOME": home[5:], **proxy_variables(build_args), **env, **secret}
    moment = state.moment if session.latest is None else session.latest
    if moment >= _ZIP_EPOCH:
        merged.setdefault("SOURCE_DATE_EPOCH", str(moment))
    return [f"{name}={value}" for name, value in merged.items()]
