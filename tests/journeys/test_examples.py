"""The notebook and the old notebook's script, executed on miniatures."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from conftest import GOLDEN
from ranks import Ranks, main_with
from tessera.compat.dalle_pytorch import DiscreteVAE
from tessera.store.run import Run

ROOT = Path(__file__).parents[2]
HUG = GOLDEN / "hug_bpe_open.json"


@pytest.mark.filterwarnings("ignore")
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    import nbformat

    small = {"OUT": str(tmp_path / "out"), "PIXELS": "32", "COUNT": "40", "TOKENIZER_STEPS": "4", "PRIOR_STEPS": "6"}
    for key, value in {**small, "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(key, value)
    notebook = nbformat.read(ROOT / "examples" / "birds.ipynb", 4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) >= 6
    words = "".join(o.get("text", "") + o.get("data", {}).get("text/plain", "") for o in outputs)
    assert "Going on from step 3" in words
    assert Run(tmp_path / "out" / "prior").latest().name == "step-000006"


def old_script(ranks: Ranks, folder: Path, out: Path, *more: str) -> str:
    vae = {"image_size": 16, "num_tokens": 12, "codebook_dim": 8, "num_layers": 2, "hidden_dim": 8}
    torch.save({"hparams": vae, "weights": DiscreteVAE(**vae).state_dict()}, out / "vae.pt")
    script = str(ROOT / "examples" / "dalle_pytorch_birds.py")
    small = ["--image_folder", str(folder), "--vae_path", str(out / "vae.pt"), "--bpe_path", str(HUG), "--dim", "24", "--text_seq_len", "32",
             "--draw_every", "5", "--samples", "40", "--output", str(out / "dalle.pt")]  # fmt: skip
    run = f"import runpy, sys; sys.argv = {[script, *small, *more]}; runpy.run_path({script!r}, run_name='__main__')"
    return ranks.run(0, run)


def test_the_old_notebooks_cells_run_and_their_file_comes_in(ranks, bird_folder, tmp_path):
    said = old_script(ranks, bird_folder, tmp_path, "--epochs", "1")
    assert "drew (1, 3, 16, 16)" in said
    again = old_script(ranks, bird_folder, tmp_path, "--epochs", "2", "--dalle_path", str(tmp_path / "dalle.pt"))
    assert "finished 2 epochs, 10 steps" in again
    from tessera.imports import dalle_pytorch

    found = dalle_pytorch.load(tmp_path / "dalle.pt")
    assert found.step == 20, "Adam was resumed and came along"


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
def test_the_old_notebooks_cells_run_under_deepspeed(ranks, bird_folder, tmp_path):
    """ZeRO 3 with the optimiser offloaded: drawn from, saved, stopped, resumed, and put together by DeepSpeed's tool."""
    zero = ["--deepspeed", "--zero", "3", "--epochs", "2"]
    said = old_script(ranks, bird_folder, tmp_path, *zero, "--save_every", "4", "--stop_after", "13")
    assert "drew (1, 3, 16, 16)" in said
    assert "stopped as asked" in said
    said = old_script(ranks, bird_folder, tmp_path, *zero)
    assert "resumed at epoch 1" in said
    assert "finished 2 epochs, 10 steps" in said
    ranks.run(0, main_with(["import", str(tmp_path / "dalle-ds-cp"), str(tmp_path / "run"), "--text", str(HUG)]))
    assert Run(tmp_path / "run").config().model.transformer.reversible
