"""Operations on threads or GPU streams, from a profile of TensorFlow."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from tensorflow.compiler.xla.service import hlo_pb2
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from loopctr_tf.bench import kinds

_GPU = "/device:GPU"
_PRODUCTS = {"dot": "MatMul", "convolution": "Conv2D"}
# These only wait for what they call, which has events of its own.
_CALLS = {"PartitionedCall", "StatefulPartitionedCall", "XlaLaunch", "XlaLaunchV2", "_XlaRun"}


class Event(NamedTuple):
    """One run of an operation; times in picoseconds."""

    start: int
    end: int
    node: str
    operation: str


class Trace(NamedTuple):
    """A profile of calls that took ``seconds``.

    ``lines`` are operations by thread, or by stream with ``on_gpu``, in the order of their start; of
    nested operations the outer one first.
    """

    lines: list[list[Event]]
    seconds: float
    on_gpu: bool


def record(call: Callable[[], object], calls: int) -> Trace:
    """Profiles ``calls`` calls."""
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        try:
            start = time.perf_counter()
            for _ in range(calls):
                call()
            seconds = time.perf_counter() - start
        finally:
            tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace()
        for file in Path(folder).rglob("*.xplane.pb"):
            space.MergeFromString(file.read_bytes())
    return read(space, seconds)


def read(space: xplane_pb2.XSpace, seconds: float) -> Trace:
    """The operations in a profile: those of a GPU if there are any, else the processor's."""
    compiled = dict(_compiled(space))
    for prefix in (_GPU, "/host:CPU"):
        planes = [plane for plane in space.planes if plane.name.startswith(prefix)]
        lines = [_events(plane, line, compiled) for plane in planes for line in plane.lines]
        if any(lines):
            return Trace([line for line in lines if line], seconds, on_gpu=prefix == _GPU)
    return Trace([], seconds, on_gpu=False)


def _events(plane, line, compiled) -> list[Event]:
    events = []
    for event in line.events:
        if named := _operation(plane, event, compiled):
            start = line.timestamp_ns * 1000 + event.offset_ps
            events.append(Event(start, start + event.duration_ps, *named))
    return sorted(events, key=lambda event: (event.start, -event.end))


def _operation(plane, event, compiled) -> tuple[str, str] | None:
    """(node, operation) of an event; None for events of executors, readers and scopes."""
    about = plane.event_metadata[event.metadata_id]
    name, operation = about.name, about.display_name
    stats = {plane.stat_metadata[stat.metadata_id].name: stat for stat in event.stats}
    if "hlo_op" in stats:
        module, op = (_text(plane, stats.get(key)) for key in ("hlo_module", "hlo_op"))
        return compiled.get((module, op), (op, "XLA"))
    if plane.name.startswith(_GPU):
        if "tf_op" in stats:  # the operation that a kernel ran for
            node, _, operation = _text(plane, stats["tf_op"]).rpartition(":")
            return node, operation
        return name, "Copy" if name.lower().startswith("mem") else "kernel"
    node, _, last = name.rpartition(":")
    if not operation or operation != last or "::" in name:
        return None
    # Run eagerly, a function has its own name for a type.
    calls = operation in _CALLS or operation.startswith("__")
    return None if calls else (node, operation)


def _text(plane, stat) -> str:
    if stat is None:
        return ""
    return stat.str_value or plane.stat_metadata[stat.ref_value].name


def _compiled(space) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    """What XLA made of a graph: (module, instruction), (node, operation) that it stands for."""
    for plane in space.planes:
        stats = (stat for about in plane.event_metadata.values() for stat in about.stats)
        for stat in stats:
            if plane.stat_metadata[stat.metadata_id].name == "Hlo Proto":
                yield from _instructions(hlo_pb2.HloProto.FromString(stat.bytes_value).hlo_module)


def _instructions(module) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    inside = {computation.id: computation for computation in module.computations}

    def meant(instruction) -> tuple[str, str]:
        if instruction.opcode in _PRODUCTS:
            batched = len(instruction.dot_dimension_numbers.lhs_batch_dimensions)
            kind = "BatchMatMulV2" if batched else _PRODUCTS[instruction.opcode]
            return instruction.metadata.op_name, kind
        if instruction.opcode == "fusion":
            # A product is what a fusion is for; else it is called what its last operation is.
            for called in instruction.called_computation_ids:
                for part in inside[called].instructions:
                    if part.opcode in ("fusion", *_PRODUCTS):
                        deeper = meant(part)
                        if kinds.kind_of(*deeper) in (kinds.PRODUCTS, kinds.ATTENTION):
                            return deeper
        if instruction.opcode in ("while", "conditional", "call"):
            return instruction.metadata.op_name, "While"
        return instruction.metadata.op_name, instruction.metadata.op_type or instruction.opcode

    for computation in module.computations:
        for instruction in computation.instructions:
            yield (module.name, instruction.name), meant(instruction)
