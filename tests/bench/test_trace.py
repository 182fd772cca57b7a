"""What the profiler recorded is read as the operations that ran: all of them, and nothing else."""

from collections import Counter

import pytest
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from loopctr_tf.bench.trace import Event, read, record

SIDE = 200


@tf.function
def graph(x):
    """Three products and one erf; a loop with one sine in each of its four turns."""
    y = tf.math.erf((x @ x) @ x)
    z = tf.while_loop(lambda i, _: i < 4, lambda i, z: (i + 1, tf.sin(z)), (0, y @ x))[1]
    return tf.reduce_sum(z)


def counted(trace) -> Counter:
    return Counter(event.operation.removeprefix("_Mkl") for line in trace.lines for event in line)


@pytest.fixture(scope="module")
def matrix():
    return tf.random.stateless_normal((SIDE, SIDE), (1, 2))


def test_operations_of_a_known_graph(matrix):
    graph(matrix)
    trace = record(lambda: graph(matrix).numpy(), calls=2)
    found = counted(trace)
    wanted = {"MatMul": 2 * 3, "Erf": 2, "Sin": 2 * 4, "Sum": 2}
    assert {operation: found[operation] for operation in wanted} == wanted
    # Beside them the loop's counter alone.
    assert set(found) <= {*wanted, "AddV2", "Less"}
    assert not trace.on_gpu
    assert all(event.end - event.start > 0 for line in trace.lines for event in line)
    spent = sum(event.end - event.start for line in trace.lines for event in line)
    assert spent / 1e12 < trace.seconds * len(trace.lines)


def test_what_xla_compiled_stands_for_its_operations(matrix):
    compiled = tf.function(graph.python_function, jit_compile=True)
    compiled(matrix)
    found = counted(record(lambda: compiled(matrix).numpy(), calls=1))
    assert found["MatMul"] == 3
    assert found["Erf"] == 1


def space(plane_name: str, lines, stats=("hlo_op", "hlo_module", "tf_op")):
    """A profile of (name, type, start ns, duration ns, {stat: text}) a line."""
    found = xplane_pb2.XSpace()
    plane = found.planes.add(name=plane_name)
    for number, name in enumerate(stats, 1):
        plane.stat_metadata[number].name = name
    for start, events in lines:
        line = plane.lines.add(timestamp_ns=start)
        for name, operation, offset, duration, texts in events:
            key = len(plane.event_metadata) + 1
            plane.event_metadata[key].name = name
            plane.event_metadata[key].display_name = operation
            event = line.events.add(
                metadata_id=key, offset_ps=1000 * offset, duration_ps=1000 * duration
            )
            for stat, text in texts.items():
                event.stats.add(metadata_id=1 + stats.index(stat), str_value=text)
    return found


def test_scopes_executors_readers_and_calls_are_no_operations():
    events = [
        ("train_function", "", 0, 90, {}),
        ("ExecutorState::Process", "", 1, 80, {}),
        ("EagerLocalExecute: __inference_f_1", "", 1, 80, {}),
        ("Iterator::Root::Prefetch", "Iterator::Prefetch", 2, 3, {}),
        ("__inference_f_1:__inference_f_1", "__inference_f_1", 3, 70, {}),
        ("call/StatefulPartitionedCall:StatefulPartitionedCall", "StatefulPartitionedCall", 3, 9, {}),
        ("MemoryAllocation", "", 20, 0, {"tf_op": "b/mul"}),
        ("b/mul:Mul", "Mul", 20, 5, {}),
        ("a/MatMul:MatMul", "MatMul", 10, 30, {}),
    ]  # fmt: skip
    found = read(space("/host:CPU", [(7, events)]), 1.0)
    # In the order of their start, on one clock.
    assert found.lines == [
        [Event(17_000, 47_000, "a/MatMul", "MatMul"), Event(27_000, 32_000, "b/mul", "Mul")]
    ]


def test_a_gpu_is_looked_at_where_it_ran_anything():
    kernels = [
        ("ampere_sgemm", "", 0, 5, {"tf_op": "a/MatMul:MatMul"}),
        ("MemcpyH2D", "", 6, 1, {}),
        ("some_kernel", "", 8, 1, {}),
    ]
    found = space("/device:GPU:0", [(0, kernels)])
    found.MergeFrom(space("/host:CPU", [(0, [("a/MatMul:MatMul", "MatMul", 0, 1, {})])]))
    trace = read(found, 1.0)
    assert trace.on_gpu
    (line,) = trace.lines
    assert [event.operation for event in line] == ["MatMul", "Copy", "kernel"]
    idle = space("/device:GPU:0", [(0, [])])
    idle.MergeFrom(space("/host:CPU", [(0, [("a/MatMul:MatMul", "MatMul", 0, 1, {})])]))
    assert not read(idle, 1.0).on_gpu
