"""Many small CP fits at once, a thread block each, beside the library's fits one by one."""

from bench.gpu_parts.calls import SWEEPS, Call, Maker
from bench.gpu_parts.clock import Clock, summary
from tensorfast.cuda.compiler import missing

#: The batch of the design, then other orders, ranks and types, and one tensor by itself.
CALLS = (
    Call("fits", (10_000, 16, 16, 16), rank=8),
    Call("fits", (1, 16, 16, 16), rank=8),
    Call("fits", (10_000, 16, 16, 16), rank=16),
    Call("fits", (10_000, 16, 16, 16), rank=8, dtype="float64"),
    Call("fits", (10_000, 8, 8, 8, 8), rank=8),
    Call("fits", (10_000, 5, 5, 5, 5, 5), rank=8),
    Call("fits", (2_000, 32, 32, 32), rank=8),
    # What a cluster of blocks holds.
    Call("fits", (500, 56, 56, 56), rank=8),
    Call("fits", (500, 20, 20, 20, 20), rank=8),
    Call("fits", (1, 20, 20, 20, 20), rank=8),
)

REHEARSED = (Call("fits", (3, 4, 5, 6), rank=2),)

#: Seconds in which a call is made and measured.
NEEDED = 2.0


def run(context):
    """Measure call by call; where nothing can be compiled, say why."""
    absent = missing() if context.device.type == "cuda" else ()
    clock, maker = Clock(context.device), Maker(context.device)
    for call in REHEARSED if context.rehearse else CALLS:
        if absent:
            context.missing(str(call), "; ".join(absent))
        elif context.enough(str(call), NEEDED):
            with context.guard(str(call)):
                measure(call, maker, clock, context)
    for told in context.record["entries"]:
        print(f"{told['call']}: {told['ms']:.3g} ms", end="")
        print(f", predicted {told['predicted_ms']:.3g} ms, error {told['error']:.1e}")


def measure(call, maker, clock, context):
    """Measure one call, and add the entry.

    Parameters
    ----------
    call : Call
    maker : Maker
    clock : Clock
    context : Context
    """
    made = maker.make(call)
    error = made.error(made.ours())
    again = made.error(made.ours())
    found = summary(clock.laps(made.ours))
    context.entry(
        call=str(call),
        batch=call.shape[0],
        shape=call.shape[1:],
        rank=call.rank,
        dtype=call.dtype,
        sweeps=SWEEPS,
        error=error,
        repeats=error == again,
        tflops=1e-9 * made.flops / found["ms"],
        predicted_ms=1e3 * made.seconds,
        **found,
    )
