"""Masks against a spelled-out definition, and the block masks against the dense ones."""

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from tessera.nn.geometry import SPARSE_BLOCK, Layout, block, dense, pattern, sparse_table

LAYOUT = Layout(text=6, grid=7)
NAMES = ("full", "axial_row", "axial_col", "conv_like", "conv_centred", "sparse")


def spelled_out(name: str, q: int, k: int) -> bool:
    """May position q see position k? Written as one would say it."""
    if k > q:
        return False
    if name == "sparse":
        return bool(sparse_table(LAYOUT)[q // SPARSE_BLOCK, k // SPARSE_BLOCK])
    if name == "full" or q < LAYOUT.text or k < LAYOUT.text:
        return True
    (rq, cq), (rk, ck) = (divmod(p - LAYOUT.text, LAYOUT.grid) for p in (q, k))
    return {
        "axial_row": rq == rk,
        "axial_col": cq == ck,
        "conv_like": rq - 4 <= rk <= rq and cq - 4 <= ck <= cq,
        "conv_centred": abs(rq - rk) <= 2 and abs(cq - ck) <= 2,
    }[name]


@pytest.mark.parametrize("name", NAMES)
def test_mask_is_its_definition(name):
    n = LAYOUT.length
    expected = torch.tensor([[spelled_out(name, q, k) for k in range(n)] for q in range(n)])
    assert torch.equal(dense(pattern(name, LAYOUT), n), expected)


@pytest.mark.parametrize("name", NAMES)
def test_every_position_sees_itself(name):
    assert dense(pattern(name, LAYOUT), LAYOUT.length).diagonal().all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_flex_attention_agrees_with_the_dense_mask(name):
    n = LAYOUT.length
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, n, 16)
    dense_out = torch.nn.functional.scaled_dot_product_attention(q, k, v, dense(pattern(name, LAYOUT), n))
    flex_out = flex_attention(q, k, v, block_mask=block(pattern(name, LAYOUT), n))
    torch.testing.assert_close(flex_out, dense_out, atol=1e-5, rtol=1e-5)


def test_sparse_hides_something():
    big = Layout(text=17, grid=16)
    mask = dense(pattern("sparse", big), big.length)
    full = dense(pattern("full", big), big.length)
    assert 0.2 < mask.sum() / full.sum() < 0.8
