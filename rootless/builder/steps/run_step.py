"""RUN: what the command is, what it sees, its cache key, and the job for a worker."""

from __future__ import annotations

from typing import NamedTuple

from rootless.builder.build_options import given_build_args
from rootless.builder.dockerfile import texts
from rootless.builder.dockerfile.expand import proxy_variables
from rootless.builder.session.build_session import StepResult
from rootless.builder.session.build_state import step_key
from rootless.builder.steps import run_mounts
from rootless.builder.worker.step_jobs import RunJob, StepRoot
from rootless.errors import RootlessError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.builder.dockerfile.instructions import Run
    from rootless.builder.session.build_session import BuildSession, StepRun
    from rootless.builder.session.build_state import BuildState
    from rootless.builder.steps.run_mounts import Finder
    from rootless.engine.plan.bundle import BundleConfig
    from rootless.network.mode import Mode
    from rootless.records.container_options import ContainerOptions

HOSTNAME = "buildkitsandbox"
_LONGEST_HOSTNAME = 64  # of sethostname(2)
_SCRIPT_DIRECTORY = "/dev/pipes"
_ZIP_EPOCH = 315_532_800  # 1980 in seconds: zip archives have no earlier times, and tools refuse such an epoch


class StepFailed(RootlessError):
    """A command of a step ended with an exit code that is not 0. status: that code, which the tool ends with too."""

    def __init__(self, message: str, *, status: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class RunCommand(NamedTuple):
    """What RUN starts.

    words: the command; script: (name, content) of a heredoc that is itself the program, None without; env: the
    variables of the image and the ARGs in scope.
    """

    words: list[str]
    script: tuple[str, str] | None
    env: dict[str, str]


def run(run: StepRun, instruction: Run, arguments: dict[str, str], finder: Finder) -> BuildState:
    """The state after RUN. arguments: the values of the ARGs in scope.

    Raises StepFailed with the command's exit code, and what kept the command from running.
    """
    session, state, step = run.session, run.state, run.progress
    command = _command(instruction, state, arguments)
    keys = [_key(run, instruction, command, run_mounts.facts(session, instruction, finder))]
    record = run.find(keys[0])
    if record is None and instruction.mounts:
        contents = run_mounts.digest_parts(session, instruction, finder)
        if contents:
            keys.append(_key(run, instruction, command, run_mounts.facts(session, instruction, finder, contents)))
            record = run.find(keys[1])
            if record is not None:
                record = record._replace(key=keys[0])
                session.cache.put(record)
    if record is not None:
        step.cached()
        return run.after(record)
    directory = session.make_directory("rootfs", "secret", "script")
    mounts = run_mounts.prepare(run, instruction, finder, directory)
    try:
        root = StepRoot(directory, session.id_map, session.plan(state, directory))
        job = _job(run, instruction, command, mounts, root)
        answer = session.on_worker(lambda worker: worker.run(job, step.output))
    finally:
        mounts.release()
    for warning in answer.warnings:
        step.log(f"warning: {warning}")
    if answer.exit_code:
        words = texts.one_line(" ".join(command.words))
        raise StepFailed(
            f'process "{words[:300]}" did not complete successfully: exit code: {answer.exit_code}',
            status=answer.exit_code,
        )
    made = session.commit(root.rootfs, None if job.root_emulation is None else _named_user(session, state))
    session.done_with(directory)
    layer, size = made if made is not None else (None, 0)
    record = run.remember(keys[0], StepResult(layer, size, state.moment), keys[1:])
    step.done()
    return run.after(record)


def _command(instruction: Run, state: BuildState, arguments: dict[str, str]) -> RunCommand:
    env = _environment(state, arguments)
    if instruction.script is not None:
        name = instruction.script.name
        return RunCommand([f"{_SCRIPT_DIRECTORY}/{name}"], (name, instruction.script.content), env)
    return RunCommand(texts.command_words(instruction.command, state.shell), None, env)


def _environment(state: BuildState, arguments: dict[str, str]) -> dict[str, str]:
    """The variables of the command. ENV and ARG are one set of names, of which the later declaration wins: `arguments`
    has, for the name of each ARG, the value that has won (expand.Scope.variables)."""
    from rootless.engine.plan.environment import DEFAULT_PATH

    env = dict(entry.partition("=")[::2] for entry in state.env)
    env.setdefault("PATH", DEFAULT_PATH)
    env.update(arguments)
    return env


def _key(run: StepRun, instruction: Run, command: RunCommand, mounts: list[object]) -> str:
    session, state = run.session, run.state
    options = session.options
    return step_key(
        "run",
        state.chain,
        command=command.words,
        script=command.script,
        env=sorted(command.env.items()),
        user=state.user,
        workdir=state.workdir,
        platform=str(state.platform),
        network=_network(session, instruction),
        security=instruction.security,
        mounts=mounts,
        latest=session.latest,
        times="settled" if session.settles_times else "kept",
        add_host=options.add_host,
        ulimit=options.ulimit,
        shm_size=options.shm_size,
        security_opt=options.security_opt,
        # These only where they are given, so that the keys of other builds are those of earlier versions
        **({"volume": options.volume} if options.volume else {}),
        **({} if (hostname := _hostname(session)) == HOSTNAME else {"hostname": hostname}),
    )


def _hostname(session: BuildSession) -> str:
    """The host name that RUN sees: BUILDKIT_SANDBOX_HOSTNAME of --build-arg, else BuildKit's own. Raises UsageError."""
    name = given_build_args(session.options).get("BUILDKIT_SANDBOX_HOSTNAME") or HOSTNAME
    if len(name) > _LONGEST_HOSTNAME or any(c.isspace() or c in "/\0" for c in name):
        raise UsageError(f"invalid host name '{name[:100]}' (BUILDKIT_SANDBOX_HOSTNAME)")
    return name


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
    run: StepRun, instruction: Run, command: RunCommand, mounts: run_mounts.PreparedMounts, root: StepRoot
) -> RunJob:
    from rootless.engine.plan import networking, root_emulation, security
    from rootless.engine.plan.bundle import BundleMount
    from rootless.engine.plan.networking import Network
    from rootless.network.modes import recorded_mode
    from rootless.runtime.capabilities import capability_names

    session, engine, directory = run.session, run.session.engine, root.directory
    _allowed(session, instruction)
    asked = _container_options(session, instruction, command)
    chosen = networking.choose_network(engine, asked, (), starts=False)
    mode = recorded_mode(chosen.mode)
    if mode.joins_another:
        raise UsageError("--network=container: is not for builds", hint="use default, none or host")
    if chosen.options:
        # The steps of a build share one network, which cannot have the options of one step
        raise UsageError(f"a build takes no options of {chosen.mode}", hint=f"use --network={chosen.mode}")
    networking.write_names_files(directory, _hostname(session), asked, Network(chosen.mode))
    config = _config(run, asked, directory, network=mode)
    process = config.process
    process.env = _process_env(run, command.env, mounts.env, process.env)
    emulation = None
    if root_emulation.is_wanted("auto", session.id_map, runtime="") and process.user.uid == 0:
        emulation = root_emulation.filters(engine)
        root_emulation.prepare_apt(directory, config)
    if command.script is not None:
        mounts.add_script(directory, *command.script, target=f"{_SCRIPT_DIRECTORY}/{command.script[0]}")
    for tmpfs in mounts.tmpfs:
        config.mounts.append(BundleMount(tmpfs.target, "tmpfs", "tmpfs", tuple(tmpfs.options)))
    job = RunJob(root, config.to_json(), chosen.mode, run.timestamp if session.settles_times else None)
    job.root_emulation = emulation
    profile = security.seccomp_profile(engine, asked, capability_names(process.capabilities.bounding))
    job.seccomp = security.filter_path(engine, profile)
    job.targets = [mount.target for mount in config.mounts] + mounts.targets
    job.trees, job.binds, job.secrets = mounts.trees, mounts.binds, mounts.secrets
    return job


def _container_options(session: BuildSession, instruction: Run, command: RunCommand) -> ContainerOptions:
    from rootless.records.container_options import ContainerOptions

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


def _config(run: StepRun, asked: ContainerOptions, directory: str, *, network: Mode) -> BundleConfig:
    from rootless.engine.plan.bundle import BundleFacts, NamespaceChoice, make_config
    from rootless.engine.plan.identity import account_of
    from rootless.engine.plan.security import hard_limits
    from rootless.engine.types import ImageDefaults

    session, state = run.session, run.state
    account = account_of(state.user, session.lowerdirs(state), ())
    if session.id_map.kind == "single" and not session.id_map.has_uid(account.uid):
        # The map has one id, which stands for every user: the process starts as root, whose emulation lets it become
        # any other user in name
        account = account._replace(uid=0, gid=0, groups=(0,))
    facts = BundleFacts(
        directory=directory,
        hostname="" if network.uses_host_names else _hostname(session),
        id_map=session.id_map,
        account=account,
        namespaces=NamespaceChoice() if network.has_own_namespace else NamespaceChoice(network="host"),
        mounts=session.mounts,
        hard_limits=hard_limits() if asked.ulimit else {},
    )
    image = ImageDefaults(env=tuple(state.env), working_dir=state.workdir)
    config, warnings = make_config(asked, image, facts)
    for warning in warnings:
        session.engine.warn(warning)
    return config


def _named_user(session: BuildSession, state: BuildState) -> tuple[int, int] | None:
    """(uid, gid) of the USER in force, where root stands in for that user because the id map has one id; None else.

    New files of the step belong to that user then.
    """
    from rootless.engine.plan.identity import account_of

    account = account_of(state.user, session.lowerdirs(state), ())
    return (account.uid, account.gid) if session.id_map.kind == "single" and account.uid else None


def _process_env(run: StepRun, env: dict[str, str], secret: dict[str, str], planned: list[str]) -> list[str]:
    """The environment of the process: `env`, HOME as `planned` has it, proxies and secrets.

    Proxies and secrets are in no cache key: another proxy is no reason to run a step again, and a digest of a secret
    would stand in the cache.
    """
    home = next((entry for entry in planned if entry.startswith("HOME=")), "HOME=/")
    build_args = given_build_args(run.session.options)
    merged = {"HOME": home[5:], **proxy_variables(build_args), **env, **secret}
    if run.timestamp >= _ZIP_EPOCH:
        merged.setdefault("SOURCE_DATE_EPOCH", str(run.timestamp))
    return [f"{name}={value}" for name, value in merged.items()]
