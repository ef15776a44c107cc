"""What a container sees: mounts, devices, names, limits, ids."""

from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path

import pytest

from tests.conftest import owns_range, require
from tests.integration.runtime.bundle import Bundle


def test_exit_status_and_output(bundle: Bundle) -> None:
    done = bundle.sh("echo out; echo err >&2; exit 7", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_killed_command_is_128_plus_signal(bundle: Bundle) -> None:
    # as pid 1 the shell would ignore its own signals, so its child dies and the shell passes the status on
    assert bundle.sh("sh -c 'kill -9 $$'; exit $?", check=False).returncode == 137


def test_own_namespaces(bundle: Bundle) -> None:
    listing = bundle.sh("for n in /proc/self/ns/*; do readlink $n; done").stdout.split()
    outside = {os.readlink(entry) for entry in Path("/proc/self/ns").iterdir() if not entry.name.startswith("time")}
    assert not outside & set(listing)
    assert bundle.sh("echo $$; hostname").stdout.split() == ["1", "rootless"]


def test_default_devices_and_links(bundle: Bundle) -> None:
    script = "for d in null zero full random urandom tty; do stat -c '%n %t:%T' /dev/$d; done"
    assert bundle.sh(script).stdout.split("\n")[:6] == [
        "/dev/null 1:3", "/dev/zero 1:5", "/dev/full 1:7", "/dev/random 1:8", "/dev/urandom 1:9", "/dev/tty 5:0",
    ]  # fmt: skip
    script = "for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done; echo x > /dev/null; ls /dev/pts"
    assert bundle.sh(script).stdout.split() == [
        "/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx", "ptmx",
    ]  # fmt: skip


def test_masked_and_readonly_paths(bundle: Bundle) -> None:
    masked = "cat /proc/timer_list /proc/keys | wc -c; ls /proc/acpi /sys/firmware | grep -v : | grep . | wc -l"
    assert bundle.sh(masked).stdout.split() == ["0", "0"]
    for path in ("/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/x", "/proc/acpi/x"):
        done = bundle.sh(f"echo x > {path}", check=False)
        assert done.returncode != 0
        assert "ead-only" in done.stderr or "nonexistent" in done.stderr or "denied" in done.stderr


def test_readonly_root_with_writable_mounts(bundle: Bundle, tmp_path: Path) -> None:
    bundle.config["root"]["readonly"] = True
    bundle.mount(tmp_path, "/made/for/it")
    assert bundle.sh("echo x > /x", check=False).returncode != 0
    bundle.sh("echo x > /made/for/it/file; echo y > /dev/shm/y")
    assert (tmp_path / "file").read_text() == "x\n"


def test_readonly_bind_is_recursive_when_asked(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    bundle.mount(tmp_path, "/data", "rro")
    bundle.config["mounts"].append({"destination": "/data/below", "type": "tmpfs", "source": "tmpfs"})
    done = bundle.sh("echo x > /data/x; echo y > /data/below/y; ls /data/below", check=False)
    assert done.stdout == "" and done.stderr.count("ead-only") == 2


def test_readonly_mount_still_takes_mounts_below(bundle: Bundle, tmp_path: Path) -> None:
    """TRAPS 3.3: read-only comes last, when all targets exist."""
    bundle.mount(tmp_path, "/data", "ro")
    bundle.config["mounts"].append({"destination": "/data/new", "type": "tmpfs", "source": "tmpfs"})
    done = bundle.sh("echo y > /data/new/y && echo x > /data/x", check=False)
    assert "/data/x" in done.stderr and (tmp_path / "new").is_dir()


def test_bind_keeps_locked_flags(bundle: Bundle) -> None:
    """TRAPS 3.5: a remount that drops the host's nosuid or nodev would be EPERM."""
    flags = os.statvfs("/proc").f_flag
    require(flags & os.ST_NOSUID, "this host mounts /proc without nosuid")
    bundle.mount("/proc", "/host-proc", "ro")
    line = bundle.sh("grep ' /host-proc ' /proc/self/mountinfo | head -1").stdout
    assert "nosuid" in line and "ro" in line.split()[5].split(",")


def test_access_times_that_are_locked_are_a_warning(bundle: Bundle, tmp_path: Path) -> None:
    """mount_namespaces(7): how a mount of a more privileged namespace keeps access times cannot be changed."""
    bundle.mount(tmp_path, "/data", "strictatime", "noexec")
    bundle.mount(tmp_path, "/tree", "rstrictatime", "rnodev")
    done = bundle.sh("grep -E ' /(data|tree) ' /proc/self/mounts")
    flags = [set(line.split()[3].split(",")) for line in done.stdout.splitlines()]
    assert len(flags) == 2 and "noexec" in flags[0] and "nodev" in flags[1]
    for name, present in zip(("/data", "/tree"), flags, strict=True):
        changed = not present & {"relatime", "noatime", "nodiratime"}
        assert changed or f"mount '{name}' keeps access times as it does on the host" in done.stderr


def test_single_file_and_relative_source(bundle: Bundle) -> None:
    (bundle.path / "hosts").write_text("a\n")
    bundle.mount("hosts", "/etc/hosts", "ro")
    bundle.mount("hosts", "/etc/deep/er/hosts")
    assert bundle.sh("cat /etc/hosts /etc/deep/er/hosts; echo b > /etc/hosts", check=False).stdout == "a\na\n"
    assert (bundle.path / "hosts").read_text() == "a\n"


def test_bound_devices_are_nosuid_and_noexec(bundle: Bundle) -> None:
    lines = bundle.sh("grep -E ' /dev/(null|zero|tty) ' /proc/self/mounts").stdout.splitlines()
    assert len(lines) == 3
    assert all({"nosuid", "noexec"} <= set(line.split()[3].split(",")) for line in lines)
    # a remount, where the kernel lacks the newer calls
    old = bundle.sh("grep ' /dev/null ' /proc/self/mounts", env={"ROOTLESS_NO_MOUNT_API": "1"}).stdout
    assert {"nosuid", "noexec"} <= set(old.split()[3].split(","))


def test_mount_on_a_dangling_link_makes_its_target_inside(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content\n")
    (bundle.root / "etc/link").symlink_to("../../../not/here")
    (bundle.root / "etc/directory").symlink_to("/neither/this")
    bundle.mount(tmp_path / "file", "/etc/link")
    bundle.mount(tmp_path, "/etc/directory")
    assert bundle.sh("cat /not/here /etc/link /neither/this/file").stdout == "content\n" * 3
    assert (bundle.root / "not/here").is_file() and not (bundle.path / "not").exists()


def test_link_is_copied_where_that_is_asked_for(bundle: Bundle, tmp_path: Path) -> None:
    """crun's option: what a link of the host leads to there says nothing about the container."""
    (tmp_path / "link").symlink_to("to/nowhere")
    (tmp_path / "file").write_text("content\n")
    bundle.mount(tmp_path / "link", "/a/link", "copy-symlink")
    bundle.mount(tmp_path / "file", "/a/file", "copy-symlink")
    assert bundle.sh("readlink /a/link; cat /a/file").stdout == "to/nowhere\ncontent\n"
    bundle.sh("ln -s /other /a/link2")
    bundle.mount(tmp_path / "link", "/a/link2", "copy-symlink")
    assert "something else is there" in bundle.sh("true", check=False).stderr


def test_source_inside_the_root_sees_earlier_mounts(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content\n")
    (bundle.root / "mnt").mkdir()
    bundle.mount(tmp_path, "/mnt")
    bundle.mount(bundle.root / "mnt", "/again")
    bundle.mount("rootfs/mnt/file", "/third")
    assert bundle.sh("cat /again/file /third").stdout == "content\n" * 2


def test_mounts_are_made_in_their_order(bundle: Bundle, tmp_path: Path) -> None:
    """runc's test of it: a tree of mounts, of which parts are mounted again inside and the whole elsewhere."""
    for name in ("a/x", "b/y", "c/z"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text(f"{name}\n")
    for source, destination in (
        (tmp_path / "a", "/mnt"),
        (tmp_path / "b", "/mnt/x"),
        (tmp_path / "c", "/mnt/x/y"),
        (tmp_path / "a", "/mnt/x/y/z"),
        (bundle.root / "mnt/x", "/mnt/x/y/z/x"),
        (bundle.root / "mnt/x/y", "/mnt/x/y/z"),
        (bundle.root / "mnt", "/final"),
    ):
        bundle.mount(source, destination, "rprivate")
    assert bundle.sh("cat /final/x/y/z/z/x/y/z/x/file").stdout == "a/x\n"


def test_mask_given_twice_is_mounted_once(bundle: Bundle) -> None:
    (bundle.root / "secret").write_text("secret")
    (bundle.root / "hidden").mkdir()
    (bundle.root / "link").symlink_to("hidden")
    masked = ["/secret", "/secret", "/hidden", "//hidden/", "/link", "/etc/../secret"]
    bundle.config["linux"]["maskedPaths"] = masked
    bundle.config["linux"]["readonlyPaths"] = ["/tmp", "/tmp"]
    done = bundle.sh("cat /secret; ls /hidden; grep -cE ' /(secret|hidden|tmp) ' /proc/self/mounts")
    assert done.stdout == "3\n"


def test_options_of_file_systems_are_a_warning_for_a_bind(bundle: Bundle, tmp_path: Path) -> None:
    """As runtime-tools' validation has them; the kernel ignores them (mount(2))."""
    bundle.mount(tmp_path, "/data", "mode=700", "size=1k")
    assert "mount '/data': mode=700,size=1k has no effect on a bind" in bundle.run("true").stderr


def test_missing_source_names_both_paths(bundle: Bundle) -> None:
    bundle.mount("/nonexistent/x", "/data")
    done = bundle.run("true", check=False)
    assert done.returncode == 1
    assert "cannot mount '/nonexistent/x' on '/data': the source does not exist" in done.stderr


def test_tmpfs_options_and_copy_up(bundle: Bundle) -> None:
    (bundle.root / "var/cache").mkdir(parents=True)
    (bundle.root / "var/cache/file").write_text("image\n")
    options = ["size=64k", "mode=1777", "tmpcopyup", "noexec"]
    bundle.config["mounts"].append({"destination": "/var/cache", "type": "tmpfs", "source": "x", "options": options})
    out = bundle.sh("cat /var/cache/file; stat -c %a /var/cache; grep ' /var/cache ' /proc/mounts").stdout
    assert out.startswith("image\n1777\n") and "noexec" in out and "size=64k" in out


def test_working_directory_is_made(bundle: Bundle) -> None:
    bundle.config["process"]["cwd"] = "/work/deep"
    assert bundle.sh("pwd").stdout == "/work/deep\n"


def test_rlimits(bundle: Bundle) -> None:
    bundle.config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}]
    assert bundle.sh("ulimit -Sn; ulimit -Hn").stdout.split() == ["64", "128"]


def test_rlimit_above_the_users_own_is_named(bundle: Bundle) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    require(hard != resource.RLIM_INFINITY, "this user has no limit of open files")
    bundle.config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": hard, "hard": hard + 1}]
    done = bundle.run("true", check=False)
    assert done.returncode == 1 and "RLIMIT_NOFILE" in done.stderr and str(hard) in done.stderr


def test_capabilities_and_no_new_privileges(bundle: Bundle) -> None:
    held = ["CAP_CHOWN", "CAP_KILL"]
    bundle.config["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), held)
    fields = dict(
        line.split(":\t") for line in bundle.sh("grep -E '^(Cap|NoNew)' /proc/self/status").stdout.splitlines()
    )
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 1 | 1 << 5
    assert int(fields["CapInh"], 16) == int(fields["CapAmb"], 16) == 0  # CVE-2022-29162
    assert fields["NoNewPrivs"] == "1"


def test_unknown_capability_warns_only(bundle: Bundle) -> None:
    bundle.config["process"]["capabilities"]["bounding"].append("CAP_FLY")
    assert "CAP_FLY" in bundle.run("true").stderr


def test_capability_that_cannot_be_raised_is_a_warning(bundle: Bundle) -> None:
    """config.md: what cannot be granted MUST be logged as a warning."""
    sets = bundle.config["process"]["capabilities"]
    sets["inheritable"], sets["ambient"] = ["CAP_KILL"], ["CAP_KILL", "CAP_CHOWN"]
    done = bundle.sh("grep CapAmb /proc/self/status")
    assert "can't raise ambient capability CAP_CHOWN: it is not in the inheritable set" in done.stderr
    assert "CAP_KILL" not in done.stderr and int(done.stdout.split()[1], 16) == 1 << 5


def test_home_is_that_of_the_containers_passwd(bundle: Bundle) -> None:
    passwd = bundle.root / "etc/passwd"
    bundle.config["process"]["env"] = ["PATH=/bin", "HOME=/first", "HOME="]
    show = "env | grep HOME"
    assert bundle.sh(show).stdout == "HOME=/root\n"
    bundle.config["process"]["env"] = ["PATH=/bin"]
    passwd.write_text("0:x:1:1::/wrong:\nroot:x:0:0:root\nroot:x:0:0::/home/of root:/bin/sh\nr:x:0:0::/second:\n")
    assert bundle.sh(show).stdout == "HOME=/home/of root\n"
    passwd.unlink()
    assert bundle.sh(show).stdout == "HOME=/\n"
    # CVE-2024-9676: what is there is the image's doing
    os.mkfifo(passwd)
    assert bundle.sh(show, timeout=20).stdout == "HOME=/\n"
    passwd.unlink()
    passwd.symlink_to("/../../../../../../../../../../../../etc/passwd")
    assert bundle.sh(show).stdout == "HOME=/\n"
    bundle.config["process"]["env"] = ["PATH=/bin", "HOME=/given"]
    assert bundle.sh(show).stdout == "HOME=/given\n"


def test_umask_and_environment(bundle: Bundle) -> None:
    bundle.config["process"]["user"]["umask"] = 0o27
    bundle.config["process"]["env"] = ["PATH=/bin", "A=1", "A=2", "EMPTY="]
    out = bundle.sh("umask; env | grep -E '^(A|EMPTY|HOME|XDG)'", env={"SECRET": "x", "XDG_X": "y"}).stdout
    assert sorted(out.split()) == ["0027", "A=2", "EMPTY=", "HOME=/root"]


def test_user_of_the_range(bundle: Bundle) -> None:
    require(owns_range(), "this user has no range of subordinate ids")
    bundle.config["process"]["user"] = {"uid": 33, "gid": 44, "additionalGids": [55, 44]}
    bundle.config["process"]["capabilities"] = {}
    (bundle.root / "tmp").chmod(0o1777)
    out = bundle.sh("id -u; id -g; grep Groups /proc/self/status; touch /tmp/mine && stat -c %u:%g /tmp/mine").stdout
    assert out.split() == ["33", "44", "Groups:", "44", "55", "33:44"]


def test_pipes_of_stdio_belong_to_the_user(bundle: Bundle) -> None:
    """A server that runs as `www-data` opens /dev/stdout again for its log."""
    require(owns_range(), "this user has no range of subordinate ids")
    bundle.config["process"]["user"] = {"uid": 33, "gid": 33}
    assert bundle.sh("echo log > /dev/stdout; echo err > /dev/stderr").stdout == "log\n"


def test_user_outside_the_map_is_an_error_with_a_remedy(bundle: Bundle) -> None:
    bundle.config["process"]["user"] = {"uid": 4_000_000, "gid": 0}
    done = bundle.run("true", check=False)
    assert done.returncode == 1
    assert "uid 4000000 is not in its id map" in done.stderr and "--user 0" in done.stderr


def test_additional_groups_of_one_id_warn(bundle: Bundle) -> None:
    """TRAPS 1.1 CVE-2014-8989: setgroups is denied with a single-id map; the container still starts."""
    for key in ("uidMappings", "gidMappings"):
        bundle.config["linux"][key] = bundle.config["linux"][key][:1]
    require(os.geteuid() != 0, "root may set groups")
    bundle.config["process"]["user"]["additionalGids"] = [0, 12]
    done = bundle.sh("cat /proc/self/setgroups")
    assert done.stdout == "deny\n" and "additional groups 12 are not set" in done.stderr


def test_oom_score_and_nice(bundle: Bundle) -> None:
    bundle.config["process"]["oomScoreAdj"] = 500
    bundle.config["process"]["scheduler"] = {"policy": "SCHED_OTHER", "nice": 7}
    bundle.config["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    out = bundle.sh("cat /proc/self/oom_score_adj /proc/self/stat").stdout
    # field 19 of stat is the nice value, two of them are before the last parenthesis
    assert out.startswith("500\n") and out.rsplit(")", 1)[1].split()[16] == "7"


def test_sysctl_of_an_own_namespace(bundle: Bundle) -> None:
    bundle.config["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "80", "kernel.msgmax": "4096"}
    out = bundle.sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax").stdout
    assert out.split() == ["80", "4096"]


def test_personality_and_time_offset(bundle: Bundle) -> None:
    bundle.config["linux"]["personality"] = {"domain": "LINUX32"}
    bundle.config["linux"]["namespaces"].append({"type": "time"})
    bundle.config["linux"]["timeOffsets"] = {"boottime": {"secs": 1_000_000}}
    out = bundle.sh("cat /proc/self/personality /proc/uptime").stdout.split()
    assert out[0].endswith("8") and float(out[1]) > 1_000_000


def test_signals_are_the_defaults(bundle: Bundle) -> None:
    """Python ignores SIGPIPE; a command that inherits that never ends in `yes | head`."""
    fields = dict(
        line.split(":\t") for line in bundle.sh("grep -E '^Sig(Ign|Blk)' /proc/self/status").stdout.splitlines()
    )
    assert int(fields["SigIgn"], 16) & 1 << (signal.SIGPIPE - 1) == 0
    assert int(fields["SigBlk"], 16) == 0


def test_sysfs_of_the_host_network_is_readonly(bundle: Bundle) -> None:
    bundle.config["linux"]["namespaces"] = [n for n in bundle.config["linux"]["namespaces"] if n["type"] != "network"]
    out = bundle.sh("grep ' /sys ' /proc/self/mountinfo | head -1; ls /sys/class/net | wc -l").stdout
    assert "ro" in out.split()[5].split(",")


def test_host_pid_namespace_binds_proc(bundle: Bundle) -> None:
    bundle.config["linux"]["namespaces"] = [n for n in bundle.config["linux"]["namespaces"] if n["type"] != "pid"]
    done = bundle.sh("test $$ != 1 && cat /proc/self/comm", check=False)
    assert done.stdout == "cat\n" and done.stderr == ""


def test_cgroup_is_readonly(bundle: Bundle) -> None:
    """TRAPS 1.1 CVE-2023-25809."""
    done = bundle.sh("mkdir /sys/fs/cgroup/x", check=False)
    assert done.returncode != 0 and "ead-only" in done.stderr


def test_plan_is_printed_with_debug(bundle: Bundle) -> None:
    done = bundle.run("true", flags=("--debug",))
    assert "mount proc on '/proc' (nosuid,nodev,noexec)" in done.stderr and "pivot_root" in done.stderr


def test_moved_root_in_place_of_pivot_root(bundle: Bundle) -> None:
    """TRAPS 3.4: the way for an initramfs."""
    done = bundle.sh("ls / | grep -c -E '^(home|lost)'; cat /proc/1/comm; true", options=["--no-pivot"])
    assert done.stdout == "0\nsh\n"


@pytest.mark.parametrize("name", ["ROOTLESS_NO_MOUNT_API", "ROOTLESS_NO_OPENAT2"])
def test_older_kernels_ways_give_the_same(bundle: Bundle, name: str, tmp_path: Path) -> None:
    """TRAPS 3.7, STYLE 13: each fallback is forced once."""
    bundle.config["root"]["readonly"] = True
    (tmp_path / "below").mkdir()
    bundle.mount(tmp_path, "/data", "rro", "nosuid")
    bundle.config["mounts"].append({"destination": "/data/below", "type": "tmpfs", "source": "tmpfs"})
    script = (
        "cat /proc/timer_list | wc -c; ls /sys/firmware | wc -l; echo x > /x; echo x > /data/x;"
        "echo x > /data/below/x; echo x > /proc/sys/kernel/domainname; stat -c %t:%T /dev/null"
    )
    usual = bundle.sh(script, check=False)
    older = bundle.sh(script, check=False, env={name: "1"})
    assert usual.stdout == older.stdout == "0\n0\n1:3\n"
    assert usual.stderr == older.stderr and usual.stderr.count("ead-only") == 4


def test_state_and_records_are_private(bundle: Bundle) -> None:
    state = bundle.up()
    assert state["status"] == "running" and json.loads(bundle.oci("list", "-f", "json").stdout)[0]["id"] == "c"
    assert bundle.records.stat().st_mode & 0o777 == 0o700


def test_a_tmpfs_has_its_source_and_the_mode_of_what_it_covers(bundle: Bundle) -> None:
    (bundle.root / "closed").mkdir()
    (bundle.root / "closed").chmod(0o710)
    for destination, source in (("/closed", "named"), ("/made", "other")):
        bundle.config["mounts"].append({"destination": destination, "type": "tmpfs", "source": source})
    out = bundle.sh("stat -c %a /closed /made; grep -E '^(named|other) ' /proc/mounts").stdout
    assert out.startswith("710\n1777\n")
    assert "named /closed tmpfs" in out and "other /made tmpfs" in out
