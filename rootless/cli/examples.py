"""Examples of the commands, as --help and the man pages show them. Only these load it, so that no start waits for it.

{the words by which the command is first called: lines of shell}. A command that declares its own examples has no entry.
"""

from __future__ import annotations

EXAMPLES: dict[str, str] = {
    "builder du": "rootless builder du",
    "builder prune": "rootless builder prune\nrootless builder prune --all --force\n"
    "rootless builder prune --filter until=48h",
    "config": "rootless config\nrootless config | grep storage_driver",
    "cdi list": 'rootless cdi list\nrootless run --device "$(rootless cdi list --quiet | head -n 1)" debian',
    "cdi validate": "rootless cdi validate\nrootless cdi validate ~/.config/cdi/nvidia.json",
    "container attach": "rootless attach web\nrootless attach --detach-keys ctrl-x web\nrootless attach --no-stdin web",
    "container create": "rootless create --name web -p 8080:80 nginx\n"
    "id=$(rootless create busybox true) && rootless start --attach $id",
    "container diff": "rootless diff web\nrootless diff web | grep '^A /etc'",
    "container export": "rootless export -o web.tar web\nrootless export web | tar -t",
    "container healthcheck": "rootless container healthcheck web && echo healthy",
    "container inspect": "rootless container inspect web\n"
    "rootless container inspect --format '{{.State.Status}}' web\n"
    "rootless container inspect --size web",
    "container kill": "rootless kill web\nrootless kill --signal HUP web",
    "container logs": "rootless logs web\nrootless logs --follow --tail 20 web\n"
    "rootless logs --since 10m --timestamps web",
    "container ls": "rootless ps\nrootless ps --all --filter status=exited\n"
    "rootless ps --format '{{.Names}}: {{.Status}}'\nrootless rm $(rootless ps -aq)",
    "container pause": "rootless pause web",
    "container port": "rootless port web\nrootless port web 80/tcp",
    "container exists": "rootless container exists web || rootless run -d --name web nginx",
    "container prune": "rootless container prune\nrootless container prune --force --filter until=24h",
    "container rename": "rootless rename web old-web",
    "container restart": "rootless restart web\nrootless restart --time 2 web db",
    "container rm": "rootless rm web\nrootless rm --force --volumes web\n"
    "rootless rm $(rootless ps -aq --filter status=exited)",
    "container start": "rootless start web\nrootless start --attach --interactive shell",
    "container stop": "rootless stop web\nrootless stop --time 30 db\nrootless stop --signal INT worker",
    "container top": "rootless top web\nrootless top web -o pid,user,args",
    "container unpause": "rootless unpause web",
    "container wait": "rootless wait job\ncode=$(rootless wait job); rootless logs job; exit $code",
    "image diff": "rootless image diff app:1 app:2\nrootless image diff app:2",
    "image exists": "rootless image exists app:1 || rootless build -t app:1 .",
    "image history": "rootless history nginx\nrootless history --no-trunc nginx",
    "image import": "rootless import rootfs.tar my-system\n"
    "tar -C rootfs -c . | rootless import --change 'CMD [\"/bin/sh\"]' - my-system",
    "image inspect": "rootless image inspect nginx\nrootless image inspect --format '{{.Config.Env}}' nginx",
    "image load": "rootless load -i images.tar\nssh server rootless save app | rootless load",
    "image ls": "rootless images\nrootless images --filter dangling=true\n"
    "rootless images --format '{{.Repository}}:{{.Tag}} {{.Size}}'",
    "image mount": "rootless unshare\nls $(rootless image mount nginx)/etc",
    "image prune": "rootless image prune\nrootless image prune --all --filter until=240h",
    "image referrers": "rootless image referrers registry.example.org/app:1",
    "image rm": "rootless rmi nginx\nrootless rmi --force app:1 app:2\n"
    "rootless rmi $(rootless images -q --filter dangling=true)",
    "image tag": "rootless tag app registry.example.org/team/app:1.2\nrootless tag app app:1 app:1.2",
    "image untag": "rootless untag app:old\nrootless untag app",
    "inspect": "rootless inspect web\nrootless inspect --format '{{json .Mounts}}' web\n"
    "rootless inspect --type image nginx",
    "logout": "rootless logout registry.example.org\nrootless logout --all",
    "manifest add": "rootless manifest add app:all app:arm64",
    "manifest annotate": "rootless manifest annotate --arch arm64 --variant v8 app:all app:arm64",
    "manifest create": "rootless manifest create app:all app:amd64 app:arm64",
    "manifest exists": "rootless manifest exists app:all && rootless manifest push app:all",
    "manifest inspect": "rootless manifest inspect app:all\nrootless manifest inspect docker.io/library/alpine",
    "manifest push": "rootless manifest push app:all registry.example.org/app:1",
    "manifest remove": "rootless manifest remove app:all sha256:0123456789abcdef",
    "manifest rm": "rootless manifest rm app:all",
    "network connect": "rootless network connect shop web\nrootless network connect --alias db shop store",
    "network disconnect": "rootless network disconnect shop web",
    "network create": "rootless network create back\nrootless run -d --network back --name db postgres",
    "network exists": "rootless network exists back || rootless network create back",
    "network inspect": "rootless network inspect back",
    "network ls": "rootless network ls\nrootless network ls --quiet",
    "network prune": "rootless network prune --force",
    "network rm": "rootless network rm back",
    "system doctor": "rootless doctor\nrootless doctor --quiet && echo 'nothing is missing'",
    "system info": "rootless info\nrootless info --format '{{.Driver}}'",
    "system prune": "rootless system prune\nrootless system prune --all --volumes --build --force\n"
    "rootless system prune --filter until=48h",
    "system reset": "rootless system reset\nrootless system reset --force",
    "system version": "rootless version\nrootless version --format json",
    "volume create": "rootless volume create data\nrootless volume create --label project=shop shop-data",
    "volume exists": "rootless volume exists data || rootless volume create data",
    "volume export": "rootless volume export -o data.tar data\n"
    "rootless volume export data | ssh host rootless volume import data",
    "volume import": "rootless volume create data && rootless volume import data data.tar.gz",
    "volume inspect": "rootless volume inspect data\nrootless volume inspect --format '{{.Mountpoint}}' data",
    "volume ls": "rootless volume ls\nrootless volume ls --filter dangling=true --quiet",
    "volume prune": "rootless volume prune\nrootless volume prune --all --force",
    "volume rm": "rootless volume rm data\nrootless volume rm --force data",
}
