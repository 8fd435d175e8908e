"""Forks, threads, Ctrl-C and environment variables: what only a process of its own can show."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vbfast
from vbfast import _interrupts, _kernels
from vbfast._interrupts import interruptible
from vbfast._kernels.inputs import Assignment, Block
from vbfast._threads import available_threads, resolve_threads
from vbfast.starts import from_labels

TIMEOUT = 60
LEVELS = _kernels.available_levels()

pytestmark = [
    pytest.mark.filterwarnings("ignore::vbfast.ConvergenceWarning"),
    # CPython warns where a process with threads forks: that is what is tested here.
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def big_data(n=60_000, d=4):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, d)) + 3 * rng.integers(0, 3, (n, 1))


def fitted(X, method="em", n_threads=2, **options):
    """A fit of some sweeps, on enough rows for several threads."""
    return vbfast.BayesianGaussianMixture(
        3, method=method, tol=0, max_iter=4, random_state=0, init_params="random_from_data",
        n_threads=n_threads, **options,
    ).fit(X)  # fmt: skip


def answers(mixture, X):
    """Everything that a fitted mixture says of rows, as bytes."""
    return [
        np.ascontiguousarray(of(X)).tobytes()
        for of in (mixture.predict, mixture.predict_proba, mixture.score_samples)
    ]


def run(code, timeout=TIMEOUT, **environment):
    """Run Python code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


# Forks -------------------------------------------------------------------------------------------


def in_fork(work):
    """Return what `work` gives in a forked child; fail where that hangs or dies."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            with os.fdopen(writing, "wb") as stream:
                pickle.dump(work(), stream)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    received = []
    with os.fdopen(reading, "rb") as stream:
        reader = threading.Thread(target=lambda: received.append(stream.read()))
        reader.start()
        reader.join(TIMEOUT)
        if reader.is_alive():
            os.kill(child, signal.SIGKILL)
        reader.join()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the forked child ended with status {status}"
    return pickle.loads(received[0])


@posix
@pytest.mark.parametrize("n_threads", [None, 2, 4])
def test_forked_child_fits_after_its_parent_has(n_threads):
    X = big_data()
    parent = fitted(X, n_threads=2)
    expected = answers(parent, X)
    assert in_fork(lambda: answers(parent, X)) == expected
    assert in_fork(lambda: answers(fitted(X, n_threads=n_threads), X)) == expected
    # A fork of the fork, and the parent goes on as before.
    assert in_fork(lambda: in_fork(lambda: answers(fitted(X), X))) == expected
    assert answers(fitted(X, n_threads=2), X) == expected


@posix
def test_forked_child_goes_on_with_the_parts():
    # Data that its parent made, for two threads, and a fit on them.
    X = big_data()
    data = vbfast.ArrayData.of(X, n_threads=2)
    model = vbfast.Model(vbfast.Mixture(3), vbfast.Gaussian(X.shape[1], frame=data.frame))
    start = from_labels(model, data, np.arange(len(X)) % 3)

    def objective():
        return vbfast.EM(max_iter=2, tol=0).fit(model, data, start).objective

    expected = objective()
    assert in_fork(objective) == expected


@posix
def test_forked_child_runs_one_thread():
    assert in_fork(available_threads) == 1
    assert in_fork(lambda: resolve_threads(7)) == 1
    assert resolve_threads(7) in (1, 7)  # 1 where OpenMP is missing


def _fit_and_put(X, queue):
    queue.put(answers(fitted(X), X))


@posix
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_multiprocessing(start):
    X = big_data(30_000)
    expected = answers(fitted(X), X)
    context = multiprocessing.get_context(start)
    queue = context.Queue()
    children = [context.Process(target=_fit_and_put, args=(X, queue)) for _ in range(2)]
    for child in children:
        child.start()
    try:
        for _ in children:
            assert queue.get(timeout=TIMEOUT) == expected
        for child in children:
            child.join(TIMEOUT)
            assert child.exitcode == 0
    finally:
        for child in children:
            child.kill()


CHAINS = {
    "hmm": lambda n_threads: vbfast.HiddenMarkovModel(
        3, tol=0, max_iter=3, random_state=0, init_params="random_from_data", n_threads=n_threads
    ),
    "factorial": lambda n_threads: vbfast.FactorialHMM(
        2, 2, tol=0, max_iter=3, random_state=0, n_threads=n_threads
    ),
}


@pytest.mark.slow
@posix
@pytest.mark.parametrize("make", CHAINS.values(), ids=CHAINS)
def test_forked_child_fits_chains(make):
    X, lengths = big_data(20_000), [5_000] * 4

    def said():
        model = make(2).fit(X, lengths=lengths)
        return [model.objective_, model.predict_proba(X, lengths).tobytes()]

    expected = said()
    assert in_fork(said) == expected
    assert said() == expected
    # Many threads ask one fitted object.
    model = make(2).fit(X, lengths=lengths)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: model.predict_proba(X, lengths).tobytes(), range(8)):
            assert found == expected[1]


# Threads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", ["em", "mean_field", vbfast.FullInference(n_draws=5, n_tune=2, n_chains=2)]
)
def test_many_threads_predict_with_one_object(method):
    X = big_data(20_000)
    mixture = fitted(X, method)
    expected = answers(mixture, X)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: answers(mixture, X), range(12)):
            assert result == expected


def test_many_threads_fit_at_once():
    X = big_data(20_000)
    expected = [answers(fitted(X, method), X) for method in ("em", "mean_field", "crisp_em")]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(2):
            fits = pool.map(
                lambda method: answers(fitted(X, method), X), ("em", "mean_field", "crisp_em")
            )
            assert list(fits) == expected


def test_predictions_while_fitting_are_of_one_state():
    """A fit swaps its result in at the end: other threads see the old state, then the new."""
    X, other = big_data(20_000), big_data(20_000)[::-1] * 2
    mixture = fitted(X)
    before = answers(mixture, X)
    after = answers(fitted(other), X)
    mixture.random_state = 0
    seen = []
    with ThreadPoolExecutor(1) as pool:
        fit = pool.submit(mixture.fit, other)
        while not fit.done():
            try:
                seen.append(mixture.predict_proba(X).tobytes())
            except (AttributeError, ValueError) as error:
                seen.append(repr(error))
        fit.result()
    assert set(seen) <= {before[1], after[1]}
    assert answers(mixture, X) == after


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (vbfast.GaussianMixture, {"n_components": 2}),
        (vbfast.MixtureModel, {"n_components": 2}),
        (vbfast.HiddenMarkovModel, {"n_components": 2}),
        (vbfast.FactorialHMM, {"n_chains": 2, "n_components": 2}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_fit_that_ends_while_a_prediction_reads_attributes(kind, options):
    """Whichever attribute was the last to be read: what is said is of one fit."""
    X = big_data(100, 2)
    more = np.hstack([X, X[:, :1] ** 2])  # another feature, so that nothing goes together
    verbs = ["predict_proba", "score", "sample"]
    verbs += [name for name in ("bic", "icl") if hasattr(kind, name)]

    def fit(rows):
        return kind(**options, max_iter=5, random_state=0).fit(rows)

    def said(estimator, verb):
        try:
            return pickle.dumps(getattr(estimator, verb)(*([] if verb == "sample" else [X])))
        except ValueError as error:
            return str(error)

    for verb in verbs:
        allowed = {said(fit(X), verb), said(fit(more), verb)}
        for moment in range(2, 15):
            estimator, after, reads = fit(X), fit(more), 0

            class Interrupted(kind):
                def __getattribute__(self, name, estimator=estimator, after=after, moment=moment):
                    nonlocal reads
                    value = super().__getattribute__(name)
                    if self is estimator and not name.startswith("__"):
                        reads += 1
                        if reads == moment:
                            estimator.__dict__ = after.__dict__
                    return value

            Interrupted.__name__ = kind.__name__  # for messages
            estimator.__class__ = Interrupted
            assert said(estimator, verb) in allowed, (verb, moment)


def test_more_threads_than_processors():
    X = big_data()
    one = fitted(X, n_threads=1)
    for n_threads in (2, 3, 8, 64):
        many = fitted(X, n_threads=n_threads)
        assert answers(many, X) == answers(one, X)
        assert many.lower_bounds_.tobytes() == one.lower_bounds_.tobytes()


def test_kernels_release_the_interpreter():
    """While one thread is in a kernel, another runs Python."""
    visit_for_seconds = long_visit()
    ticks = []
    done = threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.005)

    ticker = threading.Thread(target=tick)
    ticker.start()
    begin = time.perf_counter()
    visit_for_seconds(400_000)
    end = time.perf_counter()
    done.set()
    ticker.join()
    assert sum(begin < t < end for t in ticks) >= 3


def long_visit():
    """A visit of as many rows as wanted, which take no memory: all are the same one."""
    d, k = 16, 32
    model = vbfast.Model(vbfast.Mixture(k), vbfast.Gaussian(d, "full"))
    theta = model.about(np.random.default_rng(0).standard_normal((k, d)))
    row = np.ones((1, d))

    def visit(n_rows, n_threads=1):
        values = np.broadcast_to(row, (n_rows, d))
        block = Block(values, None, None, np.zeros(d), np.ones(d), 0, n_threads)
        return model.visit(block, theta, Assignment("exact"))

    return visit


# Ctrl-C ------------------------------------------------------------------------------------------


class Interrupt:
    """Ctrl-C some time after entry; `at` is when."""

    def __init__(self, after=0.3):
        self.timer = threading.Timer(after, self.send)
        self.at = None

    def send(self):
        self.at = time.perf_counter()
        os.kill(os.getpid(), signal.SIGINT)

    def __enter__(self):
        self.timer.start()
        return self

    def __exit__(self, *error):
        self.timer.cancel()
        self.timer.join()


@posix
@pytest.mark.parametrize("n_threads", [1, 2])
def test_interrupt_within_one_sweep(n_threads):
    """A single sweep that would take a minute and more stops."""
    visit = long_visit()
    with Interrupt() as interrupt, pytest.raises(KeyboardInterrupt):
        visit(100_000_000, n_threads)
    assert time.perf_counter() - interrupt.at < 5
    assert float(visit(1000)["strength"].sum()) == pytest.approx(1000)


@posix
@pytest.mark.parametrize("n_threads", [1, 2])
def test_interrupt_within_a_tile(n_threads):
    """Rows of very many components stop before all of a tile, whichever thread has them."""
    k, n = 100_000, 256 * n_threads  # a tile each
    model = vbfast.Model(vbfast.Mixture(k), vbfast.Gaussian(1))
    theta = model.about(np.linspace(-1, 1, k)[:, None])
    weights = np.zeros(n)
    weights[-256:] = 1000  # to be drawn as often as that
    rows = np.broadcast_to(1.0, (n, 1))
    block = Block(rows, weights, None, np.zeros(1), np.ones(1), 0, n_threads)
    log_z = np.full(n, np.nan)
    with Interrupt(0.2), pytest.raises(KeyboardInterrupt):
        _kernels.mixture.visit(block, theta, Assignment("draw", seed=1), log_z=log_z)
    assert np.isnan(log_z[-256:]).any()


@posix
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("kind", ["mixture", "chain", "coupled"])
def test_signals_that_come_soon_after_one(kind, n_threads):
    """Their handlers don't run until the first one's error has left the kernel."""
    k = {"mixture": 30_000, "chain": 1500, "coupled": 2000}[kind]
    rows = np.broadcast_to(0.5, (3000, 1))
    if kind == "coupled":
        model = vbfast.Model(vbfast.CoupledChains(2, k), vbfast.AdditiveGaussian(1, 2, k))
        few = np.linspace(-1, 1, 2 * k)[:, None], np.eye(1)
        start = model.around(few, (1, 50), np.full((2, k + 1, k), 1 / k))
    else:
        latent = (vbfast.Mixture if kind == "mixture" else vbfast.Chain)(k)
        model = vbfast.Model(latent, vbfast.Gaussian(1))
    theta = model.mode(start) if kind == "coupled" else model.about(np.zeros((k, 1)))
    block = Block(rows, None, None, np.zeros(1), np.ones(1), 0, n_threads)
    if kind == "coupled":
        block = replace(block, memory=np.full((len(rows), model.memory_width), np.nan))
    assignment = Assignment("factorised" if kind == "coupled" else "exact")
    seen = []

    def visit_for_ever():
        while True:
            model.visit(block, theta, assignment)

    def handle(*_):
        seen.append(time.perf_counter())  # a SystemError where an error is set
        if len(seen) == 1:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.003)
        with pytest.raises(KeyboardInterrupt):
            visit_for_ever()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@posix
def test_interrupt_of_a_call_that_does_not_look(monkeypatch):
    """It is left to end alone; a short one, one without threads and an error are as they were."""
    release = threading.Event()
    with Interrupt(0.2), pytest.raises(KeyboardInterrupt):
        interruptible(1e12, lambda: release.wait(60))
    release.set()
    here = threading.get_ident()
    assert interruptible(1.0, threading.get_ident) == here
    assert interruptible(1e12, threading.get_ident) != here
    with pytest.raises(FloatingPointError), np.errstate(all="raise"):
        interruptible(1e12, lambda: np.ones(1) / 0)

    def none(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    assert interruptible(1e12, threading.get_ident) == here


@pytest.mark.slow
@pytest.mark.parametrize("method", ["em", "mean_field"])
@pytest.mark.parametrize("kind", [vbfast.FactorialHMM, vbfast.BayesianGaussianMixture])
def test_long_algebra_does_not_keep_ctrl_c_waiting(monkeypatch, method, kind):
    """It is left to a thread, on which it says the same."""
    X = np.random.default_rng(0).standard_normal((60, 2))
    estimator = kind(2, method=method, random_state=0, max_iter=5, n_threads=1)
    expected = estimator.fit(X).means_
    begun = []

    class Thread(threading.Thread):
        def start(self):
            begun.append(self)
            super().start()

    monkeypatch.setattr(_interrupts, "LONG", 0)
    monkeypatch.setattr(threading, "Thread", Thread)
    np.testing.assert_array_equal(estimator.fit(X).means_, expected)
    assert begun


@posix
@pytest.mark.parametrize(
    "method",
    [
        vbfast.EM(max_iter=10**7, tol=0),
        vbfast.MeanField(max_iter=10**7, tol=0),
        vbfast.FullInference(n_draws=10**6, n_chains=1),
    ],
    ids=lambda method: method.name,
)
@pytest.mark.parametrize("first", ["fitted", "new"])
def test_interrupt_leaves_the_estimator_as_it_was(method, first):
    X = big_data()
    mixture = vbfast.BayesianGaussianMixture(
        6, random_state=0, max_iter=3, init_params="random_from_data", n_threads=2
    )
    if first == "fitted":
        mixture.fit(X)
        expected = answers(mixture, X)
    mixture.method = method
    before = dict(vars(mixture))
    with Interrupt() as interrupt, pytest.raises(KeyboardInterrupt):
        mixture.fit(X + np.random.default_rng(1).standard_normal(X.shape))
    assert time.perf_counter() - interrupt.at < 5
    assert vars(mixture).keys() == before.keys()
    assert all(value is before[name] for name, value in vars(mixture).items())
    if first == "fitted":
        assert answers(mixture, X) == expected
    else:
        with pytest.raises(vbfast.NotFittedError):
            mixture.predict(X)
    mixture.set_params(method="em").fit(X)  # and it can be fitted again


LONG_FIT = """
import sys, time, numpy as np, vbfast
X = np.random.default_rng(0).standard_normal((200_000, 8))
mixture = vbfast.GaussianMixture(
    20, max_iter=10**7, tol=0, reg_covar=1e-3, init_params="random_from_data", random_state=0
)
print("fitting", flush=True)
try:
    mixture.fit(X)
except KeyboardInterrupt:
    print("stopped", [name for name in vars(mixture) if name.endswith("_")], flush=True)
    raise
"""


def interrupted(code, begun):
    """Send Ctrl-C to a process soon after it says `begun`; what it then wrote, and how it ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs tests in the background has SIGINT ignored, which is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stdout.readline() == f"{begun}\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT / 2)
    finally:
        process.kill()
        process.communicate()
    assert "KeyboardInterrupt" in err
    assert process.returncode != 0
    return out


@posix
def test_interrupt_of_a_process():
    assert interrupted(LONG_FIT, "fitting") == "stopped []\n"


# Rows that take no memory, and for ever.
MANY_ROWS = """
import numpy as np, vbfast
from vbfast import _kernels
from vbfast._kernels.inputs import Assignment, Block
from vbfast.data import check_finite
rows = np.broadcast_to(np.arange(4.0), (10**12, 4))
units = np.zeros(4), np.ones(4)
model = vbfast.Model(vbfast.Mixture(3), vbfast.Gaussian(4))
coupled = vbfast.Model(vbfast.CoupledChains(1, 2), vbfast.AdditiveGaussian(4, 1, 2))
few = np.random.default_rng(0).standard_normal((50, 4))
start = coupled.around((few[:2], np.eye(4)), (1, 50), np.full((1, 3, 2), 0.5))
fitted = vbfast.GaussianMixture(2, random_state=0).fit(few)
print("begun", flush=True)
{call}
"""


@pytest.mark.slow
@posix
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(
    "call",
    [
        "vbfast.ArrayData.of(rows, n_threads={n})",
        "check_finite(rows, {n})",
        "_kernels.columns.moments(rows, None, *units, {n})",
        "fitted.set_params(n_threads={n}).predict(rows)",
        "fitted.set_params(n_threads={n}).fit(rows)",
        "model.visit("
        "Block(rows, None, None, *units, 0, {n}), model.about(few[:3]), Assignment('exact'))",
        "coupled.visit("
        "Block(rows, None, None, *units, 0, {n}), coupled.mode(start), Assignment('exact'))",
    ],
)
def test_interrupt_of_a_pass_over_the_rows(call, n_threads):
    interrupted(MANY_ROWS.replace("{call}", call.format(n=n_threads)), "begun")


# Environment variables ---------------------------------------------------------------------------


REPORT = """
import numpy as np, vbfast
from vbfast import _kernels
from vbfast._threads import available_threads
rng = np.random.default_rng(0)
X = rng.standard_normal((3000, 3)) + 4 * rng.integers(0, 2, (3000, 1))
print(_kernels.level, available_threads())
for method in ("em", "mean_field", "crisp_em"):
    for kind in ("full", "tied", "diag", "spherical"):
        fitted = vbfast.BayesianGaussianMixture(
            2, method=method, covariance_type=kind, random_state=0, tol=1e-9, max_iter=1000
        ).fit(X)
        print(repr(float(fitted.objective_)), *map(float, np.sort(fitted.means_.ravel())))
"""


def report(**environment):
    done = run(REPORT, **environment)
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    return first.split(), np.array([[float(x) for x in line.split()] for line in rest])


def test_simd_levels_agree():
    (default, _), expected = report(VBFAST_SIMD="")
    assert default == LEVELS[-1]
    for level in LEVELS:
        (used, _), found = report(VBFAST_SIMD=level)
        assert used == level
        np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("value", ["nonsense", "v1", "V4", "v2 ", "avx512"])
def test_simd_level_that_is_not_there(value):
    done = run("import vbfast", VBFAST_SIMD=value)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError")
    assert repr(value) in last
    assert all(level in last for level in LEVELS)


def test_omp_num_threads():
    (_, threads), one = report(OMP_NUM_THREADS="1")
    assert threads == "1"
    (_, threads), two = report(OMP_NUM_THREADS="2")
    assert threads in ("1", "2")
    np.testing.assert_array_equal(one, two)


COUNT_THREADS = """
import os, numpy as np, vbfast
X = np.random.default_rng(0).standard_normal((50_000, 4))
def count():
    return len(os.listdir("/proc/self/task"))
before = count()
vbfast.GaussianMixture(
    3, tol=1, init_params="random_from_data", random_state=0, n_threads={n_threads}
).fit(X)
print(count() - before, vbfast._kernels.cpu.openmp())
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads can't be counted here")
def test_threads_that_run():
    more, openmp = run(COUNT_THREADS.format(n_threads=None), OMP_NUM_THREADS="1").stdout.split()
    assert more == "0"
    more, _ = run(COUNT_THREADS.format(n_threads=3), OMP_NUM_THREADS="1").stdout.split()
    assert more == ("2" if openmp not in ("0", "False") else "0")


# Memory ------------------------------------------------------------------------------------------

PEAK = """
import warnings, numpy as np, vbfast
warnings.simplefilter("ignore")
def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024
def peak(work, *arguments):
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")  # the peak is now what is taken now
    before = status("VmRSS")
    out = work(*arguments)
    print((status("VmHWM") - before) - getattr(out, "nbytes", 0) / 2**20)
rng = np.random.default_rng(0)
X = rng.standard_normal((300_000, 8)) + 3 * rng.integers(0, 4, (300_000, 1))
for method in ("em", "mean_field", vbfast.FullInference(n_draws=3, n_tune=2, n_chains=1)):
    mixture = vbfast.BayesianGaussianMixture(
        16, method=method, max_iter=2, tol=0, random_state=0, n_threads=2
    )
    mixture.fit(X[:3000]).score_samples(X[:3000])  # imports, threads
    peak(mixture.fit, X)
    for predict in (mixture.predict, mixture.predict_proba, mixture.score_samples):
        peak(predict, X)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="peaks can't be measured here"
)
def test_memory_beyond_the_data_and_the_output():
    # Ten seconds, but where other work takes the processors several times as long.
    done = run(PEAK, timeout=4 * TIMEOUT)
    assert done.returncode == 0, done.stderr
    beyond = np.array(done.stdout.split(), dtype=float).reshape(3, 4)
    # MiB. A label for each row would be 2.3 of them, a number for each and each component 37.
    assert np.all(beyond[:, 0] < 16)
    assert np.all(beyond[:, 1:] < 6)
