"""What DALLE-pytorch itself computed, against the importer and the compat face, on every model it was asked about."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from conftest import GOLDEN
from tessera.compat import dalle_pytorch as theirs
from tessera.compat.dalle_pytorch.tokenizer import HugTokenizer, YttmTokenizer
from tessera.config import SampleConfig
from tessera.generate import raster
from tessera.imports import dalle_pytorch, pretrained
from tessera.imports.reader import read
from tessera.models.clip import CLIP
from tessera.models.text_to_image import TextToImage

PRIORS = sorted(p.stem for p in GOLDEN.glob("*.pt") if not p.stem.startswith(("dvae_", "clip_")))
MODERN_PRIORS = [name for name in PRIORS if not name.startswith("legacy_")]
DVAES = sorted(p.stem for p in GOLDEN.glob("dvae_*.pt"))


def arrays(name: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as found:
        return {k: torch.from_numpy(found[k]) for k in found if found[k].dtype.kind in "fiub"}


def words(name: str, key: str) -> list[str]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as found:
        return found[key].tolist()


def house(name: str) -> tuple[TextToImage, torch.Tensor, dict[str, torch.Tensor]]:
    """The imported prior, the text as the house pads it, the arrays."""
    model, a = dalle_pytorch.load(GOLDEN / f"{name}.pt").model.eval(), arrays(name)
    return model, torch.where(a["text"] == 0, model.null_caption(a["text"]), a["text"]), a


def face(name: str) -> theirs.DALLE:
    content = read(GOLDEN / f"{name}.pt")
    hparams = {"shift_tokens": False, "rotary_emb": False, **content["hparams"]}
    dalle = theirs.DALLE(vae=theirs.DiscreteVAE(**content["vae_params"]), **hparams)
    dalle.load_state_dict(content["weights"])
    return dalle.eval()


@pytest.mark.parametrize("name", PRIORS)
def test_an_imported_prior_gives_the_originals_numbers(name):
    model, tokens, a = house(name)
    codes, text = a["image_tokens"], tokens.shape[1]
    with torch.no_grad():
        hidden = model.hidden(tokens, codes)
        assert_close(model.text_head.logits(hidden[:, :text]), a["logits_text"], atol=1e-4, rtol=0)
        assert_close(model.image_head.logits(hidden[:, text:]), a["logits_image"], atol=1e-4, rtol=0)
    greedy = SampleConfig(temperature=0)
    assert torch.equal(raster.codes(model, tokens, range(len(tokens)), greedy), a["greedy_tokens"])


@pytest.mark.parametrize("name", MODERN_PRIORS)
def test_an_imported_prior_learns_and_is_guided_as_the_original(name):
    model, tokens, a = house(name)
    codes = a["image_tokens"]
    loss = model(tokens, codes)
    assert_close(loss.total.item(), a["loss"].item(), atol=1e-5, rtol=0)
    assert_close(loss.text.item(), a["loss_text"].item(), atol=1e-5, rtol=0)
    assert_close(loss.image.item(), a["loss_image"].item(), atol=1e-5, rtol=0)
    with torch.no_grad():
        given, null = model.image_logits(tokens, codes), model.image_logits(model.null_caption(tokens), codes)
        assert_close(null, a["logits_image_null"], atol=1e-4, rtol=0)
        assert_close(null + 3 * (given - null), a["logits_image_cond3"], atol=3e-4, rtol=0)
        part = codes[:, : int(a["partial_len"])]
        assert_close(model.image_logits(tokens, part)[:, -1], a["logits_partial_last"], atol=1e-4, rtol=0)
        assert_close(model.image_logits(tokens, codes[:, :0])[:, -1], a["logits_textonly_last"], atol=1e-4, rtol=0)
        # the cached path, where the original's is wrong: guidance, patterns, shift, priming
        past = model.past(2 * len(tokens))
        both = torch.cat((tokens, model.null_caption(tokens)))
        steps = [model.prefill(both, codes[:, :0].repeat(2, 1), past)]
        steps += [model.step(codes[:, i].repeat(2), past) for i in range(codes.shape[1] - 1)]
        given, null = torch.stack(steps, 1).chunk(2)
        assert_close(null + 3 * (given - null), a["logits_image_cond3"], atol=3e-4, rtol=0)
    prime = a["vae_indices"][:, : int(a["greedy_primed_len"])]
    drawn = raster.codes(model, tokens, range(len(tokens)), SampleConfig(temperature=0), prime)
    assert torch.equal(drawn, a["greedy_primed_tokens"])


@pytest.mark.parametrize("name", MODERN_PRIORS)
def test_the_face_gives_the_originals_numbers(name):
    dalle, a = face(name), arrays(name)
    text, codes, cut = a["text"], a["image_tokens"], dalle.num_text_tokens
    before = text.clone()
    with torch.no_grad():
        logits = dalle(text, codes)
        length = dalle.text_seq_len
        assert_close(logits[:, :length, :cut], a["logits_text"], atol=1e-4, rtol=0)
        assert_close(logits[:, length:, cut:], a["logits_image"], atol=1e-4, rtol=0)
        assert (logits[:, :length, cut:] == -torch.finfo(torch.float32).max).all()
        assert (logits[:, length:, :cut] == -torch.finfo(torch.float32).max).all()
        guided = dalle.forward_with_cond_scale(text, codes, cond_scale=3)[:, length:, cut:]
        assert_close(guided, a["logits_image_cond3"], atol=3e-4, rtol=0)
        cache: dict = {}
        steps = [dalle(text, codes[:, :i], cache=cache)[:, -1:, cut:] for i in range(codes.shape[1])]
        assert_close(torch.cat(steps, 1), a["logits_image"], atol=1e-4, rtol=0)
        assert torch.equal(dalle.vae.get_codebook_indices(a["image"]), a["vae_indices"])
        assert_close(dalle.vae.decode(codes), a["vae_decode"], atol=1e-4, rtol=0)
        assert_close(dalle(text, a["image"], return_loss=True).item(), a["loss_raw_image"].item(), atol=1e-5, rtol=0)
        drawn = dalle.generate_images(text, filter_thres=1.0)
        assert_close(drawn, dalle.vae.decode(a["greedy_tokens"]), atol=1e-5, rtol=0)
        count = int(a["greedy_primed_len"])
        drawn = dalle.generate_images(text, filter_thres=1.0, img=a["image"], num_init_img_tokens=count, use_cache=True)
        assert_close(drawn, dalle.vae.decode(a["greedy_primed_tokens"]), atol=1e-5, rtol=0)
    assert torch.equal(text, before)
    loss = dalle(text, codes, return_loss=True)
    assert_close(loss.item(), a["loss"].item(), atol=1e-5, rtol=0)
    loss.backward()
    gradients = {n: p.grad for n, p in dalle.named_parameters() if p.grad is not None}
    wanted = dict(zip(words(name, "grad_names"), a["grad_norms"].tolist(), strict=True))
    for theirs_name, norm in wanted.items():
        found = next(
            g for n, g in gradients.items() if dalle_pytorch.canonical(n) == dalle_pytorch.canonical(theirs_name)
        )
        assert_close(found.norm().item(), norm, rtol=1e-3, atol=1e-6, msg=theirs_name)
    assert len(wanted) == len(gradients)


@pytest.mark.parametrize("name", MODERN_PRIORS)
def test_the_faces_state_dict_is_the_originals(name):
    weights = read(GOLDEN / f"{name}.pt")["weights"]
    found = face(name).state_dict()
    modern = {n.replace("weights_", "weights."): v for n, v in weights.items()}
    assert found.keys() == modern.keys()
    for key, value in modern.items():
        assert found[key].shape == value.shape
        assert_close(found[key], value.float(), atol=0 if value.dtype == torch.float32 else 1e4, rtol=0)


@pytest.mark.parametrize(
    "name", ["legacy_0.14.3_convlike_oldpattern", "legacy_1.1.8_shift_rotary", "legacy_0.9.6_full"]
)
def test_the_face_reads_old_releases(name):
    content, a = read(GOLDEN / f"{name}.pt"), arrays(name)
    dalle = face(name)
    with torch.no_grad():
        logits = dalle(a["text"], a["image_tokens"])[:, dalle.text_seq_len :, dalle.num_text_tokens :]
    assert_close(logits, a["logits_image"], atol=1e-4, rtol=0)
    assert content["hparams"]


@pytest.mark.parametrize("name", DVAES)
def test_discrete_vaes(name):
    content, a = read(GOLDEN / f"{name}.pt"), arrays(name)
    vae = theirs.DiscreteVAE(**content["hparams"])
    vae.load_state_dict(content["weights"])
    with torch.no_grad():
        assert_close(vae.norm(a["image"]), a["norm_image"])
        assert_close(vae(a["image"], return_logits=True), a["vae_logits"], atol=1e-4, rtol=0)
        assert torch.equal(vae.get_codebook_indices(a["image"]), a["vae_indices"])
        assert_close(vae.decode(a["image_tokens"]), a["vae_decode"], atol=1e-4, rtol=0)
    torch.manual_seed(int(a["noise_seed"]))
    loss, again = vae(a["image"], return_loss=True, return_recons=True, temp=float(a["temp"]))
    assert_close(loss.item(), a["loss"].item(), atol=1e-5, rtol=0)
    assert_close(again, a["recons"], atol=1e-4, rtol=0)
    loss.backward()
    gradients = {n: p.grad for n, p in vae.named_parameters()}
    for key, norm in zip(words(name, "grad_names"), a["grad_norms"].tolist(), strict=True):
        assert_close(gradients[key].norm().item(), norm, rtol=1e-3, atol=1e-6)
    imported = dalle_pytorch.load(GOLDEN / f"{name}.pt").model
    normalised = (imported.decode(a["image_tokens"]) - imported.mean) / imported.std
    inside = ((a["vae_decode"] * imported.std + imported.mean) >= 0) & (
        a["vae_decode"] * imported.std + imported.mean <= 1
    )
    assert_close(normalised[inside], a["vae_decode"][inside], atol=1e-4, rtol=0)


def test_clip():
    content, a = read(GOLDEN / "clip_a.pt"), arrays("clip_a")
    clip = theirs.CLIP(**content["hparams"])
    clip.load_state_dict(content["weights"])
    with torch.no_grad():
        assert_close(clip(a["text"], a["image"]), a["scores"], atol=1e-5, rtol=0)
        masked = clip(a["text"], a["image"], text_mask=a["text_mask"])
        assert_close(masked, a["scores_masked"], atol=1e-5, rtol=0)
        loss = clip(a["text"], a["image"], return_loss=True)
        assert_close(loss.item(), a["loss"].item(), atol=1e-5, rtol=0)
    loss = clip(a["text"], a["image"], text_mask=a["text_mask"], return_loss=True)
    assert_close(loss.item(), a["loss_masked"].item(), atol=1e-5, rtol=0)
    loss.backward()
    gradients = dict(clip.named_parameters())
    for key, norm in zip(words("clip_a", "grad_names"), a["grad_norms"].tolist(), strict=True):
        assert_close(gradients[key].grad.norm().item(), norm, rtol=1e-3, atol=1e-6)
    model = dalle_pytorch.load(GOLDEN / "clip_a.pt").model
    assert isinstance(model, CLIP)
    padded = torch.where(a["text_mask"], a["text"], model.config.text_vocab + torch.arange(8))
    with torch.no_grad():
        assert_close(model.scores(padded, a["image"]), a["scores_masked"], atol=1e-5, rtol=0)


# Pretrained image tokenizers.


def check_vqgan(model, a) -> None:
    pixels = a["image_u8"].float() / 255
    assert torch.equal(model.encode(pixels), a["indices_deterministic_argmax"])
    assert torch.equal(model.encode(pixels), model.encode(pixels))
    assert_close(model.decode(a["image_tokens"])[:, :, ::4, ::4], a["decode_every4"], atol=1e-4, rtol=0)


def test_gumbel_vqgan_from_its_files_draws_no_noise():
    folder = GOLDEN / "vqgan"
    vae = theirs.VQGanVAE(str(folder / "vqgan_gumbel_f16.ckpt"), str(folder / "vqgan_gumbel_f16.yaml"))
    a = arrays("vqgan/vqgan_gumbel_f16")
    assert (vae.num_layers, vae.image_size, vae.num_tokens, vae.is_gumbel) == (4, 256, 64, True)
    check_vqgan(vae.network, a)


def test_a_prior_over_a_vqgan_brings_its_tokenizer():
    found, a = dalle_pytorch.load(GOLDEN / "vqgan" / "vqgan_f16_dalle.pt"), arrays("vqgan/vqgan_f16")
    check_vqgan(found.image, a)
    tokens = torch.where(a["text"] == 0, found.model.null_caption(a["text"]), a["text"])
    assert_close(found.model.image_logits(tokens, a["image_tokens"]), a["logits_image"], atol=1e-4, rtol=0)
    assert_close(found.model(tokens, a["image_tokens"]).total.item(), a["loss"].item(), atol=1e-5, rtol=0)


def test_openais_dvae_from_its_pickles_without_running_them():
    folder, a = GOLDEN / "openai_dvae", arrays("openai_dvae/openai_a")
    vae = theirs.OpenAIDiscreteVAE(str(folder / "openai_a_encoder.pkl"), str(folder / "openai_a_decoder.pkl"))
    assert torch.equal(vae.get_codebook_indices(a["image_u8"].float() / 255), a["indices"])
    assert_close(vae.decode(a["image_tokens"])[:, :, ::4, ::4], a["decode_every4"], atol=1e-4, rtol=0)
    names = {n.removeprefix("enc.") for n in vae.state_dict() if n.startswith("enc.")}
    assert names == set(words("openai_dvae/openai_a", "encoder_keys"))


def test_a_wrong_yaml_is_named():
    folder = GOLDEN / "vqgan"
    with pytest.raises(Exception, match="describes another VQGAN"):
        pretrained.vqgan(folder / "vqgan_gumbel_f16.ckpt", folder / "vqgan_f16.yaml")


# Text tokenizers.


def rows(name: str) -> list[dict]:
    import json

    return json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))["rows"]


def test_huggingface_ids():
    tokenizer = HugTokenizer(GOLDEN / "hug_bpe_open.json")
    for row in rows("hug_tokens_open"):
        assert tokenizer.encode(row["caption"]) == row["ids"]
        assert tokenizer.decode(row["ids"]) == row["decode"]
        assert tokenizer.tokenize(row["caption"], 16, truncate_text=True)[0].tolist() == row["tokenize_16"]


def test_youtokentome_ids():
    tokenizer = YttmTokenizer(GOLDEN / "yttm_open.model")
    assert tokenizer.vocab_size == 120
    for row in rows("yttm_tokens_open"):
        assert tokenizer.encode(row["caption"]) == row["ids"], row["caption"]
        assert [t.tolist() for t in tokenizer.encode([row["caption"]])] == [row["ids"]]
        assert tokenizer.decode(row["ids"]) == row["decode"]
