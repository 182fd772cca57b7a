"""Kinds of operations, from the type and the name of an operation in a graph."""

import re
from collections.abc import Mapping

PRODUCTS = "matrix products (with fused)"
ATTENTION = "batched products (attention)"
SOFTMAX = "softmax"
ACTIVATION = "activation"
ELEMENTWISE = "norms, sums, element-wise"
MOVING = "moving data"
EMBEDDING = "embedding lookups, hashing"
OPTIMIZER = "optimizer updates"
CONTROL = "control flow"
REST = "rest"

# Without what _VARIANT takes off; lower-case names are XLA's own operations.
_TYPES = {
    PRODUCTS: "MatMul SparseMatMul Conv2D Conv2DBackpropInput Conv2DBackpropFilter",
    ATTENTION: "BatchMatMul Einsum",
    SOFTMAX: "Softmax LogSoftmax",
    ACTIVATION: "Erf Erfc Gelu Relu Relu6 LeakyRelu Elu Selu Swish Mish Softplus Softsign Sigmoid Tanh",
    ELEMENTWISE: (
        "Abs Add AddN Sub Mul MulNoNan Div DivNoNan RealDiv FloorDiv FloorMod Mod Neg Square "
        "SquaredDifference Sqrt Rsqrt Reciprocal Inv Pow Exp Expm1 Log Log1p Sin Cos Maximum "
        "Minimum ClipByValue Cast Sign Round Floor Ceil UnaryOpsComposition BiasAdd L2Loss Sum "
        "Mean Prod Max Min All Any ArgMax ArgMin Cumsum Cumprod TopK OneHot IsFinite IsNan Equal "
        "NotEqual Less LessEqual Greater GreaterEqual ApproximateEqual LogicalAnd LogicalOr "
        "LogicalNot Select Xlogy LayerNorm FusedBatchNorm Bincount DenseBincount fusion reduce"
    ),
    MOVING: (
        "Concat Split SplitV Slice StridedSlice Pack Unpack Transpose ConjugateTranspose Reshape "
        "ExpandDims Squeeze Tile Pad BroadcastTo Gather GatherNd ScatterNd TensorScatterUpdate "
        "TensorScatterAdd UnsortedSegmentSum SegmentSum DynamicPartition DynamicStitch "
        "ParallelDynamicStitch Where Fill ZerosLike OnesLike Range Copy ReadVariableOp "
        "VariableShape Shape Size Rank Identity IdentityN Snapshot Reverse InvertPermutation "
        "TensorListPushBack TensorListPopBack TensorListStack TensorListFromTensor "
        "TensorListGetItem TensorListSetItem TensorListReserve TensorListConcat Send Recv "
        "HostSend HostRecv copy transpose broadcast concatenate slice gather scatter"
    ),
    EMBEDDING: (
        "ResourceGather ResourceGatherNd SparseSegmentSum SparseSegmentMean "
        "StringToHashBucketFast StringToHashBucketStrong StringToHashBucket LookupTableFind "
        "AsString StringLower StringStrip"
    ),
    OPTIMIZER: (
        "AssignVariableOp AssignAddVariableOp AssignSubVariableOp ResourceScatterAdd "
        "ResourceScatterSub ResourceScatterUpdate ResourceApplyAdam ResourceApplyAdagrad "
        "ResourceSparseApplyAdagrad ResourceApplyGradientDescent"
    ),
    CONTROL: (
        "While If Case PartitionedCall StatefulPartitionedCall SymbolicGradient Switch RefSwitch "
        "Merge Enter Exit NextIteration LoopCond NoOp Assert"
    ),
}
_KIND_OF = {name: kind for kind, names in _TYPES.items() for name in names.split()}

# The operations of activations and softmax, forward and backward, are in a scope of that name.
_SCOPES = {"gelu": ACTIVATION, "silu": ACTIVATION, "softplus": ACTIVATION, "softmax": SOFTMAX}
_FUSED = re.compile(r"^_*(Mkl|Onednn|OneDnn)?(Native)?(Fused)?(?=[A-Z])")
_VARIANT = re.compile(r"^Stateless|(V\d|Grad)$")
_ORDINAL = re.compile(r"(_\d+|_grad)+$")


def kind_of(node: str, operation: str, scopes: Mapping[str, str] | None = None) -> str:
    """The kind of a ``node`` such as ``loopctr/ffn/Gelu/mul`` with type ``operation``.

    What graph rewriting puts in its place, such as ``_MklFusedMatMul``, has the same kind. ``scopes``
    are parts of names with the kind of all operations under them, e.g. an optimizer's.
    """
    parts = {_ORDINAL.sub("", part).lower() for part in node.split("/")[:-1]}
    for scope, kind in (scopes or {}).items():
        if _ORDINAL.sub("", scope).lower() in parts:
            return kind
    operation = _VARIANT.sub("", operation)
    kind = _KIND_OF.get(operation) or _KIND_OF.get(_FUSED.sub("", operation), REST)
    if kind in (ELEMENTWISE, MOVING):
        return next((_SCOPES[part] for part in sorted(parts) if part in _SCOPES), kind)
    return kind
