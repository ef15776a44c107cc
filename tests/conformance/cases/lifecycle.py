"""runtime.md: operations, the states in which they are allowed, and what an error leaves behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.conformance.harness import Box, case

RUNTIME = "runtime.md"


def _children_with(word: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if word.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                pass
    return found


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@case(f"{RUNTIME}#create")
def create_leaves_the_process_waiting(box: Box) -> None:
    """create makes everything but the user's program run; the state is `created`, with a pid"""
    box.create("/bin/touch", "/tmp/started")
    state = box.state()
    assert state["status"] == "created" and state["pid"] > 1
    os.kill(state["pid"], 0)
    assert not (box.root / "tmp/started").exists()


@case(f"{RUNTIME}#state")
def state_has_all_properties(box: Box) -> None:
    """ociVersion, id, status, pid, bundle and annotations are in the state"""
    box.config["annotations"] = {"org.example.key": "value"}
    box.create()
    state = box.state()
    assert state["id"] == box.id and state["ociVersion"].startswith("1.")
    assert state["bundle"] == str(box.path) and state["annotations"] == {"org.example.key": "value"}


@case(f"{RUNTIME}#start")
def start_runs_the_program(box: Box) -> None:
    """start runs process.args; the state is `running`"""
    box.create("/bin/sh", "-c", "touch /tmp/started; sleep 100")
    box.start()
    box.until((box.root / "tmp/started").exists, "the start")
    assert box.status() == "running"


@case(f"{RUNTIME}#lifecycle")
def ended_is_stopped(box: Box) -> None:
    """a container whose process has ended is `stopped` until it is deleted"""
    box.up("/bin/true")
    box.until_status("stopped")


@case(f"{RUNTIME}#delete")
def delete_removes_all_that_create_made(box: Box) -> None:
    """delete forgets the container; its id may be used again; the bundle stays as it was"""
    box.up("/bin/true")
    before = sorted(p.relative_to(box.root) for p in box.root.rglob("*") if "dev" not in p.parts)
    box.until_status("stopped")
    assert not box.call("delete", box.id).failed
    assert box.call("state", box.id).failed
    after = sorted(p.relative_to(box.root) for p in box.root.rglob("*") if "dev" not in p.parts)
    assert before == after and (box.path / "config.json").exists()
    box.create("/bin/true")


@case(f"{RUNTIME}#create")
def id_is_unique(box: Box) -> None:
    """create with an id in use is an error, and the container of that id is not touched"""
    box.create()
    assert box.background("create", box.id).failed
    assert box.status() == "created"


@case(f"{RUNTIME}#start")
def start_wants_created(box: Box) -> None:
    """start of a running or stopped container is an error without effect"""
    box.up()
    assert box.call("start", box.id).failed and box.status() == "running"
    box.call("kill", box.id, "KILL")
    box.until_status("stopped")
    assert box.call("start", box.id).failed and box.status() == "stopped"


@case(f"{RUNTIME}#kill")
def kill_reaches_a_created_container(box: Box) -> None:
    """kill of a created container sends the signal"""
    box.create()
    assert not box.call("kill", box.id, "KILL").failed
    box.until_status("stopped")


@case(f"{RUNTIME}#kill")
def kill_wants_a_process(box: Box) -> None:
    """kill of a stopped container is an error"""
    box.up("/bin/true")
    box.until_status("stopped")
    assert box.call("kill", box.id, "TERM").failed


@case(f"{RUNTIME}#delete")
def delete_of_running_is_refused(box: Box) -> None:
    """delete of a running container is an error without effect"""
    box.up()
    assert box.call("delete", box.id).failed
    assert box.status() == "running"


@case(f"{RUNTIME}#delete")
def delete_of_created_is_refused(box: Box) -> None:
    """delete of a container that is only created is an error without effect"""
    box.create()
    assert box.call("delete", box.id).failed
    assert box.status() == "created"


@case(RUNTIME)
def unknown_id_is_an_error(box: Box) -> None:
    """state, start, kill and delete of an id that does not exist are errors"""
    for verb in ("state", "start", "kill", "delete"):
        assert box.call(verb, "no-such-container").failed, verb


@case(f"{RUNTIME}#create")
def later_edits_have_no_effect(box: Box) -> None:
    """changes of config.json after create do not reach the container"""
    box.create("/bin/touch", "/tmp/first")
    box.process["args"] = ["/bin/touch", "/tmp/second"]
    box.save()
    box.start()
    box.until_status("stopped")
    assert (box.root / "tmp/first").exists() and not (box.root / "tmp/second").exists()


@case(f"{RUNTIME}#errors")
def failed_create_is_undone(box: Box) -> None:
    """after a failed create the state is as if it had never been attempted: no state, no process, id free"""
    mark = f"mark-{box.id}"
    box.process["env"].append(f"MARK={mark}")
    box.bind("/nonexistent", "/data")
    box.must_fail()
    assert not _children_with(mark)
    del box.config["mounts"][-1]
    box.create()


@case("bundle.md")
def missing_configuration_is_an_error(box: Box) -> None:
    """create of a bundle without config.json is an error"""
    assert box.background("create", box.id).failed
    assert box.call("state", box.id).failed


@case("config.md")
def broken_configuration_is_an_error(box: Box) -> None:
    """create of a config.json that is no JSON object is an error"""
    (box.path / "config.json").write_text("{")
    assert box.background("create", box.id).failed


@case("config.md#specification-version")
def foreign_version_is_an_error(box: Box) -> None:
    """an ociVersion that is missing, or of another major version, is an error"""
    box.config["ociVersion"] = "7.0.0"
    box.must_fail()
    del box.config["ociVersion"]
    box.must_fail()


@case("config.md#specification-version")
def newer_minor_version_is_taken(box: Box) -> None:
    """an ociVersion of a later minor version, with unknown properties, is no error (extensibility)"""
    box.config["ociVersion"] = "1.3.0"
    box.config["future"] = {"x": 1}
    box.must_run("/bin/true")


@case("config.md#annotations")
def annotation_without_a_name_is_an_error(box: Box) -> None:
    """the name of an annotation must not be empty, its value must be a string"""
    box.config["annotations"] = {"": "x"}
    box.must_fail()
    box.config["annotations"] = {"x": 1}
    box.must_fail()


@case("config.md#root")
def configuration_without_a_root_is_an_error(box: Box) -> None:
    """root and root.path are required"""
    box.config["root"] = {"readonly": True}
    box.must_fail()
    del box.config["root"]
    box.must_fail()


@case("config.md#root")
def missing_root_is_an_error(box: Box) -> None:
    """a root.path that does not exist is an error"""
    box.config["root"]["path"] = "nowhere"
    box.must_fail()


@case("config.md#root")
def absolute_root(box: Box) -> None:
    """root.path may be absolute"""
    box.config["root"]["path"] = str(box.root)
    assert box.must_run("/bin/echo", "here").out == "here\n"


@case("config.md#root")
def read_only_root(box: Box) -> None:
    """root.readonly makes the root read-only inside"""
    box.config["root"]["readonly"] = True
    assert box.probe("/")["paths"]["/"]["write_errno"] == 30


@case(RUNTIME, "EXTRA")
def exit_status_of_run(box: Box) -> None:
    """run ends with the container's exit status"""
    assert box.sh("exit 42").status == 42
    assert box.sh("sh -c 'kill -9 $$'; exit $?").status == 137


@case(RUNTIME, "EXTRA")
def signals_by_name_and_number(box: Box) -> None:
    """kill takes TERM, SIGTERM and 15"""
    for word in ("TERM", "SIGTERM", "15"):
        box.up(
            "/bin/sh", "-c", f"trap 'touch /tmp/got-{word}; exit' TERM; touch /tmp/ready; while :; do usleep 9999; done"
        )
        box.until((box.root / "tmp/ready").exists, "the trap")
        assert not box.call("kill", box.id, word).failed
        box.until_status("stopped")
        assert (box.root / f"tmp/got-{word}").exists()
        (box.root / "tmp/ready").unlink()
        box.call("delete", box.id)


@case(RUNTIME, "EXTRA")
def pid_file(box: Box) -> None:
    """--pid-file holds the pid of the state"""
    box.create(options=("--pid-file", str(box.path / "pid")))
    assert int((box.path / "pid").read_text()) == box.state()["pid"]


@case(RUNTIME, "EXTRA")
def ids_that_are_paths_are_refused(box: Box) -> None:
    """an id with a slash, or one that is a directory's name, is an error"""
    box.save()
    for name in ("../x", "a/b", "..", ".", ""):
        assert box.background("create", name).failed, name


@case(RUNTIME, "EXTRA")
def forced_delete(box: Box) -> None:
    """delete --force kills first, and takes an unknown id for done"""
    pid = box.up()
    assert not box.call("delete", "--force", box.id).failed
    box.until(lambda: not _is_running(pid), "the end")
    assert not box.call("delete", "--force", box.id).failed


@case(RUNTIME, "EXTRA")
def missing_program_is_an_error(box: Box) -> None:
    """a program that does not exist fails create or start, and run"""
    assert box.run("/bin/nope").failed
    box.save()
    assert box.background("create", box.id).failed or box.background("start", box.id).failed


@case(RUNTIME, "EXTRA")
def all_processes_end_with_the_first(box: Box) -> None:
    """kill of the first process ends every process of its pid namespace"""
    mark = f"mark-{box.id}"
    box.process["env"].append(f"MARK={mark}")
    box.up("/bin/sh", "-c", "sleep 100 & sleep 100 & touch /tmp/ready; wait")
    box.until((box.root / "tmp/ready").exists, "the children")
    box.call("kill", box.id, "KILL")
    box.until(lambda: not _children_with(mark), "the end of all")


@case("features.md")
def features_are_told(box: Box) -> None:
    """features prints ociVersionMin and ociVersionMax, and what it knows of hooks, mount options and linux"""
    done = box.call("features")
    assert not done.failed, done.err
    features = json.loads(done.out)
    assert {"ociVersionMin", "ociVersionMax", "hooks", "mountOptions", "linux"} <= set(features)
    assert "namespaces" in features["linux"] and "capabilities" in features["linux"]
