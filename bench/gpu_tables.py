"""The section of RESULTS.md about one GPU, in Markdown."""

from bench.gpu_records import compared, targets
from bench.records import OURS
from bench.tables import table

#: What a failure tells in the document: the rest is in the record.
SHOWN = 200


def section(machine, folder, plots=()):
    """Return the section of a GPU.

    Parameters
    ----------
    machine : GpuMachine
    folder : str
        Of its results, as the document links to it.
    plots : sequence of str
        Names of the files there are.

    Returns
    -------
    str
    """
    lines = [f"### {machine.folder.name}\n"]
    if machine.rehearsal:
        lines.append("**A rehearsal on a CPU: a check of the code, not a measurement.**\n")
    lines += [about(machine), "", *parts(machine)]
    absent = machine.never_ran()
    if absent:
        lines.append(f"\nNever run on this GPU: {', '.join(absent)}.")
    lines += ["\n#### Targets\n", _targets(machine)]
    if machine.rows("sweep"):
        lines += ["\n#### CP-ALS, ms a sweep\n", _times(machine.rows("sweep"), ideal=True)]
        lines += ["\nSpeed-up of tensorfast over\n", _speedups(machine.rows("sweep"))]
        lines += ["\nExact relative errors\n", _errors(machine.rows("sweep"))]
        lines += ["\nA call besides its sweeps, and the peak memory it takes\n"]
        lines += [_besides(machine.rows("sweep"))]
    if machine.rows("tucker"):
        lines += ["\n#### Tucker, ms in all\n", _times(machine.rows("tucker"))]
        lines += ["\nSpeed-up of tensorfast over\n", _speedups(machine.rows("tucker"))]
        lines += ["\nExact relative errors\n", _errors(machine.rows("tucker"))]
    if machine.entries("fit"):
        lines += [f"\n#### Time to a relative error of {machine.parts['fit']['target']}\n"]
        lines += [_fit(machine)]
    if machine.entries("kernels"):
        lines += ["\n#### Kernels\n", _kernels(machine)]
    if machine.entries("sync"):
        lines += ["\n#### Where the host waits for the GPU\n", *_waits(machine)]
    lines += [f"\n![{name}]({folder}/{name})" for name in plots]
    lines += _wrong(machine)
    return "\n".join(lines) + "\n"


def about(machine):
    """Return what identifies GPU and software, and the measured roofs, in words.

    Parameters
    ----------
    machine : GpuMachine

    Returns
    -------
    str
    """
    record = machine.parts.get("machine", {})
    own, driver = record.get("machine", {}), record.get("driver", {})
    told = [f"{key} {value}" for key, value in (own | driver).items() if value is not None]
    roofs = record.get("roofs", {})
    rates = [f"{key} {rate}" for key, rate in roofs.items() if key != "copy_gbs"]
    measured = (
        f"copy {roofs['copy_gbs']} GB/s (read and written), matrix products " if roofs else ""
    )
    return f"{', '.join(told)}. Measured: {measured}{', '.join(rates) or 'nothing'} TFLOP/s."


def parts(machine):
    """Return a line for each part: when, of what, and how it ended.

    Parameters
    ----------
    machine : GpuMachine

    Returns
    -------
    list of str
    """
    lines = []
    for name, record in machine.parts.items():
        commit = record.get("commit") or {}
        source = f"commit {commit['id'][:12]}" if commit.get("id") else "no commit"
        changes = " with uncommitted changes" if commit.get("dirty") else ""
        status, seconds = record.get("status", "under way"), record.get("seconds")
        took = "" if seconds is None else f" in {seconds:.0f} s"
        line = f"- {name}: {record.get('date')}, {source}{changes}, {status}{took}"
        if name == "tests" and record["entries"]:
            counts = record["entries"][0].items()
            line += f": {', '.join(f'{n} {key}' for key, n in counts)}".replace("_", " ")
        if name == "sanitizer":
            line += "".join(f"; {t['tool']}: {t['outcome']}" for t in record["entries"])
        lines.append(f"{line}.")
    return lines


def _targets(machine):
    words = {None: "not measured", True: "met", False: "**not met**"}
    return table(
        ["target", "found", ""], [[t.what, t.found, words[t.met]] for t in targets(machine)]
    )


def _names(rows):
    found = dict.fromkeys(name for own in rows.values() for name in own)
    return sorted(found, key=lambda name: (name != OURS, list(found).index(name)))


def _each(rows, cell, names=None):
    """Return a table with a row a problem and a column an implementation."""
    names = names or _names(rows)
    lines = [
        [problem, *(cell(own[name]) if name in own else "-" for name in names)]
        for problem, own in rows.items()
    ]
    return table(["problem", *names], lines)


def _times(rows, ideal=False):
    names = _names(rows)
    lines = []
    for problem, own in rows.items():
        cells = [problem]
        for name in names:
            told = own.get(name)
            cells.append(f"{told['ms']:.3g} ±{50 * told['spread']:.0f} %" if told else "-")
        if ideal:
            ours = own.get(OURS)
            cells.append(f"{ours['ideal_percent']:.0f}" if ours else "-")
        lines.append(cells)
    return table(["problem", *names, *(["% of the ideal"] if ideal else [])], lines)


def _speedups(rows):
    rivals = [name for name in _names(rows) if name != OURS]
    lines = [
        [problem, *(compared(own, problem, rival).text for rival in rivals)]
        for problem, own in rows.items()
    ]
    return table(["problem", *rivals], lines)


def _errors(rows):
    return _each(rows, lambda told: f"{told['error']:.7f}")


def _besides(rows):
    def cell(told):
        peak = told["peak_bytes"]
        memory = (
            "" if peak is None else f", {100 * peak / told['tensor_bytes']:.0f} % of the tensor"
        )
        return f"{told['besides_ms']:.3g} ms{memory}"

    return _each(rows, cell)


def _fit(machine):
    lines = []
    entries = {told["implementation"]: told for told in machine.entries("fit")}
    for name, told in entries.items():
        speed = "" if name == OURS else compared(entries, told["problem"], name).text
        time, error = f"{told['ms']:.4g}", f"{told['error']:.6f}"
        lines.append([name, time, str(told["sweeps"]), error, speed])
    return table(["implementation", "ms", "sweeps", "error", "tensorfast is"], lines)


def _kernels(machine):
    lines = []
    for told in machine.entries("kernels"):
        ours, theirs, predicted = told["ours"], told["torch"], told["predicted_ms"]
        # No ratio where our result is worse than torch's by more than another order of additions.
        ratio = "-"
        if theirs["ms"]:
            worse = told["error"] > 4 * told["torch_error"]
            ratio = "error larger" if worse else f"{theirs['ms'] / ours['ms']:.2f}x"
        lines.append(
            [
                told["call"],
                told["arithmetic"] or "-",
                f"{ours['ms']:.3g} ±{50 * ours['spread']:.0f} %",
                "-" if predicted is None else f"{predicted:.3g}",
                f"{told['gbs']:.0f}",
                f"{told['tflops']:.3g}",
                f"{told['roof_percent']:.0f}",
                ratio,
                f"{told['error']:.1e}",
                "-" if told["torch_error"] is None else f"{told['torch_error']:.1e}",
                f"{told['host_us']:.0f}",
            ]
        )
    header = ["call", "arithmetic", "ms", "predicted", "GB/s", "TFLOP/s", "% of roof", "over torch"]
    return table([*header, "error", "torch's", "host, µs"], lines)


def _waits(machine):
    lines = []
    for told in machine.entries("sync"):
        if told["mode"] == "error":
            said = told["first"] or "nothing waits"
            lines.append(f"- {told['call']}, where a wait is an error: {said}.")
            continue
        places = "; ".join(f"{n:.3g} at {at}" for at, n in told["places"].items())
        waits = f"{told['waits_per_sweep']:.3g} waits a sweep"
        lines.append(f"- {told['call']}: {waits}{f' ({places})' if places else ''}.")
    return lines


def _wrong(machine):
    """Return what failed and what was not run, part by part."""
    lines = []
    for name, record in machine.parts.items():
        for failed in record["failures"]:
            last = (failed["error"].splitlines() or [""])[-1][:SHOWN]
            lines.append(f"- {name}, {failed['what']}: failed: {last}")
        if record.get("status") not in ("done", "failed"):
            last = (record.get("last_lines", "").splitlines() or [""])[-1][:SHOWN]
            lines.append(f"- {name}: {record.get('status')}{f': {last}' if last else ''}")
        lines += [f"- {name}, {told['what']}: {told['reason']}" for told in record["not_run"]]
    return ["\n#### Failed, or not run\n", *lines] if lines else []
