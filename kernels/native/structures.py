"""The structures that the C kernels read (source/kernels.h), field by field."""

import ctypes
from enum import IntEnum

__all__ = ["AttentionShape", "DecoderLayerWeights", "Form", "ProjectionWeights", "StepGroup", "StepRow"]


class Form(IntEnum):
    """What a projection's weights are: numbers of the model's dtype, or quantised."""

    ELEMENTS = 0
    W8A8 = 1
    INT4 = 2


class StepRow(ctypes.Structure):
    """One row of a step, or a branch of a row's draft tree: the last n_queries positions out of context. table: address
    of its pages, int32. branch: address of the places where the keys of positions from branch_from on lie, int32, for a
    branch; else they lie where their positions are."""

    _fields_ = (
        ("first_token", ctypes.c_int32),
        ("n_queries", ctypes.c_int32),
        ("context", ctypes.c_int32),
        ("branch_from", ctypes.c_int32),
        ("table", ctypes.c_void_p),
        ("branch", ctypes.c_void_p),
    )


class StepGroup(ctypes.Structure):
    """Where a step's rows lie in one KV group: addresses of StepRow [n_rows] and of int64 slots [tokens]."""

    _fields_ = (("rows", ctypes.c_void_p), ("slots", ctypes.c_void_p), ("n_rows", ctypes.c_int32))


class AttentionShape(ctypes.Structure):
    """What is the same for all rows of a layer. window 0 and softcap 0 are none."""

    _fields_ = (
        ("n_heads", ctypes.c_int32),
        ("n_kv_heads", ctypes.c_int32),
        ("head_dim", ctypes.c_int32),
        ("block_size", ctypes.c_int32),
        ("window", ctypes.c_int32),
        ("scale", ctypes.c_float),
        ("softcap", ctypes.c_float),
    )


class ProjectionWeights(ctypes.Structure):
    """One matrix product. scale (float32) and sum (int32) only where form is W8A8; bias (float32) or 0."""

    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("sum", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("n_in", ctypes.c_int32),
        ("n_out", ctypes.c_int32),
        ("form", ctypes.c_int32),
    )


class DecoderLayerWeights(ctypes.Structure):
    """One layer of a decoder. q_norm and k_norm may be 0; group, rope: which of a step's KV groups and rotations."""

    _fields_ = (
        ("input_norm", ctypes.c_void_p),
        ("q_norm", ctypes.c_void_p),
        ("k_norm", ctypes.c_void_p),
        ("mlp_norm", ctypes.c_void_p),
        ("qkv", ProjectionWeights),
        ("output", ProjectionWeights),
        ("gate_up", ProjectionWeights),
        ("down", ProjectionWeights),
        ("pages", ctypes.c_void_p),
        ("shape", AttentionShape),
        ("group", ctypes.c_int32),
        ("rope", ctypes.c_int32),
    )
