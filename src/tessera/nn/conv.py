"""Convolution blocks of image tokenizers. They do not know codes."""

from torch import Tensor, nn


class ResBlock(nn.Module):
    """3 x 3, 3 x 3, 1 x 1 with ReLU between, added to the input."""

    def __init__(self, width: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + x


def down(wide: int, width: int) -> nn.Module:
    """Half the side."""
    return nn.Sequential(nn.Conv2d(wide, width, 4, stride=2, padding=1), nn.ReLU())


def up(wide: int, width: int) -> nn.Module:
    """Twice the side."""
    return nn.Sequential(nn.ConvTranspose2d(wide, width, 4, stride=2, padding=1), nn.ReLU())
