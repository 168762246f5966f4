"""Attention against torch's math path, rotary embedding against the rotation of complex numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from effcc.errors import TypeRuleError
from effcc.ir import Symbol, Tensor, f32, i64
from effcc.ops.attention import Attention, RotaryEmbedding


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


@pytest.mark.parametrize("heads,shared", [(2, 2), (4, 2), (4, 1)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [None, "bool", "float", "row"])
def test_attention_is_torchs(decomposes, heads, shared, causal, mask):
    q, k, v = draw(2, heads, 5, 8), draw(2, shared, 7, 8, seed=1), draw(2, shared, 7, 3, seed=2)
    masks = {"bool": draw(2, heads, 5, 7) > 0, "float": draw(5, 7), "row": draw(2, 1, 1, 7) > -1}
    operands = (q, k, v) if mask is None else (q, k, v, masks[mask])
    out = decomposes(Attention(causal=causal), *operands, known=(heads, shared, 8))
    if not (causal and mask):
        want = F.scaled_dot_product_attention(*operands, is_causal=causal, enable_gqa=heads != shared)
        torch.testing.assert_close(out, want)


def test_scale_softcap_and_short_floats(decomposes):
    q, k, v = draw(2, 3, 4), draw(2, 6, 4), draw(2, 6, 4, seed=1)
    out = decomposes(Attention(scale=0.25, softcap=2.0), q, k, v)
    scores = 2.0 * torch.tanh(q @ k.mT * 0.25 / 2.0)
    torch.testing.assert_close(out, torch.softmax(scores, -1) @ v)
    for dtype in (torch.float16, torch.bfloat16):
        decomposes(Attention(causal=True), q.to(dtype), k.to(dtype), v.to(dtype), known=(4,))


def test_queries_that_attend_to_nothing_give_zeros(decomposes):
    q, k, v = draw(1, 2, 4), draw(1, 3, 4), draw(1, 3, 4)
    for mask in (torch.tensor([[True, False, True], [False] * 3]), torch.tensor([[0.0, 1, 2], [-torch.inf] * 3])):
        out = decomposes(Attention(), q, k, v, mask, known=(4,))
        assert out[0, 0].abs().sum() > 0 and out[0, 1].tolist() == [0, 0, 0, 0]
    assert decomposes(Attention(), q, k[:, :0], v[:, :0], known=(4,)).abs().sum() == 0
    assert decomposes(Attention(), q[:, :0], k, v, known=(4,)).shape == (1, 0, 4)


def test_attention_refuses():
    q, k = Tensor(f32, (2, 4, 5, 8)), Tensor(f32, (2, 4, 7, 8))
    for types, message in [
        ((q, k, Tensor(f32, (2, 4, 6, 8))), "lengths of k and v differ: 7 and 6"),
        ((q, Tensor(f32, (2, 3, 7, 8)), Tensor(f32, (2, 3, 7, 8))), "4 query heads are no multiple of 3 key heads"),
        ((q, k, k, Tensor(i64, (5, 7))), "neither bool nor float"),
        ((q, k, k, Tensor(f32, (4, 7))), "do not broadcast"),
        ((Tensor(f32, (5, 8)),) * 3, r"need axes \[B.., H, L, D\]"),
        ((Tensor(f32, (2, 5, Symbol("d"))),) * 3, "the head size is symbolic; give the scale"),
    ]:
        with pytest.raises(TypeRuleError, match=message):
            Attention().result_types(types)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("size,half", [(8, 4), (8, 2), (7, 3), (2, 1)])
def test_rotary_embedding_is_complex_rotation(agree, interleaved, size, half):
    x, angles = draw(2, 3, 5, size), draw(5, half)
    out = agree(RotaryEmbedding(interleaved), x, angles.cos(), angles.sin())
    if interleaved:
        pairs = torch.view_as_complex(x[..., : 2 * half].unflatten(-1, (half, 2)).contiguous())
        want = torch.view_as_real(pairs * torch.exp(1j * angles)).flatten(-2)
    else:
        turned = torch.complex(x[..., :half], x[..., half: 2 * half]) * torch.exp(1j * angles)
        want = torch.cat((turned.real, turned.imag), -1)
    torch.testing.assert_close(out, torch.cat((want, x[..., 2 * half:]), -1))
    agree(RotaryEmbedding(interleaved), x.half(), angles.cos(), angles.sin())
    agree(
        RotaryEmbedding(interleaved),
        x.bfloat16(),
        angles.cos().bfloat16()[None, None],
        angles.sin().bfloat16()[None, None],
    )
    agree(RotaryEmbedding(interleaved), x[:, :, :0], angles.cos()[:0], angles.sin()[:0])


def test_rotary_embedding_refuses():
    with pytest.raises(TypeRuleError, match="8 angles rotate 16 elements, the last axis has 8"):
        RotaryEmbedding().result_types((Tensor(f32, (5, 8)), Tensor(f32, (5, 8)), Tensor(f32, (5, 8))))
