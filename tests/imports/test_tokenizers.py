"""Image tokenizers of LlamaGen, diffusers and IBQ against what the originals computed, and files that are none."""

from __future__ import annotations

import argparse
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

import tessera
from conftest import GOLDEN, fails
from tessera.config import DataConfig, TokensConfig, VQGANConfig
from tessera.config.merging import merge
from tessera.config.presets import preset
from tessera.errors import CheckpointError, ConfigError
from tessera.imports import pretrained, runs, tokenizers
from tessera.imports.reader import read
from tessera.imports.tokenizers import Told
from tessera.models.vqgan import VQGAN
from tessera.models.vqgan_codes import Directions, Products
from tessera.store import manifest
from tessera.store.run import checkpoint_of
from tessera.tokens import image as image_tokens

OTHERS = GOLDEN / "tokenizers"
MORE = Path(os.environ.get("TESSERA_GOLDEN_TOKENIZERS", OTHERS))
"""A folder of the same form with more files."""
LLAMAGEN, IBQ = OTHERS / "llamagen" / "vq8_training.pt", OTHERS / "ibq" / "ibq_f8_ema.ckpt"
FILES = sorted({f.relative_to(root).as_posix() for root in (OTHERS, MORE) for f in root.glob("*/*.npz")})


def place(name: str) -> Path:
    return next(root / name for root in (MORE, OTHERS) if (root / name).exists())


def arrays(name: str) -> dict[str, Tensor]:
    with np.load(place(name), allow_pickle=False) as found:
        return {k: torch.from_numpy(found[k]) for k in found if found[k].dtype.kind in "fiub"}


def by_rule(name: str, folder: Path) -> Path:
    """A file of published size, whose weights a rule makes."""

    def filled(t: dict) -> Tensor:
        if "values" in t:
            return torch.tensor(t["values"], dtype=torch.float32).reshape(t["shape"])
        noise = np.random.default_rng(t["seed"]).random(t["shape"], dtype=np.float32)
        w = np.float32(t["low"]) + np.float32(t["high"] - t["low"]) * noise
        if "rows" in t:
            w = w * np.float32(t["rows"]).reshape(-1, *[1] * (w.ndim - 1))
        return torch.from_numpy(w)

    state = {t["name"]: filled(t) for t in json.loads(place(name).read_text())["tensors"]}
    assert abs(sum(v.double().sum().item() for v in state.values()) - 21460.850144) < 1e-4
    torch.save({"model": state}, folder / "full.pt")
    return folder / "full.pt"


def source(name: str, folder: Path) -> tuple[Path, Told]:
    """The file or folder whose numbers the arrays are, and what is said of it."""
    stem = name.removesuffix(".npz")
    if place_of(f"{stem}.rule.json"):
        return by_rule(f"{stem}.rule.json", folder), Told()
    found = next(place(f"{stem}{end}") for end in (".pt", ".ckpt", "") if place_of(f"{stem}{end}"))
    yaml = place_of(f"{stem}.yaml")
    return found, Told(yaml=str(yaml) if yaml else "")


def place_of(name: str) -> Path | None:
    return next((root / name for root in (MORE, OTHERS) if (root / name).exists()), None)


def brought(path: Path, told: Told, out: Path) -> VQGAN:
    runs.bring_in(str(path), out, told=told)
    model = image_tokens.load(checkpoint_of(out)).model
    assert isinstance(model, VQGAN)
    return model


def agree(model: VQGAN, pixels: Tensor, a: dict[str, Tensor], end: str) -> None:
    """Codes but where the second choice is as near as rounding, and none of the likely mistakes."""
    codes, sure = model.encode(pixels), a[f"score_gap{end}"] > 1e-3
    assert sure.float().mean() > 0.9
    assert torch.equal(codes[sure], a[f"indices{end}"].long()[sure])
    mistakes = [n for n in a if n.startswith("wrong_") and n.endswith("_256") == bool(end)]
    assert mistakes
    for name in mistakes:
        assert not torch.equal(codes[sure], a[name].long()[sure]), name


@pytest.mark.parametrize("name", FILES)
def test_codes_and_pixels_are_the_originals(name: str, tmp_path: Path):
    a, (path, told) = arrays(name), source(name, tmp_path)
    side, low = int(a["side"]), float(a["low"])
    model = brought(path, replace(told, pixels=side), tmp_path / "run")
    assert model.config.vocab == int(a["codes"])
    agree(model, a["image_u8"].float() / 255, a, "")
    ours = lambda raw: ((raw - low) / (1 - low)).clamp(0, 1)  # from the original's pixels
    assert_close(model.decode(a["indices"].long())[..., ::2, ::2], ours(a["decoded_every2"]), atol=5e-4, rtol=0)
    again = model.decode(a["random_codes"].long())[..., ::4, ::4]
    assert_close(again, ours(a["random_decoded_every4"]), atol=5e-4, rtol=0)

    large = VQGAN(replace(model.config, pixels=256)).eval()
    large.load_state_dict(model.state_dict())
    times = -(-256 // side)
    picture = a["image_u8"][:1].repeat_interleave(times, -1).repeat_interleave(times, -2)[..., :256, :256].float() / 255
    agree(large, picture, a, "_256")
    drawn = large.decode(a["indices_256"].long())[..., ::8, ::8]
    assert_close(drawn, ours(a["decoded_256_every8"]), atol=5e-4, rtol=0)


@pytest.mark.parametrize("what", ["diffusers_vq/amused_512.keys.json", "ibq/ibq_16384.keys.json"])
def test_names_and_shapes_of_published_tokenizers_fit(what: str):
    shapes = json.loads((OTHERS / what).read_text())["shapes"]
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    if what.startswith("diffusers"):
        state = tokenizers._renamed(state, tokenizers.DIFFUSERS, r"decoder\.up_blocks\.(\d+)\.")
    config = pretrained.vqgan_config(state, what)
    own = pretrained.without_memory(lambda: VQGAN(config)).state_dict()
    assert {n: v.shape for n, v in own.items()} == {n: v.shape for n, v in state.items()}
    assert config.grid in {16, 32}


# Where weights are kept, and which count.


def llamagen_config(**changes: object) -> dict[str, object]:
    about = json.loads((OTHERS / "llamagen" / "vq4_hub" / "config.json").read_text())
    return {**about, **changes}


def test_a_folder_of_llamagen_is_its_file(tmp_path):
    """A folder holds ModelArgs and no class; the weights are those that count in the file."""
    content = read(LLAMAGEN)
    (tmp_path / "hub").mkdir()
    save_file({k: v.clone() for k, v in content["ema"].items()}, tmp_path / "hub" / "model.safetensors")
    (tmp_path / "hub" / "config.json").write_text(json.dumps(llamagen_config()))
    a = arrays("llamagen/vq8_training.npz")
    model = brought(tmp_path / "hub", Told(pixels=64), tmp_path / "run")
    agree(model, a["image_u8"].float() / 255, a, "")
    made = manifest.read(tmp_path / "run").foreign
    assert [(f.name, len(f.sha256)) for f in made] == [("hub", 64)]
    (tmp_path / "hub" / "config.json").write_text(json.dumps(llamagen_config(codebook_l2_norm=False)))
    other = brought(tmp_path / "hub", Told(pixels=64), tmp_path / "plain").encode(a["image_u8"].float() / 255)
    assert torch.equal(other[a["score_gap"] > 1e-3], a["wrong_without_l2_norm"].long()[a["score_gap"] > 1e-3])


@pytest.mark.parametrize("held", ["model", "state_dict"])
def test_without_averaged_weights_the_others_count(tmp_path, held):
    content = read(LLAMAGEN)
    torch.save({held: content["model"]}, tmp_path / "a.pt")
    a = arrays("llamagen/vq8_training.npz")
    codes = brought(tmp_path / "a.pt", Told(pixels=64), tmp_path / "run").encode(a["image_u8"].float() / 255)
    assert (codes == a["wrong_model_instead_of_ema"].long()).float().mean() > 0.98


def test_arguments_in_the_file_say_whether_vectors_are_unit_vectors(tmp_path):
    content, a = read(LLAMAGEN), arrays("llamagen/vq8_training.npz")
    torch.save({"model": content["ema"], "args": argparse.Namespace(codebook_l2_norm=False)}, tmp_path / "a.pt")
    codes = brought(tmp_path / "a.pt", Told(pixels=64), tmp_path / "run").encode(a["image_u8"].float() / 255)
    assert (codes == a["wrong_without_l2_norm"].long()).float().mean() > 0.98
    torch.save({"model": content["ema"], "args": argparse.Namespace(codebook_l2_norm="no")}, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="codebook_l2_norm"):
        runs.bring_in(str(tmp_path / "b.pt"), tmp_path / "other")


def test_ibq_without_averaged_weights_is_read_by_its_own(tmp_path):
    content, a = read(IBQ), arrays("ibq/ibq_f8_ema.npz")
    own = {n: v for n, v in content["state_dict"].items() if not n.startswith("model_ema.")}
    torch.save({"state_dict": own}, tmp_path / "a.ckpt")
    codes = brought(tmp_path / "a.ckpt", Told(kind="ibq", pixels=64), tmp_path / "run").encode(
        a["image_u8"].float() / 255
    )
    assert (codes == a["wrong_live_instead_of_ema"].long()).float().mean() > 0.98
    with pytest.raises(CheckpointError, match=r"use_ema.*model_ema\.\w+ is missing"):
        runs.bring_in(str(tmp_path / "a.ckpt"), tmp_path / "other", told=Told(yaml=str(IBQ.with_suffix(".yaml"))))


# What cannot be told apart, and what is something else.


def test_a_ckpt_that_may_be_either_is_refused(tmp_path, capsys):
    said = fails(capsys, "import", IBQ, tmp_path / "run")
    assert "may be a VQGAN of taming-transformers or an IBQ" in said
    assert "--kind vqgan or --kind ibq" in said
    assert not (tmp_path / "run").exists()
    content = read(IBQ)["state_dict"]
    torch.save({"state_dict": content}, tmp_path / "a.ckpt")
    a = arrays("ibq/ibq_f8_ema.npz")
    pixels = a["image_u8"].float() / 255
    as_ibq = brought(tmp_path / "a.ckpt", Told(kind="ibq", pixels=64), tmp_path / "ibq")
    agree(as_ibq, pixels, a, "")
    as_vqgan = brought(tmp_path / "a.ckpt", Told(kind="vqgan", pixels=64), tmp_path / "vqgan")
    assert as_vqgan.config.choice == "nearest"
    assert (as_vqgan.encode(pixels) == a["indices"]).float().mean() < 0.5


def test_a_kind_that_the_yaml_denies_is_refused(tmp_path, capsys):
    said = fails(capsys, "import", IBQ, tmp_path / "run", "--yaml", IBQ.with_suffix(".yaml"), "--kind", "vqgan")
    assert "describes a tokenizer of the kind ibq, and --kind says vqgan" in said


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("src.IBQ.models.ibqgan.IBQ", "src.Open_MAGVIT2.models.lfqgan.VQModel", "lfqgan.VQModel, which Tessera cannot"),
        ("n_embed: 96", "n_embed: 97", "n_embed 97 \\(weights: 96\\)"),
        ("l2_normalize: false", "l2_normalize: true", "l2_normalize"),
        ("use_ema: true", "use_ema: perhaps", "use_ema"),
        ("ch: 32", "ch: 64", "ch 64 \\(weights: 32\\)"),
    ],
)
def test_settings_of_another_network_are_named(tmp_path, old, new, what):
    text = IBQ.with_suffix(".yaml").read_text()
    assert old in text
    (tmp_path / "a.yaml").write_text(text.replace(old, new))
    with pytest.raises(CheckpointError, match=what):
        runs.bring_in(str(IBQ), tmp_path / "run", told=Told(yaml=str(tmp_path / "a.yaml")))


def test_movq_is_refused_in_a_sentence(tmp_path):
    about = json.loads((OTHERS / "diffusers_vq/attention_f8/config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**about, "norm_type": "spatial"}))
    weights = load_file(OTHERS / "diffusers_vq/attention_f8/diffusion_pytorch_model.safetensors")
    save_file(weights, tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match="MoVQ of Kandinsky"):
        runs.bring_in(str(tmp_path), tmp_path / "run")


def test_a_folder_without_weights_and_one_with_damaged_ones_are_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(llamagen_config()))
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not there"):
        runs.bring_in(str(tmp_path), tmp_path / "run")
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        runs.bring_in(str(tmp_path), tmp_path / "run")


def test_what_is_said_of_a_file_that_is_something_else_is_not_ignored(tmp_path):
    with pytest.raises(ConfigError, match="neither a VQGAN nor a relative"):
        runs.bring_in(str(GOLDEN / "dvae_plain.pt"), tmp_path / "run", told=Told(pixels=128))


def test_a_side_that_does_not_fit_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="must be a multiple of 8"):
        runs.bring_in(str(LLAMAGEN), tmp_path / "run", told=Told(pixels=100))


# Malice.


class Harm:
    def __reduce__(self) -> tuple:
        return os.system, (f"touch {os.environ['HARM']}",)


@pytest.mark.parametrize("place", ["args", "optimizer", "model", "ema", "a weight", "beside"])
def test_nothing_in_a_file_of_llamagen_is_run(tmp_path, monkeypatch, capsys, place):
    monkeypatch.setenv("HARM", str(tmp_path / "harmed"))
    content = {**read(LLAMAGEN), "args": argparse.Namespace(codebook_l2_norm=True)}
    if place == "a weight":
        content["ema"] = {**content["ema"], "encoder.conv_in.bias": Harm()}
    else:
        content[place] = Harm()
    torch.save(content, tmp_path / "a.pt")
    assert "is refused, and nothing in it was run" in fails(capsys, "import", tmp_path / "a.pt", tmp_path / "run")
    assert not (tmp_path / "harmed").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["callbacks", "state_dict", "hyper_parameters"])
def test_nothing_in_a_file_of_ibq_is_run(tmp_path, monkeypatch, capsys, place):
    monkeypatch.setenv("HARM", str(tmp_path / "harmed"))
    torch.save({**read(IBQ), place: Harm()}, tmp_path / "a.ckpt")
    said = fails(capsys, "import", tmp_path / "a.ckpt", tmp_path / "run", "--yaml", IBQ.with_suffix(".yaml"))
    assert "nothing in it was run" in said
    assert not (tmp_path / "harmed").exists()


def test_nothing_in_a_bin_of_diffusers_is_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HARM", str(tmp_path / "harmed"))
    folder = tmp_path / "vq"
    folder.mkdir()
    (folder / "config.json").write_bytes((OTHERS / "diffusers_vq/attention_f8/config.json").read_bytes())
    torch.save({"quantize.embedding.weight": Harm()}, folder / "diffusion_pytorch_model.bin")
    assert "nothing in it was run" in fails(capsys, "import", folder, tmp_path / "run")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("quantize.embedding.weight"),
        lambda s: s.update({"encoder.conv_blocks.0.res.0.conv1.weight": torch.zeros(3)}),
        lambda s: s.update({"encoder.conv_in.weight": torch.zeros(1 << 20).expand(1 << 30, 1 << 20)}),
        lambda s: s.update({"encoder.conv_blocks.99999999999.res.0.conv1.weight": torch.zeros(2, 2, 1, 1)}),
        lambda s: s.update({"quantize.embedding.weight": torch.full((200, 8), torch.nan)}),
        lambda s: s.update({"encoder.conv_in.weight": "no tensor"}),
        lambda s: s.update({7: torch.zeros(1)}),
    ],
)
def test_a_damaged_file_gets_a_sentence(tmp_path, change):
    state = dict(read(LLAMAGEN)["ema"])
    change(state)
    torch.save({"ema": state}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path / "a.pt"))):
        runs.bring_in(str(tmp_path / "a.pt"), tmp_path / "run")


# The choices, against the slow obvious way; learning.


def test_directions_and_products_are_chosen_as_their_names_say():
    torch.manual_seed(0)
    config, z = VQGANConfig(codes=7, code_dim=3, choice="unit").quantizer, torch.randn(2, 3, 2, 2)
    for kind, score in (
        (Directions, lambda v, e: torch.cosine_similarity(v, e, 0)),
        (Products, lambda v, e: (v * e).sum()),
    ):
        quantize = kind(config)
        table = quantize.embedding.weight
        by_hand = [
            max(range(7), key=lambda k: score(z[b, :, i, j], table[k]).item())
            for b in range(2) for i in range(2) for j in range(2)
        ]  # fmt: skip
        assert quantize.codes(z).flatten().tolist() == by_hand
        made = quantize(z, 1.0)
        assert torch.equal(made.codes, quantize.codes(z))
        vectors = quantize.vectors(made.codes).transpose(1, 2).unflatten(2, (2, 2))
        assert_close(made.vectors, vectors, atol=1e-6, rtol=0)


@pytest.mark.parametrize("choice", ["unit", "product"])
def test_both_learn_what_the_decoder_reads(choice):
    """A gradient reaches the encoder and the codebook, by the reconstruction alone where products choose."""
    config = VQGANConfig(pixels=8, width=4, widths=(1, 1), resblocks=1, attention=(), latent=4, code_dim=3, codes=5,
                         groups=2, choice=choice, middle_attention=False, commitment=0.0)  # fmt: skip
    model = VQGAN(config)
    made = model(torch.rand(2, 3, 8, 8), 1.0)
    made.reconstruction.backward(retain_graph=True)
    assert model.encoder.conv_in.weight.grad.abs().max() > 0
    by_pixels = model.quantize.embedding.weight.grad
    assert (by_pixels is not None) == (choice == "product")
    made.total.backward()
    assert model.quantize.embedding.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"choice": "unit", "revive": True}, "model.revive"),
        ({"choice": "product", "gumbel": True}, "model.choice is product"),
        ({"level_widths": (32, 40)}, "model.width is 40"),
        ({"level_widths": (64, 32), "pixels": 31}, "multiple of 2"),
        ({"codes": 262_145}, "262"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, what):
    with pytest.raises(ConfigError, match=what):
        merge(VQGANConfig(attention=()), settings).check()


def test_one_that_was_imported_learns_other_pictures_and_a_prior_on_it_draws(tmp_path, bird_folder):
    runs.bring_in(str(LLAMAGEN), tmp_path / "vq", told=Told(pixels=64))
    before = image_tokens.load(checkpoint_of(tmp_path / "vq"))
    data = DataConfig(path=str(bird_folder))
    own = tessera.Run(tmp_path / "vq").config()
    tuned = tessera.train(replace(own, data=data, steps=own.steps - 10_000 + 2, optim=replace(own.optim, batch=2)))
    after = image_tokens.load(checkpoint_of(tuned.folder))
    assert after.config == before.config
    assert after.fingerprint() != before.fingerprint()

    small = preset("t2i-xs-64")
    stack = replace(small.model.transformer, dim=32, depth=1, heads=2, head_dim=16)
    prior = replace(
        small, out=str(tmp_path / "prior"), data=data, steps=2, budget="", optim=replace(small.optim, batch=2),
        model=replace(small.model, transformer=stack), tokens=TokensConfig(image=str(tmp_path / "vq")),
    )  # fmt: skip
    tessera.train(prior)
    drawn = tessera.load(tmp_path / "prior")("a red bird", count=1, seed=1)
    assert drawn[0].image.size == (64, 64)
    assert max(drawn[0].codes) < 200
