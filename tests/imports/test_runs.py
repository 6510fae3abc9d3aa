"""Moving over: DALLE-pytorch's files in and out, safely, and training on from them."""

from __future__ import annotations

import http.server
import os
import re
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from conftest import GOLDEN, fails
from tessera.cli import main
from tessera.compat import dalle_pytorch as theirs
from tessera.config import DVAEConfig, Gumbel, TextToImageConfig, VQGANConfig
from tessera.errors import CheckpointError, ConfigError
from tessera.files import own
from tessera.files.download import download
from tessera.generate.pipeline import Pipeline
from tessera.imports import dalle_pytorch, deepspeed_folder, pretrained, runs
from tessera.imports.reader import Hollow, read, state_of
from tessera.models import saved
from tessera.models.dvae import DiscreteVAE
from tessera.models.openai_dvae import OpenAIDVAE, OpenAIDVAEConfig
from tessera.models.text_to_image import TextToImage
from tessera.models.vqgan import VQGAN
from tessera.store.run import Run
from tessera.store.state import read_state
from tessera.train.moments import set_moments
from tessera.train.optim import optimizer_of

RESUME = GOLDEN / "resume_opt_state.pt"


def small_vae() -> theirs.DiscreteVAE:
    return theirs.DiscreteVAE(image_size=16, num_tokens=12, codebook_dim=8, num_layers=2, hidden_dim=8)


def small_dalle(**changes) -> theirs.DALLE:
    torch.manual_seed(0)
    settings = {"dim": 24, "depth": 2, "heads": 2, "dim_head": 12, "text_seq_len": 6, "num_text_tokens": 300}
    return theirs.DALLE(vae=small_vae(), **{**settings, **changes})


# In one command.


def test_import_draw_export_import(tmp_path, capsys):
    main(["import", str(RESUME), str(tmp_path / "run")])
    main(["generate", str(tmp_path / "run"), "3 17 5", "--count", "2", "--out", str(tmp_path / "out")])
    main(["export", str(tmp_path / "run"), str(tmp_path / "back.pt")])
    main(["import", str(tmp_path / "back.pt"), str(tmp_path / "again")])
    first, again = (saved.read(Run(tmp_path / n).best()) for n in ("run", "again"))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    original, back = read(RESUME), read(tmp_path / "back.pt")
    assert back.keys() == {*original.keys()}
    assert list(back["weights"]) == list(original["weights"])
    assert all(torch.equal(back["weights"][n], original["weights"][n]) for n in original["weights"])
    assert len(list((tmp_path / "out" / "3_17_5").glob("*.png"))) == 2
    assert "prompts are token ids" in capsys.readouterr().out


def test_the_saved_adam_takes_the_originals_next_step(tmp_path):
    runs.bring_in(str(RESUME), tmp_path / "run")
    with np.load(GOLDEN / "resume_opt_state.npz") as a:
        text, codes = torch.from_numpy(a["text"]), torch.from_numpy(a["image_tokens"])
        norm, after = float(a["resume_grad_norm_before_clip"]), float(a["after_resume_step_loss"])
    run = Run(tmp_path / "run")
    model = saved.read(run.best())
    state = read_state(run.best() / "state")
    optimizer = optimizer_of(run.config().optim)(model)
    set_moments(optimizer, model, read_state(run.best() / "optimizer")["moments"])
    tokens = torch.where(text == 0, model.null_caption(text), text)
    model(tokens, codes).total.backward()
    assert_close(
        torch.nn.utils.clip_grad_norm_(model.parameters(), run.config().optim.clip).item(), norm, rtol=1e-5, atol=0
    )
    optimizer.step()
    assert abs(model(tokens, codes).total.item() - after) < 1e-6
    assert state["at"]["step"] == 3


def test_the_faces_parameters_take_the_originals_optimiser_state():
    content = read(RESUME)
    dalle = theirs.DALLE(vae=theirs.DiscreteVAE(**content["vae_params"]), **content["hparams"])
    dalle.load_state_dict(content["weights"])
    optimizer = torch.optim.Adam([p for p in dalle.parameters() if p.requires_grad], lr=3e-4)
    optimizer.load_state_dict(content["opt_state"])
    with np.load(GOLDEN / "resume_opt_state.npz") as a:
        text, codes, after = (
            torch.from_numpy(a["text"]),
            torch.from_numpy(a["image_tokens"]),
            float(a["after_resume_step_loss"]),
        )
    dalle(text, codes, return_loss=True).backward()
    torch.nn.utils.clip_grad_norm_([p for p in dalle.parameters() if p.requires_grad], 0.5)
    optimizer.step()
    assert abs(dalle(text, codes, return_loss=True).item() - after) < 1e-6


@pytest.mark.parametrize("name", ["shared_ids", "share_io_emb", "full_shift", "cycle4_rev_stable_sandwich"])
def test_moments_find_their_weights_whatever_is_shared(name, tmp_path):
    """Steps of the face's Adam, saved as train_dalle.py does, go on equally in an imported run."""
    content = read(GOLDEN / f"{name}.pt")
    dalle = theirs.DALLE(vae=theirs.DiscreteVAE(**content["vae_params"]), **content["hparams"])
    dalle.load_state_dict(content["weights"])
    optimizer = torch.optim.Adam([p for p in dalle.parameters() if p.requires_grad], lr=1e-3)
    with np.load(GOLDEN / f"{name}.npz") as a:
        text, codes = torch.from_numpy(a["text"]), torch.from_numpy(a["image_tokens"])

    def step() -> None:
        optimizer.zero_grad()
        dalle(text, codes, return_loss=True).backward()
        optimizer.step()

    step()
    torch.save({**content, "weights": dalle.state_dict(), "opt_state": optimizer.state_dict()}, tmp_path / "d.pt")
    step()
    found = dalle_pytorch.load(tmp_path / "d.pt")
    config = runs._train_config(found, "", tmp_path).optim
    ours = optimizer_of(config)(found.model.train())
    set_moments(ours, found.model, {n: {"step": torch.tensor(1.0), **m} for n, m in found.moments.items()})
    tokens = torch.where(text == 0, found.model.null_caption(text), text)
    found.model(tokens, codes).total.backward()
    ours.step()
    wanted = dalle_pytorch.understood({**content, "weights": dalle.state_dict()}, "memory").model.state_dict()
    for key, value in found.model.state_dict().items():
        assert_close(value, wanted[key], atol=2e-6, rtol=0, msg=key)


def test_an_imported_run_trains_on_with_its_own_text_length(bird_folder, tmp_path):
    """The original forgets text_seq_len on resume; here the run holds it. Its tokenizer has fewer ids than the model."""
    dalle = small_dalle(text_seq_len=40)
    content = {"hparams": {"dim": 24, "depth": 2, "heads": 2, "dim_head": 12, "text_seq_len": 40, "num_text_tokens": 300},
               "vae_params": {"image_size": 16, "num_tokens": 12, "codebook_dim": 8, "num_layers": 2, "hidden_dim": 8},
               "epoch": 1, "version": "1.6.6", "vae_class_name": "DiscreteVAE", "weights": dalle.state_dict()}  # fmt: skip
    torch.save(content, tmp_path / "dalle.pt")
    run = tmp_path / "run"
    main(["import", str(tmp_path / "dalle.pt"), str(run), "--text", str(GOLDEN / "hug_bpe_open.json")])
    more = ["--steps", "2", "--data.path", str(bird_folder), "--data.truncate", "--preview-every", "0"]
    main(["train", str(run), *more, "--machine.precision", "float32"])
    config = Run(run).config()
    assert config.model.text_len == 40
    assert Run(run).latest().name == "step-000002"
    assert Pipeline.load(run)("a bird", count=1)[0].image.size == (16, 16)


def test_a_judge_and_tokenizers_come_in_and_go_out(tmp_path, capsys):
    main(["import", str(GOLDEN / "clip_a.pt"), str(tmp_path / "judge")])
    main(["export", str(tmp_path / "judge"), str(tmp_path / "clip.pt")])
    original, back = read(GOLDEN / "clip_a.pt"), read(tmp_path / "clip.pt")
    assert list(back["weights"]) == list(original["weights"])
    main(["import", str(GOLDEN / "dvae_smoothl1_kl.pt"), str(tmp_path / "vae")])
    config = Run(tmp_path / "vae").config().model
    assert isinstance(config, DVAEConfig)
    assert isinstance(config.quantizer, Gumbel)
    assert (config.reconstruction, config.quantizer.kl_weight) == ("smooth_l1", 0.35)
    main(["export", str(tmp_path / "vae"), str(tmp_path / "vae.pt")])
    assert read(tmp_path / "vae.pt")["hparams"]["smooth_l1_loss"] is True
    main(["import", str(tmp_path / "vae"), str(tmp_path / "vae2")])  # a tokenizer begins a run of its own
    one, two = (saved.read(Run(tmp_path / name).best()) for name in ("vae", "vae2"))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    again = fails(capsys, "export", tmp_path / "vae", tmp_path / "vae.pt")
    assert "exists already" in again
    assert "not empty" in fails(capsys, "import", GOLDEN / "clip_a.pt", tmp_path / "judge")
    assert "is a Tessera run already" in fails(capsys, "import", tmp_path / "judge", tmp_path / "judge2")


def test_a_run_that_dalle_pytorch_cannot_express_is_refused(tmp_path):
    saved.write(tmp_path / "m", TextToImage(TextToImageConfig(text_vocab=9, text_len=3, image_vocab=27, grid=4)))
    saved.write(tmp_path / "m" / "image_tokenizer", DiscreteVAE(DVAEConfig(pixels=16, layers=2, hidden=8)))
    with pytest.raises(ConfigError, match=r"norm rms.*t2i-dalle1-256"):
        runs.send_out(str(tmp_path / "m"), tmp_path / "x.pt", "dalle-pytorch")
    with pytest.raises(ConfigError, match="onnx"):
        runs.send_out(str(tmp_path / "m"), tmp_path / "x.pt", "onnx")


def test_an_exported_centred_window_says_its_release(tmp_path):
    name = "legacy_0.14.3_convlike_oldpattern"
    runs.bring_in(str(GOLDEN / f"{name}.pt"), tmp_path / "run")
    runs.send_out(str(tmp_path / "run"), tmp_path / "back.pt", "dalle-pytorch")
    again = dalle_pytorch.load(tmp_path / "back.pt").model
    assert again.config == dalle_pytorch.load(GOLDEN / f"{name}.pt").model.config


# Tokenizers a prior stands on.


def test_a_prior_trains_on_a_vqgan_exactly_as_on_a_dvae(bird_folder, tmp_path):
    torch.manual_seed(0)
    saved.write(
        tmp_path / "vq",
        VQGAN(
            VQGANConfig(pixels=16, width=32, widths=(1, 1), resblocks=1, attention=(1,), latent=8, code_dim=4, codes=16)
        ),
    )
    run = tmp_path / "prior"
    main(["train", "t2i-xs-64", "--data.path", str(bird_folder), "--tokens.image", str(tmp_path / "vq"), "--steps", "1",
          "--optim.batch", "2", "--out", str(run), "--model.transformer.depth", "1", "--preview-every", "0"])  # fmt: skip
    assert saved.read(Run(run).best()).config.image_vocab == 16
    assert Pipeline.load(run)("a bird")[0].image.size == (16, 16)


def test_openais_dvae_survives_the_trip(tmp_path):
    model = OpenAIDVAE(OpenAIDVAEConfig(pixels=16, hidden=4, start=4, blocks=1, codes=20))
    saved.write(tmp_path / "oa", model)
    again = saved.read(tmp_path / "oa")
    pixels = torch.rand(2, 3, 16, 16)
    assert torch.equal(again.encode(pixels), model.encode(pixels))
    one_hot = torch.nn.functional.one_hot(model.encode(pixels), 20).float().transpose(1, 2).unflatten(2, (2, 2))
    slow = ((model.decoder(one_hot)[:, :3].sigmoid() - 0.1) / 0.8).clamp(0, 1)
    assert_close(model.decode(model.encode(pixels)), slow)


def test_half_of_openais_dvae_asks_for_the_other(tmp_path, capsys):
    encoder = tmp_path / "encoder.pkl"
    encoder.write_bytes((GOLDEN / "openai_dvae" / "openai_a_encoder.pkl").read_bytes())
    assert "--decoder" in fails(capsys, "import", encoder, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    main(["import", str(GOLDEN / "openai_dvae" / "openai_a_encoder.pkl"), str(tmp_path / "oa")])
    assert isinstance(saved.read(tmp_path / "oa"), OpenAIDVAE)


# Safety.


class Bomb:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (str(self.target),))


@pytest.mark.parametrize("name", ["bad.pt", "bad.ckpt", "bad.pkl"])
@pytest.mark.parametrize("form", ["zip", "legacy", "plain pickle", "inside"])
def test_pickles_that_would_run_something_are_refused(tmp_path, capsys, name, form):
    import pickle

    target, file = tmp_path / "it ran", tmp_path / name
    if form == "plain pickle":
        file.write_bytes(pickle.dumps(Bomb(target)))
    else:
        content = {"hparams": {}, "weights": Bomb(target)} if form == "inside" else Bomb(target)
        torch.save(content, file, _use_new_zipfile_serialization=form != "legacy")
    said = fails(capsys, "import", file, tmp_path / "run")
    assert "mkdir" in said or "cannot be read" in said
    assert "Nothing in it was run" in said or "nothing in it was run" in said
    assert not target.exists()
    assert not (tmp_path / "run").exists()


def test_a_bomb_in_a_deepspeed_folder_never_reaches_its_tool(tmp_path, monkeypatch):
    step = tmp_path / "cp" / "global_step7"
    step.mkdir(parents=True)
    torch.save({"hparams": {}, "weights": "a note"}, tmp_path / "cp" / "auxiliary.pt")
    torch.save({"module": {}}, step / "mp_rank_00_model_states.pt")
    torch.save({"optimizer_state_dict": Bomb(tmp_path / "it ran")}, step / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    monkeypatch.setattr(deepspeed_folder, "_tool", lambda: lambda folder, tag: pytest.fail("it reached the tool"))
    with pytest.raises(CheckpointError, match=r"wants to run .*mkdir"):
        deepspeed_folder.read_folder(tmp_path / "cp")
    assert not (tmp_path / "it ran").exists()


def test_a_deepspeed_folder_with_whole_weights_comes_in(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(deepspeed_folder, "_tool", lambda: None)
    content = read(GOLDEN / "full_rotary.pt")
    step = tmp_path / "dalle-ds-cp" / "global_step10"
    step.mkdir(parents=True)
    torch.save(
        {**content, "weights": "To get a working standard checkpoint, look into ..."},
        tmp_path / "dalle-ds-cp" / "auxiliary.pt",
    )
    torch.save({"module": content["weights"]}, step / "mp_rank_00_model_states.pt")
    main(["import", str(tmp_path / "dalle-ds-cp"), str(tmp_path / "run")])
    assert "fresh Adam" in capsys.readouterr().out
    first = dalle_pytorch.load(GOLDEN / "full_rotary.pt").model
    again = saved.read(Run(tmp_path / "run").best())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    said = fails(capsys, "import", tmp_path / "dalle-ds-cp" / "auxiliary.pt", tmp_path / "y")
    assert "note of DeepSpeed" in said
    (step / "mp_rank_00_model_states.pt").rename(step / "zero_pp_rank_0_mp_rank_00_model_states.pt")
    assert "pip install deepspeed" in fails(capsys, "import", tmp_path / "dalle-ds-cp", tmp_path / "z")


def broken(content: dict, how: str) -> object:
    weights, hparams = dict(content["weights"]), dict(content["hparams"])
    if how == "missing weight":
        weights.pop("transformer.layers.layers.1.0.fn.norm.weight")
    elif how == "extra weight":
        weights["discriminator.weight"] = torch.zeros(3)
    elif how == "other shape":
        weights["to_logits.1.bias"] = torch.zeros(7)
    elif how == "unknown option":
        hparams["dimm"] = 3
    elif how == "other depth":
        hparams["depth"] = 5
    elif how == "strange option":
        hparams["depth"] = "two"
    elif how == "foreign rotary":
        weights["transformer.pos_emb"] = weights["transformer.pos_emb"] * 2
    elif how == "no tokenizer":
        return {
            **content,
            "vae_params": None,
            "weights": {n: v for n, v in weights.items() if not n.startswith("vae.")},
        }
    elif how == "a list":
        return [1, 2]
    elif how == "other dict":
        return {"model": weights}
    elif how == "numbers for weights":
        weights = {"a": 1}
    elif how == "gMLP":
        hparams["attn_types"] = ("full", "mlp")
    return {**content, "hparams": hparams, "weights": weights}


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("missing weight", "missing"),
        ("extra weight", "unknown discriminator"),
        ("other shape", "another shape"),
        ("unknown option", "did you mean 'dim'"),
        ("other depth", "missing transformer"),
        ("strange option", "depth is 'two'"),
        ("foreign rotary", "rotary positions"),
        ("no tokenizer", "no image tokenizer"),
        ("a list", "holds a list"),
        ("other dict", "needs 'hparams' and 'weights'"),
        ("numbers for weights", "not named tensors"),
        ("gMLP", "gMLP"),
    ],
)
def test_files_that_are_not_what_they_claim_get_a_sentence(tmp_path, capsys, how, says):
    torch.save(broken(read(GOLDEN / "full_rotary.pt"), how), tmp_path / "dalle.pt")
    assert says in fails(capsys, "import", tmp_path / "dalle.pt", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_cut_files_get_a_sentence(tmp_path, capsys, share):
    whole = (GOLDEN / "full_plain.pt").read_bytes()
    (tmp_path / "dalle.pt").write_bytes(whole[: int(share * len(whole))])
    said = fails(capsys, "import", tmp_path / "dalle.pt", tmp_path / "run")
    assert "is empty" in said or "Is it whole" in said


def test_things_that_are_no_checkpoints_get_a_sentence(tmp_path, capsys):
    (tmp_path / "words.pt").write_text("these are words")
    (tmp_path / "folder").mkdir()
    assert "cannot be read" in fails(capsys, "import", tmp_path / "words.pt", tmp_path / "run")
    assert "not a DeepSpeed checkpoint" in fails(capsys, "import", tmp_path / "folder", tmp_path / "run")
    assert "There is no file" in fails(capsys, "import", tmp_path / "nothing.pt", tmp_path / "run")
    torch.save({"state_dict": {"a.weight": torch.zeros(2)}}, tmp_path / "other.ckpt")
    assert "weights of a VQGAN" in fails(capsys, "import", tmp_path / "other.ckpt", tmp_path / "run")


def hollow(**attributes: object) -> Hollow:
    made = Hollow()
    made.__dict__.update(attributes)
    return made


def test_a_module_that_holds_itself_has_its_weights_once():
    weight = torch.zeros(2)
    module = hollow(_parameters={"w": weight, 3: weight, "n": 5}, _buffers=None, _modules={})
    module._modules |= {"again": module, "no module": 7, "child": hollow(_modules=5, _parameters={"b": weight})}
    assert state_of(module).keys() == {"w", "child.b"}
    assert state_of(hollow(_modules=5)) == {}


def vqgan_weights() -> dict:
    return dict(read(GOLDEN / "vqgan" / "vqgan_gumbel_f16.ckpt")["state_dict"])


FOREIGN_WEIGHTS = {
    "a single number": ({"encoder.conv_in.weight": torch.tensor(1.0)}, r"encoder\.conv_in\.weight has the shape \[\]"),
    "no rows": ({"encoder.conv_in.weight": torch.zeros(0, 3, 3, 3)}, r"has the shape \[0, 3, 3, 3\]"),
    "ids for names": ({5: torch.zeros(2)}, "not named tensors"),
    "a table of one dimension": (
        {"quantize.embed.weight": torch.zeros(4)},
        r"quantize.embed.weight has the shape \[4\]",
    ),
    "missing": ({"post_quant_conv.weight": None}, "post_quant_conv.weight is missing"),
    "complex": ({"post_quant_conv.bias": torch.zeros(2, dtype=torch.complex64)}, "not a plain tensor"),
    "sparse": ({"post_quant_conv.bias": torch.zeros(2).to_sparse()}, "not a plain tensor"),
    "more than it holds": ({"post_quant_conv.bias": torch.zeros(1).expand(2**40)}, "claims 1,099,511,627,776 numbers"),
    "NaN": (
        {"post_quant_conv.bias": torch.full((16,), torch.nan)},
        r"NaN or infinity in 1 of .* \(post_quant_conv.bias\)",
    ),
    "infinite in float32": (
        {"post_quant_conv.bias": torch.full((16,), 1e300, dtype=torch.float64)},
        r"NaN or infinity in 1 of .* \(post_quant_conv.bias\)",
    ),
    "width of 33": (
        {"encoder.conv_in.weight": torch.zeros(33, 3, 3, 3)},
        "model.width is 33; it must be a multiple of 32",
    ),
}


@pytest.mark.parametrize("how", FOREIGN_WEIGHTS)
def test_weights_that_are_not_a_vqgans_get_a_sentence(tmp_path, capsys, how):
    changes, says = FOREIGN_WEIGHTS[how]
    torch.save({"state_dict": {**vqgan_weights(), **changes}}, tmp_path / "last.ckpt")
    said = fails(capsys, "import", tmp_path / "last.ckpt", tmp_path / "run", "--kind", "vqgan")
    assert re.search(says, said), said
    assert str(tmp_path / "last.ckpt") in said
    assert not (tmp_path / "run").exists()


LAUGHS = "a: &a [x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in pairwise("abcdefghijklmnop")
)
YAML = {
    "nested": ("[" * 5000, "nests deeper"),
    "laughs": (LAUGHS + "model: {params: {n_embed: *p}}", "refers to parts of itself"),
    "a long word": (f"model: {'9' * 5000}", "5,000 letters"),
    "a list": ("[1, 2]", r"model\.params\.n_embed is missing"),
    "a list inside": ("model: [1]", r"model\.params\.n_embed is missing"),
    "a word for a number": ("model: {params: {n_embed: many}}", "n_embed is 'many'; it must be a whole number"),
    "a huge number": (f"model: {{params: {{n_embed: {'9' * 900}}}}}", r"n_embed is 9+\.\.\.9+; it must be at most"),
    "no date": ("model: 2001-99-99", "not readable YAML"),
    "not UTF-8": (b"\xff\xfe", "not readable YAML"),
}


@pytest.mark.parametrize("how", YAML)
def test_a_yaml_that_describes_no_vqgan_gets_a_short_sentence_at_once(tmp_path, capsys, how):
    content, says = YAML[how]
    (tmp_path / "v.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    ckpt = GOLDEN / "vqgan" / "vqgan_gumbel_f16.ckpt"
    said = fails(capsys, "import", ckpt, tmp_path / "run", "--yaml", tmp_path / "v.yaml")
    assert re.search(says, said), said
    assert "v.yaml" in said
    assert len(said) < 700


SIZES = {
    "depth": (10**9, "depth is 1000000000; it must be at most 1024"),
    "dim": (2**40, "dim is 1099511627776; it must be at most"),
    "text_seq_len": (2**14, "does not hold the weights of a TextToImage"),
    "heads": (-1, "heads is -1; it must be at least 0"),
    "dim_head": (2**24, "head-dim is 16777216; it must be at most 8192"),
    "attn_types": ((("full",),), "attn_types"),
    "shared_attn_ids": (([[1]],), "shared_attn_ids"),
    "ff_dropout": (float("nan"), "ff_dropout is nan; it must be a finite number"),
}


@pytest.mark.parametrize("name", SIZES)
def test_options_of_any_size_are_refused_before_a_model_is_made(tmp_path, capsys, name):
    value, says = SIZES[name]
    content = read(GOLDEN / "full_rotary.pt")
    torch.save({**content, "hparams": {**content["hparams"], name: value}}, tmp_path / "dalle.pt")
    said = fails(capsys, "import", tmp_path / "dalle.pt", tmp_path / "run")
    assert says in said
    assert len(said) < 700


@pytest.mark.parametrize("change", [{"version": 7}, {"hparams": {5: 1}}, {"vae_params": (1,)}, {"weights": {5: 1}},
                                    {"weights": "a note " * 10_000}, {"hparams": {"dim": [[]], "text_seq_len": 1}}])  # fmt: skip
def test_a_dalle_with_anything_anywhere_gets_a_short_sentence(tmp_path, capsys, change):
    torch.save({**read(GOLDEN / "full_rotary.pt"), **change}, tmp_path / "dalle.pt")
    said = fails(capsys, "import", tmp_path / "dalle.pt", tmp_path / "run")
    assert str(tmp_path / "dalle.pt") in said
    assert len(said) < 700


@pytest.mark.parametrize("name", ["dvae_plain", "clip_a", "full_rotary", "resume_opt_state"])
def test_weights_that_are_not_finite_are_named_and_refused(tmp_path, capsys, name):
    content = read(GOLDEN / f"{name}.pt")
    first = next(
        n for n, v in content["weights"].items() if v.is_floating_point() and v.ndim > 1 and "pos_emb" not in n
    )
    content["weights"][first] = content["weights"][first] * torch.inf
    torch.save(content, tmp_path / "x.pt")
    said = fails(capsys, "import", tmp_path / "x.pt", tmp_path / "run")
    assert "holds NaN or infinity in 1 of" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("group", "moment"), [(float("nan"), 0.0), (-1.0, 0.0), (1e-3, float("nan"))])
def test_an_optimiser_state_that_is_not_finite_can_be_left_behind(tmp_path, capsys, group, moment):
    content = read(RESUME)
    content["opt_state"]["param_groups"][0]["lr"] = group
    content["opt_state"]["state"][0]["exp_avg"] += moment
    torch.save(content, tmp_path / "x.pt")
    assert "--no-optimizer" in fails(capsys, "import", tmp_path / "x.pt", tmp_path / "run")


DEEPSPEED = {
    "latest leads out": ({"latest": b".."}, "not a DeepSpeed checkpoint"),
    "latest is a pattern": ({"latest": b"global_step[7]"}, "not a DeepSpeed checkpoint"),
    "latest is binary": ({"latest": b"\xff\x00\xfe"}, "not a DeepSpeed checkpoint"),
    "another name": ({"latest": b"global_stepx"}, "not a DeepSpeed checkpoint"),
    "a list": ({"states": [1]}, "holds a list"),
    "no module": ({"states": {"hparams": {}}}, "holds no 'module'"),
    "a number for a module": ({"states": {"module": 5}}, "holds no 'module'"),
}


def deepspeed_folder_of(tmp_path: Path, latest: bytes | None = None, states: object = None) -> Path:
    step = tmp_path / "cp" / "global_step7"
    step.mkdir(parents=True)
    torch.save({"hparams": {}}, tmp_path / "cp" / "auxiliary.pt")
    torch.save({"module": {}} if states is None else states, step / "mp_rank_00_model_states.pt")
    if latest is not None:
        (tmp_path / "cp" / "latest").write_bytes(latest)
    (tmp_path / "cp" / "global_stepx").mkdir()
    return tmp_path / "cp"


@pytest.mark.parametrize("how", DEEPSPEED)
def test_a_deepspeed_folder_that_is_none_gets_a_sentence(tmp_path, monkeypatch, how):
    changes, says = DEEPSPEED[how]
    monkeypatch.setattr(deepspeed_folder, "_tool", lambda: None)
    folder = deepspeed_folder_of(tmp_path, **changes)
    (folder / "global_step[7]").mkdir()
    (folder / "global_stepx").rmdir()
    with pytest.raises(CheckpointError, match=says) as raised:
        deepspeed_folder.read_folder(folder)
    assert str(folder) in str(raised.value)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("form", ["legacy", "plain pickle", "protocol 4", "two in one", "a pattern", "a pipe"])
def test_shards_that_cannot_be_looked_through_never_reach_deepspeeds_tool(tmp_path, monkeypatch, form):
    import pickle

    folder = deepspeed_folder_of(tmp_path)
    shard = folder / "global_step7" / "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    bomb = {"optimizer_state_dict": Bomb(tmp_path / "it ran")}
    if form == "plain pickle":
        shard.write_bytes(pickle.dumps(bomb))
    elif form == "a pipe":
        shard.unlink(missing_ok=True)
        os.mkfifo(shard)
    elif form == "a pattern":
        torch.save({}, shard)
        folder = folder.rename(tmp_path / "cp[1]")
    else:
        torch.save(bomb, shard, _use_new_zipfile_serialization=form == "protocol 4", pickle_protocol=4)
    if form == "two in one":
        torch.save({}, tmp_path / "tail.pt")
        shard.write_bytes(shard.read_bytes() + (tmp_path / "tail.pt").read_bytes())
    monkeypatch.setattr(deepspeed_folder, "_tool", lambda: lambda folder, tag: pytest.fail("it reached the tool"))
    with pytest.raises(CheckpointError, match=r"refused|pattern"):
        deepspeed_folder.read_folder(folder)
    assert not (tmp_path / "it ran").exists()


TOKENIZERS = {
    "empty.model": b"",
    "words.model": b"these are words",
    "doubling.model": "\n".join(["1 40", "97 4", *(f"{i} {i} {i + 1}" for i in range(4, 44)), "1 0 2 3"]).encode(),
    "missing ids.model": b"1 1\n97 4\n4 9 10\n1 0 2 3",
    "vocab.txt": b"\xff\xfe[UNK]",
    "merges.txt": b"\xff\xfe",
    "cut.txt.gz": b"\x1f\x8b\x08\x00cut",
    "tokenizer.json": b"[" * 100_000,
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_text_tokenizer_that_is_none_gets_a_sentence(tmp_path, capsys, name):
    (tmp_path / name).write_bytes(TOKENIZERS[name])
    said = fails(capsys, "import", GOLDEN / "full_rotary.pt", tmp_path / "run", "--text", tmp_path / name)
    assert str(tmp_path / name) in said
    assert len(said) < 700
    assert not (tmp_path / "run").exists()


def test_an_import_begins_a_folder_of_its_own_kind(tmp_path, capsys):
    main(["import", str(GOLDEN / "clip_a.pt"), str(tmp_path / "judge")])
    main(["import", str(GOLDEN / "vqgan" / "vqgan_gumbel_f16.ckpt"), str(tmp_path / "vq")])
    main(["import", str(GOLDEN / "openai_dvae" / "openai_a_encoder.pkl"), str(tmp_path / "oa")])
    assert [own.kind_of(tmp_path / name) for name in ("judge", "vq", "oa")] == ["run", "run", "model"]
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / ".env").write_text("secret")
    for taken in ("file", "mine", "judge", "vq"):
        assert "Name a new folder" in fails(capsys, "import", GOLDEN / "clip_a.pt", tmp_path / taken)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == [".env"]


def test_an_export_that_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    main(["import", str(GOLDEN / "clip_a.pt"), str(tmp_path / "judge")])

    def full(content: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    assert "No space left" in fails(capsys, "export", tmp_path / "judge", tmp_path / "out" / "clip.pt")
    assert list((tmp_path / "out").iterdir()) == []
    monkeypatch.undo()
    (tmp_path / "file").write_text("mine")
    assert "cannot be written" in fails(capsys, "export", tmp_path / "judge", tmp_path / "file" / "clip.pt")


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before torch 1.6"])
def test_lightnings_own_objects_in_a_ckpt_are_looked_past(tmp_path, monkeypatch, new):
    """A real .ckpt names classes of pytorch_lightning; they are neither needed nor imported."""
    import sys
    import types

    module = types.ModuleType("pytorch_lightning.callbacks")
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": "pytorch_lightning.callbacks"})
    monkeypatch.setitem(sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning"))
    monkeypatch.setitem(sys.modules, "pytorch_lightning.callbacks", module)
    content = read(GOLDEN / "vqgan" / "vqgan_gumbel_f16.ckpt")
    callback = module.ModelCheckpoint()
    callback.best = 3.0
    content = {**content, "callbacks": {module.ModelCheckpoint: callback}}
    torch.save(content, tmp_path / "last.ckpt", _use_new_zipfile_serialization=new)
    monkeypatch.delitem(sys.modules, "pytorch_lightning.callbacks")
    monkeypatch.delitem(sys.modules, "pytorch_lightning")
    assert pretrained.vqgan(tmp_path / "last.ckpt").config.codes == 64


# Downloads.


@pytest.fixture
def server(tmp_path):
    """Serves tmp_path/www with ranges; drops the connection in the middle of each first answer."""
    seen: list[str] = []
    root = tmp_path / "www"
    root.mkdir()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            whole = (root / self.path[1:]).read_bytes()
            asked = self.headers.get("Range", "bytes=0-")
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            seen.append(asked)
            body = whole[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if len(seen) == 1 else body)

        def log_message(self, *args: object) -> None: ...

    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    yield root, f"http://127.0.0.1:{http_server.server_address[1]}", seen
    http_server.shutdown()
    http_server.server_close()


def test_a_download_goes_on_where_it_was_cut_off(server, tmp_path):
    root, url, seen = server
    content = os.urandom(3_000_000)
    (root / "file.ckpt").write_bytes(content)
    target = tmp_path / "cache" / "file.ckpt"
    with pytest.raises(CheckpointError, match="cannot be fetched"):
        download(f"{url}/file.ckpt", target)
    assert not target.exists()
    assert download(f"{url}/file.ckpt", target).read_bytes() == content
    assert seen == ["bytes=0-", "bytes=1500000-"]
    download(f"{url}/file.ckpt", target)
    assert len(seen) == 2, "a file that is there is not fetched again"
    target.write_bytes(content[:-1] + b"x")
    with pytest.raises(CheckpointError, match="has changed"):
        download(f"{url}/file.ckpt", target)


def test_a_download_with_another_sum_is_thrown_away(server, tmp_path):
    root, url, seen = server
    (root / "x").write_bytes(b"words")
    seen.append("so that nothing is dropped")
    with pytest.raises(CheckpointError, match="SHA-256"):
        download(f"{url}/x", tmp_path / "x", sha256="0" * 64)
    assert not (tmp_path / "x").exists()


def test_a_model_trained_here_goes_out_and_comes_back_the_same(bird_folder, tmp_path):
    common = ["--data.path", str(bird_folder), "--data.workers", "0", "--preview-every", "0", "--steps", "2"]
    vae = [
        "--model.pixels",
        "16",
        "--model.layers",
        "2",
        "--model.hidden",
        "8",
        "--model.quantizer.codes",
        "12",
        "--model.quantizer.code-dim",
        "8",
    ]
    main(["train", "dvae-dalle1-256", *common, *vae, "--out", str(tmp_path / "vae")])
    small = ["--model.text-len", "40", "--model.transformer.dim", "24", "--tokens.image", str(tmp_path / "vae")]
    main(["train", "t2i-dalle1-256", *common, *small, "--out", str(tmp_path / "run")])
    main(["export", str(tmp_path / "run"), str(tmp_path / "dalle.pt")])
    text = Run(tmp_path / "run").best() / "text_tokenizer"
    main(["import", str(tmp_path / "dalle.pt"), str(tmp_path / "again"), "--text", str(text)])
    first, again = (Pipeline.load(tmp_path / name) for name in ("run", "again"))
    tokens, codes = first.tokens(["a small red bird"]), torch.randint(0, 12, (1, 16))
    assert torch.equal(tokens, again.tokens(["a small red bird"]))
    with torch.no_grad():
        assert torch.equal(first.model.image_logits(tokens, codes), again.model.image_logits(tokens, codes))
    assert first("a red bird", seed=3)[0].codes == again("a red bird", seed=3)[0].codes


def test_the_face_completes_texts_on_a_cpu():
    from tessera.compat.dalle_pytorch import tokenizer as module
    from tessera.compat.dalle_pytorch.tokenizer import HugTokenizer

    tokenizer, dalle = HugTokenizer(GOLDEN / "hug_bpe_open.json"), small_dalle(text_seq_len=12)
    tokens, texts = dalle.generate_texts(tokenizer, "a red", filter_thres=0.9)
    assert tokens.shape == (1, 12)
    assert texts[0].startswith("a red")
    module.__dict__["tokenizer"] = tokenizer  # the module itself, as the original wants it
    try:
        assert dalle.generate_texts(module)[0].shape == (1, 12)
    finally:
        del module.__dict__["tokenizer"]
