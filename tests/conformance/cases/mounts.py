"""config.md, mounts: order, places, and every option of the table."""

from __future__ import annotations

import os

from tests.conformance.harness import Box, NotApplicable, case, mount_of

MOUNTS = "config.md#mounts"
OPTIONS = "config.md#linux-mount-options"
RECURSIVE = {
    "rro": "ro", "rnosuid": "nosuid", "rnodev": "nodev", "rnoexec": "noexec", "rnoatime": "noatime",
    "rnodiratime": "nodiratime", "rnosymfollow": "nosymfollow",
}  # fmt: skip


@case(MOUNTS)
def bind_of_a_directory(box: Box) -> None:
    """a bind shows the host's directory"""
    box.bind(box.outside("d"), "/data")
    assert box.must_run("/bin/cat", "/data/file").out == "of the host\n"


@case(MOUNTS)
def bind_of_a_file(box: Box) -> None:
    """a bind of a file makes its target"""
    box.bind(box.outside("d") / "file", "/new/place")
    assert box.must_run("/bin/cat", "/new/place").out == "of the host\n"


@case(MOUNTS)
def destination_is_made(box: Box) -> None:
    """a destination that does not exist is made"""
    box.mount("/a/b/c", "tmpfs", "tmpfs")
    assert mount_of(box.probe(), "/a/b/c")["type"] == "tmpfs"


@case(MOUNTS)
def listed_order(box: Box) -> None:
    """mounts are made in the order of the list: a later one covers an earlier one"""
    box.mount("/data", "tmpfs", "tmpfs")
    box.bind(box.outside("d"), "/data/inner")
    assert box.must_run("/bin/ls", "/data").out == "inner\n"
    box.config["mounts"].append(box.config["mounts"].pop(-2))
    assert box.must_run("/bin/ls", "/data").out == ""


@case(f"{MOUNTS} (1.2)")
def relative_destination(box: Box) -> None:
    """a relative destination starts at the root"""
    box.mount("data", "tmpfs", "tmpfs")
    assert mount_of(box.probe(), "/data")["type"] == "tmpfs"


@case(MOUNTS)
def missing_source_is_an_error(box: Box) -> None:
    """a bind of what does not exist is an error"""
    box.bind("/nonexistent", "/data")
    box.must_fail()


@case(MOUNTS)
def relative_source_starts_at_the_bundle(box: Box) -> None:
    """a relative source of a bind is relative to the bundle"""
    (box.path / "here").mkdir()
    (box.path / "here/file").write_text("of the bundle\n")
    box.bind("here", "/data")
    assert box.must_run("/bin/cat", "/data/file").out == "of the bundle\n"


@case(MOUNTS, "EXTRA")
def link_in_the_image_stays_inside(box: Box) -> None:
    """a destination that is an absolute link of the image is resolved inside the root (CVE-2021-30465)"""
    target = box.outside("target")
    (box.root / "link").symlink_to(target)
    box.mount("/link", "tmpfs", "tmpfs", "size=64k")
    done = box.sh("echo > /link/mark; cat /proc/self/mountinfo")
    assert not (target / "mark").exists()
    assert done.failed or f"{target} " in done.out


@case(MOUNTS)
def filesystem_options(box: Box) -> None:
    """words that are no mount options go to the filesystem"""
    box.mount("/data", "tmpfs", "tmpfs", "size=64k", "mode=711", "nr_inodes=20")
    seen = box.probe("/data")
    assert {"size=64k", "nr_inodes=20"} <= mount_of(seen, "/data")["super"]
    assert seen["paths"]["/data"]["mode"] == 0o711


@case(MOUNTS)
def unknown_filesystem_option_is_an_error(box: Box) -> None:
    """a word that the filesystem does not know is an error"""
    box.mount("/data", "tmpfs", "tmpfs", "no-such-option=1")
    box.must_fail()


@case(OPTIONS)
def flags_of_a_bind(box: Box) -> None:
    """ro, nosuid, nodev and noexec of a bind"""
    box.bind(box.outside("d"), "/data", "bind", "ro", "nosuid", "nodev", "noexec")
    seen = box.probe("/data")
    assert {"ro", "nosuid", "nodev", "noexec"} <= mount_of(seen, "/data")["options"]
    assert seen["paths"]["/data"]["write_errno"] == 30


@case(OPTIONS)
def flags_of_a_filesystem(box: Box) -> None:
    """ro, nosuid, nodev, noexec, noatime and nodiratime of a tmpfs"""
    box.mount("/data", "tmpfs", "tmpfs", "ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime")
    assert {"ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime"} <= mount_of(box.probe(), "/data")["options"]


@case(OPTIONS)
def opposites(box: Box) -> None:
    """rw, suid, dev and exec undo an earlier ro, nosuid, nodev, noexec"""
    box.mount("/data", "tmpfs", "tmpfs", "ro", "nosuid", "noexec", "rw", "suid", "exec")
    options = mount_of(box.probe(), "/data")["options"]
    assert not {"ro", "nosuid", "noexec"} & options and "rw" in options


@case(OPTIONS)
def access_times(box: Box) -> None:
    """relatime, strictatime and noatime"""
    for destination, word in (("/data", "strictatime"), ("/tmp", "noatime"), ("/etc", "relatime")):
        box.mount(destination, "tmpfs", "tmpfs", word)
    seen = box.probe()
    assert "noatime" in mount_of(seen, "/tmp")["options"] and "relatime" in mount_of(seen, "/etc")["options"]
    assert not {"noatime", "relatime"} & mount_of(seen, "/data")["options"]


@case(OPTIONS)
def no_links_followed(box: Box) -> None:
    """nosymfollow: links of the mount are not followed"""
    directory = box.outside("d")
    (directory / "link").symlink_to("file")
    box.bind(directory, "/data", "bind", "nosymfollow")
    done = box.sh("cat /data/link || cat /data/file")
    assert done.out == "of the host\n" and "cat" in done.err


@case(OPTIONS)
def bind_and_rbind(box: Box) -> None:
    """rbind takes along what is mounted below, bind does not fail where nothing is"""
    box.bind(box.outside("d"), "/data", "bind")
    box.bind("/proc/self/cwd", "/tmp", "rbind")
    box.must_run("/bin/true")


@case(OPTIONS)
def synchronous(box: Box) -> None:
    """sync and dirsync of a new filesystem are flags of its superblock"""
    box.mount("/data", "tmpfs", "tmpfs", "sync", "dirsync")
    assert {"sync", "dirsync"} <= mount_of(box.probe(), "/data")["super"]


@case(OPTIONS)
def harmless_words(box: Box) -> None:
    """async, nomand, loud, noiversion, diratime and symfollow, which ask for nothing, are taken"""
    box.mount("/data", "tmpfs", "tmpfs", "async", "nomand", "loud", "noiversion", "diratime", "symfollow")
    box.must_run("/bin/true")


@case(OPTIONS)
def propagation_words(box: Box) -> None:
    """private, slave, shared and unbindable, and their recursive forms"""
    words = ("shared", "rshared", "private", "rprivate", "unbindable", "runbindable", "slave", "rslave")
    for word in words:
        box.mount(f"/m/{word}", "tmpfs", "tmpfs", word)
    seen = box.probe()
    for word in words:
        fields = " ".join(mount_of(seen, f"/m/{word}")["propagation"])
        expected = {"shared": "shared:", "unbindable": "unbindable"}.get(
            word.removeprefix("r") if word != "rslave" else ""
        )
        assert (expected in fields) if expected else "shared:" not in fields, f"{word}: {fields}"


def _nested(box: Box, word: str) -> dict[str, set[str]]:
    """Options of a tree of two mounts after its rbind with `word`.

    The tree is the container's own: flags of the host's mounts are locked, and changing them is an error for a user.
    Seen from the host's side it lies below the bundle.
    """
    box.mount("/data", "tmpfs", "tmpfs")
    box.mount("/data/inner", "tmpfs", "tmpfs")
    box.bind(box.root / "data", "/tree", "rbind", word)
    seen = box.probe()
    if " /tree/inner " not in seen["mountinfo"]:
        raise NotApplicable("this runtime opens the sources of binds before it makes the mounts of the list")
    return {target: mount_of(seen, target)["options"] for target in ("/tree", "/tree/inner")}


def _recursive(word: str) -> None:
    def check(box: Box) -> None:
        for target, options in _nested(box, word).items():
            assert RECURSIVE[word] in options, f"{target} is {','.join(sorted(options))}"

    check.__name__ = f"recursive_{word}"
    check.__doc__ = f"{word} reaches the mounts below"
    check.__module__ = __name__
    case(f"{OPTIONS} (recursive)")(check)


for _word in RECURSIVE:
    _recursive(_word)


@case(f"{OPTIONS} (recursive)")
def recursive_strictatime(box: Box) -> None:
    """rstrictatime reaches the mounts below"""
    for target, options in _nested(box, "rstrictatime").items():
        assert not {"noatime", "relatime"} & options, target


@case(f"{OPTIONS} (recursive)")
def recursive_words_of_the_host(box: Box) -> None:
    """rro, rnosuid, rnodev and rnoexec reach what the host has mounted below a bound directory"""
    below = [line.split()[4] for line in open("/proc/self/mountinfo") if line.split()[4].startswith("/dev/")]
    if not below:
        raise NotApplicable("nothing is mounted below /dev here")
    box.bind("/dev", "/tree", "rbind", "rro", "rnosuid", "rnodev", "rnoexec")
    seen = box.probe()
    for target in ("/tree", *("/tree" + path.removeprefix("/dev") for path in below)):
        assert {"ro", "nosuid", "nodev", "noexec"} <= mount_of(seen, target)["options"], target


@case(f"{OPTIONS} (recursive)")
def plain_ro_is_not_recursive(box: Box) -> None:
    """ro of an rbind makes the top mount read-only, and not what is below"""
    top, *below = _nested(box, "ro").values()
    assert "ro" in top and all("rw" in options for options in below)


@case(MOUNTS, "EXTRA")
def copy_up(box: Box) -> None:
    """tmpcopyup fills a tmpfs with what the image has there"""
    box.mount("/data", "tmpfs", "tmpfs", "tmpcopyup")
    assert box.must_run("/bin/cat", "/data/file").out == "of the image\n"


@case(f"{OPTIONS} (idmap)")
def idmapped_mount(box: Box) -> None:
    """idmap with mappings of its own: given, or refused with an error, never ignored"""
    directory = box.outside("d")
    box.bind(directory, "/data", "bind", "idmap")
    entry = box.config["mounts"][-1]
    entry["uidMappings"] = entry["gidMappings"] = [{"containerID": 0, "hostID": 5, "size": 1}]
    done = box.run("/bin/probe", "/data")
    if not done.failed:
        import json

        assert json.loads(done.out)["paths"]["/data"]["uid"] != os.getuid()


@case("config-linux.md#default-filesystems", "SHOULD")
def default_filesystems(box: Box) -> None:
    """/proc, /sys, /dev/pts and /dev/shm are what the configuration asks for"""
    seen = box.probe()
    for target, fstype in (("/proc", "proc"), ("/sys", "sysfs"), ("/dev/pts", "devpts"), ("/dev/shm", "tmpfs")):
        assert mount_of(seen, target)["type"] == fstype, target


@case(MOUNTS, "EXTRA")
def proc_must_be_proc(box: Box) -> None:
    """a link in place of /proc is refused, or stays inside (CVE-2019-19921)"""
    (box.root / "proc").symlink_to("data")
    done = box.run("/bin/ls", "/data")
    assert done.failed or "self" not in done.out


@case(MOUNTS)
def message_queues(box: Box) -> None:
    """mqueue can be mounted in an own ipc namespace"""
    if not any("mqueue" in line for line in open("/proc/filesystems")):
        raise NotApplicable("this kernel has no message queues")
    box.mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev")
    assert mount_of(box.probe(), "/dev/mqueue")["type"] == "mqueue"


@case(MOUNTS, "EXTRA")
def nothing_is_left_on_the_host(box: Box) -> None:
    """no mount of the container is seen in the caller's mount namespace"""
    with open("/proc/self/mountinfo") as file:
        before = len(file.readlines())
    box.mount("/data", "tmpfs", "tmpfs")
    box.up()
    with open("/proc/self/mountinfo") as file:
        after = [line for line in file if str(box.path) in line]
    assert not after and before
