"""The tables of RESULTS.md and of README.md, in Markdown."""

from bench import problems
from bench.acceptance import against_tensorly, large_mean
from bench.gate import compare, rounding_tolerance
from bench.records import OURS

OTHERS = ("pyttb", "pygenten")


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


def _implementations(machine, chosen):
    found = [name for p in chosen for name in machine.rows[p.name]]
    return sorted(set(found), key=lambda name: (name != OURS, found.index(name)))


def times(machine, chosen, total=False):
    """Milliseconds of each implementation, with the spread of the rounds.

    Parameters
    ----------
    machine : Machine
    chosen : iterable of Problem
    total : bool
        Of all sweeps and the start together, instead of a sweep.

    Returns
    -------
    str
    """
    chosen = _measured(machine, chosen)
    names = _implementations(machine, chosen)
    rows = []
    for problem in chosen:
        cells = [problem.name]
        for name in names:
            row = machine.rows[problem.name].get(name)
            if row is None:
                cells.append("-")
                continue
            ms = row.ms * (row.info["sweeps"] if total else 1)
            cells.append(f"{ms:.3g} ±{50 * row.spread:.0f} %")
        if not total:
            ours = machine.rows[problem.name].get(OURS)
            cells += ["-", "-"] if ours is None else _rates(ours)
        rows.append(cells)
    extra = [] if total else ["tensorfast GFLOP/s", "% of roof"]
    return table(["problem", *names, *extra], rows)


def _rates(row):
    seconds = row.ms * 1e-3
    return [
        f"{row.info['flops_per_sweep'] / seconds * 1e-9:.3g}",
        f"{100 * row.info['roof_ms_per_sweep'] / row.ms:.0f}",
    ]


def speedups(machine, chosen):
    """Speed-ups of tensorfast, gated on the errors.

    Parameters
    ----------
    machine : Machine
    chosen : iterable of Problem

    Returns
    -------
    str
    """
    rows = []
    for problem in _measured(machine, chosen):
        tolerance = rounding_tolerance(problem.shape, problem.itemsize)
        ours = machine.timing(problem.name, OURS)
        others = [
            compare(ours, machine.timing(problem.name, rival), tolerance).text for rival in OTHERS
        ]
        fastest = machine.fastest_tensorly(problem.name) or "-"
        rows.append([problem.name, against_tensorly(machine, problem).text, fastest, *others])
    return table(["problem", "TensorLy", "its fastest", "pyttb", "pygenten"], rows)


def errors(machine, chosen):
    """Exact relative errors side by side, and the tolerance of the gate.

    Parameters
    ----------
    machine : Machine
    chosen : iterable of Problem

    Returns
    -------
    str
    """
    chosen = _measured(machine, chosen)
    names = _implementations(machine, chosen)
    rows = []
    for problem in chosen:
        found = machine.rows[problem.name]
        cells = [f"{found[name].error:.7f}" if name in found else "-" for name in names]
        sweeps = next(iter(found.values())).info["sweeps"]
        tolerance = rounding_tolerance(problem.shape, problem.itemsize)
        rows.append([problem.name, str(sweeps), *cells, f"{tolerance:.1e}"])
    return table(["problem", "sweeps", *names, "tolerance"], rows)


def memory(machine):
    """Peak extra memory of each implementation as a share of the tensor.

    Parameters
    ----------
    machine : Machine

    Returns
    -------
    str
    """
    rows = []
    for problem, found in machine.memory.items():
        for name, info in found.items():
            extra, tensor = info["extra_bytes"] / 1e6, info["tensor_bytes"] / 1e6
            share = f"{info['share_percent']:.1f} %"
            rows.append([problem, name, f"{tensor:.0f}", f"{extra:.1f}", share, info["variant"]])
    header = ["problem", "implementation", "tensor MB", "extra MB", "share", "variant"]
    return table(header, rows)


def variants(machine, chosen):
    """Return which way of each rival was the fastest and so was measured.

    Parameters
    ----------
    machine : Machine
    chosen : iterable of Problem

    Returns
    -------
    list of str
    """
    lines = []
    for problem in _measured(machine, chosen):
        ways = {n: r.info["variant"] for n, r in machine.rows[problem.name].items()}
        told = "; ".join(f"{name}: {way}" for name, way in ways.items() if way)
        if told:
            lines.append(f"- {problem.name}: {told}")
    return lines


def readme(machine):
    """Return the short table for README.md: CP, Tucker, memory.

    Parameters
    ----------
    machine : Machine

    Returns
    -------
    str
    """
    rows = []
    for problem in _measured(machine, (*problems.CP, *problems.TUCKER)):
        row = machine.rows[problem.name].get(OURS)
        tolerance = rounding_tolerance(problem.shape, problem.itemsize)
        ours = machine.timing(problem.name, OURS)
        sweeps = 1 if problem.kind == "cp" else problem.sweeps
        cells = [problem.name, "-" if row is None else f"{row.ms * sweeps:.3g}"]
        cells.append(against_tensorly(machine, problem).text)
        cells += [compare(ours, machine.timing(problem.name, r), tolerance).text for r in OTHERS]
        rows.append(cells)
    record = machine.record
    header = ["problem", "tensorfast, ms", "vs TensorLy", "vs pyttb", "vs pygenten"]
    lines = [table(header, rows), ""]
    mean = large_mean(machine)
    if mean is not None:
        lines.append(f"Geometric mean over the large CP problems, vs TensorLy: {mean:.2f}x.")
    for problem, found in machine.memory.items():
        shares = ", ".join(f"{name} {i['share_percent']:.0f} %" for name, i in found.items())
        lines.append(f"Peak extra memory at {problem}, share of the tensor: {shares}.")
    lines.append(
        f"{record['cpu']}, {record['threads']} threads. Milliseconds: a sweep for CP, the whole "
        "for Tucker. TensorLy: the fastest of its backends and SVDs. Same data, start and number of sweeps; "
        "no speed-up is stated where tensorfast's error is larger."
    )
    return "\n".join(lines)
