"""How often, and where, the host waits for the GPU within the sweeps of a fit.

The waits of many sweeps less those of few, so that what a call does before and after them does not
count. Then each engine runs under ``torch.cuda.set_sync_debug_mode("error")``: whether it can is
told, and fails nothing.
"""

from collections import Counter
from unittest import mock

import tensorfast as tf
from bench import gpu_problems
from bench.gpu_parts import waits
from tensorfast.cp import single
from tensorfast.tucker import iteration

#: Sweeps, few and many; both multiples of a chunk.
FEW, MANY = 16, 48

#: What runs the sweeps of a call: the module that the call finds it in, and its names there.
ENGINES = {
    "cp_als": (single, ("als", "als_ahead")),
    "hooi": (iteration, ("hooi_plainly", "hooi_ahead")),
}


def run(context):
    """Count the waits of CP-ALS and HOOI, then forbid them."""
    problem = (gpu_problems.TINY_CP if context.rehearse else gpu_problems.CP)[0]
    tucker = (gpu_problems.TINY_TUCKER if context.rehearse else gpu_problems.TUCKER)[0]
    x, start = problem.build(context.device)
    y = tucker.build(context.device).x

    def cp_als(sweeps):
        return tf.cp_als(x, problem.rank, init=(None, start), n_iter_max=sweeps, tol=0)

    def hooi(sweeps):
        return tf.hooi(y, tucker.rank, n_iter_max=sweeps, tol=0)

    for call in (cp_als, hooi):
        with context.guard(f"{call.__name__}: counting"):
            count(call, context)
    for call in (cp_als, hooi):
        with context.guard(f"{call.__name__}: forbidding"):
            forbid(call, *ENGINES[call.__name__], context)


def count(call, context):
    """Count the waits of a call by sweeps, and add the entry.

    Parameters
    ----------
    call : callable
        Of the number of sweeps.
    context : Context
    """
    call(2)
    found = []
    for sweeps in (FEW, MANY):
        with waits.counted(context.device) as places:
            call(sweeps)
        found.append(places)
    few, many = found
    within = Counter({at: many[at] - few[at] for at in many if many[at] > few[at]})
    told = {at: number / (MANY - FEW) for at, number in within.most_common()}
    context.entry(
        call=call.__name__,
        mode="warn",
        waits_per_sweep=sum(within.values()) / (MANY - FEW),
        places=told,
        waits_besides=few.total() - FEW * sum(told.values()),
    )
    print(f"{call.__name__}: {sum(told.values()):.3g} waits a sweep")
    for at, number in told.items():
        print(f"  {number:.3g} at {at}")


def forbid(call, module, engines, context):
    """Run an engine where every wait is an error, and add the entry.

    Parameters
    ----------
    call : callable
        Of the number of sweeps.
    module : module
    engines : sequence of str
        Names in the module, of which the call uses one; some may not be there.
    context : Context
    """
    said, called = {}, []

    def forbidding(engine):
        def run(*arguments, **options):
            called.append(engine)
            try:
                with waits.refused(context.device):
                    return engine(*arguments, **options)
            except RuntimeError as error:
                if waits.WORDS in str(error):
                    said["first"] = waits.place(waits.traceback.extract_tb(error.__traceback__))
                raise

        return run

    there = [name for name in engines if callable(getattr(module, name, None))]
    patches = {name: forbidding(getattr(module, name)) for name in there}
    with mock.patch.dict(vars(module), patches):
        try:
            call(FEW)
        except RuntimeError:
            # Anything else is a failure, and is recorded as one.
            if "first" not in said:
                raise
    if not called:
        raise RuntimeError(f"{call.__name__} called no engine of the names {engines}")
    context.entry(call=call.__name__, mode="error", passed=not said, first=said.get("first"))
    print(f"{call.__name__} where waits are errors: {said.get('first', 'passed')}")
