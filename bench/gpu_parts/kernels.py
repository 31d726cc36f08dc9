"""Every kernel by itself: time on the device, share of the roof, error, all beside plain torch."""

import multiprocessing

from bench.gpu_parts import machine
from bench.gpu_parts.calls import Maker, calls
from bench.gpu_parts.clock import Clock, products_in, summary
from bench.threads import cores

#: Processes that compile at once, and the share of the time that they may take.
COMPILERS, COMPILING = 12, 0.5

#: Seconds in which a call is made and measured, once it is compiled.
NEEDED = 1.0


def run(context):
    """Compile all kernels, a few processes at once, then measure call by call."""
    chosen = calls()
    if context.rehearse:
        chosen = calls(cube=12, small=7, ranks=(4, 3))
    roofs = machine.known_roofs(context)
    context.tell(roofs=roofs)
    with context.guard("compiling ahead", ours=False):
        compile_ahead(chosen, context)
    clock, maker = Clock(context.device), Maker(context.device)
    # The data stay where they are from one call to the next.
    for call in sorted(
        chosen, key=lambda c: (c.dtype != "float32", c.shape[:1] != chosen[0].shape[:1])
    ):
        if not context.enough(str(call), NEEDED):
            continue
        with context.guard(str(call)), products_in("tf32" if call.precision == "tf32" else "ieee"):
            measure(call, maker, clock, roofs, context)
    entries = context.record["entries"]
    print(f"{len(entries)} of {len(chosen)} calls measured")
    for told in entries[:24]:
        times = f"{told['ours']['ms']:.3g} ms, torch {told['torch']['ms'] or 0:.3g} ms"
        print(f"{told['call']}: {times}, {told['roof_percent']:.0f} % of the roof", end="")
        print(f", error {told['error']:.1e}, torch {told['torch_error'] or 0:.1e}")


def measure(call, maker, clock, roofs, context):
    """Measure one call and its rival, and add the entry.

    Parameters
    ----------
    call : Call
    maker : Maker
    clock : Clock
    roofs : dict
    context : Context
    """
    made = maker.make(call)
    error = made.error(made.ours())
    ours = summary(clock.laps(made.ours))
    host = clock.host(made.ours)
    theirs, their_error = {"ms": None}, None
    with context.guard(f"torch: {call}", ours=False):
        their_error = made.error(made.rival())
        theirs = summary(clock.laps(made.rival))
    seconds, roof = ours["ms"] * 1e-3, made.bytes / (1e9 * roofs["copy_gbs"])
    if made.mode:
        roof = max(roof, made.flops / machine.rate(roofs, made.mode, call.dtype))
    context.entry(
        call=str(call),
        op=call.op,
        shape=call.shape,
        mode=call.mode,
        rank=call.rank,
        dtype=call.dtype,
        precision=call.precision,
        arithmetic=made.mode,
        ours=ours,
        torch=theirs,
        error=error,
        torch_error=their_error,
        flops=made.flops,
        bytes=made.bytes,
        gbs=1e-9 * made.bytes / seconds,
        tflops=1e-12 * made.flops / seconds,
        roof_ms=1e3 * roof,
        roof_percent=100 * roof / seconds,
        predicted_ms=None if made.seconds is None else 1e3 * made.seconds,
        host_us=1e6 * host,
    )


def compile_ahead(chosen, context):
    """Make every call once, in processes of their own, so that Triton's cache has the kernels.

    What fails there fails again where it is measured, and is reported then.

    Parameters
    ----------
    chosen : list of Call
    context : Context
    """
    number = 1 if context.rehearse else min(COMPILERS, cores())
    chosen = chosen[:1] if context.rehearse else chosen
    # Calls next to each other share the data.
    each = -(-len(chosen) // number)
    shares = [chosen[at : at + each] for at in range(0, len(chosen), each)]
    with multiprocessing.get_context("spawn").Pool(number) as pool:
        about = [(share, context.device.type) for share in shares]
        try:
            pool.starmap_async(_make_once, about, chunksize=1).get(COMPILING * context.left)
        except multiprocessing.TimeoutError:
            context.missing("compiling ahead", "took too long")


def _make_once(share, device):
    import torch

    maker = Maker(torch.device(device))
    for call in share:
        try:
            maker.make(call).ours()
        except Exception as error:
            print(f"compiling {call}: {type(error).__name__}")
