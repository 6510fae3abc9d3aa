"""Muon against torch's own, on kernels, and at a rate of its own."""

import pytest
import torch

from tessera.config import MachineConfig, OptimConfig
from tessera.machine.device import computes_bf16
from tessera.train.engines.single import SingleEngine
from tessera.train.muon import ROUNDS, Muon, orthogonal
from tessera.train.optim import optimizer_of

CPU = torch.device("cpu")


def gradients(*shape: int) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(shape) for _ in range(3)]


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_a_matrix_moves_as_torch_moves_it(shape):
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(w) for w in torch.randn(1, *shape).repeat(2, 1, 1))
    optimizers = [
        (ours, Muon([ours], lr=0.1, weight_decay=0.3)),
        (theirs, torch.optim.Muon([theirs], lr=0.1, weight_decay=0.3, ns_steps=ROUNDS, adjust_lr_fn="match_rms_adamw")),
    ]
    for grad in gradients(*shape):
        for weight, optimizer in optimizers:
            weight.grad = grad.clone()
            optimizer.step()
    if computes_bf16(CPU):
        assert torch.equal(ours, theirs)
    else:  # theirs rounds to bf16
        torch.testing.assert_close(ours, theirs, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_moves_as_the_matrix_that_it_is(memory):
    kernel = torch.nn.Parameter(torch.randn(6, 4, 3, 3).to(memory_format=memory))
    matrix = torch.nn.Parameter(kernel.detach().clone().reshape(6, 36))
    optimizer = Muon([kernel, matrix], lr=0.1)
    for grad in gradients(6, 4, 3, 3):
        kernel.grad, matrix.grad = grad.to(memory_format=memory), grad.reshape(6, 36)
        optimizer.step()
    assert torch.equal(kernel.detach().reshape(6, 36), matrix.detach())


def test_an_orthogonal_update_keeps_directions_and_evens_their_strengths():
    torch.manual_seed(3)
    turns = [torch.linalg.qr(torch.randn(5, 5))[0] for _ in range(2)]
    x = turns[0] @ torch.diag(torch.tensor([10.0, 3.0, 1.0, 0.5, 0.2])) @ turns[1]
    few, many = (turns[0].T @ orthogonal(x, torch.float32, rounds) @ turns[1].T for rounds in (ROUNDS, 8))
    for found in (few, many):
        assert (found - torch.diag(found.diagonal())).abs().max() < 1e-3
    assert 0.6 < many.diagonal().min() < many.diagonal().max() < 1.3
    assert few.diagonal().max() / few.diagonal().min() < 4, "of 50 before"


def test_muon_has_a_rate_of_its_own():
    """What Muon moves goes at muon-lr, the rest at lr, each with the schedule's share."""
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4, 2))
    engine = SingleEngine(MachineConfig(device="cpu"))
    trainee = engine.add(network, optimizer_of(OptimConfig(name="muon", lr=1e-3, muon_lr=4e-3)))
    network(torch.ones(1, 3, 3, 3)).sum().backward()
    trainee.apply(0.5e-3)
    rates = {tuple(p.shape): group["lr"] for group in trainee.optimizer.param_groups for p in group["params"]}
    assert rates == {(4, 3, 3, 3): 2e-3, (2, 4): 2e-3, (4,): 0.5e-3, (2,): 0.5e-3}
