"""The tables of RESULTS.md, of README.md and of the pages in docs/, in Markdown.

What they tell was measured on a `bench.records.Machine`; of the problems that are `chosen`, those
that were measured have a row.
"""

import argparse
import sys

from bench import problems
from bench.acceptance import against_tensorly, compared, large_mean
from bench.gate import rounding_tolerance
from bench.records import OURS
from bench.rivals_tensorly import EXACT

OTHERS = ("pyttb", "pygenten")
# Rows of TensorLy's functions: whose algebra, on which library.
BACKEND = {
    "tensorly-numpy": ("TensorLy", "NumPy"),
    "tensorly-torch": ("TensorLy", "PyTorch"),
    "tensorfast-numpy": ("tensorfast", "NumPy"),
    "tensorfast-torch": ("tensorfast", "PyTorch"),
}
# What is true of the Tucker problems, whose rows carry the mark.
OWN_START = "†"
OWN_START_NOTE = (
    f"{OWN_START} Each library has its own start. TensorLy has no ST-HOSVD: beside it stands its "
    "HOSVD, which is not sequential."
)
DISTURBED = "\\*"
DISTURBED_NOTE = f"{DISTURBED} Other processes took part of the cores: to be measured again."


def table(header, rows):
    """Return a Markdown table; the first column is left-aligned, the others right-aligned.

    Parameters
    ----------
    header : list of str
    rows : list of list of str

    Returns
    -------
    str
    """
    rule = [":--", *["--:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def _measured(machine, chosen):
    return [p for p in chosen if p.name in machine.rows]


def _label(problem):
    return problem.name if problem.kind in problems.STARTED else f"{problem.name} {OWN_START}"


def _implementations(machine, chosen):
    found = [name for p in chosen for name in machine.rows[p.name]]
    return sorted(set(found), key=lambda name: (name != OURS, found.index(name)))


def times(machine, chosen, total=False):
    """Milliseconds of each implementation, with the spread of the laps.

    Of a sweep; with ``total`` of all sweeps and the start together.
    """
    chosen = _measured(machine, chosen)
    names = _implementations(machine, chosen)
    rows = []
    for problem in chosen:
        cells = [_label(problem)]
        for name in names:
            row = machine.row(problem.name, name)
            if row is None:
                cells.append("-")
                continue
            cells.append(_milliseconds(row, row.info["sweeps"] if total else 1))
        if not total:
            ours = machine.row(problem.name, OURS)
            cells += ["-", "-"] if ours is None else _rates(ours)
        rows.append(cells)
    extra = [] if total else ["tensorfast GFLOP/s", "% of roof"]
    return table(["problem", *names, *extra], rows)


def _milliseconds(row, times=1):
    spread = f" ±{50 * row.spread:.0f} %" if len(row.seconds) > 1 else ""
    return f"{row.ms * times:.3g}{spread}"


def _rates(row):
    seconds = row.ms * 1e-3
    return [
        f"{row.info['flops_per_sweep'] / seconds * 1e-9:.3g}",
        f"{100 * row.info['roof_ms_per_sweep'] / row.ms:.0f}",
    ]


def speedups(machine, chosen):
    """Speed-ups of tensorfast, gated on the errors."""
    chosen = _measured(machine, chosen)
    tucker = any(problem.kind != "cp" for problem in chosen)
    rows = []
    for problem in chosen:
        cells = [_label(problem)]
        cells += [against_tensorly(machine, problem, default=True).text] if tucker else []
        cells += [against_tensorly(machine, problem).text]
        cells += [machine.fastest_tensorly(problem.name) or "-"]
        cells += [compared(machine, problem, rival).text for rival in OTHERS]
        rows.append(cells)
    default = ["TensorLy as it comes"] if tucker else []
    return table(["problem", *default, "TensorLy", "its fastest", *OTHERS], rows)


def errors(machine, chosen):
    """Exact relative errors side by side, and the tolerance of the gate."""
    chosen = _measured(machine, chosen)
    names = _implementations(machine, chosen)
    rows = []
    for problem in chosen:
        found = machine.rows[problem.name]
        cells = [f"{found[name].error:.7f}" if name in found else "-" for name in names]
        sweeps = next(iter(found.values())).info["sweeps"]
        tolerance = rounding_tolerance(problem.shape, problem.itemsize)
        rows.append([_label(problem), str(sweeps), *cells, f"{tolerance:.1e}"])
    return table(["problem", "sweeps", *names, "tolerance"], rows)


def embeddings(machine):
    """Milliseconds a step, speed-ups and the error of the gradient, of every loss of embeddings."""
    chosen = _measured(machine, problems.EMBEDDINGS)
    names = _implementations(machine, chosen)
    rows = []
    for problem in chosen:
        found = [machine.row(problem.name, name) for name in names]
        cells = [problem.name, *(_milliseconds(row) if row else "-" for row in found)]
        cells += [compared(machine, problem, rival).text for rival in names[1:]]
        rows.append([*cells, *(f"{row.error:.1e}" if row else "-" for row in found)])
    told = ("{}, ms", names), ("over {}", names[1:]), ("{}, error", names)
    return table(["problem", *(text.format(name) for text, own in told for name in own)], rows)


def tensorly(machine):
    """Milliseconds a sweep of TensorLy's functions, as they come and on our backend; speed-ups.

    Parameters
    ----------
    machine : Machine

    Returns
    -------
    str
    """
    rows = []
    for problem in _measured(machine, problems.TENSORLY):
        found = [machine.row(problem.name, name) for name in BACKEND]
        cells = [problem.name, *(_milliseconds(row) if row else "-" for row in found)]
        ours = machine.row(problem.name, machine.fastest_ours(problem.name))
        mttkrps = ours and problem.kind != "tucker"
        shared = f"{ours.info['reused_percent']:.0f} %" if mttkrps else "-"
        rows.append([*cells, against_tensorly(machine, problem).text, shared])
    times = [f"{algebra}, {library}, ms" for algebra, library in BACKEND.values()]
    return table(["function, problem", *times, "speed-up", "from partial results"], rows)


def distances(machine):
    """How far factors are from those of TensorLy's NumPy backend in float64.

    Parameters
    ----------
    machine : Machine

    Returns
    -------
    str
    """
    rows = []
    for problem in _measured(machine, problems.TENSORLY):
        found = {name: machine.row(problem.name, name) for name in BACKEND}
        wide = [row for name, row in found.items() if name != EXACT]
        cells = [f"{row.info['distance']:.1e}" if row else "-" for row in found.values()]
        cells += [f"{row.info['distance_float64']:.1e}" if row else "-" for row in wide]
        rows.append([problem.name, *cells])
    names = [f"{algebra}, {library}" for algebra, library in BACKEND.values()]
    wide = [name for key, name in zip(BACKEND, names, strict=True) if key != EXACT]
    return table(["function, problem", *names, *(f"float64: {name}" for name in wide)], rows)


def backend_page(machine):
    """Return the table for docs/tensorly.md, and what it takes to read it.

    Parameters
    ----------
    machine : Machine

    Returns
    -------
    str
    """
    made = machine.parts["tensorly"]
    mean = large_mean(machine, "parafac")
    stated = "not stated: a problem has no speed-up" if mean is None else f"{mean:.2f}x"
    return "\n\n".join(
        [
            tensorly(machine),
            f"Geometric mean over `parafac` on the large problems, in float32: {stated}.",
            f"{made.record['cpu']}, {made.record['threads']} threads, {made.source}. Milliseconds "
            "a sweep. The speed-up is that of the faster of tensorfast's two over the faster of "
            "TensorLy's; none is stated where the error is larger by more than rounding; ~ where "
            "the spreads allow either to be the faster.",
        ]
    )


def memory(machine):
    """Peak extra memory of each implementation as a share of the tensor."""
    rows = []
    for problem, found in machine.memory.items():
        for name, info in found.items():
            extra, tensor = info["extra_bytes"] / 1e6, info["tensor_bytes"] / 1e6
            share = f"{info['share_percent']:.1f} %"
            rows.append([problem, name, f"{tensor:.0f}", f"{extra:.1f}", share, info["variant"]])
    header = ["problem", "implementation", "tensor MB", "extra MB", "share", "variant"]
    return table(header, rows)


def variants(machine, chosen):
    """Return a line for each problem: which way of a rival was the fastest and so was measured."""
    lines = []
    for problem in _measured(machine, chosen):
        ways = {n: r.info["variant"] for n, r in machine.rows[problem.name].items()}
        told = "; ".join(f"{name}: {way}" for name, way in ways.items() if way)
        if told:
            lines.append(f"- {problem.name}: {told}")
    return lines


def readme(machine):
    """Return the short table for README.md, CP and Tucker, and what it takes to read it."""
    chosen = _measured(machine, (*problems.CP, *problems.TUCKER))
    header = ["problem", "tensorfast, ms", "vs TensorLy", *(f"vs {rival}" for rival in OTHERS)]
    shown = table(header, [_readme_row(machine, problem) for problem in chosen])
    lines = [shown]
    lines += [OWN_START_NOTE] if OWN_START in shown else []
    lines += [DISTURBED_NOTE] if DISTURBED in shown else []
    mean = large_mean(machine)
    if mean is not None:
        lines.append(f"Geometric mean over the large CP problems, vs TensorLy: {mean:.2f}x.")
    mean = large_mean(machine, "parafac")
    if mean is not None:
        lines.append(f"TensorLy's own `parafac` on [our backend](docs/tensorly.md): {mean:.2f}x.")
    lines += [_readme_memory(problem, found) for problem, found in machine.memory.items()]
    record = machine.record
    sources = dict.fromkeys(made.source for made in machine.parts.values())
    lines.append(
        f"{record['cpu']}, {record['threads']} threads, {', '.join(sources)}. Milliseconds: a "
        "sweep for CP, the whole for Tucker. TensorLy: the fastest of its backends and SVDs. Same "
        "data and number of sweeps, for CP the same start; no speed-up is stated where "
        "tensorfast's error is larger by more than rounding; ~ where the spreads allow either to "
        "be the faster."
    )
    return "\n\n".join(lines)


def _readme_row(machine, problem):
    def starred(text, name):
        row = machine.row(problem.name, name)
        return text + DISTURBED if row and row.disturbed else text

    ours = machine.row(problem.name, OURS)
    sweeps = 1 if problem.kind == "cp" else problem.sweeps
    cells = [_label(problem), starred(f"{ours.ms * sweeps:.3g}", OURS) if ours else "-"]
    for rival in (machine.fastest_tensorly(problem.name), *OTHERS):
        cells.append(starred(compared(machine, problem, rival).text, rival))
    return cells


def _readme_memory(problem, found):
    shares = ", ".join(f"{name} {i['share_percent']:.0f} %" for name, i in found.items())
    text = f"Peak extra memory at {problem}, share of the tensor: {shares}."
    if "tensorfast-svd" in found:
        text += " tensorfast-svd makes its own start, by default; the others have it given."
    widened = [name for name, i in found.items() if i["variant"].startswith("float64")]
    if widened:
        told = " and ".join(widened)
        text += f" Not counted: the float64 copy of it, twice its size, that {told} each worked on."
    return text


def between(text, name, content):
    """Replace what stands between the markers ``<!-- name:start -->`` and ``<!-- name:end -->``."""
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    before, rest = text.split(start)
    return f"{before}{start}\n\n{content}\n\n{end}{rest.split(end)[1]}"


def keep(page, written, about, module):
    """Write a page of tables, or with ``--check`` fail if it is out of date.

    Parameters
    ----------
    page : Path
    written : callable
        Returns the page as it should be.
    about : str
        Docstring of the module.
    module : str
        Which writes the page.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if the page is out of date")
    if not parser.parse_args().check:
        page.write_text(written(), encoding="utf-8")
    elif written() != page.read_text(encoding="utf-8"):
        sys.exit(f"{page.name} is out of date: python -m {module}")
