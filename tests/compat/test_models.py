"""The models under the original's names: they compute, are saved, copied and refused as scripts written for it expect."""

from __future__ import annotations

import copy as copy_module

import pytest
import torch
from torch.testing import assert_close

from tessera.compat import dalle_pytorch as theirs
from tessera.errors import DataError


def dalle(**changes) -> theirs.DALLE:
    torch.manual_seed(0)
    vae = theirs.DiscreteVAE(image_size=16, num_tokens=12, codebook_dim=8, num_layers=2, hidden_dim=8)
    settings = {"dim": 24, "depth": 2, "heads": 2, "dim_head": 12, "text_seq_len": 6, "num_text_tokens": 30}
    return theirs.DALLE(vae=vae, **{**settings, **changes})


TEXT = torch.tensor([[5, 9, 2, 0, 0, 0], [7, 1, 1, 8, 0, 0]])


def test_guidance_keeps_the_prompt_in_sight():
    """The second code still depends on the prompt, and the caller's tensor is what it was."""
    model = dalle(shift_tokens=True)
    with torch.no_grad():
        for p in model.prior.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    given, other = TEXT.clone(), TEXT.flip(0)
    with torch.no_grad():
        drawn = [model.generate_images(t, filter_thres=1.0, cond_scale=3, use_cache=True) for t in (given, other)]
    assert torch.equal(given, TEXT)
    assert_close(drawn[0], drawn[1].flip(0))
    assert not torch.equal(drawn[0], drawn[1])


def test_dropping_conditions_leaves_the_batch_alone():
    given = TEXT.clone()
    dalle()(given, torch.zeros(2, 16, dtype=torch.long), return_loss=True, null_cond_prob=1.0)
    assert torch.equal(given, TEXT)


def test_attention_types_may_be_a_word():
    assert dalle(attn_types="full").prior.config.transformer.patterns == ("full",)
    assert dalle(attn_types="full,axial_row").prior.config.transformer.patterns == ("full", "axial_row")


def test_options_that_did_nothing_do_nothing():
    with pytest.warns(UserWarning, match="sparse_attn does nothing"):
        dalle(sparse_attn=True)
    vae = theirs.DiscreteVAE(image_size=16, num_layers=2, num_tokens=8, codebook_dim=4, hidden_dim=4, reinmax=True)
    assert not vae.model.config.quantizer.reinmax  # it corrects straight_through, which is off


@pytest.mark.parametrize(
    "changes", [{}, {"rotary_emb": False, "reversible": True}, {"share_input_output_emb": True}], ids=str
)
def test_a_whole_model_can_be_saved_and_copied(changes, tmp_path):
    model = dalle(**changes).eval()
    text, codes = torch.randint(1, 5, (1, model.text_seq_len)), torch.randint(0, 4, (1, model.image_seq_len))
    torch.save(model, tmp_path / "whole.pt")
    again = torch.load(tmp_path / "whole.pt", weights_only=False)
    copy = copy_module.deepcopy(model)
    with torch.no_grad():
        wanted = model(text, codes)
        assert torch.equal(again(text, codes), wanted)
        assert torch.equal(copy(text, codes), wanted)
        copy.joint.weight.zero_()
        assert torch.equal(model(text, codes), wanted), "a copy has weights of its own"
        assert not torch.equal(copy(text, codes), wanted)


def test_a_model_in_bf16_computes():
    model = dalle().bfloat16().eval()
    text, codes = torch.randint(1, 5, (1, model.text_seq_len)), torch.randint(0, 4, (1, model.image_seq_len))
    with torch.no_grad():
        assert model(text, codes).isfinite().any()


def test_what_scripts_reach_for_inside_is_there():
    model = dalle()
    assert model.to_logits[1].weight.shape[0] == model.total_tokens
    assert model.text_emb.weight.shape[0] == model.num_text_tokens
    assert model.image_emb.weight.shape[0] == model.num_image_tokens
    assert isinstance(model.transformer, torch.nn.Module)
    pixels = torch.rand(1, 3, model.vae.image_size, model.vae.image_size)
    assert model.vae.encoder(pixels).shape[1] == model.vae.num_tokens
    assert isinstance(model.vae.decoder, torch.nn.Module)


def test_sparse_attention_runs():
    dalle(attn_types=("sparse",))(TEXT, torch.zeros(2, 16, dtype=torch.long), return_loss=True).backward()


@pytest.mark.parametrize("wrong", [30, 35, 99, -1])
def test_ids_beyond_the_vocabulary_are_refused(wrong):
    text = TEXT.clone()
    text[0, 0] = wrong
    if wrong == 30:  # the padding id of the first place means what 0 does
        zero = TEXT.clone()
        zero[0, 0] = 0
        model = dalle().eval()
        assert torch.equal(model(text), model(zero))
        return
    with pytest.raises(DataError, match=rf"id {wrong}; this model has text tokens 0 \.\.\. 29"):
        dalle()(text)


def test_a_vae_without_normalization():
    vae = theirs.DiscreteVAE(image_size=16, num_tokens=12, num_layers=2, hidden_dim=8, normalization=None)
    pixels = torch.rand(1, 3, 16, 16)
    assert torch.equal(vae.norm(pixels), pixels)
    vae(pixels, return_loss=True).backward()


@pytest.mark.parametrize("width", [6, 7, 8])
def test_narrow_heads_turn(width):
    dalle(dim_head=width)(TEXT, torch.zeros(2, 16, dtype=torch.long), return_loss=True).backward()


def test_the_judge_sees_the_prompt_after_guidance():
    seen = []

    def judge(text, images, return_loss):
        seen.append(text.clone())
        return torch.zeros(len(text))

    dalle().generate_images(TEXT, cond_scale=3, clip=judge)
    assert torch.equal(seen[0], TEXT)
    theirs.CLIP(num_visual_tokens=77, visual_image_size=32, text_enc_depth=1, visual_enc_depth=1)


def test_the_image_weight_may_be_a_fraction():
    codes = torch.zeros(2, 16, dtype=torch.long)
    model = dalle(loss_img_weight=0.5)
    loss = model.prior.config.image_weight
    assert loss == 0.5
    assert model(TEXT, codes, return_loss=True).isfinite()
