"""Peak extra memory of CP-ALS, each implementation in a fresh process of its own."""

import json
import subprocess
import sys

import pytest

from bench import machine, memory_probe, problems, rivals
from bench.records import OURS


@pytest.mark.parametrize("implementation", rivals.MEMORY)
@pytest.mark.parametrize("problem", [p.name for p in problems.MEMORY])
def test_memory(benchmark, session, tmp_path, problem, implementation):
    """Record the peak of the call's own memory, of the variant that is fastest here."""
    case = problems.by_name("200^3-R16" if session.quick else problem)
    benchmark.group = f"memory {case.name}"
    if not memory_probe.supported():
        reason = "peak memory is read from /proc, which this system does not have"
        session.refuse(case, implementation, reason)
        pytest.skip(reason)
    target = tmp_path / "memory.json"
    command = [sys.executable, "-m", "bench.memory_probe", case.name, implementation]

    def probe(variant):
        done = subprocess.run(
            [*command, variant, str(target)],
            cwd=machine.ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if not target.exists():
            raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])

    try:
        adapter = rivals.MEMORY[implementation]
        variant = session.prepare(case, implementation, adapter, session.sweeps(case)).variant
        benchmark.pedantic(probe, args=(variant,), rounds=1, iterations=1)
    except Exception as failure:
        reason = f"failed: {type(failure).__name__}: {failure}"
        session.refuse(case, implementation, reason)
        if implementation.startswith(OURS):
            raise
        pytest.skip(reason)
    found = json.loads(target.read_text())
    benchmark.extra_info.update(
        kind="memory",
        problem=case.name,
        implementation=implementation,
        tensor_bytes=case.nbytes,
        share_percent=100 * found["extra_bytes"] / case.nbytes,
        **found,
    )
