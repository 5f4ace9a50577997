"""One block of a stack: a mixer, cross-attention, a feed-forward part, and the norms around them."""

from __future__ import annotations

from torch import Tensor, nn

from tgen.executors.torch.attention import Attention, LatentAttention
from tgen.executors.torch.feed_forward import make_feed_forward
from tgen.executors.torch.forward_pass import ForwardPass
from tgen.executors.torch.norms import make_norm
from tgen.spec.records import AttentionSpec, LayerSpec, Mixer
from tgen.spec.shapes import norm_names


def make_mixer(spec: Mixer, width: int) -> Attention:
    """The module for a spec."""
    match spec:
        case AttentionSpec():
            return Attention(spec, width) if spec.latent is None else LatentAttention(spec, spec.latent, width)


class Layer(nn.Module):
    """Adds the outputs of its mixer and its feed-forward part to the residual stream; the spec says where the norms stand."""

    mixer_norm: nn.Module
    mixer_out_norm: nn.Module
    cross_norm: nn.Module
    feed_forward_norm: nn.Module
    feed_forward_out_norm: nn.Module

    def __init__(self, spec: LayerSpec, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.mixer = make_mixer(spec.mixer, width)
        self.cross = Attention(spec.cross, width) if spec.cross else None
        self.feed_forward = make_feed_forward(spec.feed_forward, width)
        for name in norm_names(spec):
            self.add_module(name, make_norm(spec.norm, width))

    def forward(self, x: Tensor, this: ForwardPass, number: int) -> Tensor:
        """x is [batch, n, width], and so is the result; `number` selects this layer's cache."""
        match self.spec.residual:
            case "pre":
                x = x + self.mixer(self.mixer_norm(x), this, number)
                if self.cross is not None:
                    x = x + self.cross.look(self.cross_norm(x), this, number)
                return x + self.feed_forward(self.feed_forward_norm(x))  # type: ignore[no-any-return]
            case "post":
                x = self.mixer_norm(x + self.mixer(x, this, number))
                if self.cross is not None:
                    x = self.cross_norm(x + self.cross.look(x, this, number))
                return self.feed_forward_norm(x + self.feed_forward(x))  # type: ignore[no-any-return]
            case "sandwich":
                x = x + self.mixer_out_norm(self.mixer(self.mixer_norm(x), this, number))
                return x + self.feed_forward_out_norm(self.feed_forward(self.feed_forward_norm(x)))  # type: ignore[no-any-return]
            case "output":
                x = x + self.mixer_out_norm(self.mixer(x, this, number))
                return x + self.feed_forward_out_norm(self.feed_forward(x))  # type: ignore[no-any-return]
            case "parallel":
                normed = self.mixer_norm(x)
                other = normed if self.spec.shared_norm else self.feed_forward_norm(x)
                return x + self.mixer(normed, this, number) + self.feed_forward(other)  # type: ignore[no-any-return]
