"""The engine: one user's directories, settings and store, and the listeners to what it does.

It has no verbs itself: they are functions that take it first (engine.verbs).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.engine.image_types import PullEvent
    from rootless.engine.settings import Settings
    from rootless.paths import Directories
    from rootless.storage.store.store import Store


class Listeners:
    """Functions that are called with what the engine has to report; None for those that nobody wants.

    warn: gets one line of text for each thing that is lost or ignored. progress: gets the steps of a pull that `run` or
    `create` must do first. debug: gets each step of a container's plan.
    """

    __slots__ = ("debug", "progress", "warn")

    def __init__(
        self,
        warn: Callable[[str], None] | None = None,
        progress: Callable[[PullEvent], None] | None = None,
        debug: Callable[[str], None] | None = None,
    ) -> None:
        self.warn = warn
        self.progress = progress
        self.debug = debug


class Engine:
    """The first argument of every verb: `verbs.run_container(Engine(directories()), ...)`.

    overrides: settings given by global flags (`storage_driver`, `runtime`, ...): they win over ROOTLESS_* variables,
    which win over config.toml. monitor: the descriptor of a connection to a monitor that was started early, for the
    first container that is started.
    """

    def __init__(
        self,
        directories: Directories,
        *,
        overrides: dict[str, str] | None = None,
        listeners: Listeners | None = None,
        monitor: int | None = None,
    ) -> None:
        listeners = listeners or Listeners()
        self.directories = directories
        self.progress = listeners.progress
        self.debug = listeners.debug
        self.overrides = overrides or {}
        self._warn = listeners.warn
        self._monitor = monitor
        self._settings: Settings | None = None
        self._store: Store | None = None

    def warn(self, text: str) -> None:
        """Tell the user, in one line, what is lost or ignored."""
        if self._warn is not None:
            self._warn(text)

    def take_monitor(self) -> int | None:
        """The connection to the monitor that was started early; None when there is none, or it is taken."""
        connection, self._monitor = self._monitor, None
        return connection

    @property
    def settings(self) -> Settings:
        """The user's settings, read at first use. Raises InvalidInput, UsageError, HostLimit (load_settings)."""
        if self._settings is None:
            from rootless.engine.settings import load_settings

            self._settings = load_settings(self.directories.config, self.overrides)
        return self._settings

    @property
    def store(self) -> Store:
        """The store, opened (and made, where there is none) at first use. Raises HostLimit, InvalidState (Store)."""
        if self._store is None:
            from rootless.storage.store.store import Store

            self._store = Store(self.directories)
        return self._store
