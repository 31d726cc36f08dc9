"""The example of embeddings runs, and its page says what it finds."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "embeddings.md"
PNG = b"\x89PNG\r\n\x1a\n"
NAMES = ("ways", "answers", "eigenvalues", "singular-values", "weights")
WAYS = ["no loss", "loss", "BatchNorm", "BatchNorm and loss", "article's formula"]


def example(folder, *options):
    """Run it in a folder, in one process of one thread; return what it prints."""
    command = [sys.executable, ROOT / "examples" / "embedding_uniformity.py", "--quick", *options]
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Run it once, small; its output and the folder, in which a page was to be filled."""
    folder = tmp_path_factory.mktemp("embeddings")
    (folder / "images").mkdir()
    markers = "".join(f"<!-- {name}:start -->\nold\n<!-- {name}:end -->\n" for name in NAMES)
    (folder / "page.md").write_text(f"before\n{markers}after\n")
    options = ["--seeds", "2", "--weights", "0.01", "--epochs", "12", "--jobs", "1"]
    return example(folder, *options, "--output", "out", "--page", "page.md"), folder


def written(text, name):
    """Return what stands between two markers: a list of cells for each line of the table."""
    (found,) = re.findall(f"<!-- {name}:start -->\n(.*?)<!-- {name}:end -->", text, re.DOTALL)
    lines = [line.strip("| ").split(" | ") for line in found.strip().splitlines()]
    return [[cell.strip("| ") for cell in line] for line in lines if line[0] != ":--"][1:]


def numbers(cells):
    """Return the first number of each cell: a mean, if a range follows."""
    return [float(re.search(r"[\d.]+", cell)[0]) for cell in cells]


def ways(text):
    """Return error, largest share and effective rank of each way."""
    rows = written(text, "ways")
    assert [row[0] for row in rows] == WAYS
    return {row[0]: numbers([row[1], row[4], row[5]]) for row in rows}


def hold(found):
    """Assert what is demanded of the loss: a third less, at an error at most a tenth larger."""
    (error, share, rank), (error_with, share_with, rank_with) = found["no loss"], found["loss"]
    assert share_with < share * 2 / 3
    assert error_with < 1.1 * error
    assert rank_with > rank


def test_the_example_finds_that_the_loss_flattens_the_spectrum(quick):
    hold(ways((quick[1] / "page.md").read_text()))


def test_the_page_tells_that_the_loss_flattens_the_spectrum():
    hold(ways(PAGE.read_text(encoding="utf-8")))


def test_what_the_page_concludes_is_what_its_tables_tell():
    text = PAGE.read_text(encoding="utf-8")
    found = ways(text)
    errors, shares, ranks = ({name: row[n] for name, row in found.items()} for n in range(3))
    assert errors["loss"] < errors["no loss"]
    assert errors["BatchNorm"] < 0.9 * errors["loss"]
    assert shares["loss"] < shares["BatchNorm"]
    assert max(ranks, key=ranks.get) == min(errors, key=errors.get) == "BatchNorm and loss"
    sweep = {
        row[0]: [numbers(cell.split(",")) for cell in row[1:]] for row in written(text, "weights")
    }
    least = {name: min(cell[0] for cell in row) for name, row in sweep.items()}
    ranks = {name: max(cell[2] for cell in row) for name, row in sweep.items()}
    assert ranks["loss, k = 1"] < ranks["loss, k = 2"] < ranks["loss, k = 5"]
    assert ranks["article's formula"] == pytest.approx(ranks["loss, k = 5"], abs=0.2)
    assert all(row[-1][0] > least[name] for name, row in sweep.items())
    assert sweep["loss, k = 2"][0][0] > least["loss, k = 2"]
    epochs = [int(row[3]) for row in written(text, "ways")[:3]]
    assert epochs == sorted(epochs, reverse=True)
    none, loss, _ = (numbers(row[-1:])[0] for row in written(text, "ways")[:3])
    assert epochs[1] * loss < epochs[0] * none


def test_demands_that_are_not_met_are_found():
    hold({"no loss": [1.0, 0.6, 4.0], "loss": [1.05, 0.3, 5.0]})
    for wrong in ([1.05, 0.45, 5.0], [1.15, 0.3, 5.0], [1.05, 0.3, 3.9]):
        with pytest.raises(AssertionError):
            hold({"no loss": [1.0, 0.6, 4.0], "loss": wrong})


def test_the_spectra_are_shares(quick):
    text = (quick[1] / "page.md").read_text()
    for name in ("eigenvalues", "singular-values"):
        rows = {row[0]: numbers(row[1:]) for row in written(text, name)}
        assert list(rows) == WAYS
        for row in rows.values():
            assert row == sorted(row, reverse=True)
            assert len(row) == 10
            assert sum(row) == pytest.approx(1, abs=10 * 5e-4)


def test_the_weights_are_swept_and_that_of_the_comparison_with_them(quick):
    text = (quick[1] / "page.md").read_text()
    assert "|  | weight 0.003 | weight 0.01 |" in text
    rows = {
        row[0]: [numbers(cell.split(",")) for cell in row[1:]] for row in written(text, "weights")
    }
    found = ways(text)
    # The same trainings.
    assert rows["loss, k = 2"][0] == found["loss"]
    assert rows["article's formula"][0] == found["article's formula"]


def test_the_rest_of_the_page_stays(quick):
    text = (quick[1] / "page.md").read_text()
    assert text.startswith("before\n<!-- ways:start -->\n")
    assert text.endswith("<!-- weights:end -->\nafter\n")
    assert "old" not in text


def test_what_is_printed_is_written_and_the_picture_drawn(quick):
    output, folder = quick
    names = {str(path.relative_to(folder)) for path in folder.rglob("*.*")}
    pictures = {"out/embedding_uniformity.png", "images/embedding_uniformity.png"}
    assert names == {"page.md", "out/embedding_uniformity.md", *pictures}
    text = (folder / "out" / "embedding_uniformity.md").read_text()
    assert all(line in output for line in text.splitlines())
    for name in pictures:
        assert (folder / name).read_bytes().startswith(PNG)
        assert (folder / name).stat().st_size > 50_000
    assert "Alpaydin" in output
    assert "CC BY 4.0" in output


def test_trainings_in_processes_of_their_own_are_the_same(tmp_path, monkeypatch):
    options = ["--seeds", "1", "--epochs", "2", "--weights", "--output", "out", "--jobs", "2"]
    example(tmp_path, *options)
    (row,) = re.findall(
        r"\| article's formula \| (0.*) \|",
        (tmp_path / "out" / "embedding_uniformity.md").read_text(),
    )[-1:]
    monkeypatch.syspath_prepend(ROOT / "examples")
    autoencoder = importlib.import_module("autoencoder")
    run = autoencoder.train(autoencoder.Plan(autoencoder.ARTICLE, 0, 0.003, 2, quick=True))
    assert row == f"{run.error:.4f}, {run.largest:.3f}, {run.rank:.1f}"
    again = autoencoder.train(run.plan)
    assert (again.errors, again.values) == (run.errors, run.values)
