"""The command line: ``vbfast compare`` and ``vbfast fit``.

Whatever is wrong with a file or an option is one line on stderr and exit status 2.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
import re
import sys
import time
import warnings
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TextIO

import numpy as np
from numpy.typing import NDArray

from . import datasets
from .compare import (
    DESCRIPTIONS,
    LADDER,
    compare,
    default_priors,
    figures,
    json_number,
    make_method,
    starts,
)
from .estimators import BayesianGaussianMixture
from .estimators.emission_parameters import EMISSIONS
from .ladders import (
    FACTORIAL,
    Ladder,
    compare_factorial_hmm,
    compare_hmm,
    make_chain_method,
)
from .methods import FullInference, Method, VariationalEM

if TYPE_CHECKING:
    from _csv import Reader

__all__ = ["main"]

_COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
_LARGEST_SEED = 2**32 - 1  # NumPy's
_MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}
_OTHER_MINUS = "\u2212\u2013"  # the minus sign and the dash that documents have for '-'
# Numbers as others write them, or several in one cell: no names of columns.
_LIKE_NUMBERS = re.compile(
    rf"[+\-{_OTHER_MINUS}\d.,;|\t_' ]+(e[+\-{_OTHER_MINUS}]?\d+)?", re.IGNORECASE
)


class _Embedded(NamedTuple):
    """Data that stand in where none are given."""

    file: str
    name: str
    columns: slice


_MODELS = {
    "mixture": _Embedded("faithful", "Old Faithful", slice(None)),
    "hmm": _Embedded("earthquakes", "earthquakes a year", slice(1, None)),
    "factorial-hmm": _Embedded("faithful", "Old Faithful", slice(None)),
}


class _Failure(Exception):
    """What the user can put right: shown as one line, without a traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        0; 2 for bad arguments or files; 130 after Ctrl-C; 141 when stdout was closed early.
    """
    try:
        with _one_line_warnings():
            try:
                args = _parser().parse_args(argv)
                args.run(args)
            except SystemExit as stop:  # --help and --version
                return int(stop.code or 0)
            finally:
                _flush()
        return 0
    except _Failure as failure:
        _complain(f"error: {failure}")
        return 2
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    except BrokenPipeError:
        # The reader has what it wanted (`vbfast compare | head`): 128 + SIGPIPE, as elsewhere.
        return 141


# arguments


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Failure(message)


def _parser() -> _Parser:
    from . import __version__

    parser = _Parser(
        prog="vbfast",
        description="Gaussian mixtures, from full inference to crisp EM.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"vbfast {__version__}")
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="{compare,fit}", required=True
    )

    command = commands.add_parser(
        "compare",
        help="fit one model by all methods and print them side by side",
        description="Fit one model by all methods and print what each gives and costs.",
        epilog="Every method fits the same mixture: a uniform prior on the weights and weakly "
        "informative priors, set from the data, on means and covariances. Where rows follow each "
        "other, priors are flat but for mean field and full inference.",
        allow_abbrev=False,
    )
    command.add_argument(
        "data",
        nargs="?",
        metavar="DATA.csv",
        help="rows of numbers; without it, Old Faithful, for an hmm earthquakes a year",
    )
    command.add_argument(
        "--model",
        choices=tuple(_MODELS),
        default="mixture",
        metavar="NAME",
        help=f"{', '.join(_MODELS)} (default: mixture); rows of the last two follow each other",
    )
    command.add_argument(
        "--hidden-chains",
        type=_whole(1),
        metavar="M",
        help="factorial-hmm: hidden chains (default: 2)",
    )
    command.add_argument(
        "--emission",
        choices=EMISSIONS,
        metavar="NAME",
        help=f"hmm: {', '.join(EMISSIONS)} (default: gaussian; poisson for the earthquakes)",
    )
    command.add_argument(
        "--methods",
        type=_methods,
        default=LADDER,
        metavar="NAMES",
        help=f"of {','.join(LADDER)} (default: all)",
    )
    command.add_argument(
        "--folds",
        type=_whole(0),
        metavar="N",
        help="folds of the cross-validation, at most one for each row, 0 for none (default: 5)",
    )
    command.add_argument(
        "--plot", metavar="FILE.png", help="draw the comparison (needs matplotlib)"
    )
    _add_common(command, n_components=3)
    command.set_defaults(run=_run_compare)

    command = commands.add_parser(
        "fit",
        help="fit a mixture by one method, label the rows",
        description="Fit a Gaussian mixture by one method and label the rows.",
        epilog="The model is that of `vbfast compare`.",
        allow_abbrev=False,
    )
    command.add_argument("data", metavar="DATA.csv", help="rows of numbers")
    command.add_argument(
        "--method",
        type=_method,
        default="mean_field",
        metavar="NAME",
        help=f"{', '.join(LADDER)} (default: mean_field)",
    )
    command.add_argument(
        "--output",
        metavar="LABELS.csv",
        help="file to write: each row's component, from 0, and its probability; - for stdout "
        "(the summary then goes to stderr)",
    )
    _add_common(command, n_components=1)
    command.set_defaults(run=_run_fit)
    return parser


def _add_common(command: argparse.ArgumentParser, n_components: int) -> None:
    add = command.add_argument
    add(
        "-k",
        "--components",
        type=_whole(1),
        default=n_components,
        metavar="K",
        help=f"components of the mixture (default: {n_components})",
    )
    add(
        "--covariance-type",
        choices=_COVARIANCE_TYPES,
        default="full",
        metavar="TYPE",
        help=f"{', '.join(_COVARIANCE_TYPES)} (default: full)",
    )
    add(
        "--seed",
        type=_whole(0, _LARGEST_SEED),
        default=0,
        metavar="N",
        help="seed of all random numbers (default: 0)",
    )
    add(
        "--threads",
        type=_whole(1),
        metavar="N",
        help="threads (default: those the process may use)",
    )
    add(
        "--starts",
        type=_whole(1),
        default=5,
        metavar="N",
        help="starts, of which the best is kept (default: 5)",
    )
    add(
        "--max-iter",
        type=_whole(1),
        default=1000,
        metavar="N",
        help="most sweeps of a start (default: 1000)",
    )
    add(
        "--tol",
        type=_tolerance,
        default=1e-6,
        metavar="X",
        help="stop when a sweep gains less than that per row (default: 1e-6)",
    )
    add(
        "--draws",
        type=_whole(1),
        default=1000,
        metavar="N",
        help="full inference: draws of a chain (default: 1000)",
    )
    add(
        "--tune",
        type=_whole(0),
        default=500,
        metavar="N",
        help="full inference: sweeps before them (default: 500)",
    )
    add(
        "--chains",
        type=_whole(1),
        default=4,
        metavar="N",
        help="full inference: chains (default: 4)",
    )
    add(
        "--truncation",
        type=_whole(1),
        metavar="C",
        help="variational EM: components kept for each row (default: half of them)",
    )
    add(
        "--delimiter",
        type=_delimiter,
        default=",",
        metavar="CHAR",
        help="between cells: a character or tab",
    )
    add("--json", action="store_true", help="print JSON")


def _whole(least: int, largest: int | None = None) -> Callable[[str], int]:
    """Return a converter to whole numbers within bounds."""
    allowed = f"of at least {least}" if largest is None else f"from {least} to {largest}"

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (largest is not None and value > largest):
            raise argparse.ArgumentTypeError(f"{_quoted(text)} is not a whole number {allowed}")
        return value

    return convert


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{_quoted(text)} is not a number of at least 0")
    return value


def _method(text: str) -> str:
    name = text.strip().replace("-", "_")
    if name not in LADDER:
        raise argparse.ArgumentTypeError(
            f"{_quoted(text)} is not a method: choose from {', '.join(LADDER)}"
        )
    return name


def _methods(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_method(name) for name in text.split(",")))


def _delimiter(text: str) -> str:
    if text in ("tab", "\\t"):
        return "\t"
    if len(text) != 1 or text in '"\r\n' or text.isalnum() or text in "+-.":
        raise argparse.ArgumentTypeError(
            f"{_quoted(text)} is not one character that can stand between numbers"
        )
    return text


# commands


def _run_compare(args: argparse.Namespace) -> None:
    if args.model != "mixture":
        _run_ladder(args)
        return
    _refuse_for_others(args, emission="hmm", hidden_chains="factorial-hmm")
    if args.plot is not None:
        _check_plot(args.plot, args.data)
    table = _read(args.data, args.delimiter)
    _check_options(args, table)
    with _one_line_errors(table.name):
        comparison = compare(
            table.values,
            args.components,
            covariance_type=args.covariance_type,
            methods=[_make_method(name, args) for name in args.methods],
            folds=5 if args.folds is None else args.folds,
            random_state=args.seed,
            n_init=args.starts,
            n_threads=args.threads,
        )
    try:
        if args.plot is not None:
            from .plots import plot_comparison

            with _one_line_errors(f"cannot write {args.plot}"):
                plot_comparison(comparison, table.values, args.plot, feature_names=table.columns)
    finally:  # a disk that is full doesn't cost the user the figures
        _show(
            _json({"data": table.name} | comparison.to_dict())
            if args.json
            else f"{table.name}: {comparison}"
        )


def _run_ladder(args: argparse.Namespace) -> None:
    """Compare methods on a model of sequences."""
    table = _read(args.data, args.delimiter, args.model)
    _check_options(args, table)
    ladders = {"hmm": _hmm_ladder, "factorial-hmm": _factorial_ladder}
    with _one_line_errors(table.name):
        ladder = ladders[args.model](args, table)
    report = {"data": table.name, "model": args.model} | ladder.to_dict()
    _show(_json(report) if args.json else f"{table.name}: {ladder}")


def _hmm_ladder(args: argparse.Namespace, table: _Table) -> Ladder:
    _refuse_for_others(
        args, folds="mixture", plot="mixture", truncation="mixture", hidden_chains="factorial-hmm"
    )
    emission = args.emission
    if emission is None:
        emission = "poisson" if args.data is None else "gaussian"
    methods = [
        FullInference(args.draws, args.tune, args.chains)
        if name == "full"
        else make_chain_method(name, tol=args.tol, max_iter=args.max_iter)
        for name in args.methods
    ]
    return compare_hmm(
        table.values,
        args.components,
        emission=emission,
        covariance_type=args.covariance_type,
        methods=methods,
        random_state=args.seed,
        n_init=args.starts,
        n_threads=args.threads,
    )


def _factorial_ladder(args: argparse.Namespace, table: _Table) -> Ladder:
    _refuse_for_others(args, folds="mixture", plot="mixture", truncation="mixture", emission="hmm")
    if args.covariance_type not in ("full", "diag"):
        raise _Failure("argument --covariance-type: a factorial-hmm takes full or diag")
    # All of them where nobody asked for some: variational EM is there twice.
    methods = FACTORIAL if args.methods == LADDER else args.methods
    return compare_factorial_hmm(
        table.values,
        args.hidden_chains or 2,
        args.components,
        covariance_type=args.covariance_type,
        methods=tuple(methods),
        random_state=args.seed,
        n_init=args.starts,
        tol=args.tol,
        max_iter=args.max_iter,
        n_draws=args.draws,
        n_threads=args.threads,
    )


def _refuse_for_others(args: argparse.Namespace, **models: str) -> None:
    """Refuse options that are for another model."""
    for name, model in models.items():
        if getattr(args, name) is not None:
            option = name.replace("_", "-")
            raise _Failure(f"argument --{option}: it is for --model {model}")


def _run_fit(args: argparse.Namespace) -> None:
    if args.output not in (None, "-"):
        _check_output(args.output, args.data)
    table = _read(args.data, args.delimiter)
    _check_options(args, table)
    X = table.values
    method = _make_method(args.method, args)
    with _one_line_errors(table.name):
        start = time.perf_counter()
        estimator = BayesianGaussianMixture(
            args.components,
            method=method,
            covariance_type=args.covariance_type,
            n_init=starts(method, args.starts),
            random_state=args.seed,
            n_threads=args.threads,
            **default_priors(X.shape[1]),
        ).fit(X)
        seconds = time.perf_counter() - start
        probabilities = estimator.predict_proba(X)
    labels = probabilities.argmax(axis=1)
    found = {key: json_number(value) for key, value in figures(method, estimator, X).items()}
    report = {
        "data": table.name,
        "n_rows": len(X),
        "n_features": X.shape[1],
        "columns": table.columns,
        "n_components": args.components,
        "covariance_type": args.covariance_type,
        "random_state": args.seed,
        "method": args.method,
        "label": DESCRIPTIONS[args.method].label,
        **found,
        "seconds": seconds,
        "weights": estimator.weights_.tolist(),
        "means": estimator.means_.tolist(),
        "covariances": np.asarray(estimator.covariances_).tolist(),
        "rows_labelled": np.bincount(labels, minlength=args.components).tolist(),
    }
    try:
        if args.output is not None:
            _write_labels(args.output, labels, probabilities.max(axis=1))
    finally:
        summary = _json(report) if args.json else _summary(report)
        if args.output != "-":
            _show(summary)
        elif sys.stderr is not None:
            print(summary, file=sys.stderr)


def _make_method(name: str, args: argparse.Namespace) -> Method:
    """Return a method with the options that are its own."""
    if name == "full":
        return FullInference(args.draws, args.tune, args.chains)
    if name == "variational_em" and args.truncation is not None:
        return VariationalEM(args.max_iter, args.tol, truncation=args.truncation)
    return make_method(name, args.components, tol=args.tol, max_iter=args.max_iter)


def _check_options(args: argparse.Namespace, table: _Table) -> None:
    n_rows = len(table.values)
    if n_rows < args.components:
        raise _Failure(f"{table.name}: {n_rows} rows are too few for {args.components} components")
    if args.truncation is not None and args.truncation > args.components:
        raise _Failure(
            f"argument --truncation: {args.truncation} is more than --components, {args.components}"
        )


def _summary(report: dict[str, Any]) -> str:
    value, error = report["log_marginal"], report["log_marginal_error"]
    parts = "component" if report["n_components"] == 1 else "components"
    lines = [
        f"{report['data']}: {report['n_rows']} rows x {report['n_features']} features; "
        f"Gaussian mixture of {report['n_components']} {parts}, "
        f"{report['covariance_type']} covariances; seed {report['random_state']}",
        f"{report['label']}: {'converged' if report['converged'] else 'NOT converged'}, "
        f"{report['sweeps']} sweeps, {report['seconds']:.3f} s",
        f"log p(X): {'not finite' if value is None else f'{value:.2f}'}"
        f"{'' if error is None else f' +/- {error:.2g}'} ({report['kind']})",
        "",
        "component    rows  weight  mean",
    ]
    for k, (n_rows, weight, mean) in enumerate(
        zip(report["rows_labelled"], report["weights"], report["means"], strict=True)
    ):
        shown = ", ".join(f"{x:.6g}" for x in mean[:8]) + (", ..." if len(mean) > 8 else "")
        lines.append(f"{k:9d}  {n_rows:6d}  {weight:6.4f}  {shown}")
    return "\n".join(lines)


# files


class _Table(NamedTuple):
    name: str
    columns: list[str] | None
    values: NDArray[np.float64]


def _read(path: str | None, delimiter: str, model: str = "mixture") -> _Table:
    """Read a CSV file of numbers, with or without a header line; without a path, a model's own."""
    if path is None:
        own = _MODELS[model]
        with resources.as_file(datasets.csv_file(own.file)) as place, open(place, "rb") as file:
            table = _parse(file, own.name, ",")
        columns = None if table.columns is None else table.columns[own.columns]
        return _Table(own.name, columns, table.values[:, own.columns])
    try:
        with open(path, "rb") as file:
            return _parse(file, path, delimiter)
    except OSError as error:
        raise _Failure(f"cannot read {path}: {_reason(error)}") from error


def _parse(file: io.BufferedReader, name: str, delimiter: str) -> _Table:
    if b"\0" in file.peek(4096)[:4096]:
        raise _Failure(f"{name} is not a text file: it holds NUL bytes")
    with io.TextIOWrapper(file, encoding="utf-8-sig") as text:
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            columns, values = _parse_lines(reader)
        except _Failure as failure:
            raise _Failure(f"{name}: line {failure}") from failure
        except csv.Error as error:
            raise _Failure(f"{name}: line {reader.line_num}: {error}") from error
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            raise _Failure(f"{name} is not UTF-8 text: cannot decode byte 0x{byte:02x}") from error
    if not len(values):
        raise _Failure(f"{name} {'has a header line but no rows' if columns else 'is empty'}")
    return _Table(name, columns, values)


def _parse_lines(reader: Reader) -> tuple[list[str] | None, NDArray[np.float64]]:
    """Return the header, if there is one, and the rows; a failure's text begins with its line."""
    columns: list[str] | None = None
    values = array("d")
    width = n_rows = blank_line = 0
    for cells in reader:
        line = reader.line_num
        if len(cells) <= 1 and not "".join(cells).strip():
            blank_line = blank_line or line
            continue
        if blank_line:  # blank lines may only end a file
            raise _Failure(f"{blank_line} is blank")
        if not width:
            width = len(cells)
            if _is_header(cells):
                columns = [cell.strip() for cell in cells]
                continue
        n_rows += 1
        if len(cells) != width:
            raise _Failure(
                f"{line} (row {n_rows}) has {len(cells)} {'cell' if len(cells) == 1 else 'cells'}, "
                f"but the first line has {width}"
            )
        for j, cell in enumerate(cells):
            value = _number(cell)
            if value is None or not math.isfinite(value):
                named = f" ({_quoted(columns[j])})" if columns and columns[j] else ""
                why = _why_bad(cell, value)
                if line == 1 and _is_name(cell):
                    why += "; a header line may not hold numbers"
                raise _Failure(f"{line} (row {n_rows}), column {j + 1}{named}: {why}")
            values.append(value)
    return columns, np.array(values).reshape(n_rows, width)


def _is_header(cells: Sequence[str]) -> bool:
    """Say whether a line names columns: some cell is a name, the others at most missing."""
    missing = [cell.strip().lower() in _MISSING for cell in cells]
    names = [_is_name(cell) for cell in cells]
    return any(names) and all(np.logical_or(missing, names))


def _is_name(cell: str) -> bool:
    """Say whether a cell is neither a missing value nor a number, however that is written."""
    text = cell.strip()
    return (
        text.lower() not in _MISSING
        and _number(text) is None
        and not (_LIKE_NUMBERS.fullmatch(text) and any(map(str.isdigit, text)))
    )


def _number(cell: str) -> float | None:
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _why_bad(cell: str, value: float | None) -> str:
    if not cell.strip():
        return "the cell is blank; missing values are not allowed"
    if value is None and cell.strip().lower() not in _MISSING:
        hint = " (see --delimiter)" if any(mark in cell for mark in ";\t|") else ""
        if any(mark in cell for mark in _OTHER_MINUS):
            hint = " (its minus sign is not the hyphen '-' that numbers have)"
        return f"{_quoted(cell)} is not a number{hint}"
    if value is not None and math.isinf(value):
        return f"{_quoted(cell)} is infinite"
    return f"{_quoted(cell)} is a missing value, which is not allowed"


def _check_output(path: str, data: str | None) -> None:
    """Refuse, before any work, a file that could not be written or is the input."""
    folder = os.path.dirname(path) or "."
    if not path:
        raise _Failure("cannot write to a file without a name")
    if os.path.isdir(path):
        raise _Failure(f"cannot write {path}: it is a directory")
    if not os.path.isdir(folder):
        raise _Failure(f"cannot write {path}: there is no directory {folder}")
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise _Failure(f"cannot write {path}: permission denied")
    with suppress(OSError):  # one of the two isn't there
        if data is not None and os.path.samefile(path, data):
            raise _Failure(f"cannot write {path}: it is the input file")


def _check_plot(path: str, data: str | None) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise _Failure("--plot needs matplotlib: pip install vbfast[plot]") from error
    _check_output(path, data)
    formats = sorted(Figure().canvas.get_supported_filetypes())
    if os.path.splitext(path)[1].lower().removeprefix(".") not in formats:
        raise _Failure(f"cannot write {path}: its name must end in one of .{', .'.join(formats)}")


def _write_labels(path: str, labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> None:
    """Write a CSV file of labels; to stdout where its name is -."""

    def write(file: TextIO) -> None:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["label", "probability"])
        writer.writerows(
            (label, f"{p:.6f}")
            for label, p in zip(labels.tolist(), probabilities.tolist(), strict=True)
        )

    if path == "-":
        if sys.stdout is not None:
            _to_stdout(lambda: write(sys.stdout))
        return
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            write(file)
    except OSError as error:
        raise _Failure(f"cannot write {path}: {_reason(error)}") from error


# what the user sees


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, allow_nan=False)


def _show(text: str) -> None:
    """Print to stdout, whatever its encoding."""
    if sys.stdout is None:
        return
    encoding = sys.stdout.encoding or "utf-8"
    _to_stdout(lambda: print(text.encode(encoding, "backslashreplace").decode(encoding)))


def _flush() -> None:
    if sys.stdout is not None:
        _to_stdout(sys.stdout.flush)


def _to_stdout(write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as error:
        # What the buffer holds can't be written: let the flush at exit go nowhere.
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
        if isinstance(error, BrokenPipeError):
            raise
        raise _Failure(f"cannot write to stdout: {_reason(error)}") from error


def _complain(message: str) -> None:
    print("vbfast:", " ".join(message.split()), file=sys.stderr)


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        _complain(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextmanager
def _one_line_errors(subject: str) -> Iterator[None]:
    """Turn what the estimators refuse, and a lack of memory or disk, into one line."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise _Failure(
            f"{subject}: {_reason(error) if isinstance(error, OSError) else error}"
        ) from error
    except MemoryError as error:
        raise _Failure(f"{subject}: {error or 'not enough memory'}") from error


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _quoted(text: str) -> str:
    """Quote a cell or an option on one line, not too long."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
