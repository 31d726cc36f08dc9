"""How sweeps are recorded as CUDA graphs: with stand-ins for torch's, and on a GPU."""

import contextlib
import gc
import threading
from unittest import mock

import pytest
import torch

from tensorfast.ahead import recording as recorded


class Graph:
    """Notes what is asked of it, and ends well unless ``broken``."""

    made = None
    broken = False
    events = None

    def __init__(self):
        self.asked = []
        self.made.append(self)

    def capture_begin(self, **_):
        assert not torch.is_inference_mode_enabled()
        assert not gc.isenabled()
        self.asked.append("begin")
        self.events.append("begin")

    def capture_end(self):
        self.asked.append("end")
        self.events.append("end")
        if self.broken and self is self.made[0]:
            raise RuntimeError("capture was invalidated")


@pytest.fixture
def recording(monkeypatch):
    """Put stand-ins in place; yield what records, and what was asked of the allocator."""
    asked = []
    monkeypatch.setattr(Graph, "made", [])
    monkeypatch.setattr(Graph, "events", [])

    def note(event):
        assert recorded._RECORDING.locked()
        Graph.events.append(event)

    # A device may be given without its index; a stream knows it.
    stream = mock.Mock(device=mock.Mock(index=3))
    stream.wait_stream = lambda _: note("wait")
    monkeypatch.setattr(
        torch._C, "_cuda_clearCublasWorkspaces", lambda: note("clear"), raising=False
    )
    for name, stand_in in {
        "CUDAGraph": Graph,
        "Stream": lambda _, priority: stream,
        "current_stream": mock.Mock(),
        "graph_pool_handle": lambda: (0, 7),
        "stream": lambda _: contextlib.nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        monkeypatch.setattr(torch._C, name, lambda *told, name=name: asked.append((name, *told)))
    monkeypatch.setattr(torch, "zeros", lambda *_, device: torch.ones(1))
    monkeypatch.setattr(recorded, "_stream", recorded._stream.__wrapped__)
    return recorded.graphs(torch.device("cuda")), asked


def test_what_is_recorded_ends_and_garbage_is_collected_again(recording):
    capture, asked = recording
    with torch.inference_mode():
        graph = capture(lambda: graph_is_open(Graph.made[0]))
    assert graph.asked == ["begin", "end"]
    assert gc.isenabled()
    assert not asked


def test_nobody_else_records_meanwhile_and_cublas_works_in_memory_of_the_graph(recording):
    capture, _ = recording
    capture(lambda: None)
    with pytest.raises(RuntimeError, match="not permitted"):
        capture(refused)
    assert Graph.events == ["clear", "wait", "begin", "end", "clear"] * 2


def graph_is_open(graph):
    assert graph.asked == ["begin"]
    # As outside.
    assert torch.is_inference_mode_enabled()


def refused():
    raise RuntimeError("operation not permitted when stream is capturing")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_after_a_failure_nothing_is_recorded_any_more(recording, error):
    capture, asked = recording

    def step():
        raise error("not here")

    with pytest.raises(error, match="not here"):
        capture(step)
    assert Graph.made[0].asked == ["begin", "end"]
    assert not asked
    assert gc.isenabled()
    assert not recorded._RECORDING.locked()


def test_where_cuda_has_given_up_the_allocator_is_told_and_something_is_recorded_well(
    recording, monkeypatch
):
    capture, asked = recording
    monkeypatch.setattr(Graph, "broken", True)
    with pytest.raises(RuntimeError, match="not permitted"):
        capture(refused)
    assert asked == [
        ("_cuda_endAllocateToPool", 3, (0, 7)),
        ("_cuda_releasePool", 3, (0, 7)),
    ]
    assert [graph.asked for graph in Graph.made] == [["begin", "end"]] * 2


@pytest.mark.gpu
def test_after_a_failure_on_a_gpu_memory_random_numbers_and_graphs_are_as_before():
    device = torch.device("cuda", torch.cuda.current_device())
    x = torch.zeros(5, device=device)
    with pytest.raises(RuntimeError):
        # Waiting is not permitted, and ends the recording.
        recorded.graphs(device)(lambda: x.sum().item())
    assert float(torch.randn(5, device=device).sum()) == pytest.approx(0, abs=100)
    used = torch.empty(1 << 26, dtype=torch.int8, device=device)
    before = torch.cuda.memory_reserved()
    del used
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < before
    graph = recorded.graphs(device)(lambda: x.add_(1))
    graph.replay()
    graph.replay()
    assert x.tolist() == [2] * 5


@pytest.mark.gpu
def test_threads_record_at_once():
    device, failed = torch.device("cuda", torch.cuda.current_device()), []

    def work(number):
        try:
            with torch.cuda.device(device), torch.inference_mode():
                x = torch.zeros(7, device=device)
                capture, kept = recorded.graphs(device), []
                for _ in range(20):
                    kept.append(capture(lambda: x.add_(torch.ones_like(x) * number)))
                    kept[-1].replay()
                assert x.tolist() == [20 * number] * 7
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
