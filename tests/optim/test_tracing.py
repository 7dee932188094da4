"""Networks are traced, pickled and run beside other threads' work, and nothing changes."""

import os
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import cloudpickle
import pytest
import torch
from torch import fx, nn
from torch.fx._symbolic_trace import is_fx_tracing

from advfeat.classifiers.networks import build_network
from advfeat.optim import AttackedNetwork, FrozenNetwork
from advfeat.optim._comparing import agree, compare
from advfeat.optim._tracing import trace

N_THREADS = 8
SHAPE = (3, 8, 8)


class Slow(nn.Module):
    """Lets other threads run in the middle of its forward pass, also while it is traced."""

    def __init__(self, entered, leave):
        super().__init__()
        self.entered, self.leave = entered, leave
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        self.entered.set()
        assert self.leave.wait(10)
        return self.conv(x)


class Branching(nn.Module):
    """Cannot be traced."""

    def __init__(self):
        super().__init__()
        self.hidden, self.fc = nn.Linear(192, 5), nn.Linear(5, 4)

    def forward(self, x):
        h = self.hidden(x.flatten(1))
        return self.fc(h.relu() if h.sum() > -1e9 else h)


def small_network(seed=0, name="small_resnet"):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_network(name, SHAPE, 4, torch.zeros(3, 1, 1), torch.ones(1)).eval()


def images(n=4):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(0))


def test_other_threads_run_and_read_their_networks_while_one_is_traced():
    entered, leave = threading.Event(), threading.Event()
    call, getattribute = nn.Module.__call__, nn.Module.__getattr__
    net, x = small_network(), images()
    expected = net(x)
    with ThreadPoolExecutor(1) as pool:
        traced = pool.submit(trace, Slow(entered, leave))
        assert entered.wait(10)
        assert nn.Module.__call__ is not call, "the test must meet the trace in its middle"
        try:
            actual = net(x)
            weight = nn.Linear(2, 3).weight
        finally:
            leave.set()
        graph = traced.result()
    assert torch.equal(actual, expected)
    assert type(weight) is nn.Parameter
    assert [node.op for node in graph.graph.nodes] == ["placeholder", "call_module", "output"]
    assert nn.Module.__call__ is call
    assert nn.Module.__getattr__ is getattribute


def test_traces_in_threads_do_not_meet():
    call, getattribute = nn.Module.__call__, nn.Module.__getattr__
    nets, x = [small_network(seed) for seed in range(N_THREADS)], images()
    expected = [net(x) for net in nets]

    def work(i):
        graph, runs = trace(nets[i]), []
        for _ in range(3):
            runs.append(nets[i](x))
        return graph(x), runs

    with ThreadPoolExecutor(N_THREADS) as pool:
        for _ in range(5):
            for i, (logits, runs) in enumerate(pool.map(work, range(N_THREADS))):
                assert torch.equal(logits, expected[i])
                assert all(torch.equal(run, expected[i]) for run in runs)
    assert nn.Module.__call__ is call
    assert nn.Module.__getattr__ is getattribute


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # that threads may be a danger
def test_a_process_forked_in_the_middle_of_a_trace_is_whole():
    entered, leave = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        traced = pool.submit(trace, Slow(entered, leave))
        assert entered.wait(10)
        threading.Timer(0.2, leave.set).start()
        child = os.fork()
        if child == 0:  # in the child: no pytest, only an exit status
            ok = False
            try:
                ok = nn.Linear(2, 3)(torch.ones(1, 2)).shape == (1, 3) and trace(nn.ReLU())
            finally:
                os._exit(0 if ok else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert traced.result() is not None


@pytest.mark.parametrize("make", [small_network, Branching])
def test_threads_that_share_a_frozen_network_get_what_one_gets(make):
    module, x = make(), images(32)
    one = FrozenNetwork(module, device="cpu")
    expected = [f(part) for part in x.split(4) for f in (one, one.features)]
    for _ in range(5):
        shared = FrozenNetwork(module, device="cpu")

        def work(part, shared=shared):
            return shared(part), shared.features(part)

        with ThreadPoolExecutor(N_THREADS) as pool:
            found = [value for pair in pool.map(work, x.split(4)) for value in pair]
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
@pytest.mark.parametrize("make", [small_network, Branching])
@pytest.mark.parametrize(
    "freeze",
    [FrozenNetwork, lambda m, device: AttackedNetwork(m, device=device, precision="fp32")],
)
def test_pickles_hold_no_graph_and_are_no_larger_for_being_used(pickler, make, freeze):
    frozen = freeze(make(), device="cpu")
    fresh = pickler.dumps(frozen)
    logits = frozen(images())
    used = pickler.dumps(frozen)
    assert len(used) < len(fresh) + 100
    assert b"torch.fx" not in used
    assert torch.equal(pickle.loads(used)(images()), logits)


def test_unpickling_does_not_trace(monkeypatch):
    frozen = FrozenNetwork(small_network(), device="cpu")
    frozen(images())
    data = pickle.dumps(frozen)
    monkeypatch.setattr(fx.Tracer, "trace", None)
    again = pickle.loads(data)
    monkeypatch.undo()
    assert torch.equal(again(images()), frozen(images()))


def lines_of_fx(strike):
    """Trace a network; raise KeyboardInterrupt at one of the lines that torch.fx runs for it."""
    count = 0

    def watch(frame, event, arg):
        nonlocal count
        if not frame.f_code.co_filename.endswith("_symbolic_trace.py"):
            return watch
        count += event == "line"
        if event == "line" and count == strike:
            raise KeyboardInterrupt
        return watch

    sys.settrace(watch)
    try:
        trace(nn.Sequential(nn.Linear(3, 3), nn.ReLU()))
    finally:
        sys.settrace(None)
    return count


def test_an_interrupt_leaves_torch_as_it_was():
    """Also one that strikes while torch.fx puts back what it has changed in the process."""
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    before = nn.Module.__call__, nn.Module.__getattr__, is_fx_tracing()
    lines_of_fx(None)
    total = lines_of_fx(None)
    strikes = {*range(total - 150, total), *range(1, total, total // 50)}
    struck = 0
    for strike in sorted(strikes):
        try:
            lines_of_fx(strike)
        except KeyboardInterrupt:
            struck += 1
        assert (nn.Module.__call__, nn.Module.__getattr__, is_fx_tracing()) == before, strike
        layer(x)
    assert struck > 150
    compiled = torch.compile(layer, backend="eager")  # which puts patches back that it finds
    assert torch.equal(compiled(x), layer(x))
    assert trace(layer) is not None


class Late(nn.Module):
    """Its call lasts until another thread has traced a network."""

    def __init__(self):
        super().__init__()
        self.inside, self.ended = threading.Event(), threading.Event()

    @property
    def forward(self):
        if threading.current_thread() is not threading.main_thread():
            self.inside.set()
            self.ended.wait(60)
        return lambda x: x + 1


def test_calls_of_other_threads_outlast_a_trace():
    late, found = Late(), []
    thread = threading.Thread(target=lambda: found.append(late(torch.zeros(1))))

    class Traceable(nn.Module):
        def forward(self, x):
            if not thread.ident:
                thread.start()
            assert late.inside.wait(60)
            return x * 2

    assert trace(Traceable()) is not None
    late.ended.set()
    thread.join()
    assert found == [torch.ones(1)]


class Asks(nn.Module):
    """Asks a question on its way; a stand-in of torch.fx is no tensor."""

    def __init__(self, forward):
        super().__init__()
        self.own_forward = forward
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(self.own_forward(x))


def clips_tensors(x):
    return x.clamp(-1, 1) if isinstance(x, torch.Tensor) else x


def clips_what_torch_calls_tensors(x):
    return x.clamp(-1, 1) if torch.is_tensor(x) else x


def takes_the_last_of_several(x):
    return x[-1] if isinstance(x, (tuple, list)) else x


def asks_about_a_number(x):
    size = 2
    size = size if isinstance(size, tuple) else (x.shape[1], size)
    return x.reshape(-1, 1, 1, size[0]).repeat(1, 1, size[1], 1)[:, 0, 0]


@pytest.mark.parametrize("forward", [clips_tensors, clips_what_torch_calls_tensors])
def test_a_trace_that_took_another_branch_is_not_used(forward):
    """It would go along the other branch as far away as no data look."""
    network = Asks(forward)
    near, far = torch.rand(4, 2), torch.full((3, 2), 50.0)
    graph = trace(network)
    assert torch.equal(graph(near), network(near)) and not torch.equal(graph(far), network(far))
    assert compare(network, graph, near) == (False, False)
    assert agree(network, graph, near) is False
    frozen = FrozenNetwork(network, device="cpu")
    frozen(near)
    assert torch.equal(frozen(far), frozen(far.clamp(-1, 1)))


@pytest.mark.parametrize("forward", [takes_the_last_of_several, asks_about_a_number])
def test_questions_that_lead_nowhere_else_do_no_harm(forward):
    network, x = Asks(forward), torch.rand(4, 2)
    graph = trace(network)
    assert compare(network, graph, x) == (True, False)
    assert agree(network, graph, x) is True
