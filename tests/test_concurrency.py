"""The same maps in worker processes, in threads, and between torch's own operators."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import usconf

# Python 3.12 warns of any fork in a process with threads; that forks work is what is tested here.
FORKS = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
HAS_FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@pytest.fixture
def clip(rng):
    return rng.integers(1, 256, (6, 48, 40), np.uint8)


@pytest.fixture
def maps(clip):
    """Made in this process first, so that thread pool and plans exist before anything forks."""
    return usconf.random_walk(clip, axes="thw")


def test_any_number_of_threads_to_the_last_bit(clip, maps):
    before = usconf.get_num_threads()
    try:
        for count in (1, 2, 3, 5):
            usconf.set_num_threads(count)
            np.testing.assert_array_equal(usconf.random_walk(clip, axes="thw"), maps)
            np.testing.assert_array_equal(usconf.random_walk(clip[2]), maps[2])
    finally:
        usconf.set_num_threads(before)


def test_python_threads_give_the_same(clip, maps):
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(usconf.random_walk, [*clip] * 3))
    for index, ours in enumerate(found):
        np.testing.assert_array_equal(ours, maps[index % len(clip)])


def test_shapes_and_cache_change_under_way(rng):
    """Threads that plan, drop plans and solve at the same time."""
    images = [rng.random((20 + 3 * k, 45 - 2 * k)) for k in range(8)]
    expected = [usconf.random_walk(image) for image in images]

    def work(k):
        if k % 5 == 0:
            usconf.clear_cache()
        return usconf.random_walk(images[k % len(images)])

    with ThreadPoolExecutor(4) as pool:
        for k, ours in enumerate(pool.map(work, range(40))):
            np.testing.assert_array_equal(ours, expected[k % len(images)])


def test_the_interpreter_runs_on_meanwhile(rng):
    """The core gives the GIL up: another thread counts while a map is made."""
    image = rng.random((700, 700), np.float32)
    usconf.random_walk(image)
    ticks, done = [], threading.Event()

    def count():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.0005)

    counter = threading.Thread(target=count)
    counter.start()
    start = time.perf_counter()
    for _ in range(3):
        usconf.random_walk(image)
    stop = time.perf_counter()
    done.set()
    counter.join()
    inside = [tick for tick in ticks if start < tick < stop]
    # One switch of the GIL takes up to 5 ms: far fewer ticks than half the time allows.
    assert len(inside) > (stop - start) / 0.01


def _map_in_child(queue, image):
    queue.put(usconf.random_walk(image))


@FORKS
@HAS_FORK
def test_forked_children_give_the_same(clip, maps):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_map_in_child, args=(queue, clip[1])) for _ in range(2)]
    for child in children:
        child.start()
    found = [queue.get(timeout=60) for _ in children]
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    for ours in found:
        np.testing.assert_array_equal(ours, maps[1])
    np.testing.assert_array_equal(
        usconf.random_walk(clip, axes="thw"), maps
    )  # the parent still can


class Frames:
    """A data set of (frame, its map)."""

    def __init__(self, clip):
        self.clip = clip

    def __len__(self):
        return len(self.clip)

    def __getitem__(self, index):
        return usconf.random_walk(self.clip[index])


@pytest.mark.torch
@FORKS
@HAS_FORK
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_data_loader_workers_give_the_same(clip, maps, kind):
    import torch
    from torch.utils.data import DataLoader

    given = clip if kind == "numpy" else torch.from_numpy(clip)
    usconf.random_walk(given[0])
    loader = DataLoader(
        Frames(given), batch_size=2, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    found = torch.cat(list(loader)).numpy()
    np.testing.assert_array_equal(found, maps)


@pytest.mark.torch
def test_between_operators_of_torch(clip, maps):
    import torch

    tensor = torch.from_numpy(clip)[:, None]
    weights = torch.rand(64, 64, generator=torch.Generator().manual_seed(1))
    product = weights @ weights
    for _ in range(5):
        np.testing.assert_array_equal(usconf.random_walk(tensor)[:, 0].numpy(), maps)
        assert torch.equal(weights @ weights, product)


@pytest.mark.torch
def test_tensors_take_the_threads_of_torch(clip, monkeypatch):
    import torch
    from usconf import walk

    taken = []
    core = walk._core
    position = 16  # of `threads` among the core's arguments

    class Spy:
        def __getattr__(self, name):
            return getattr(core, name)

        def random_walk(self, *arguments):
            taken.append(arguments[position])
            return core.random_walk(*arguments)

    monkeypatch.setattr(walk, "_core", Spy())
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        usconf.random_walk(torch.from_numpy(clip[0]))
        usconf.random_walk(clip[0])
    finally:
        torch.set_num_threads(before)
    assert taken == [1, usconf.get_num_threads()]


INTERRUPTED = """
import signal
import numpy as np
import usconf

def stop(*_):
    raise KeyboardInterrupt

usconf.set_num_threads(2)
image = np.random.default_rng(0).random((700, 700))
usconf.random_walk(image[:64, :64])
signal.signal(signal.SIGALRM, stop)
signal.setitimer(signal.ITIMER_REAL, 0.1)
try:
    usconf.random_walk(image, solver="iterative")
except KeyboardInterrupt:
    print("interrupted")
signal.setitimer(signal.ITIMER_REAL, 0)
print(usconf.random_walk(image[:64, :64], solver="iterative").shape)
"""


def test_interrupt_ends_long_work_and_leaves_the_threads_usable():
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60
    )
    assert run.stdout.split("\n")[:2] == ["interrupted", "(64, 64)"], run.stderr


FORKED = """
import os, threading, time
import numpy as np
import usconf

image = np.random.default_rng(0).random((48, 48))
usconf.random_walk(image)  # an import that is under way would be lost to the child
busy = True

def plan_without_end():
    size = 40
    while busy:
        size = 40 + (size + 1) % 200
        usconf.random_walk(np.random.default_rng(0).random((size, 40)))

thread = threading.Thread(target=plan_without_end)
thread.start()
for _ in range(20):
    child = os.fork()
    if child == 0:
        usconf.random_walk(image)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
busy = False
thread.join()
print("done")
"""


def test_fork_while_another_thread_plans():
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED], capture_output=True, text=True, timeout=60
    )
    assert run.stdout == "done\n", run.stderr


BORROWED = """
import os
import numpy as np
import torch
import usconf
import usconf.ops

def threads():
    return len(os.listdir("/proc/self/task"))

image = np.random.default_rng(0).random((300, 200), np.float32)
usconf.set_num_threads(1)
alone = usconf.random_walk(image)
torch.set_num_threads(3)
torch.ones(1 << 22).mul(2)  # starts torch's
before = threads()
for count in (3, 2, 5):
    usconf.set_num_threads(count)
    assert np.array_equal(usconf.random_walk(image), alone)
print(threads() - before)
"""


@pytest.mark.torch
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")
def test_torch_lends_its_threads():
    """Two pools would wait for the same cores, the one of them by spinning."""
    run = subprocess.run([sys.executable, "-c", BORROWED], capture_output=True, text=True)
    assert run.stdout == "0\n", run.stderr


WITH_CHILD = """
import os, signal
import numpy as np
import torch
import usconf

def of_torch():
    torch.ones(1 << 22).mul(2)

def of_arrays():
    usconf.random_walk(np.random.default_rng(0).random((300, 200), np.float32))

def of_tensors():
    import usconf.ops

    of_arrays()

torch.set_num_threads(2)
usconf.set_num_threads(2)
{first}()
child = os.fork()
if child == 0:
    signal.alarm(30)  # a child that hangs would spin for ever
    {second}()
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""


@pytest.mark.torch
@HAS_FORK
@pytest.mark.parametrize(
    ("first", "second"),
    [
        # The child has none of the threads that the parent's operator started.
        pytest.param("of_torch", "of_tensors", id="a child borrows nothing"),
        # Torch's operators hang in children of those who started its threads.
        pytest.param("of_arrays", "of_torch", id="maps of arrays do not start torch's threads"),
    ],
)
def test_children_of_those_who_loaded_torch(first, second):
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITH_CHILD.format(first=first, second=second)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert run.stdout == "0\n", run.stderr


OTHER_THREAD = """
import os, threading
import numpy as np
import torch
import usconf.ops

torch.set_num_threads(2)
image = np.random.default_rng(0).random((300, 200), np.float32)
thread = threading.Thread(target=usconf.random_walk, args=(image,))
thread.start()
thread.join()
print(len(os.listdir("/proc/self/task")) < 16)
"""


@pytest.mark.torch
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")
def test_every_python_thread_takes_torchs_setting():
    """OpenMP keeps the number of its threads for each thread that calls it."""
    limits = {"OMP_NUM_THREADS": "40", "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", OTHER_THREAD],
        env=os.environ | limits,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.stdout == "True\n", run.stderr
