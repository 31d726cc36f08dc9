"""The plots beside the results: times and speed-ups on logarithmic axes, memory on a linear one."""

from bench import problems
from bench.gpu_records import compared
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
    "tensorfast-tf32": "#e39a9c",
    "tensorly": "#1f4e79",
    "tensorly-tf32": "#5b8db8",
    "tensorly-randomized": "#5b8db8",
    "torch-tree": "#3b7d3b",
    "torch-einsum": "#8db98d",
    "torch-baseline": "#7f7f7f",
}


#: What is drawn of a GPU's results.
GPU = ("speedups.png", "roofline.png")


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


def draw_gpu(machine):
    """Write ``speedups.png`` and ``roofline.png`` beside a GPU's results, as far as there are any.

    Parameters
    ----------
    machine : GpuMachine
    """
    rows = machine.rows("sweep") | machine.rows("tucker")
    bars = {}
    for problem, own in rows.items():
        found = {name: compared(own, problem, name).speedup for name in own if name != OURS}
        bars[problem] = {name: times for name, times in found.items() if times is not None}
    bars = {problem: group for problem, group in bars.items() if group}
    if bars:
        _save(machine, "speedups", bars, "tensorfast is faster by", log=True)
    if machine.entries("kernels"):
        _roofline(machine)


def _roofline(machine):
    """Rate over flops a byte, with the measured bandwidth and matrix-product rates."""
    pyplot = _pyplot()
    roofs = machine.parts["kernels"]["roofs"]
    figure, axes = pyplot.subplots(figsize=(6.4, 4.2))
    entries = machine.entries("kernels")
    for op in dict.fromkeys(told["op"] for told in entries):
        own = [told for told in entries if told["op"] == op]
        at = [told["flops"] / told["bytes"] for told in own]
        axes.scatter(at, [told["tflops"] for told in own], s=14, label=op)
    low = min(told["flops"] / told["bytes"] for told in entries) / 2
    for name, rate in roofs.items():
        if name != "copy_gbs":
            ridge = 1e3 * rate / roofs["copy_gbs"]
            sides = [low, max(ridge, low), max(2 * ridge, 4096)]
            line = [min(rate, 1e-3 * x * roofs["copy_gbs"]) for x in sides]
            axes.plot(sides, line, color="#b5b5b5", linewidth=0.8, zorder=0)
            axes.annotate(name, (sides[-1], rate), fontsize=7, color="#7f7f7f", va="bottom")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("flops a byte")
    axes.set_ylabel("TFLOP/s")
    _finish(figure, axes, machine.folder / "roofline.png")


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _finish(figure, axes, path):
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    _pyplot().close(figure)


def _save(machine, part, bars, unit, log):
    pyplot = _pyplot()
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
    _finish(figure, axes, machine.folder / f"{part}.png")
    return f"{part}.png"
