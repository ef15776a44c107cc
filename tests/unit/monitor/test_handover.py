"""What one image of the monitor leaves, the next one finds: nothing is lost in the memory file between them."""

import marshal

from rootless.monitor.handover import Handover, RunHandover, StreamHandover
from rootless.records.id_map import Extent, IdMap
from rootless.records.launch import LaunchPlan
from rootless.records.state import ContainerNamespaces, ContainerState


def test_the_second_image_finds_everything_as_it_was() -> None:
    state = ContainerState()
    state.status, state.pid = "running", 42
    state.namespaces = ContainerNamespaces((5, 6), (7, 0))
    state.namespaces.shares_processes = True
    handover = Handover("/c/1", LaunchPlan("1", IdMap([Extent(0, 1000, 1)], [Extent(0, 1000, 1)], "single")), state)
    handover.began, handover.restarts, handover.delay = 12.5, 3, 0.4
    handover.size, handover.scope = (24, 80), "/sys/fs/cgroup/x.scope"
    handover.lock, handover.listener = 3, 4
    handover.run = RunHandover(42, (5, -1), [(43, 1000)])
    handover.run.group = {"version": 2, "path": "/p", "unit": ""}
    handover.streams = StreamHandover(-1, [(6, b"half a l\xffine\n"), (7, b"")], is_terminal=False)
    found = Handover.from_json(marshal.loads(marshal.dumps(handover.to_json())))
    assert found.to_json() == handover.to_json()
    assert found.streams.outputs == handover.streams.outputs
    assert found.descriptors() == [3, 4, 5, 6, 7]
