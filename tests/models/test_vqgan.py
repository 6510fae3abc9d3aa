"""The VQGAN: trained through its codes, with codes that cannot die, and the same network as one that was imported."""

import dataclasses
import json

import pytest
import torch
from torch.testing import assert_close

from tessera.config import Gumbel, Lookup, PyramidConfig, VQGANConfig, adapted, train_config
from tessera.errors import ConfigError
from tessera.models import saved
from tessera.models.vqgan import VQGAN
from tessera.models.vqgan_codes import Reviving
from tessera.nn.quantize.lookup import Nearest

TINY = VQGANConfig(
    pixels=16, width=32, widths=(1, 1), resblocks=1, attention=(1,), latent=8, code_dim=4, codes=16, revive=True
)


@pytest.mark.parametrize("changes", [{}, {"revive": False}, {"revive": False, "gumbel": True}], ids=str)
def test_gradients_pass_through_the_codes_to_every_weight(changes):
    torch.manual_seed(0)
    model = VQGAN(dataclasses.replace(TINY, **changes))
    loss = model(torch.rand(2, 3, 16, 16), 0.9)
    assert float(loss.total.detach()) == pytest.approx(float((loss.reconstruction + loss.quantizer).detach()))
    loss.reconstruction.backward(retain_graph=True)
    assert model.encoder.conv_in.weight.grad.abs().sum() > 0, "straight through, from pixels alone"
    loss.quantizer.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_training_sees_the_vectors_that_drawing_decodes():
    torch.manual_seed(0)
    model, pixels = VQGAN(TINY).eval(), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        loss = model(pixels, 1.0)
    codes = model.encode(pixels)
    assert_close(model.decode(codes), loss.again.clamp(0, 1), atol=1e-5, rtol=0)
    assert loss.usage == codes.unique().numel()


def test_idle_codes_are_drawn_to_the_nearest_output_and_the_others_are_left_alone():
    torch.manual_seed(0)
    quantize, z = Reviving(Lookup(codes=7, code_dim=3)), torch.randn(2, 3, 2, 2)
    table = quantize.embedding.weight
    made, plain = quantize(z, 1.0), Nearest.forward(quantize, z, 1.0)
    assert torch.equal(made.codes, plain.codes)
    flat, wanted = z.permute(0, 2, 3, 1).reshape(-1, 3), 0.0
    idle = sorted(set(range(7)) - set(made.codes.flatten().tolist()))
    assert idle, "eight outputs leave a code idle"
    for k in idle:
        distances = [(table[k].detach() - row).square().sum() for row in flat]
        wanted += (table[k].detach() - flat[int(torch.stack(distances).argmin())]).square().mean() / 7
    assert_close((made.loss - plain.loss).detach(), wanted)
    (made.loss - plain.loss).backward()
    moved = table.grad.abs().sum(1) > 0
    assert moved.nonzero().flatten().tolist() == idle


def test_a_dead_codebook_comes_alive():
    """Three clusters, and a codebook that lies where one vector is nearest to all of them."""
    torch.manual_seed(0)
    used = {}
    for revive in (False, True):
        quantize = (Reviving if revive else Nearest)(Lookup(codes=3, code_dim=2))
        with torch.no_grad():
            quantize.embedding.weight.copy_(torch.tensor([[3.0, 0.0], [-9.0, 1.0], [-9.0, -1.0]]))
        centres = torch.tensor([[4.0, 0.0], [0.0, 4.0], [0.0, -4.0]])
        optimizer = torch.optim.Adam(quantize.parameters(), lr=0.5)
        for _ in range(300):
            z = (centres + 0.1 * torch.randn(3, 2)).t()[None, :, None]  # [1, D, 1, 3]
            optimizer.zero_grad()
            made = quantize(z, 1.0)
            made.loss.backward()
            optimizer.step()
        used[revive] = int(made.usage)
    assert used == {False: 1, True: 3}


def test_a_folder_of_an_earlier_release_is_the_same_network(tmp_path):
    """Its config.json had no settings of training."""
    torch.manual_seed(0)
    model = VQGAN(dataclasses.replace(TINY, revive=False))
    saved.write(tmp_path, model)
    about = json.loads((tmp_path / "config.json").read_text())
    old = {name: about[name] for name in about if name not in {*PyramidConfig.may_change, "commitment", "revive"}}
    old["pixels"] = about["pixels"]
    from safetensors.torch import load_file, save_file

    (tmp_path / "config.json").write_text(json.dumps(old))
    weights = load_file(tmp_path / "weights.safetensors")
    save_file(weights, tmp_path / "weights.safetensors", {"config": saved.digest(old)})
    again, pixels = saved.read(tmp_path), torch.rand(2, 3, 16, 16)
    assert again.config == model.config
    assert torch.equal(again.encode(pixels), model.encode(pixels))


def test_weights_fit_other_pixels_and_other_losses_and_no_other_network(tmp_path):
    saved.write(tmp_path, VQGAN(TINY))
    larger = VQGAN(dataclasses.replace(TINY, pixels=32, reconstruction="mse", revive=False))
    saved.fill(larger, tmp_path)
    assert larger.encode(torch.rand(1, 3, 32, 32)).shape == (1, 256)
    with pytest.raises(Exception, match="another model"):
        saved.fill(VQGAN(dataclasses.replace(TINY, codes=17)), tmp_path)
    assert adapted(TINY, PyramidConfig(pixels=32)) == TINY


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"pixels": 17}, "multiple of 2. Try model.pixels 16"),
        ({"width": 48}, "must be a multiple of 32"),
        ({"attention": (2,)}, "the coarsest is 1"),
        ({"gumbel": True}, "leave it out, or model.gumbel"),
        ({"codes": 300_000}, "codes"),
    ],
)
def test_wrong_settings_are_sentences(bad, says):
    with pytest.raises(ConfigError, match=says):
        dataclasses.replace(TINY, **bad).check()


def test_settings_survive_json_and_say_how_codes_are_chosen():
    from tessera.config import TrainConfig, to_dict

    config = TrainConfig(model=TINY)
    assert train_config(json.loads(json.dumps(to_dict(config)))) == config
    assert TINY.quantizer == Lookup(codes=16, code_dim=4)
    assert isinstance(dataclasses.replace(TINY, gumbel=True, revive=False).quantizer, Gumbel)
