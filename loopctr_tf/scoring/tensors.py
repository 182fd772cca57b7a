"""TensorProto to NumPy and back, whole tensors at a time.

Numbers are sent in ``tensor_content`` (raw little-endian bytes), strings in ``string_val``. Read are
``tensor_content``, one value a field, and the short form in which the last value stands for the rest.
Written here rather than with ``tf.make_tensor_proto``, which takes 7 times as long.
"""

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

_SENDABLE = frozenset(
    dtype.as_datatype_enum
    for dtype in (
        *(tf.float16, tf.bfloat16, tf.float32, tf.float64, tf.complex64, tf.complex128),
        *(tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16, tf.uint32, tf.uint64),
        *(tf.bool, tf.string),
    )
)
_MAX_RANK = 64  # NumPy's own
_MAX_ELEMENTS = 2**62


def numpy_dtype(data_type: int) -> np.dtype:
    """The NumPy type of a DataType enum value; strings are ``object`` arrays of bytes.

    Raises:
      ValueError: for a type that no request or response may hold.
    """
    if data_type not in _SENDABLE:
        raise ValueError(f"data type {data_type} is not one that a tensor can be sent in")
    return np.dtype(tf.dtypes.as_dtype(data_type).as_numpy_dtype)


def data_type_name(data_type: int) -> str:
    """TensorFlow's short name of a DataType enum value: "float", "int64", "string"."""
    try:
        return types_pb2.DataType.Name(data_type)[len("DT_") :].lower()
    except ValueError:
        return f"unknown type {data_type}"


def shape_text(shape) -> str:
    """A shape the way TensorFlow prints it: ``[2,3]``, ``[?,8]``."""
    return "[" + ",".join("?" if size in (None, -1) else str(size) for size in shape) + "]"


def to_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    """Packs an array of any shape.

    Args:
      array: numbers, booleans, or strings (``object`` with bytes or str elements, "S" or "U").

    Raises:
      ValueError: for a type that TensorFlow does not have, or an element that is not a string.
    """
    array = np.asarray(array)
    proto = tensor_pb2.TensorProto()
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if array.dtype.kind in "OSU":
        proto.dtype = types_pb2.DT_STRING
        proto.string_val.extend(encode_strings(array.ravel().tolist()))
        return proto
    try:
        proto.dtype = tf.dtypes.as_dtype(array.dtype).as_datatype_enum
    except TypeError as error:
        raise ValueError(f"TensorFlow has no type for NumPy's {array.dtype}") from error
    proto.tensor_content = array.tobytes()
    return proto


def encode_strings(values: list) -> list[bytes]:
    """Bytes as they are and text as UTF-8.

    Raises:
      ValueError: for an element that is neither, with its position and value.
    """
    types = set(map(type, values))
    if types <= {bytes}:
        return values
    try:
        if types == {str}:
            return list(map(str.encode, values))
        for position, value in enumerate(values):
            if not isinstance(value, (str, bytes)):
                raise ValueError(f"value {position} is {value!r}, not a string")
        return [value.encode() if isinstance(value, str) else bytes(value) for value in values]
    except UnicodeEncodeError as error:
        raise ValueError(f"{error.object[:20]!r} cannot be written as UTF-8") from error


def to_array(proto: tensor_pb2.TensorProto, max_bytes: int = 1 << 30) -> np.ndarray:
    """Unpacks a tensor; strings become an ``object`` array of bytes.

    Args:
      proto: the tensor, from a caller that is not trusted.
      max_bytes: most memory that a short form (few values for many elements) may unfold to.

    Raises:
      ValueError: for an unknown type, an invalid shape, or contents that do not fill the shape.
    """
    dtype = numpy_dtype(proto.dtype)
    shape = _shape(proto)
    count = math.prod(shape)
    if proto.tensor_content:
        if proto.dtype == types_pb2.DT_STRING:
            return _unpack_strings(proto, count)
        if len(proto.tensor_content) != count * dtype.itemsize:
            size = len(proto.tensor_content)
            raise ValueError(f"{size} bytes for {count} elements of {dtype}")
        if proto.dtype == types_pb2.DT_BOOL:  # any byte other than 0 is true
            return (np.frombuffer(proto.tensor_content, np.uint8) != 0).reshape(shape)
        return np.frombuffer(proto.tensor_content, dtype).reshape(shape)
    if count * dtype.itemsize > max_bytes:
        raise ValueError(f"shape {shape_text(shape)} is larger than {max_bytes} bytes")
    if proto.dtype == types_pb2.DT_STRING:
        strings = list(proto.string_val[:count])
        strings += [strings[-1] if strings else b""] * (count - len(strings))
        return object_array(strings).reshape(shape)
    try:
        return tf.make_ndarray(proto)
    except OverflowError as error:
        raise ValueError(f"a value is outside the range of {dtype}") from error


def _shape(proto: tensor_pb2.TensorProto) -> tuple[int, ...]:
    if proto.tensor_shape.unknown_rank:
        raise ValueError("the tensor's rank is unknown")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if len(shape) > _MAX_RANK:
        raise ValueError(f"the tensor has {len(shape)} dimensions; at most {_MAX_RANK} are allowed")
    if any(size < 0 for size in shape):
        raise ValueError(f"shape {shape_text(shape)} has a negative size")
    # without zeros: TensorFlow refuses a shape whose other sizes overflow, empty or not
    if math.prod(size for size in shape if size) > _MAX_ELEMENTS:
        raise ValueError(f"shape {shape_text(shape)} has too many elements")
    return shape


def object_array(values: list[bytes]) -> np.ndarray:
    """An array of one axis, also for no strings or one."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _unpack_strings(proto: tensor_pb2.TensorProto, count: int) -> np.ndarray:
    """TensorFlow's packing of strings: every length as a varint, then all bytes concatenated."""
    try:
        # each string takes a byte or more: no memory for strings that cannot be there
        if count > len(proto.tensor_content):
            raise ValueError("fewer bytes than strings")
        return tf.io.parse_tensor(proto.SerializeToString(), tf.string).numpy()
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        size = len(proto.tensor_content)
        raise ValueError(f"{size} bytes do not hold {count} packed strings") from error
