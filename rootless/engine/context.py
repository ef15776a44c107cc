"""The engine: one user's directories, settings and store, and whom to tell. It knows no verb; engine.verbs has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.engine.image_types import PullEvent
    from rootless.engine.settings import Settings
    from rootless.paths import Directories
    from rootless.storage.store.store import Store


class Engine:
    """What every verb takes first: `verbs.run_container(Engine(directories()), ...)`.

    overrides: settings given by global flags (`storage_driver`, `runtime`, ...): they win over ROOTLESS_* variables,
    which win over config.toml. warn: called with one line of text for each thing that is lost or ignored. progress:
    called with the steps of a pull that `run` or `create` must do first. monitor: connection to a monitor that was
    started early, for the first container that is started. debug: called with each step of a container's plan.
    """

    def __init__(
        self,
        directories: Directories,
        *,
        overrides: dict[str, str] | None = None,
        warn: Callable[[str], None] | None = None,
        progress: Callable[[PullEvent], None] | None = None,
        monitor: int | None = None,
        debug: Callable[[str], None] | None = None,
    ) -> None:
        self.directories = directories
        self.progress = progress
        self.debug = debug
        self._overrides = overrides or {}
        self._warn = warn
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
        """The user's settings, read once."""
        if self._settings is None:
            from rootless.engine.settings import load_settings

            self._settings = load_settings(self.directories.config, self._overrides)
        return self._settings

    @property
    def store(self) -> Store:
        """The opened store, made at first use."""
        if self._store is None:
            from rootless.storage.store.store import Store

            self._store = Store(self.directories)
        return self._store
