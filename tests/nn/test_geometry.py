"""Masks against a spelled-out definition, and bands against dense masks."""

import pytest
import torch

from tessera.generate.rows import apart
from tessera.nn.attention import Visibility
from tessera.nn.geometry import SPARSE_BLOCK, Layout, dense, pattern, sparse_table

LAYOUT = Layout(text=6, grid=7)
NAMES = ("full", "axial_row", "axial_col", "conv_like", "conv_centred", "sparse")
BANDED = ("axial_row", "axial_col", "conv_like", "conv_centred")


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


def test_sparse_hides_something():
    big = Layout(text=17, grid=16)
    mask = dense(pattern("sparse", big), big.length)
    full = dense(pattern("full", big), big.length)
    assert 0.2 < mask.sum() / full.sum() < 0.8


@pytest.mark.parametrize("name", BANDED)
@pytest.mark.parametrize("missing", [0, 1, 7])
def test_bands_see_what_the_dense_mask_shows(name, missing):
    """Attention over bands of rows or columns against the dense mask, gradients included, whole and cut short."""
    layout = Layout(text=4, grid=6)
    sight = Visibility(name, layout)
    noise = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 3, layout.length - missing, 8, generator=noise).requires_grad_() for _ in range(3)]
    found, wanted = sight._banded(*inputs), sight._dense(*inputs)
    assert (found - wanted).abs().max() < 1e-5
    slopes = [torch.autograd.grad((y * y.detach().sin()).sum(), inputs) for y in (found, wanted)]
    assert all((a - b).abs().max() < 1e-5 for a, b in zip(*slopes, strict=True))


@pytest.mark.parametrize("name", ["axial_row", "conv_like"])
def test_large_grids_take_the_bands(name):
    assert Visibility(name, Layout(text=3, grid=32)).whole.__name__ == "_banded"
    assert Visibility(name, Layout(text=3, grid=16)).whole.__name__ == "_dense"


@pytest.mark.parametrize("name", NAMES)
def test_one_query_sees_what_the_dense_mask_shows(name):
    """Whether every key of the layout is there, or the keys end at the query."""
    layout = Layout(text=4, grid=6)
    sight = Visibility(name, layout)
    q, k, v = torch.randn(3, 2, 3, layout.length, 8)
    whole = sight._dense(q, k, v)
    for i in range(layout.length):
        for end in (i + 1, layout.length):
            alone = sight.together(q[:, :, i : i + 1], k[:, :, :end], v[:, :, :end], torch.tensor([i]))
            assert (alone[:, :, 0] - whole[:, :, i]).abs().max() < 1e-5


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_queries_at_rows_of_their_own_see_what_the_dense_mask_shows(name, count):
    """Each row of the batch has queries at other rows of the sequence, and every key of the layout is there."""
    layout = Layout(text=4, grid=6)
    sight = Visibility(name, layout)
    q, k, v = torch.randn(3, layout.length - 2, 3, layout.length, 8)
    rows = torch.arange(len(q))[torch.randperm(len(q))][:, None] + torch.arange(count)
    at = rows[:, None, :, None].expand(-1, 3, -1, 8)
    wanted = sight._dense(q, k, v).gather(2, at)
    assert (apart(sight, q.gather(2, at), k, v, rows) - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("name", BANDED)
def test_one_query_reads_only_the_keys_it_may_see(name):
    """A key that it may not see is not even read, were it not a number; a mask alone would let it through."""
    layout = Layout(text=4, grid=6)
    sight = Visibility(name, layout)
    q, k, v = torch.randn(3, 2, 3, layout.length, 8)
    assert sight.seen.shape[1] < layout.length
    for i in range(layout.length):
        k_hidden, v_hidden = (u.masked_fill(~sight.mask[i][:, None], torch.nan) for u in (k, v))
        together = sight.together(q[:, :, i : i + 1], k_hidden, v_hidden, torch.tensor([i]))
        alone = apart(sight, q[:, :, i : i + 1], k_hidden, v_hidden, torch.tensor([[i], [i]]))
        assert together.isfinite().all()
        assert torch.equal(alone, together)


def test_patterns_are_made_for_models_without_memory_too():
    with torch.device("meta"):
        assert Visibility("conv_like", Layout(text=4, grid=6)).seen.is_meta
