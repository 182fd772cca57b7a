"""Operations are of the kind that an engineer would say, whatever the graph was rewritten to."""

import pytest

from loopctr_tf.bench import kinds
from loopctr_tf.bench.kinds import kind_of


@pytest.mark.parametrize(
    ("node", "operation", "kind"),
    [
        ("loopctr/ffn/MatMul", "MatMul", kinds.PRODUCTS),
        ("loopctr/ffn/BiasAdd", "_MklNativeFusedMatMul", kinds.PRODUCTS),
        ("loopctr/ffn/BiasAdd", "_FusedMatMul", kinds.PRODUCTS),
        ("loopctr/einsum/Einsum", "_MklEinsum", kinds.ATTENTION),
        ("loopctr/Softmax", "_MklSoftmax", kinds.SOFTMAX),
        ("gradients/loop_block/Softmax_1_grad/mul", "Mul", kinds.SOFTMAX),
        ("loopctr/ffn/Gelu/Erfc", "Erfc", kinds.ACTIVATION),
        ("loopctr/ffn/Gelu_2/mul_1", "Mul", kinds.ACTIVATION),
        ("gradient_tape/ffn/Gelu/mul_grad/Sum", "Sum", kinds.ACTIVATION),
        ("loopctr/ffn/Gelu/MatMul", "MatMul", kinds.PRODUCTS),
        ("loopctr/Gelu", "Mul", kinds.ELEMENTWISE),
        ("loopctr/norm/Rsqrt", "Rsqrt", kinds.ELEMENTWISE),
        ("loopctr/transpose", "_MklTranspose", kinds.MOVING),
        ("loopctr/concat", "ConcatV2", kinds.MOVING),
        ("loopctr/embedding_lookup", "ResourceGather", kinds.EMBEDDING),
        ("loopctr/StringToHashBucketFast", "StringToHashBucketFast", kinds.EMBEDDING),
        ("AssignAddVariableOp", "AssignAddVariableOp", kinds.OPTIMIZER),
        ("while", "While", kinds.CONTROL),
        ("loopctr/some", "SomethingNew", kinds.REST),
    ],
)
def test_kinds(node, operation, kind):
    assert kind_of(node, operation) == kind


def test_an_optimizers_operations_are_all_its_own():
    scopes = {"AdamW": kinds.OPTIMIZER}
    assert kind_of("AdamW/AdamW/mul_3", "Mul", scopes) == kinds.OPTIMIZER
    assert kind_of("train/AdamW_1/Unique", "Unique", scopes) == kinds.OPTIMIZER
    assert kind_of("loopctr/AdamWide/mul", "Mul", scopes) == kinds.ELEMENTWISE
    assert kind_of("loopctr/mul", "Mul", scopes) == kinds.ELEMENTWISE


def test_a_type_has_one_kind():
    names = [name for names in kinds._TYPES.values() for name in names.split()]
    assert len(names) == len(set(names))
