"""The one door to the engine: every verb, as a plain function that takes the Engine first.

For example `verbs.pull_image(engine, "debian")`. A verb's module is imported when the verb is first asked for, as `run`
must not pay with its start-up time for what `pull` needs. The signature stands once, at the verb: type checkers read it
through the imports below, Python finds the module in the table, and a test compares the two. `container` is the text
that the user typed (a name, an id or an unambiguous prefix of one), an image likewise; a verb raises NotFound or
ImageNotFound for an unknown one. Filters are {"status": ["exited", ...], "label": ["a=b"], ...}.

Modules of the engine import each other's verbs from the modules in which they are, never from here: for the import law
this module imports all of them, and each such import would close a circle.
"""

from __future__ import annotations

MODULES = {
    "create_container": "container.create",
    "explain_container": "container.explain",
    "run_container": "container.start",
    "start_container": "container.start",
    "attach_container": "container.start",
    "wanted_after_boot": "container.boot",
    "stop_containers": "container.lifecycle",
    "restart_containers": "container.start",
    "kill_containers": "container.lifecycle",
    "wait_for_container": "container.lifecycle",
    "wait_for_state": "container.lifecycle",
    "rename_container": "container.lifecycle",
    "pause_container": "container.pause",
    "unpause_container": "container.pause",
    "update_container": "container.update",
    "container_stats": "container.stats",
    "remove_containers": "container.container_removal",
    "prune_containers": "container.container_removal",
    "list_containers": "container.listing",
    "container_ports": "container.listing",
    "inspect_container": "container.inspect",
    "container_exists": "container.listing",
    "container_logs": "container.follow",
    "exec_in_container": "container.execute",
    "check_health": "container.execute",
    "container_processes": "container.top",
    "commit_container": "files.commit",
    "container_changes": "files.commit",
    "copy_files": "files.cp",
    "export_container": "files.cp",
    "image_changes": "files.snapshots",
    "list_images": "image.image_list",
    "inspect_image": "image.image_list",
    "image_history": "image.image_list",
    "image_exists": "image.image_list",
    "image_tree": "image.image_tree",
    "image_shell": "files.image_shell",
    "tag_image": "image.image_remove",
    "untag_image": "image.image_remove",
    "remove_image": "image.image_remove",
    "prune_images": "image.image_remove",
    "pull_image": "transfer.pull",
    "push_image": "transfer.push",
    "repository_tags": "transfer.push",
    "copy_image": "transfer.image_copy",
    "import_image": "transfer.import_tar",
    "load_images": "transfer.load",
    "save_images": "transfer.save",
    "save_index": "transfer.save",
    "bootstrap_image": "transfer.bootstrap",
    "create_manifest": "transfer.manifests",
    "add_to_manifest": "transfer.manifests",
    "annotate_manifest": "transfer.manifests",
    "remove_from_manifest": "transfer.manifests",
    "inspect_manifest": "transfer.manifests",
    "manifest_exists": "transfer.manifests",
    "remove_manifest": "transfer.manifests",
    "push_manifest": "transfer.manifests",
    "login": "transfer.login",
    "logout": "transfer.login",
    "logged_in_user": "transfer.login",
    "search_registry": "transfer.search",
    "list_registry_tags": "transfer.search",
    "attach_artifact": "transfer.artifacts",
    "image_referrers": "transfer.artifacts",
    "create_volume": "volume.volume_verbs",
    "list_volumes": "volume.volume_verbs",
    "inspect_volume": "volume.volume_verbs",
    "volume_exists": "volume.volume_verbs",
    "export_volume": "volume.volume_files",
    "import_volume": "volume.volume_files",
    "remove_volume": "volume.volume_verbs",
    "prune_volumes": "volume.volume_verbs",
    "create_network": "network.network_verbs",
    "list_networks": "network.network_verbs",
    "inspect_network": "network.network_verbs",
    "network_exists": "network.network_verbs",
    "remove_network": "network.network_verbs",
    "prune_networks": "network.network_verbs",
    "connect_network": "network.connections",
    "disconnect_network": "network.connections",
    "system_info": "upkeep.system",
    "versions": "upkeep.system",
    "examine_host": "upkeep.system",
    "run_unshared": "upkeep.system",
    "prune_system": "upkeep.system",
    "disk_usage": "upkeep.disk_usage",
    "check_store": "upkeep.check",
    "reset_store": "upkeep.reset",
    "prune_build_cache": "upkeep.build_cache",
    "build_cache_usage": "upkeep.build_cache",
    "limit_build_cache": "upkeep.build_cache",
    "settings_in_force": "upkeep.system",
    "list_cdi_devices": "devices.cdi_files",
    "check_cdi_files": "devices.cdi_files",
    "stream_events": "events",
    "record_event": "events",
}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.engine.container.boot import wanted_after_boot as wanted_after_boot
    from rootless.engine.container.container_removal import prune_containers as prune_containers
    from rootless.engine.container.container_removal import remove_containers as remove_containers
    from rootless.engine.container.create import create_container as create_container
    from rootless.engine.container.execute import check_health as check_health
    from rootless.engine.container.execute import exec_in_container as exec_in_container
    from rootless.engine.container.explain import explain_container as explain_container
    from rootless.engine.container.follow import container_logs as container_logs
    from rootless.engine.container.inspect import inspect_container as inspect_container
    from rootless.engine.container.lifecycle import kill_containers as kill_containers
    from rootless.engine.container.lifecycle import rename_container as rename_container
    from rootless.engine.container.lifecycle import stop_containers as stop_containers
    from rootless.engine.container.lifecycle import wait_for_container as wait_for_container
    from rootless.engine.container.lifecycle import wait_for_state as wait_for_state
    from rootless.engine.container.listing import container_exists as container_exists
    from rootless.engine.container.listing import container_ports as container_ports
    from rootless.engine.container.listing import list_containers as list_containers
    from rootless.engine.container.pause import pause_container as pause_container
    from rootless.engine.container.pause import unpause_container as unpause_container
    from rootless.engine.container.start import attach_container as attach_container
    from rootless.engine.container.start import restart_containers as restart_containers
    from rootless.engine.container.start import run_container as run_container
    from rootless.engine.container.start import start_container as start_container
    from rootless.engine.container.stats import container_stats as container_stats
    from rootless.engine.container.top import container_processes as container_processes
    from rootless.engine.container.update import update_container as update_container
    from rootless.engine.devices.cdi_files import check_cdi_files as check_cdi_files
    from rootless.engine.devices.cdi_files import list_cdi_devices as list_cdi_devices
    from rootless.engine.events import record_event as record_event
    from rootless.engine.events import stream_events as stream_events
    from rootless.engine.files.commit import commit_container as commit_container
    from rootless.engine.files.commit import container_changes as container_changes
    from rootless.engine.files.cp import copy_files as copy_files
    from rootless.engine.files.cp import export_container as export_container
    from rootless.engine.files.image_shell import image_shell as image_shell
    from rootless.engine.files.snapshots import image_changes as image_changes
    from rootless.engine.image.image_list import image_exists as image_exists
    from rootless.engine.image.image_list import image_history as image_history
    from rootless.engine.image.image_list import inspect_image as inspect_image
    from rootless.engine.image.image_list import list_images as list_images
    from rootless.engine.image.image_remove import prune_images as prune_images
    from rootless.engine.image.image_remove import remove_image as remove_image
    from rootless.engine.image.image_remove import tag_image as tag_image
    from rootless.engine.image.image_remove import untag_image as untag_image
    from rootless.engine.image.image_tree import image_tree as image_tree
    from rootless.engine.network.connections import connect_network as connect_network
    from rootless.engine.network.connections import disconnect_network as disconnect_network
    from rootless.engine.network.network_verbs import create_network as create_network
    from rootless.engine.network.network_verbs import inspect_network as inspect_network
    from rootless.engine.network.network_verbs import list_networks as list_networks
    from rootless.engine.network.network_verbs import network_exists as network_exists
    from rootless.engine.network.network_verbs import prune_networks as prune_networks
    from rootless.engine.network.network_verbs import remove_network as remove_network
    from rootless.engine.transfer.artifacts import attach_artifact as attach_artifact
    from rootless.engine.transfer.artifacts import image_referrers as image_referrers
    from rootless.engine.transfer.bootstrap import bootstrap_image as bootstrap_image
    from rootless.engine.transfer.image_copy import copy_image as copy_image
    from rootless.engine.transfer.import_tar import import_image as import_image
    from rootless.engine.transfer.load import load_images as load_images
    from rootless.engine.transfer.login import logged_in_user as logged_in_user
    from rootless.engine.transfer.login import login as login
    from rootless.engine.transfer.login import logout as logout
    from rootless.engine.transfer.manifests import add_to_manifest as add_to_manifest
    from rootless.engine.transfer.manifests import annotate_manifest as annotate_manifest
    from rootless.engine.transfer.manifests import create_manifest as create_manifest
    from rootless.engine.transfer.manifests import inspect_manifest as inspect_manifest
    from rootless.engine.transfer.manifests import manifest_exists as manifest_exists
    from rootless.engine.transfer.manifests import push_manifest as push_manifest
    from rootless.engine.transfer.manifests import remove_from_manifest as remove_from_manifest
    from rootless.engine.transfer.manifests import remove_manifest as remove_manifest
    from rootless.engine.transfer.pull import pull_image as pull_image
    from rootless.engine.transfer.push import push_image as push_image
    from rootless.engine.transfer.push import repository_tags as repository_tags
    from rootless.engine.transfer.save import save_images as save_images
    from rootless.engine.transfer.save import save_index as save_index
    from rootless.engine.transfer.search import list_registry_tags as list_registry_tags
    from rootless.engine.transfer.search import search_registry as search_registry
    from rootless.engine.upkeep.build_cache import build_cache_usage as build_cache_usage
    from rootless.engine.upkeep.build_cache import limit_build_cache as limit_build_cache
    from rootless.engine.upkeep.build_cache import prune_build_cache as prune_build_cache
    from rootless.engine.upkeep.check import check_store as check_store
    from rootless.engine.upkeep.disk_usage import disk_usage as disk_usage
    from rootless.engine.upkeep.reset import reset_store as reset_store
    from rootless.engine.upkeep.system import examine_host as examine_host
    from rootless.engine.upkeep.system import prune_system as prune_system
    from rootless.engine.upkeep.system import run_unshared as run_unshared
    from rootless.engine.upkeep.system import settings_in_force as settings_in_force
    from rootless.engine.upkeep.system import system_info as system_info
    from rootless.engine.upkeep.system import versions as versions
    from rootless.engine.volume.volume_files import export_volume as export_volume
    from rootless.engine.volume.volume_files import import_volume as import_volume
    from rootless.engine.volume.volume_verbs import create_volume as create_volume
    from rootless.engine.volume.volume_verbs import inspect_volume as inspect_volume
    from rootless.engine.volume.volume_verbs import list_volumes as list_volumes
    from rootless.engine.volume.volume_verbs import prune_volumes as prune_volumes
    from rootless.engine.volume.volume_verbs import remove_volume as remove_volume
    from rootless.engine.volume.volume_verbs import volume_exists as volume_exists
else:

    def __getattr__(name):
        """Import a verb from its module. Python calls this for a name that the module does not have yet (PEP 562)."""
        if name not in MODULES:
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
        from importlib import import_module

        verb = globals()[name] = getattr(import_module(f"rootless.engine.{MODULES[name]}"), name)
        return verb
