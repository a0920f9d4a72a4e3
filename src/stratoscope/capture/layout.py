"""Which axis of a layer's output counts examples, and which counts units."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from stratoscope.network.layers import Layer


@dataclass
class Layout:
    """Reads axes from shapes and layer types; where a type does not say (an activation), from whom it follows.

    Attributes:
        sequence_first: module paths inside which sequences come before examples (`batch_first=False`).
    """

    sequence_first: tuple[str, ...] = ()
    _channels: dict[tuple[int, ...], int] = field(default_factory=dict)

    @classmethod
    def of(cls, module: nn.Module) -> Layout:
        """Note every recurrent or attention module that says `batch_first=False`."""
        return cls(tuple(name for name, child in module.named_modules() if _is_time_first(child)))

    def batch_dim(self, layer: Layer, value: Tensor, n: int, packed: bool) -> int | None:
        """The axis of length `n`; where both of the first two have it, the one that `batch_first` says."""
        if packed:
            return 0
        fits = [dim for dim in (0, 1) if dim < value.ndim and value.shape[dim] == n]
        if len(fits) == 2 and value.ndim > 2 and self._is_sequence_first(layer.name):
            return 1
        return fits[0] if fits else None

    def channel_dim(self, layer: Layer, value: Tensor) -> int:
        """`1` for feature maps, `-1` otherwise."""
        shape = tuple(value.shape[1:])
        if layer.channel_dim == 1 and layer.kind in ("conv", "norm", "pool"):
            self._channels[shape] = 1
            return 1
        if layer.kind in ("linear", "embedding", "recurrent", "attention"):
            self._channels[shape] = -1
            return -1
        # a layer norm over (channels, height, width) leaves the channels where they were
        return self._channels.get(shape, 1 if value.ndim >= 4 and layer.kind != "norm" else -1)

    def _is_sequence_first(self, name: str) -> bool:
        path = name.partition(":")[0]
        return any(path == inside or path.startswith(f"{inside}.") or inside == "" for inside in self.sequence_first)


def _is_time_first(module: nn.Module) -> bool:
    """Whether a module of torch, or one without parts, wants sequences before examples."""
    if isinstance(module, (nn.TransformerEncoder, nn.TransformerDecoder)):
        return any(_is_time_first(layer) for layer in module.layers)
    if isinstance(module, (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)):
        return module.self_attn.batch_first is False
    if isinstance(module, (nn.RNNBase, nn.MultiheadAttention, nn.Transformer)) or not module._modules:
        return getattr(module, "batch_first", None) is False
    return False
