"""The plots beside the results: times on a logarithmic axis, memory on a linear one."""

from bench import problems
from bench.records import OURS

COLOURS = {
    OURS: "#c1272d",
    "tensorfast-svd": "#e39a9c",
    "tensorly-torch": "#1f4e79",
    "tensorly-torch-randomized": "#5b8db8",
    "tensorly-numpy": "#7f7f7f",
    "tensorly-numpy-randomized": "#b5b5b5",
    "pyttb": "#3b7d3b",
    "pygenten": "#c58b1b",
}


def draw(machine):
    """Write ``cp.png``, ``tucker.png`` and ``memory.png`` beside the results they show.

    Parameters
    ----------
    machine : Machine

    Returns
    -------
    list of str
        The names of the files written.
    """
    written = []
    for part, chosen, total in (("cp", problems.CP, False), ("tucker", problems.TUCKER, True)):
        bars = {
            p.name: _times(machine.rows[p.name], total) for p in chosen if p.name in machine.rows
        }
        if bars:
            unit = "ms, all sweeps" if total else "ms a sweep"
            written.append(_save(machine, part, bars, unit, log=True))
    if machine.memory:
        bars = {
            problem: {name: info["share_percent"] for name, info in found.items()}
            for problem, found in machine.memory.items()
        }
        unit = "peak extra memory, % of the tensor"
        written.append(_save(machine, "memory", bars, unit, log=False))
    return written


def _times(rows, total):
    return {name: row.ms * (row.info["sweeps"] if total else 1) for name, row in rows.items()}


def _save(machine, part, bars, unit, log):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in COLOURS if any(name in group for group in bars.values())]
    figure, axes = pyplot.subplots(figsize=(2.2 + 1.1 * len(bars) + 0.2 * len(names), 3.6))
    width = 0.85 / len(names)
    for k, name in enumerate(names):
        at = [
            i + (k - (len(names) - 1) / 2) * width for i, g in enumerate(bars.values()) if name in g
        ]
        heights = [group[name] for group in bars.values() if name in group]
        axes.bar(at, heights, width, label=name, color=COLOURS[name])
    axes.set_xticks(range(len(bars)), list(bars), rotation=30, ha="right", fontsize=8)
    axes.set_ylabel(unit)
    if log:
        axes.set_yscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    figure.savefig(machine.folder / f"{part}.png", dpi=130)
    pyplot.close(figure)
    return f"{part}.png"
