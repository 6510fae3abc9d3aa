"""Other programs' checkpoints and tokenizers, made small, and who imports them."""

from __future__ import annotations

import contextlib
import gzip
import io
import sys
import types
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from formats import torch_file, wounded
from harness import Changes, Tree
from kind import Files
from mutate import places, put, value
from torch import nn

from tessera.compat import dalle_pytorch as theirs
from tessera.config import VQGANConfig
from tessera.imports import dalle_pytorch, deepspeed_folder, runs
from tessera.imports.tokenizers import Told
from tessera.models.clip import CLIP
from tessera.models.openai_dvae import OpenAIDVAE, OpenAIDVAEConfig
from tessera.models.text_to_image import TextToImage
from tessera.models.vqgan import VQGAN
from tessera.tokens import text as text_tokens

VAE = {"image_size": 16, "num_tokens": 12, "codebook_dim": 8, "num_layers": 3, "hidden_dim": 4}
PRIOR = {"dim": 12, "depth": 1, "heads": 1, "dim_head": 6, "text_seq_len": 4, "num_text_tokens": 20}
JUDGE = {"dim_text": 8, "dim_image": 8, "dim_latent": 8, "num_text_tokens": 20, "text_enc_depth": 1, "text_seq_len": 4, "text_heads": 1,
         "visual_enc_depth": 1, "visual_heads": 1, "visual_image_size": 16, "visual_patch_size": 8, "channels": 3}  # fmt: skip


def torch_bytes(content: Any, new: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=new)
    return buffer.getvalue()


@cache
def dalle() -> dict[str, Any]:
    """What train_dalle.py saves after a step of Adam."""
    torch.manual_seed(0)
    model = theirs.DALLE(vae=theirs.DiscreteVAE(**VAE), **PRIOR)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-4)
    model(torch.randint(1, 20, (2, 4)), torch.randint(0, 12, (2, 4)), return_loss=True).backward()
    optimizer.step()
    return {"hparams": PRIOR, "vae_params": VAE, "epoch": 1, "version": "1.6.6", "vae_class_name": "DiscreteVAE",
            "weights": model.state_dict(), "opt_state": optimizer.state_dict(), "scheduler_state": None}  # fmt: skip


def dalle_files() -> dict[str, Tree]:
    old = {**dalle(), "version": None, "opt_state": None}
    return {
        "with optimiser": {"a.pt": torch_bytes(dalle())},
        "small": {"a.pt": torch_bytes(old)},
        "before torch 1.6": {"a.pt": torch_bytes(old, new=False)},
        "openai inside": {"a.pt": torch_bytes(with_openai())},
    }


def openai() -> OpenAIDVAE:
    torch.manual_seed(0)
    return OpenAIDVAE(OpenAIDVAEConfig(hidden=4, start=2, blocks=1, codes=6))


def with_openai() -> dict[str, Any]:
    """A prior that stands on OpenAI's dVAE, which the file does not describe."""
    image = openai()
    config = dalle_pytorch.dalle_config(PRIOR | {"rotary_emb": True}, image.config.vocab, image.config.grid)
    return dalle_pytorch.exported(TextToImage(config), image)


def vae_files() -> dict[str, Tree]:
    torch.manual_seed(0)
    content = {"hparams": VAE, "weights": theirs.DiscreteVAE(**VAE).state_dict()}
    return {"new": {"a.pt": torch_bytes(content)}, "before torch 1.6": {"a.pt": torch_bytes(content, new=False)}}


def clip_files() -> dict[str, Tree]:
    torch.manual_seed(0)
    config = dalle_pytorch.clip_config(JUDGE)
    model = CLIP(config)
    weights = dalle_pytorch.foreign(model.state_dict(), dalle_pytorch.clip_names(model))
    return {"judge": {"a.pt": torch_bytes({"hparams": JUDGE, "weights": weights})}}


@cache
def vqgan() -> VQGAN:
    torch.manual_seed(0)
    shape = {"width": 32, "widths": (1, 1), "resblocks": 1, "attention": (1,), "latent": 4, "code_dim": 4, "codes": 12}
    return VQGAN(VQGANConfig(pixels=256, **shape))


YAML = """model:
  base_learning_rate: 4.5e-06
  target: taming.models.vqgan.VQModel
  params:
    embed_dim: 4
    n_embed: 12
    ddconfig: {double_z: false, z_channels: 4, resolution: 256, in_channels: 3, out_ch: 3, ch: 32, ch_mult: [1, 1],
      num_res_blocks: 1, attn_resolutions: [128], dropout: 0.0}
    lossconfig: {target: taming.modules.losses.DummyLoss}
"""


def vqgan_files() -> dict[str, Tree]:
    state = {n: v.half() for n, v in vqgan().state_dict().items()} | {"loss.logvar": torch.zeros(1)}
    return {
        "lightning": {
            "a.ckpt": torch_bytes({"state_dict": state, "global_step": 3, "callbacks": {}}),
            "a.yaml": YAML.encode(),
        }
    }


class _Stand(nn.Module):
    """A module of dall_e's, as a pickle of the whole network names it."""


def whole_module(state: dict[str, torch.Tensor], part: str) -> nn.Module:
    """OpenAI's networks were pickled whole: a tree of modules whose leaves hold w and b."""
    root = _Stand()
    for name, tensor in state.items():
        *path, leaf = name.split(".")
        at = root
        for step in path:
            if step not in at._modules:
                at.add_module(step, _Stand())
            at = at._modules[step]
        at.register_parameter({"weight": "w", "bias": "b"}[leaf], nn.Parameter(tensor.clone()))
    return root


def openai_files() -> dict[str, Tree]:
    model = openai()
    _Stand.__module__, _Stand.__qualname__ = "dall_e.encoder", "Encoder"
    fakes = {"dall_e": types.ModuleType("dall_e"), "dall_e.encoder": types.ModuleType("dall_e.encoder")}
    fakes["dall_e.encoder"].Encoder = _Stand
    sys.modules.update(fakes)
    try:
        found = {}
        for part in ("encoder", "decoder"):
            own = {n.removeprefix(f"{part}."): v for n, v in model.state_dict().items() if n.startswith(f"{part}.")}
            module = whole_module({f"blocks.{n}": v for n, v in own.items()}, part)
            found[f"{part}.pkl"] = torch_bytes(module)
            found[f"old {part}"] = torch_bytes(module, new=False)
    finally:
        for name in fakes:
            del sys.modules[name]
    return {
        "new": {p: found[p] for p in ("encoder.pkl", "decoder.pkl")},
        "before torch 1.6": {f"{p}.pkl": found[f"old {p}"] for p in ("encoder", "decoder")},
    }


def deepspeed_files() -> dict[str, Tree]:
    about = {**dalle(), "opt_state": None, "weights": "To get a working standard checkpoint, look into consolidating"}
    weights = dalle()["weights"]
    step = "global_step7"
    whole = {
        "auxiliary.pt": torch_bytes(about),
        "latest": step.encode(),
        f"{step}/mp_rank_00_model_states.pt": torch_bytes({"module": weights}),
    }
    trained = {
        n: v for n, v in weights.items() if not n.startswith("vae.") and v.is_floating_point() and "pos_emb" not in n
    }
    rest = [n for n in weights if n not in trained]
    states = {"module": weights, "ds_version": "0.17.0", "buffer_names": rest, "param_shapes": [{n: v.shape for n, v in trained.items()}],
              "shared_params": {}, "frozen_param_shapes": None, "frozen_param_fragments": None}  # fmt: skip
    flat = torch.cat([v.reshape(-1) for v in trained.values()])
    optim = {"optimizer_state_dict": {"zero_stage": 2, "partition_count": 1, "single_partition_of_fp32_groups": [flat]}}
    cut = {
        f"{step}/mp_rank_00_model_states.pt": torch_bytes(states),
        f"{step}/zero_pp_rank_0_mp_rank_00_optim_states.pt": torch_bytes(optim),
    }
    return {"whole": whole, "cut up": {**whole, **cut}}


def bring_in(folder: Path, tree: str, name: str = "a.pt") -> None:
    source = folder / name if name else folder / "cp"
    runs.bring_in(str(source), folder / "out", told=Told(yaml=str(folder / "a.yaml")) if name == "a.ckpt" else Told())


def bring_folder(folder: Path, tree: str) -> None:
    """By our own reading where the weights are whole, by DeepSpeed's tool where they are cut up."""
    tool = deepspeed_folder._tool
    if tree == "whole":
        deepspeed_folder._tool = lambda: None
    try:
        runs.bring_in(str(folder), folder / "out")
    finally:
        deepspeed_folder._tool = tool


def pickles(r: Random, trees: dict[str, Tree]) -> tuple[str, Changes]:
    """Mostly the file's pickles; the weights themselves say little."""
    if r.random() < 0.4:
        return restated(r, trees)
    name, changes = wounded(r, trees)
    for file, content in changes.items():
        if isinstance(content, bytes) and file.endswith((".pt", ".ckpt", ".pkl")) and r.random() < 0.5:
            changes = {**changes, file: torch_file(r, trees[name][file])}
    return name, changes


def strange(r: Random, tensor: torch.Tensor) -> Any:
    """A tensor that nobody expected in place of another."""
    return r.choice((
        lambda: torch.zeros(()), lambda: torch.zeros(0), lambda: torch.zeros(3, 0, 2), lambda: torch.zeros(1).expand(2**40),
        lambda: tensor.flatten()[:1], lambda: torch.stack((tensor, tensor)), lambda: tensor[None], lambda: tensor.flatten(),
        lambda: tensor.to(torch.complex64), lambda: tensor.to(torch.bool), lambda: tensor.to(torch.int64), lambda: tensor.double(),
        lambda: torch.full_like(tensor, torch.nan, dtype=torch.float32), lambda: torch.zeros(2, 2).to_sparse(), lambda: None,
        lambda: nn.Parameter(tensor.float()), lambda: tensor.transpose(0, -1) if tensor.ndim else tensor, lambda: 0.5, lambda: "weights",
    ))()  # fmt: skip


def restated(r: Random, trees: dict[str, Tree]) -> tuple[str, Changes]:
    """A whole file that torch.save wrote, of which one value or one tensor is not what it was."""
    name = r.choice(sorted(trees))
    file = r.choice([f for f in sorted(trees[name]) if f.endswith((".pt", ".ckpt"))] or [""])
    if not file:
        return wounded(r, trees)
    content = torch.load(io.BytesIO(trees[name][file]), weights_only=True)
    for _ in range(r.choice((1, 1, 2))):
        options = [p for p in places(content) if p and "weights" not in p[:1]]
        tensors = [p for p in places(content) if p and "weights" in p[:1]]
        if not options and not tensors:  # the first change took all there was
            break
        path = r.choice(r.choice((options or tensors, tensors or options)))
        how = r.randrange(6)

        def change(parent: Any, key: Any, how: int = how) -> None:
            if how == 0:
                del parent[key]
            elif how == 1 and isinstance(parent, dict):
                parent[r.choice((7, key[:-1] if isinstance(key, str) else "7", "x", None))] = parent.pop(key)
            else:
                parent[key] = strange(r, parent[key]) if isinstance(parent[key], torch.Tensor) else value(r)

        with contextlib.suppress(KeyError, IndexError, TypeError):  # the first change took the second's place away
            put(content, path, change, None)
    try:
        return name, {file: torch_bytes(content, trees[name][file][:2] == b"PK")}
    except (RuntimeError, OverflowError, RecursionError, UnicodeEncodeError):  # a value that cannot be saved
        return wounded(r, trees)


# Text tokenizers.


YTTM = "4 2\n9601 4\n97 5\n98 6\n99 7\n4 5 8\n8 6 9\n1 0 2 3\n"


def tokenizer_files() -> dict[str, Tree]:
    inner = text_tokens.train_bpe(["a red bird", "a blue bird", "a bird"], 260)
    vocab = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "##s", "bird", "红"]) + "\n"
    return {
        "tokenizer.json": {"tokenizer.json": inner.inner.to_str().encode()},
        "yttm.model": {"yttm.model": YTTM.encode()},
        "vocab.txt": {"vocab.txt": vocab.encode()},
    }


def merge_files() -> dict[str, Tree]:
    """As many pairs of symbols as CLIP's file has."""
    letters = list(text_tokens._byte_letters().values())
    symbols = [a + b for a in letters[:190] for b in letters]
    lines = [f"{s[0]} {s[1]}" for s in symbols] + [f"{s} {s[0]}" for s in symbols]
    raw = ("#version\n" + "\n".join(lines[: text_tokens.CLIP_VOCAB - 514]) + "\n").encode()
    return {"merges.txt": {"merges.txt": raw}, "merges.txt.gz": {"merges.txt.gz": gzip.compress(raw, 1, mtime=0)}}


def use_tokenizer(folder: Path, tree: str) -> None:
    found = text_tokens.find(str(folder / tree))
    found.decode(found.encode("a red bird, größer 红鸟"))
    found.save(folder / "saved")
    text_tokens.load(folder / "saved").encode("a")


def foreign(name: str, make: Any, read: Any, refused: tuple[str, ...] = ()) -> Files:
    return Files(name=name, make=make, read=read, vary=pickles, refused=refused)


KINDS = [
    foreign("dalle", dalle_files, bring_in),
    foreign("dvae", vae_files, bring_in),
    foreign("clip", clip_files, bring_in),
    foreign("vqgan", vqgan_files, partial(bring_in, name="a.ckpt")),
    foreign("openai", openai_files, partial(bring_in, name="encoder.pkl"), refused=("before",)),
    foreign("deepspeed", deepspeed_files, bring_folder),
    Files(name="tokenizers", make=tokenizer_files, read=use_tokenizer, vary=wounded),
    Files(name="clip merges", make=merge_files, read=use_tokenizer, vary=wounded),
]
