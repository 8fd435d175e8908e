"""The command line: what it prints, what it writes, and what it says of bad files and options."""

import csv
import io
import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import vbfast
from vbfast import datasets
from vbfast.cli import main
from vbfast.compare import LADDER, Comparison, compare
from vbfast.plots import plot_comparison, plot_gaussian_mixture

# Chains as short as these don't mix.
pytestmark = pytest.mark.filterwarnings("ignore::vbfast.ConvergenceWarning")

# Little work, enough to pass through every part.
QUICK = ["--draws", "60", "--tune", "30", "--chains", "2", "--starts", "2"]
KINDS = {
    "full": "estimate",
    "mean_field": "lower bound",
    "em": "BIC approximation",
    "variational_em": "BIC approximation",
    "crisp_em": "ICL approximation",
}


def blobs(n_rows=60, n_features=2, seed=0):
    rng = np.random.default_rng(seed)
    centres = 10.0 * np.arange(3)[:, None] + np.zeros(n_features)
    return centres[np.arange(n_rows) % 3] + rng.normal(size=(n_rows, n_features))


def write_csv(path, rows, header=None):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if header:
            writer.writerow(header)
        writer.writerows(np.asarray(rows).tolist())
    return str(path)


@pytest.fixture
def data(tmp_path):
    return write_csv(tmp_path / "data.csv", blobs(), header=["height", "width"])


@pytest.fixture(scope="module")
def comparison():
    full = vbfast.FullInference(n_draws=200, n_tune=50, n_chains=2)
    prior = {"degrees_of_freedom_prior": 6.0, "covariance_prior": 6.0 * np.eye(2)}
    return compare(blobs(), 3, methods=[full, *LADDER[1:]], folds=3, n_init=2, **prior)


def run(*args, **options):
    """Run the program as a process of its own."""
    command = [sys.executable, "-m", "vbfast", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def buffered():
    """Return an environment where stdout is buffered, as it usually is."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def refused(capsys, *args):
    """Run arguments that must be refused; return the one line of complaint."""
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("vbfast: error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err


# data sets


def test_faithful():
    X = datasets.load_faithful()
    assert X.shape == (272, 2)
    assert X.dtype == np.float64
    np.testing.assert_array_equal(X[0], [3.6, 79])
    np.testing.assert_allclose(X.mean(axis=0), [3.4877831, 70.8970588])


# compare


def test_compare_without_data_takes_old_faithful(capsys):
    assert main(["compare", "--components", "2", "--folds", "2", *QUICK]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "Old Faithful: 272 rows x 2 features" in out
    for label in ("full inference", "mean field", "EM", "variational EM", "crisp EM"):
        assert f"\n{label}  " in out
    for kind in KINDS.values():
        assert kind in out
    assert "evidence" not in out


def test_compare_json(data, capsys):
    assert main(["compare", data, "--components", "3", "--folds", "3", "--json", *QUICK]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = json.loads(out)
    assert found["n_rows"] == 60
    assert found["n_components"] == 3
    rows = {row["method"]: row for row in found["rows"]}
    assert tuple(rows) == LADDER
    assert {name: row["kind"] for name, row in rows.items()} == KINDS
    for name, row in rows.items():
        assert math.isfinite(row["log_marginal"])
        assert math.isfinite(row["held_out"])
        assert row["seconds"] > 0
        # Only a method that knows its error states one; never 0.
        assert (row["log_marginal_error"] is not None) == (name == "full")
        # log p(X|theta) at a point is not the evidence.
        assert ("evidence" in json.dumps(row)) == (name == "mean_field")
    assert rows["full"]["log_marginal_error"] > 0
    assert rows["full"]["sweeps"] == 2 * (60 + 30)
    bound = rows["mean_field"]
    assert bound["log_marginal_all_labellings"] == pytest.approx(
        bound["log_marginal"] + math.log(6)
    )
    assert bound["objective"] == bound["log_marginal"]


def test_figures_are_those_of_the_estimators(comparison):
    X = blobs()
    by_name = {row.method: row for row in comparison.rows}
    full = by_name["full"].estimator
    assert by_name["full"].log_marginal == full.log_evidence_
    assert by_name["full"].log_marginal_error == full.log_evidence_se_
    assert by_name["mean_field"].log_marginal == by_name["mean_field"].estimator.objective_
    assert by_name["em"].log_marginal == -by_name["em"].estimator.bic(X) / 2
    assert by_name["crisp_em"].log_marginal == -by_name["crisp_em"].estimator.icl(X) / 2
    # On three blobs far apart the bound is tight once the 3! numberings are counted, and EM and
    # crisp EM see the same assignment.
    bound = by_name["mean_field"]
    assert bound.log_marginal < full.log_evidence_
    assert bound.log_marginal_all_labellings == pytest.approx(full.log_evidence_, abs=0.5)
    assert by_name["em"].log_marginal == pytest.approx(by_name["crisp_em"].log_marginal, abs=0.1)


def test_every_method_fits_the_same_model(comparison):
    priors = [
        (
            row.estimator.weight_concentration_prior,
            row.estimator.weight_concentration_prior_type,
            row.estimator.mean_precision_prior_,
            row.estimator.degrees_of_freedom_prior_,
            row.estimator.mean_prior_.tobytes(),
            row.estimator.covariance_prior_.tobytes(),
            row.estimator.covariance_type,
        )
        for row in comparison.rows
    ]
    assert len(set(priors)) == 1


def test_held_out_density_is_of_rows_not_fitted():
    X = blobs(12)
    found = compare(X, 3, methods=["em"], folds=4, random_state=7, n_init=1)
    scores = []
    for test in np.array_split(np.random.default_rng(7).permutation(12), 4):
        model = vbfast.BayesianGaussianMixture(
            n_components=3,
            method="em",
            weight_concentration_prior_type="dirichlet_distribution",
            weight_concentration_prior=1.0,
            degrees_of_freedom_prior=4,
            tol=1e-6,
            max_iter=1000,
            random_state=7,
        )
        scores.append(model.fit(np.delete(X, test, axis=0)).score_samples(X[test]))
    assert found.rows[0].held_out == pytest.approx(np.concatenate(scores).mean(), rel=1e-12)


def test_compare_is_repeatable():
    X = blobs(30)
    methods = [vbfast.FullInference(n_draws=30, n_tune=10, n_chains=2), "mean_field"]
    one, two = (compare(X, 2, methods=methods, folds=2, n_init=1) for _ in range(2))
    for a, b in zip(one.rows, two.rows, strict=True):
        assert a.log_marginal == b.log_marginal
        assert a.held_out == b.held_out


@pytest.mark.parametrize(
    ("n_rows", "n_components", "folds"), [(4, 1, 4), (4, 3, 4), (2, 1, 2), (4, 4, 0), (1, 1, 0)]
)
def test_fewer_rows_than_folds(n_rows, n_components, folds):
    found = compare(blobs(n_rows), n_components, methods=["mean_field"], folds=5, n_init=1)
    assert found.folds == found.to_dict()["folds"] == folds
    assert (found.rows[0].held_out is None) == (folds == 0)
    words = f"mean over {folds}-fold cross-validation" if folds else "there was no cross-validation"
    assert words in str(found)


def test_what_has_not_converged_is_marked():
    em = vbfast.EM(max_iter=1, tol=0)
    X = np.random.default_rng(0).normal(size=(2000, 2))
    with pytest.warns(vbfast.ConvergenceWarning) as warned:
        found = compare(X, 3, methods=[em, vbfast.EM(tol=1)], folds=2, n_init=1)
    assert len(warned) == 1  # of the fit to all rows; the folds' are told by the table
    assert [row.converged for row in found.rows] == [False, True]
    assert [row.held_out_converged for row in found.rows] == [False, True]
    bad, good = str(found).split("\n")[4:6]
    assert "*1 " in bad
    assert "*-" in bad
    assert "*" not in good
    assert "*: not converged" in str(found)


def test_table_is_aligned(comparison):
    lines = comparison.table().split("\n")
    head, rows = lines[2], lines[4 : 4 + len(LADDER)]
    for name in ("log p(X)", "held-out", "sweeps", "seconds"):
        end = head.index(name) + len(name)
        for row in rows:
            assert row[end - 1] != " "
            assert row[end : end + 1].strip() == ""
    dash = head.index("±")
    assert [row[dash] for row in rows[1:]] == ["-"] * 4


def test_table_in_ascii(comparison, monkeypatch):
    assert "θ" in comparison.table()
    assert comparison.table(ascii=True).isascii()
    assert "theta = theta_MP" in comparison.table(ascii=True)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert str(comparison).isascii()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert "θ" in str(comparison)


def test_comparison_without_folds(data, capsys):
    methods = "em,crisp-em"
    assert main(["compare", data, "-k", "3", "--folds", "0", "--methods", methods, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["method"] for row in rows] == ["em", "crisp_em"]
    assert [row["held_out"] for row in rows] == [None, None]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_components": 0}, "n_components"),
        ({"n_components": 2.5}, "n_components"),
        ({"n_components": 99}, "too few for 99 components"),
        ({"folds": 1}, "folds"),
        ({"n_components": 59}, "20 to train on|leave 48"),
        ({"methods": ["emm"]}, "'emm'"),
        ({"methods": [object()]}, "method"),
        ({"random_state": -1}, "random_state"),
        ({"X": np.zeros(5)}, "two dimensions"),
    ],
)
def test_compare_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        compare(**({"X": blobs(), "n_components": 3} | arguments))


# fit


@pytest.mark.parametrize("method", LADDER)
def test_fit_writes_labels(method, data, tmp_path, capsys):
    output = tmp_path / "labels.csv"
    args = ["fit", data, "--method", method, "-k", "3", "--output", str(output), *QUICK]
    assert main(args) == 0
    assert "60 rows x 2 features" in capsys.readouterr().out
    with open(output, newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["label", "probability"]
    labels = np.array([int(label) for label, _ in rows])
    assert len(labels) == 60
    # The three blobs, whatever their numbers.
    assert len({tuple(labels[i::3]) for i in range(3)}) == 3
    assert all(len(set(labels[i::3])) == 1 for i in range(3))
    assert all(0.9 < float(probability) <= 1 for _, probability in rows)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_fit_json(covariance_type, data, capsys):
    args = [
        "fit",
        data,
        "-k",
        "3",
        "--covariance-type",
        covariance_type,
        "--json",
        "--threads",
        "1",
    ]
    assert main(args) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["columns"] == ["height", "width"]
    assert found["method"] == "mean_field"
    assert found["kind"] == "lower bound"
    assert found["rows_labelled"] == [20, 20, 20]
    assert sum(found["weights"]) == pytest.approx(1)
    assert np.shape(found["means"]) == (3, 2)


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_labels_to_stdout(option, data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", data, "-k", "3", "--output", "labels.csv", *option]) == 0
    capsys.readouterr()
    assert main(["fit", data, "-k", "3", "--output", "-", *option]) == 0
    out, err = capsys.readouterr()
    assert out == Path("labels.csv").read_text()
    if option:
        assert json.loads(err)["rows_labelled"] == [20, 20, 20]
    else:
        assert "60 rows x 2 features" in err
    assert not Path("-").exists()


def test_seed_makes_a_fit_repeatable(data, capsys):
    outs = []
    for _ in range(2):
        assert (
            main(["fit", data, "-k", "3", "--method", "full", "--json", "--seed", "5", *QUICK]) == 0
        )
        found = json.loads(capsys.readouterr().out)
        del found["seconds"]
        outs.append(found)
    assert outs[0] == outs[1]


# files as they come


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("1,2\n3,4\n5,6\n", 3),  # no header
        ("a,b\n1,2\n3,4\n5,6", 3),  # no newline at the end
        ("a,b\r\n1,2\r\n3,4\r\n5,6\r\n", 3),
        ("\ufeffa,b\n1,2\n3,4\n", 2),  # a byte order mark
        ("\ufeff1,2\n3,4\n", 2),
        ('"a ""b"", c",b\n"1", 2\n 3,4 \n', 2),
        ("1,2\n3,4\n\n\n", 2),  # blank lines at the end
        ("1e3,-2.5\n+3,.4\n", 2),
        ("größe,breite\n1,2\n3,4\n", 2),
        (",b\n1,2\n3,4\n", 2),  # a column without a name
        ("1st,2019-to-2020\n1,2\n3,4\n", 2),  # names with digits
        ("E1,x-1\n1,2\n3,4\n", 2),
    ],
)
def test_well_formed_files(text, rows, tmp_path, capsys):
    path = tmp_path / "data.csv"
    path.write_bytes(text.encode())
    assert main(["fit", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n_rows"], found["n_features"]) == (rows, 2)


def test_delimiter(tmp_path, capsys):
    path = tmp_path / "data.tsv"
    path.write_text("a\tb\n1\t2\n3\t4\n")
    assert main(["fit", str(path), "--delimiter", "tab", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["columns"] == ["a", "b"]


BAD_FILES = {
    "empty": (b"", ["is empty"]),
    "blank lines only": (b"\n\n", ["is empty"]),
    "header only": (b"a,b\n", ["header", "no rows"]),
    "not a number": (b"a,b\n1,2\n3,x4\n", ["line 3 (row 2), column 2 ('b')", "'x4'", "number"]),
    "not a number, no header": (b"1,2\n3,x4\n", ["line 2 (row 2), column 2:", "'x4'"]),
    "a second header": (b"a,b\n1,2\na,b\n", ["line 3 (row 2), column 1 ('a')"]),
    "digits grouped": (b"1,2\n3,4_0\n", ["line 2", "column 2", "'4_0'"]),
    "too few cells": (b"a,b\n1,2\n3\n", ["line 3 (row 2) has 1 cell, but the first line has 2"]),
    "too many cells": (b"1,2\n3,4,5\n", ["line 2 (row 2) has 3 cells"]),
    "NaN": (b"a,b\n1,2\nnan,4\n", ["line 3 (row 2), column 1 ('a')", "missing"]),
    "NaN in the first row": (b"1,NaN\n3,4\n", ["line 1 (row 1), column 2", "missing"]),
    "NA": (b"a,b\n1,2\n3,NA\n", ["line 3 (row 2), column 2 ('b')", "'NA'", "missing"]),
    "NA in the first row": (b"1,NA\n3,4\n", ["line 1 (row 1), column 2", "missing"]),
    "a bad cell in the first row": (
        b"1,abc\n3,4\n", ["line 1 (row 1), column 2", "'abc' is not a number", "header"]
    ),
    "a header with a number": (b"size,2020\n3,4\n", ["line 1 (row 1), column 1", "'size'"]),
    "Unicode minus in the first row": (
        "1,\u22122\n3,4\n".encode(), ["line 1 (row 1), column 2", "'\u22122'", "minus sign"]
    ),
    "Unicode minus in all of the first row": (
        "\u22121,\u22122.5e\u22123\n3,4\n".encode(), ["line 1 (row 1), column 1", "minus sign"]
    ),
    "Unicode minus": ("1,2\n3,\u22124\n".encode(), ["line 2 (row 2), column 2", "minus sign"]),
    "digits grouped in the first row": (b"1_000\n3\n", ["line 1 (row 1), column 1", "'1_000'"]),
    "semicolons, no header": (b"1;2\n3\n", ["line 1", "'1;2'", "--delimiter"]),
    "blank cell": (b"a,b\n1,2\n,4\n", ["line 3 (row 2), column 1 ('a')", "blank"]),
    "blank cell in the first row": (b"1,\n3,4\n", ["line 1 (row 1), column 2", "blank"]),
    "blank cells": (b"1,2\n,\n", ["line 2 (row 2), column 1", "blank"]),
    "blank line": (b"1,2\n\n3,4\n", ["line 2 is blank"]),
    "infinite": (b"1,2\n3,-inf\n", ["line 2 (row 2), column 2", "infinite"]),
    "beyond a double": (b"1,2\n3,1e999\n", ["line 2 (row 2), column 2", "infinite"]),
    "semicolons": (b"a;b\n1;2\n3;4\n", ["line 2", "'1;2'", "--delimiter"]),
    "too few rows": (b"1,2\n3,4\n", ["2 rows are too few for 3 components"]),
    "NUL bytes": (b"1,2\n\0\0\0\x07\n", ["not a text file"]),
    "UTF-16": ("1,2\n3,4\n".encode("utf-16"), ["not a text file"]),
    "junk": (bytes(range(128, 256)) * 40, ["not UTF-8"]),
    "Latin-1": ("größe,b\n1,2\n".encode("latin-1"), ["not UTF-8", "0xf6"]),
    "not UTF-8 far down": (b"1,2\n" * 9000 + b"\xff,1\n", ["not UTF-8"]),
    "open quote": (b'1,2\n"3,4\n5,6\n', ["data.csv: line 3"]),
    "long cell": (b"1,2\n3," + b"9" * 200_000 + b"\n", ["line 2", "field"]),
    "a long text in a cell": (b"1,2\n3," + b"x" * 9999 + b"\n", ["column 2", "xxx..."]),
    "line breaks in a cell": (b'1,2\n3,"x\ny"\n', ["column 2", r"'x\ny'"]),
}  # fmt: skip


@pytest.mark.parametrize("command", ["compare", "fit"])
@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file(case, command, tmp_path, capsys):
    content, words = BAD_FILES[case]
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    line = refused(capsys, command, str(path), "--components", "3")
    assert "data.csv" in line
    for word in words:
        assert word in line
    assert len(line) < 300 + len(str(path))


@pytest.mark.parametrize("command", ["compare", "fit"])
def test_file_that_cannot_be_opened(command, tmp_path, capsys):
    assert "no such file" in refused(capsys, command, str(tmp_path / "none.csv"))
    assert "is a directory" in refused(capsys, command, str(tmp_path))
    assert "no such file" in refused(capsys, command, "")


def test_too_few_rows_to_train_on(tmp_path, capsys):
    path = write_csv(tmp_path / "data.csv", blobs(4))
    line = refused(capsys, "compare", path, "-k", "4", "--folds", "2")
    assert "2 to train on" in line


def test_file_that_may_not_be_read(data, capsys):
    os.chmod(data, 0)
    if os.access(data, os.R_OK):
        pytest.skip("this user may read everything")
    assert "permission denied" in refused(capsys, "fit", data)


# files to write


@pytest.mark.parametrize("option", [("fit", "--output"), ("compare", "--plot")])
def test_output_that_cannot_be_written(option, data, tmp_path, capsys):
    command, name = option
    before = Path(data).read_bytes()
    os.symlink(data, tmp_path / "link.png")
    os.mkdir(tmp_path / "folder.png")
    for path, words in {
        tmp_path / "none" / "out.png": "there is no directory",
        tmp_path / "folder.png": "it is a directory",
        data: "it is the input file",
        tmp_path / ".." / tmp_path.name / "data.csv": "it is the input file",
        tmp_path / "link.png": "it is the input file",
        "": "without a name",
    }.items():
        line = refused(capsys, command, data, name, str(path))
        assert words in line
    assert Path(data).read_bytes() == before


def test_failing_disk_does_not_cost_the_figures(data, capsys):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    assert main(["fit", data, "--output", "/dev/full"]) == 2
    out, err = capsys.readouterr()
    assert "60 rows" in out
    assert err == "vbfast: error: cannot write /dev/full: no space left on device\n"


def test_plot_ending(data, tmp_path, capsys):
    line = refused(capsys, "compare", data, "--plot", str(tmp_path / "out.xyz"))
    assert ".png" in line


# options


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "required"),
        (["predict"], "invalid choice: 'predict'"),
        (["fit"], "DATA.csv"),
        (["compare", "a.csv", "b.csv"], "b.csv"),
        (["compare", "--no-such-option"], "--no-such-option"),
        (["compare", "--comp", "3"], "--comp"),
        (["compare", "--components"], "--components"),
        (["compare", "--components", "0"], "--components: '0' is not a whole number of at least 1"),
        (["compare", "--components", "-1"], "--components"),
        (["compare", "--components", "2.5"], "--components"),
        (["compare", "--components", "two\nthree"], "--components"),
        (["compare", "--components", "273"], "272 rows are too few for 273 components"),
        (["compare", "--components", "1000000000000"], "too few"),
        (["compare", "--covariance-type", "round"], "--covariance-type"),
        (["compare", "--methods", "em,emm"], "--methods: 'emm' is not a method"),
        (["compare", "--methods", ""], "--methods"),
        (["compare", "--folds", "-2"], "--folds"),
        (["compare", "--folds", "1"], "folds must be 0"),
        (["compare", "--seed", "-1"], "--seed"),
        (["compare", "--seed", str(2**32)], "--seed"),
        (["compare", "--threads", "0"], "--threads"),
        (["compare", "--starts", "0"], "--starts"),
        (["compare", "--max-iter", "x"], "--max-iter"),
        (["compare", "--tol", "nan"], "--tol"),
        (["compare", "--tol", "-1"], "--tol"),
        (["compare", "--draws", "0"], "--draws"),
        (["compare", "--tune", "-1"], "--tune"),
        (["compare", "--chains", "0"], "--chains"),
        (["compare", "--truncation", "0"], "--truncation"),
        (["compare", "--truncation", "4"], "--truncation: 4 is more than --components, 3"),
        (["compare", "--delimiter", "ab"], "--delimiter"),
        (["compare", "--delimiter", "1"], "--delimiter"),
        (["compare", "--delimiter", ""], "--delimiter"),
        (["fit", "data.csv", "--method", "magic"], "--method: 'magic' is not a method"),
    ],
)
def test_bad_option(args, words, capsys):
    assert words in refused(capsys, *args)


def test_help_and_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vbfast {vbfast.__version__}\n"
    for args in (["--help"], ["compare", "--help"], ["fit", "--help"]):
        assert main(args) == 0
        assert "usage: vbfast" in capsys.readouterr().out


# pictures


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_plot_file(data, tmp_path, capsys):
    plot = tmp_path / "plot.png"
    args = ["compare", data, "--folds", "2", "--plot", str(plot), *QUICK]
    assert main(args) == 0
    assert is_png(plot)
    assert "crisp EM" in capsys.readouterr().out


@pytest.mark.parametrize("n_features", [1, 2, 3])
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_plot_gaussian_mixture(n_features, covariance_type):
    X = blobs(n_features=n_features)
    model = vbfast.BayesianGaussianMixture(
        n_components=3, covariance_type=covariance_type, random_state=0
    ).fit(X)
    names = ["size", "age", "weight"][:n_features]
    ax = plot_gaussian_mixture(model, X, feature_names=names)
    assert ax.get_xlabel() == "size"
    drawn = ax.lines if n_features == 1 else ax.patches
    assert len(drawn) == (4 if n_features == 1 else 6)  # densities and their sum; two ellipses each
    ax.figure.canvas.draw()


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_ellipses_are_those_of_the_covariances(covariance_type):
    X = blobs(300) @ np.array([[2.0, 1.0], [0.0, 1.0]])
    model = vbfast.BayesianGaussianMixture(
        n_components=1, covariance_type=covariance_type, random_state=0
    ).fit(X)
    inner = plot_gaussian_mixture(model, X).patches[0]
    # The ellipse one standard deviation away: (x - mean)' precision (x - mean) = 1.
    border = inner.get_patch_transform().transform(inner.get_path().vertices) - model.means_[0]
    precision = {
        "full": lambda p: p[0],
        "tied": lambda p: p,
        "diag": lambda p: np.diag(p[0]),
        "spherical": lambda p: p[0] * np.eye(2),
    }[covariance_type](model.precisions_)
    on_border = border[[0, 3, 6, 9, 12, 15, 18, 21]]  # ends of the Bezier curves, not their handles
    np.testing.assert_allclose(np.einsum("ni,ij,nj->n", on_border, precision, on_border), 1, 1e-3)


@pytest.mark.parametrize("n_features", [1, 2])
def test_plot_of_identical_rows(n_features):
    model = vbfast.BayesianGaussianMixture(n_components=2, random_state=0)
    model.fit(blobs(n_features=n_features))
    plot_gaussian_mixture(model, np.zeros((10, n_features))).figure.canvas.draw()


def test_plot_keeps_to_the_data():
    X = blobs()
    model = vbfast.BayesianGaussianMixture(
        n_components=1, covariance_prior=1e6 * np.eye(2), random_state=0
    ).fit(X)
    ax = plot_gaussian_mixture(model, X)
    for limits, column in zip((ax.get_xlim(), ax.get_ylim()), X.T, strict=True):
        assert limits[0] < column.min()
        assert limits[1] > column.max()
        assert np.ptp(limits) < 1.5 * np.ptp(column)


def test_plots_touch_no_global_state(comparison, tmp_path):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    figure = plot_comparison(comparison, blobs(), tmp_path / "plot.svg")
    assert len(figure.axes) == len(LADDER) + 3
    assert pyplot.get_fignums() == before


def test_plot_without_matplotlib(data, tmp_path, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    line = refused(capsys, "compare", data, "--plot", str(tmp_path / "plot.png"))
    assert "pip install vbfast[plot]" in line
    with pytest.raises(ImportError, match=r"pip install vbfast\[plot\]"):
        plot_gaussian_mixture(vbfast.BayesianGaussianMixture().fit(blobs()), blobs())


# the process


def test_python_m(data, tmp_path):
    done = run("fit", data, "-k", "3", "--output", str(tmp_path / "labels.csv"))
    assert done.returncode == 0
    assert done.stderr == ""
    assert "mean field: converged" in done.stdout
    done = run("fit", str(tmp_path / "none.csv"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("vbfast: error: cannot read ")
    assert done.stderr.count("\n") == 1


def test_stdout_in_ascii(data):
    env = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = run("compare", data, "--folds", "0", "--methods", "em", env=env)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.isascii()
    assert "theta_MP" in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="pipes end otherwise there")
@pytest.mark.parametrize("args", [["--help"], ["compare", "--folds", "0", "--methods", "em"]])
def test_closed_pipe_ends_quietly(args):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "vbfast", *args],
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=120,
        env=buffered(),
    )
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_full_stdout():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vbfast", "compare", "--folds", "0", "--methods", "em"],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=120,
            text=True,
        )
    assert done.returncode == 2
    assert done.stderr == "vbfast: error: cannot write to stdout: no space left on device\n"


INTERRUPTED = """
import os, signal, sys, threading
from vbfast.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
sys.exit(main(["compare", "--methods", "full", "--draws", "20000", "--chains", "50"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are otherwise there")
def test_interrupt():
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120
    )
    assert done.stderr == "vbfast: interrupted\n"
    assert done.stdout == ""
    assert done.returncode == 130


def test_warnings_are_one_line(data, capsys, monkeypatch):
    def compare_with_warning(*args, **options):
        warnings.warn("first\nsecond", UserWarning, stacklevel=1)
        return Comparison(1, 1, 1, "full", 0, 1, 0, ())

    monkeypatch.setattr("vbfast.cli.compare", compare_with_warning)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["compare", data]) == 0
    assert capsys.readouterr().err == "vbfast: warning: first second\n"


def test_import_is_light():
    loaded, needed = (
        run_code(
            f"import sys, {modules}; print([name for name in "
            "('argparse', 'csv', 'matplotlib', 'sklearn') if name in sys.modules])"
        )
        for modules in ("vbfast", "numpy, scipy.linalg, scipy.special")
    )
    # NumPy and SciPy load some of these; vbfast must not add to them.
    assert set(eval(loaded)) <= set(eval(needed))


def run_code(code):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize(
    ("model", "name", "value"),
    [
        ("hmm", "--folds", "3"),
        ("hmm", "--plot", "x.png"),
        ("hmm", "--truncation", "1"),
        ("mixture", "--emission", "poisson"),
    ],
)
def test_options_for_another_model_are_refused(capsys, data, model, name, value):
    line = refused(capsys, "compare", data, "--model", model, name, value)
    assert f"argument {name}: it is for --model {'mixture' if model == 'hmm' else 'hmm'}" in line
