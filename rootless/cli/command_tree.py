"""The tree of commands: where each one lives, and its line in the list of its group. Importing it imports no command.

A test compares each line with the command's own help, and each place with what is there.
"""

from __future__ import annotations

Entries = dict[str, tuple[str, str]]

CONTAINER: Entries = {
    "attach": ("container.attached:attach", "Attach the terminal's streams to a running container"),
    "commit": ("container.snapshot:commit", "Make an image of a container's changes"),
    "cp": ("container.copying:cp", "Copy files between a container and the host"),
    "create": ("container.run:create", "Create a new container"),
    "diff": ("container.snapshot:diff", "List what a container has changed in its image's files"),
    "exec": ("container.attached:exec_", "Execute a command in a running container"),
    "export": ("container.copying:export", "Write a container's root file system as a tar archive"),
    "inspect": ("container.show:inspect", "Display detailed information on containers"),
    "kill": ("container.life:kill", "Kill running containers"),
    "logs": ("container.show:logs", "Fetch the logs of a container"),
    "ls": ("container.ps:ls", "List containers"),
    "pause": ("container.life:pause", "Pause all processes within containers"),
    "port": ("container.show:port", "List port mappings of a container"),
    "prune": ("container.life:prune", "Remove all stopped containers"),
    "rename": ("container.life:rename", "Rename a container"),
    "restart": ("container.life:restart", "Restart containers"),
    "rm": ("container.life:rm", "Remove containers"),
    "run": ("container.run:run", "Create and run a new container from an image"),
    "start": ("container.attached:start", "Start stopped containers"),
    "stats": ("container.usage:stats", "Display what containers use of CPU, memory, network and disk"),
    "stop": ("container.life:stop", "Stop running containers"),
    "top": ("container.show:top", "Display the running processes of a container"),
    "unpause": ("container.life:unpause", "Unpause all processes within containers"),
    "update": ("container.usage:update", "Change the limits of containers, running or not"),
    "wait": ("container.life:wait", "Block until containers stop, then print their exit codes"),
    "healthcheck": ("container.attached:healthcheck", "Run a container's health check once, now"),
}
IMAGE: Entries = {
    "attach": ("image.artifact:attach", "Attach files to an image in its registry, as an artifact that refers to it"),
    "referrers": ("image.artifact:referrers", "List the artifacts that refer to an image in its registry"),
    "build": ("build:build", "Build an image from a Dockerfile"),
    "bootstrap": ("image.bring:bootstrap", "Make a base image without a registry: busybox or debian"),
    "diff": ("image.look:diff", "List what is different between the files of two images"),
    "history": ("image.ls:history", "Show the history of an image"),
    "import": ("image.bring:import_", "Make an image of a root file system tarball"),
    "inspect": ("image.ls:inspect", "Display detailed information on images"),
    "load": ("image.bring:load", "Load images from an archive or a layout directory"),
    "ls": ("image.ls:ls", "List images"),
    "mount": ("image.look:mount", "Say how to reach the files of an image"),
    "prune": ("image.remove:prune", "Remove unused images"),
    "pull": ("image.bring:pull", "Download an image from a registry"),
    "copy": ("image.copy:copy", "Copy an image between registries, layouts, archives and the store"),
    "push": ("registries:push", "Upload an image to a registry"),
    "rm": ("image.remove:rm", "Remove images"),
    "save": ("image.bring:save", "Save images to an archive"),
    "shell": ("image.look:shell", "Look into the files of an image with the programs of the host"),
    "tag": ("image.remove:tag", "Give an image a further name"),
    "tree": ("image.layer_picture:tree", "Show which images share which layers"),
    "untag": ("image.remove:untag", "Take names away from an image, and keep the image"),
}
MANIFEST: Entries = {
    "add": ("manifest_lists:add", "Add an image to a list"),
    "annotate": ("manifest_lists:annotate", "Change what a list says of one of its images, or of itself"),
    "create": ("manifest_lists:create", "Create a list of images, one per platform"),
    "exists": ("manifest_lists:exists", "Tell by the exit code whether a list exists"),
    "inspect": ("manifest_lists:inspect", "Display a list or a manifest"),
    "push": ("manifest_lists:push", "Upload a list and its images to a registry"),
    "remove": ("manifest_lists:remove", "Take an image out of a list"),
    "rm": ("manifest_lists:rm", "Remove lists"),
}
VOLUME: Entries = {
    "create": ("volume:create", "Create a volume"),
    "inspect": ("volume:inspect", "Display detailed information on volumes"),
    "ls": ("volume:ls", "List volumes"),
    "prune": ("volume:prune", "Remove unused volumes"),
    "rm": ("volume:rm", "Remove volumes"),
}
SYSTEM: Entries = {
    "check": ("system_care:check", "Verify everything in the store, and repair what can be"),
    "df": ("system_care:df", "Show disk usage"),
    "doctor": ("system:doctor", "Try what this host can do, and say how to get what it cannot"),
    "events": ("container.usage:events", "Show what happens to containers, images and volumes"),
    "info": ("system:info", "Display information on the host and the store"),
    "prune": ("system:prune", "Remove unused data"),
    "reset": ("system_care:reset", "Remove everything: containers, images, volumes, caches"),
    "unshare": ("system:unshare", "Run a command as root of your user namespace"),
    "version": ("system:version", "Show version information"),
}
BUILDER: Entries = {
    "build": IMAGE["build"],
    "du": ("build:du", "Show what the build cache takes"),
    "prune": ("build:prune", "Remove the build cache"),
}
NOUNS: Entries = {
    "builder": ("nouns:builder", "Manage builds"),
    "container": ("nouns:container", "Manage containers"),
    "image": ("nouns:image", "Manage images"),
    "manifest": ("nouns:manifest", "Manage lists of images for several platforms"),
    "system": ("nouns:system", "Manage the whole"),
    "volume": ("nouns:volume", "Manage volumes"),
}
_VERBS = {name: CONTAINER[name] for name in CONTAINER if name not in ("inspect", "ls", "healthcheck")}
ROOT: Entries = {
    **NOUNS,
    **_VERBS,
    "ps": CONTAINER["ls"],
    "images": IMAGE["ls"],
    "rmi": IMAGE["rm"],
    **{
        name: IMAGE[name]
        for name in ("build", "history", "import", "load", "pull", "push", "save", "tag", "tree", "untag")
    },
    **{name: SYSTEM[name] for name in ("doctor", "events", "info", "unshare", "version")},
    "inspect": ("inspect_any:inspect", "Display detailed information on containers, images and volumes"),
    "copy": IMAGE["copy"],
    "login": ("registries:login", "Log in to a registry"),
    "logout": ("registries:logout", "Log out from a registry"),
    "search": ("registries:search", "Search a registry for images"),
    "explain": ("container.run:explain", "Show what `run` would do, step by step, and do nothing"),
}
# further names, as docker has them; not shown in the lists
CONTAINER_ALIASES = {"list": "ls", "ps": "ls", "remove": "rm"}
IMAGE_ALIASES = {"list": "ls", "remove": "rm", "unmount": "mount", "umount": "mount"}
VOLUME_ALIASES = {"list": "ls", "remove": "rm"}
ROOT_ALIASES = {"buildx": "builder", "list": "ps", "ls": "ps"}
# the root's list is long: what a newcomer needs comes first
ROOT_SECTIONS = {
    "Common commands": ("run", "exec", "ps", "build", "pull", "images", "logs", "stop", "rm", "doctor"),
    "Management commands": tuple(NOUNS),
}
