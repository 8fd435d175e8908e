"""What a machine may refuse, threads and memory: an answer or an error, never a death."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import vbfast
from vbfast import _kernels
from vbfast._kernels.inputs import Assignment, Block
from vbfast._threads import resolve_threads

TIMEOUT = 120

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not _kernels.cpu.openmp() or not shutil.which("cc"),
    reason="needs Linux, OpenMP and a C compiler",
)

# pthread_create fails where `MOST_ALIVE` threads that it made are there already.
NO_THREADS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
typedef int create_t(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
static int alive, most = -1;
struct call { void *(*work)(void *); void *told; };
static void end(void *unused) { __atomic_fetch_sub(&alive, 1, __ATOMIC_SEQ_CST); }
static void *run(void *told)
{
    struct call call = *(struct call *)told;
    void *result;
    free(told);
    pthread_cleanup_push(end, NULL);
    result = call.work(call.told);
    pthread_cleanup_pop(1);
    return result;
}
int pthread_create(pthread_t *out, const pthread_attr_t *attributes, void *(*work)(void *),
                   void *told)
{
    create_t *create;
    void *found = dlsym(RTLD_NEXT, "pthread_create");
    memcpy(&create, &found, sizeof create);
    if (most < 0)
        most = atoi(getenv("MOST_ALIVE"));
    if (__atomic_fetch_add(&alive, 1, __ATOMIC_SEQ_CST) >= most) {
        end(NULL);
        return EAGAIN;
    }
    struct call *call = malloc(sizeof *call);
    call->work = work;
    call->told = told;
    int failed = create(out, attributes, run, call);
    if (failed) {
        free(call);
        end(NULL);
    }
    return failed;
}
"""

# Of the memory that compiled kernels ask for, counted from a call of allocation_fails on, request
# number `at` finds none.
NO_MEMORY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
static long requests, failing, counting;
void allocation_fails(long at) { requests = 0; failing = at; counting = 1; }
long allocations(void) { counting = 0; return requests; }
static int fails(void *caller)
{
    Dl_info info;
    return counting && dladdr(caller, &info) && strstr(info.dli_fname, "_kernels/")
        && __atomic_add_fetch(&requests, 1, __ATOMIC_SEQ_CST) == failing;
}
#define FAILS fails(__builtin_return_address(0))
void *malloc(size_t n) { return FAILS ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return FAILS ? NULL : __libc_calloc(n, size); }
void *realloc(void *old, size_t n) { return FAILS ? NULL : __libc_realloc(old, n); }
void *aligned_alloc(size_t to, size_t n) { return FAILS ? NULL : __libc_memalign(to, n); }
"""

# Everything that opens a parallel region: prints what all of it says, as a hash.
EVERYTHING = """
import hashlib, sys, warnings
import numpy as np
import vbfast
from vbfast import _kernels
from vbfast._kernels.inputs import Assignment, Block

rng = np.random.default_rng(0)
X = rng.standard_normal((40_000, 4)) + 3 * rng.integers(0, 3, (40_000, 1))
digest = hashlib.sha256()
n_threads = int(sys.argv[1])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    options = dict(tol=0, max_iter=3, random_state=0, n_threads=n_threads)
    for method in ("em", "crisp_em", "mean_field"):
        fitted = vbfast.BayesianGaussianMixture(3, method=method, **options).fit(X)
        digest.update(fitted.means_.tobytes() + fitted.predict_proba(X).tobytes())
    counts = rng.poisson(4.0, (40_000, 2))
    fitted = vbfast.MixtureModel(2, emission="poisson", **options).fit(counts)
    digest.update(fitted.predict_proba(counts).tobytes())
    chain = vbfast.HiddenMarkovModel(3, **options).fit(X, lengths=[4_000] * 10)
    digest.update(chain.means_.tobytes() + chain.predict_proba(X).tobytes())
    coupled = vbfast.FactorialHMM(2, 2, **options).fit(X, lengths=[4_000] * 10)
    digest.update(coupled.predict_proba(X).tobytes())
    many = vbfast.fit_many(vbfast.GaussianMixture(2, random_state=0), [X[:99], X[99:199]] * 4,
                           n_threads=n_threads)
    digest.update(many.means_.tobytes())
names = sorted({type(w.message).__name__ for w in caught} - {"ConvergenceWarning"})
print(digest.hexdigest(), names)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Compile C to a library that a process is started with."""
    folder = tmp_path_factory.mktemp("preloaded")

    def build(name, source):
        out = folder / f"{name}.so"
        if not out.exists():
            (folder / f"{name}.c").write_text(source)
            subprocess.run(
                ["cc", "-O1", "-shared", "-fPIC", "-o", out, folder / f"{name}.c", "-ldl"],
                check=True,
            )
        return str(out)

    return build


def run(code, *arguments, **environment):
    """Run Python code in a process of its own, which must live; return what it prints."""
    # BLAS has threads of its own.
    alone = {"OPENBLAS_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **alone, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def expected():
    found, names = run(EVERYTHING, 1).split(maxsplit=1)
    assert names == "[]\n"
    return found


# Threads -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("n_threads", [2, 1024, 10**6])
def test_as_many_threads_as_wanted(n_threads, expected):
    assert run(EVERYTHING, n_threads) == f"{expected} []\n"


@pytest.mark.slow
@pytest.mark.parametrize("most", [0, 1, 3, 8])
def test_threads_that_cannot_be_created(most, library, expected):
    said = run(EVERYTHING, 8, LD_PRELOAD=library("no_threads", NO_THREADS), MOST_ALIVE=str(most))
    assert said == f"{expected} ['ThreadsWarning']\n"


def test_threads_that_there_is_no_room_for(expected):
    """Stacks of a size that the limit on memory has no room for."""
    limit = (
        "import resource\n"
        "import numpy, scipy.special, vbfast\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))\n"
    )
    said = run(limit + EVERYTHING, 8, OMP_STACKSIZE="200M")
    assert said == f"{expected} ['ThreadsWarning']\n"


def test_block_of_many_threads_by_hand():
    model = vbfast.Model(vbfast.Mixture(3), vbfast.Gaussian(4, "full"))
    theta = model.about(np.random.default_rng(0).standard_normal((3, 4)))
    values = np.random.default_rng(1).standard_normal((50_000, 4))

    def visit(n_threads):
        block = Block(values, None, None, np.zeros(4), np.ones(4), 0, n_threads)
        return model.visit(block, theta, Assignment("exact")).buffer.tobytes()

    expected = visit(1)
    assert visit(10**6) == visit(2**40) == visit(10**30) == expected
    for wrong in (0, -1, -(10**30)):
        with pytest.raises(ValueError, match=r"n_threads is -?[0-9]*; it must be >= 1"):
            visit(wrong)
    assert resolve_threads(10**30) == _kernels.cpu.most_threads()


def test_threads_of_every_calling_thread(library, expected):
    """OpenMP keeps threads for each thread that calls: what one may have, another may not."""
    code = (
        "import concurrent.futures as f, sys\n"
        "pool = f.ThreadPoolExecutor(2)\n"
        f"code = compile({EVERYTHING!r}, 'code', 'exec')\n"
        "for future in [pool.submit(exec, code, {}) for _ in range(1)]:\n"
        "    future.result()\n"
        "exec(code, {})\n"
    )
    said = run(code, 4, LD_PRELOAD=library("no_threads", NO_THREADS), MOST_ALIVE="8")
    # The thread itself, its three, and two to see whether more could be had.
    assert said == f"{expected} []\n{expected} ['ThreadsWarning']\n"


# Memory ------------------------------------------------------------------------------------------


EACH_ALLOCATION = """
import ctypes, sys, warnings
import numpy as np
import vbfast

library = ctypes.CDLL(sys.argv[1])
# What the evidence does a thousand times, few times.
vbfast.evidence.BRIDGED = vbfast.portfolio.VARIED = vbfast.portfolio.MOST_FOR_BOUND = 4
vbfast.portfolio.KINDS = {"kmeans": 1}
vbfast.portfolio.PATIENT = vbfast.portfolio.Effort((1, 1), 1, 1, 1, 1, 1, (1,))
warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
X = rng.standard_normal((900, 3)) + 3 * rng.integers(0, 3, (900, 1))
symbols = rng.integers(0, 4, (900, 2))
lengths = [20] * 10 + [700]
options = dict(tol=0, max_iter=1, random_state=0, init_params="kmeans")
full = vbfast.FullInference(n_draws=2, n_tune=1, n_chains=1)


def mixture(method):
    fitted = vbfast.BayesianGaussianMixture(3, method=method, **options).fit(X)
    return [fitted.means_, fitted.predict_proba(X), fitted.predict(X)]


def discrete():
    fitted = vbfast.MixtureModel(2, emission="categorical", **options).fit(symbols)
    return [fitted.predict_proba(symbols)]


def single():
    rows = np.tile(X, (20, 1)).astype(np.float32)
    return [vbfast.GaussianMixture(2, **options).fit(rows).means_]


def chain(method):
    fitted = vbfast.HiddenMarkovModel(3, method=method, **options).fit(X, lengths=lengths)
    return [fitted.means_, fitted.predict_proba(X, lengths), fitted.predict(X, lengths)]


def coupled(method):
    own = options | {"init_params": "random"}
    fitted = vbfast.FactorialHMM(2, 2, method=method, **own).fit(X, lengths=lengths)
    return [fitted.predict_proba(X, lengths)]


def many(method):
    estimator = vbfast.BayesianGaussianMixture(2, method=method, random_state=0, max_iter=9)
    fitted = vbfast.fit_many(estimator, [X[:50], X[50:150]])
    return [fitted.means_]


cases = [(mixture, m) for m in ("em", "crisp_em", "mean_field", "variational_em", full)]
cases += [(discrete,), (single,)]
cases += [(chain, m) for m in ("em", "crisp_em", "mean_field", "variational_em", full)]
cases += [(coupled, m) for m in ("em", "crisp_em", "mean_field", "variational_em", full)]
cases += [(many, m) for m in ("em", "crisp_em", full)]
for work, *arguments in cases:
    expected = [value.tobytes() for value in work(*arguments)]
    at = refused = 0
    while True:
        at += 1
        library.allocation_fails(at)
        try:
            said = work(*arguments)
        except MemoryError:
            said = None
            refused += 1
        if library.allocations() < at:  # none was left to fail
            break
        if said is not None:
            assert [value.tobytes() for value in said] == expected, (work, arguments, at)
    assert refused > 0
    print(work.__name__, *arguments[:1], at, refused)
"""


def test_each_allocation_failing_in_turn(library):
    path = library("no_memory", NO_MEMORY)
    said = run(EACH_ALLOCATION, path, LD_PRELOAD=path)
    assert len(said.splitlines()) == 20
