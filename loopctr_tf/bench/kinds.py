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

# Lower-case names are XLA's own operations.
_TYPES = {
    PRODUCTS: "MatMul SparseMatMul Conv2D Conv2DBackpropInput Conv2DBackpropFilter",
    ATTENTION: "BatchMatMul BatchMatMulV2 BatchMatMulV3 Einsum",
    SOFTMAX: "Softmax LogSoftmax",
    ACTIVATION: (
        "Erf Erfc Gelu GeluGrad Relu ReluGrad Relu6 Relu6Grad LeakyRelu LeakyReluGrad Elu EluGrad "
        "Selu SeluGrad Swish Mish Softplus SoftplusGrad Softsign SoftsignGrad Sigmoid SigmoidGrad "
        "Tanh TanhGrad"
    ),
    ELEMENTWISE: (
        "Abs Add AddN AddV2 Sub Mul MulNoNan Div DivNoNan RealDiv FloorDiv FloorMod Mod Neg Square "
        "SquaredDifference Sqrt SqrtGrad Rsqrt RsqrtGrad Reciprocal Inv InvGrad ReciprocalGrad Pow "
        "Exp Expm1 Log Log1p Sin Cos Maximum Minimum ClipByValue Cast Sign Round Floor Ceil "
        "UnaryOpsComposition BiasAdd BiasAddV1 BiasAddGrad L2Loss Sum Mean Prod Max Min All Any ArgMax "
        "ArgMin Cumsum Cumprod TopK TopKV2 OneHot IsFinite IsNan Equal NotEqual Less LessEqual Greater "
        "GreaterEqual ApproximateEqual LogicalAnd LogicalOr LogicalNot Select SelectV2 Xlogy LayerNorm "
        "FusedBatchNormV3 Bincount DenseBincount fusion reduce"
    ),
    MOVING: (
        "Concat ConcatV2 Split SplitV Slice StridedSlice StridedSliceGrad Pack Unpack Transpose "
        "ConjugateTranspose Reshape ExpandDims Squeeze Tile Pad PadV2 BroadcastTo Gather GatherV2 "
        "GatherNd ScatterNd TensorScatterUpdate TensorScatterAdd UnsortedSegmentSum SegmentSum "
        "DynamicPartition DynamicStitch ParallelDynamicStitch Where Fill ZerosLike OnesLike Range Copy "
        "ReadVariableOp VariableShape Shape Size Rank Identity IdentityN Snapshot ReverseV2 "
        "InvertPermutation "
        "TensorListPushBack TensorListPopBack TensorListStack TensorListFromTensor TensorListGetItem "
        "TensorListSetItem TensorListReserve TensorListConcatV2 Send Recv HostSend HostRecv "
        "copy transpose broadcast concatenate slice gather scatter"
    ),
    EMBEDDING: (
        "ResourceGather ResourceGatherNd SparseSegmentSum SparseSegmentMean StringToHashBucketFast "
        "StringToHashBucketStrong StringToHashBucket LookupTableFind LookupTableFindV2 AsString "
        "StringLower StringStrip"
    ),
    OPTIMIZER: (
        "AssignVariableOp AssignAddVariableOp AssignSubVariableOp ResourceScatterAdd ResourceScatterSub "
        "ResourceScatterUpdate ResourceApplyAdam ResourceApplyAdagradV2 "
        "ResourceSparseApplyAdagradV2 ResourceApplyGradientDescent"
    ),
    CONTROL: (
        "While StatelessWhile If StatelessIf Case StatelessCase PartitionedCall "
        "StatefulPartitionedCall SymbolicGradient Switch RefSwitch Merge Enter Exit NextIteration "
        "LoopCond NoOp Assert"
    ),
}
_KIND_OF = {name: kind for kind, names in _TYPES.items() for name in names.split()}

# The operations of activations and softmax, forward and backward, are in a scope of that name.
_SCOPES = {"gelu": ACTIVATION, "silu": ACTIVATION, "softplus": ACTIVATION, "softmax": SOFTMAX}
_FUSED = re.compile(r"^_*(Mkl|Onednn|OneDnn)?(Native)?(Fused)?(?=[A-Z])")
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
    kind = _KIND_OF.get(operation) or _KIND_OF.get(_FUSED.sub("", operation), REST)
    if kind in (ELEMENTWISE, MOVING):
        return next((_SCOPES[part] for part in sorted(parts) if part in _SCOPES), kind)
    return kind
