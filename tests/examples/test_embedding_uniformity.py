"""The example of embeddings runs, and its page says what it finds."""

import csv
import importlib
import re
from statistics import fmean

import pytest

from bench import example_pages
from tests.examples.common import PNG, rows

pytest.importorskip("sklearn")

EXAMPLE, PAGE = "embedding_uniformity", "embeddings"
OPTIONS = ("--seeds", "2", "--weights", "0.01", "--epochs", "12", "--jobs", "1")
WAYS = ["no loss", "loss", "BatchNorm", "BatchNorm and loss", "article's formula"]


@pytest.fixture(scope="module")
def lines(quick):
    """Lines of the CSV, one a seed, by way, weight and dimensions of the code."""
    found = {}
    with (quick[1] / "embeddings.csv").open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            which = line["way"], float(line["weight"]), int(line["code"])
            found.setdefault(which, []).append(line)
    return found


def numbers(cells):
    """Return the first number of each cell: a mean, if a range follows."""
    return [float(re.search(r"[\d.]+", cell)[0]) for cell in cells]


def ways(blocks):
    """Return error, largest share and effective rank of each way."""
    found = rows(blocks["ways"])
    assert [row[0] for row in found] == WAYS
    return {row[0]: numbers([row[1], row[4], row[5]]) for row in found}


def weights(blocks):
    """Return the same three of each loss, for each weight."""
    return {
        row[0]: [numbers(cell.split(",")) for cell in row[1:]] for row in rows(blocks["weights"])
    }


def hold(found):
    """Assert what is demanded of the loss: a third less, at an error at most a tenth larger."""
    (error, share, rank), (error_with, share_with, rank_with) = found["no loss"], found["loss"]
    assert share_with < share * 2 / 3
    assert error_with < 1.1 * error
    assert rank_with > rank


def test_the_example_finds_that_the_loss_flattens_the_spectrum(blocks):
    hold(ways(blocks))


def test_the_page_tells_that_the_loss_flattens_the_spectrum(page):
    hold(ways(page))


def test_what_the_page_concludes_is_what_its_tables_tell(page):
    found = ways(page)
    errors, shares, ranks = ({name: row[n] for name, row in found.items()} for n in range(3))
    assert errors["loss"] < errors["no loss"]
    assert errors["BatchNorm"] < 0.9 * errors["loss"]
    assert shares["loss"] < shares["BatchNorm"]
    assert max(ranks, key=ranks.get) == min(errors, key=errors.get) == "BatchNorm and loss"
    sweep = weights(page)
    least = {name: min(cell[0] for cell in row) for name, row in sweep.items()}
    ranks = {name: max(cell[2] for cell in row) for name, row in sweep.items()}
    assert ranks["loss, k = 1"] < ranks["loss, k = 2"] < ranks["loss, k = 5"]
    # "Nearly as many": a direction of the ten may be missing.
    assert ranks["loss, k = 5"] <= ranks["article's formula"] < ranks["loss, k = 5"] + 1
    assert all(row[-1][0] > least[name] for name, row in sweep.items())
    assert sweep["loss, k = 2"][0][0] > least["loss, k = 2"]
    epochs = [int(row[3]) for row in rows(page["ways"])[:3]]
    assert epochs == sorted(epochs, reverse=True)
    none, loss, _ = (numbers(row[-1:])[0] for row in rows(page["ways"])[:3])
    assert epochs[1] * loss < epochs[0] * none


def test_demands_that_are_not_met_are_found():
    hold({"no loss": [1.0, 0.6, 4.0], "loss": [1.05, 0.3, 5.0]})
    for wrong in ([1.05, 0.45, 5.0], [1.15, 0.3, 5.0], [1.05, 0.3, 3.9]):
        with pytest.raises(AssertionError):
            hold({"no loss": [1.0, 0.6, 4.0], "loss": wrong})


def test_the_spectra_are_shares(blocks):
    for name in ("eigenvalues", "singular-values"):
        found = {row[0]: numbers(row[1:]) for row in rows(blocks[name])}
        assert list(found) == WAYS
        for row in found.values():
            assert row == sorted(row, reverse=True)
            assert len(row) == 10
            assert sum(row) == pytest.approx(1, abs=10 * 5e-4)


def test_the_weights_are_swept_and_that_of_the_comparison_with_them(blocks):
    assert "|  | weight 0.003 | weight 0.01 |" in blocks["weights"]
    swept, found = weights(blocks), ways(blocks)
    # The same trainings.
    assert swept["loss, k = 2"][0] == found["loss"]
    assert swept["article's formula"][0] == found["article's formula"]


def test_every_training_is_a_line(lines):
    losses = ("loss, k = 1", "loss", "loss, k = 5", "article's formula")
    swept = {(way, weight, 10) for way in losses for weight in (0.003, 0.01)}
    plain = {("no loss", 0, 10), ("BatchNorm", 0, 10), ("BatchNorm and loss", 0.003, 10)}
    assert lines.keys() == swept | plain | {("no loss", 0, 4), ("loss", 0.003, 4)}
    for (_, _, code), own in lines.items():
        assert [line["seed"] for line in own] == ["0", "1"]
        for line in own:
            assert (line["error"], line["largest_share"]) == (line["error_12"], line["share_1"])
            assert sum(bool(line[f"share_{n + 1}"]) for n in range(10)) == code


def test_the_tables_follow_from_the_lines(blocks, lines):
    def mean(column, *which):
        return fmean(float(line[column]) for line in lines[which])

    spectra = {name: cells for name, *cells in rows(blocks["eigenvalues"])}
    for name, *cells in rows(blocks["ways"]):
        which = name, 0 if name in ("no loss", "BatchNorm") else 0.003, 10
        assert cells[0].startswith(f"{mean('error', *which):.4f} (")
        assert cells[1] == f"{mean('error_10', *which):.4f}"
        assert cells[3].startswith(f"{mean('largest_share', *which):.3f} (")
        assert cells[4].startswith(f"{mean('effective_rank', *which):.1f} (")
        assert cells[5].startswith(f"{mean('ms_an_epoch', *which):.0f} ms (")
        assert spectra[name] == [f"{mean(f'share_{n + 1}', *which):.3f}" for n in range(10)]
    for name, *cells in rows(blocks["weights"]):
        for weight, cell in zip((0.003, 0.01), cells, strict=True):
            which = "loss" if name == "loss, k = 2" else name, weight, 10
            ends = mean("error", *which), mean("largest_share", *which)
            assert cell == "{:.4f}, {:.3f}, {:.1f}".format(*ends, mean("effective_rank", *which))


def test_the_rest_of_the_page_stays(blocks, quick, tmp_path):
    markers = "".join(f"<!-- {name}:start -->\nold\n<!-- {name}:end -->\n" for name in blocks)
    path = tmp_path / "embeddings.md"
    path.write_text(f"before\n{markers}after\n")
    text = example_pages.written(path, quick[1])
    assert text.startswith("before\n<!-- ways:start -->\n")
    assert text.endswith(f"<!-- {list(blocks)[-1]}:end -->\nafter\n")
    assert "old" not in text
    assert example_pages.blocks(text) == blocks


def test_the_page_has_a_place_for_every_block(blocks, page):
    names = {"ways", "answers", "eigenvalues", "singular-values", "weights"}
    assert page.keys() == blocks.keys() == names


def test_what_is_printed_is_written_and_the_picture_drawn(blocks, quick):
    output, folder = quick
    picture = folder / "embeddings_uniformity.png"
    names = {"embeddings.md", "embeddings.csv", picture.name}
    assert {path.name for path in folder.iterdir()} == names
    assert all(line in output for block in blocks.values() for line in block.splitlines())
    assert picture.read_bytes().startswith(PNG)
    assert picture.stat().st_size > 50_000
    assert "Alpaydin" in output
    assert "CC BY 4.0" in output


def test_trainings_in_processes_of_their_own_are_the_same(run_example, tmp_path, monkeypatch):
    options = ["--seeds", "1", "--epochs", "2", "--weights", "--output", "out", "--jobs", "2"]
    run_example(EXAMPLE, tmp_path, *options)
    blocks = example_pages.blocks((tmp_path / "out" / "embeddings.md").read_text())
    name, cell = rows(blocks["weights"])[-1]
    assert name == "article's formula"
    monkeypatch.syspath_prepend(example_pages.ROOT / "examples")
    autoencoder = importlib.import_module("_embedding_uniformity.autoencoder")
    run = autoencoder.train(autoencoder.Plan(autoencoder.ARTICLE, 0, 0.003, 2, quick=True))
    assert cell == f"{run.error:.4f}, {run.largest:.3f}, {run.rank:.1f}"
    again = autoencoder.train(run.plan)
    assert (again.errors, again.values) == (run.errors, run.values)
