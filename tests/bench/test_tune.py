"""The tuner: what it tries, what it takes, and that the kernels find what it wrote."""

from dataclasses import replace

import pytest

from bench import tune
from tensorfast.kernels import configs
from tensorfast.kernels.configs import Setting, Tile, invalid, tiles_for
from tensorfast.kernels.devices import CHIPS

CHIP = replace(CHIPS[90], name="a-gpu")
SETTING = Setting.of(512, 64, "bf16x6", 4, "outer", 3)
TILES = [Tile(64, 32, 64, 4, 3), Tile(64, 64, 64, 4, 3), Tile(128, 32, 64, 8, 4)]


def test_the_heuristics_choice_is_tried_first_and_all_are_valid():
    for problem in tune.PROBLEMS:
        for setting, shape in tune.settings_of(*problem, CHIP):
            tiles = tune.every_tile(setting, CHIP)
            assert tiles[: len(tiles_for(setting, CHIP))] == list(tiles_for(setting, CHIP))
            assert len(set(tiles)) == len(tiles) > 4
            assert not any(invalid(tile, setting, CHIP) for tile in tiles)
            assert (shape[0] <= configs.FEW) == (setting.rows == configs.FEW)


def test_the_settings_tuned_are_those_that_plans_ask_for():
    asked = []

    def noted(setting, chip):
        asked.append(setting)
        return tiles_for(setting, chip)

    for problem in tune.PROBLEMS:
        for setting, shape in tune.settings_of(*problem, CHIP):
            strides = tune.torch.empty(shape, device="meta").stride()
            dtype, precision, _, rank = problem
            c = tune.Contraction(shape, strides, (0,), rank, dtype, precision, CHIP)
            assert list(tune.candidates(c, tiles=noted))
            assert setting in asked
            asked.clear()


def test_the_quickest_that_is_not_less_exact_is_taken():
    figures = {TILES[0]: (3.0, 1e-7), TILES[1]: (1.0, 3e-7), TILES[2]: (2.0, 1.2e-7)}
    tile, found = tune.best(TILES, figures.get)
    assert tile == TILES[2]
    assert found == figures


def test_what_is_written_is_what_the_kernels_take(tmp_path, monkeypatch):
    monkeypatch.setattr(configs, "TUNED", tmp_path)
    configs.tuned.cache_clear()
    tune.write(tmp_path / "a-gpu.json", CHIP, {SETTING: TILES[2]})
    assert tiles_for(SETTING, CHIP) == (TILES[2],)
    configs.tuned.cache_clear()


@pytest.mark.parametrize(
    ("tile", "use"),
    [
        (Tile(64, 32, 64, 4, 3), True),
        # A thread would have to hold too much.
        (Tile(16, 128, 64, 4, 3), False),
        # No block of k gives few enough partial results.
        (Tile(64, 16, 64, 4, 3), False),
    ],
    ids=str,
)
def test_a_tile_that_cannot_be_used_is_known_before_it_is_timed(tile, use):
    shape = (512, 4, 100000) if tile.block_k == 16 else (512, 64, 64)
    assert tune.Trial(SETTING, shape, "float32", "ieee", 64, CHIP).usable(tile) == use


def test_without_a_gpu_nothing_is_tuned(monkeypatch, capsys):
    monkeypatch.setattr(tune.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        tune.main([])
    assert stopped.value.code == 1
    assert "torch sees no CUDA GPU" in capsys.readouterr().err


def test_the_search_passes_over_what_is_known_and_gives_up_in_time(monkeypatch):
    """A setting that is under way when the time is over is not half measured."""
    problems = tune.PROBLEMS[:1]
    settings = [setting for setting, _ in tune.settings_of(*problems[0], CHIP)]

    def usable(_, tiles):
        return [n < 2 for n in range(len(tiles))]

    def clock(_):
        seconds = iter((2.0, 1.0))
        return lambda tile: (next(seconds), 1e-7)

    about = {"known": settings[:1], "problems": problems}
    found = list(tune.search(CHIP, usable, clock, tune.time.monotonic() + 60, **about))
    assert [setting for setting, _, _ in found] == settings[1:]
    assert all(tile == tune.every_tile(s, CHIP)[1] and gain == 2 for s, tile, gain in found)
    assert not list(tune.search(CHIP, usable, clock, tune.time.monotonic() - 1, **about))
