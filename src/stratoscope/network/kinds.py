"""What kind of layer a module is. Types first; where a type is unknown, its shape and its name."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from stratoscope.network.weights import is_lazy

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""Modules that only hold others. A subclass of one of them is a block of its own."""

ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.LeakyReLU: "leaky_relu",
    nn.PReLU: "prelu",
    nn.RReLU: "rrelu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Mish: "mish",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.LogSigmoid: "logsigmoid",
    nn.Softplus: "softplus",
    nn.Softsign: "softsign",
    nn.ELU: "elu",
    nn.CELU: "celu",
    nn.SELU: "selu",
    nn.Hardswish: "hardswish",
    nn.Hardsigmoid: "hardsigmoid",
    nn.Hardtanh: "hardtanh",
    nn.Hardshrink: "hardshrink",
    nn.Softshrink: "softshrink",
    nn.Tanhshrink: "tanhshrink",
    nn.Threshold: "threshold",
    nn.GLU: "glu",
    nn.Softmax: "softmax",
    nn.Softmax2d: "softmax",
    nn.Softmin: "softmin",
    nn.LogSoftmax: "log_softmax",
}
"""Activation modules and the names of their functions in `torch.nn.functional`."""

_ACTIVATION_NAMES = {kind.__name__.lower(): name for kind, name in ACTIVATIONS.items()} | {"swish": "silu"}
_NORM = re.compile(r"(Layer|RMS|Batch|Group|Instance)_?Norm|Norm(\dd)?$", re.IGNORECASE)
_POOL = re.compile(r"(Max|Avg|LP|Fractional|Adaptive)\w*(Pool|Unpool)")
_DROPOUT = re.compile(r"Dropout|DropPath|StochasticDepth")
_CHANNELS_FIRST = re.compile(r"(BatchNorm|InstanceNorm|LayerNorm2d|Upsampl|PixelShuffle|PixelUnshuffle|Pad\dd|Pool)")


@dataclass(frozen=True)
class Kind:
    """A layer's kind, the axis of its output that counts units, and its nonlinearity if it is one."""

    name: str
    channel_dim: int = -1
    activation: str | None = None


def kind_of(module: nn.Module, leaf: bool) -> Kind:
    """The kind of a module.

    Args:
        module: any module.
        leaf: whether it has no children (parametrizations do not count).

    >>> kind_of(nn.ConvTranspose2d(3, 8, 3), leaf=True)
    Kind(name='conv', channel_dim=1, activation=None)
    """
    name = activation_of(module, leaf)
    if name is not None:
        per_channel = isinstance(module, nn.Softmax2d) or (isinstance(module, nn.PReLU) and module.num_parameters > 1)
        return Kind("activation", 1 if per_channel else -1, name)
    return _typed(module) or (_named(module) if leaf else Kind("block"))


def activation_of(module: nn.Module, leaf: bool) -> str | None:
    """The name of an activation module's function; `None` if it is none."""
    for kind in type(module).__mro__:
        if kind in ACTIVATIONS:
            return ACTIVATIONS[kind]
    if not leaf or any(True for _ in module.parameters(recurse=False)):
        return None
    called = type(module).__name__.lower().removesuffix("activation")
    if "gelu" in called:  # NewGELU, QuickGELU, GELUTanh: approximations of one function
        return "gelu"
    endings = sorted((name for name in _ACTIVATION_NAMES if called.endswith(name)), key=len)
    return _ACTIVATION_NAMES[endings[-1]] if endings else None


def is_conv1d_of_transformers(module: nn.Module) -> bool:
    """Whether this is the linear layer of Transformers that stores its weight as `(in, out)`."""
    return hasattr(module, "nf") and any(kind.__name__ == "Conv1D" for kind in type(module).__mro__)


def is_transposed(module: nn.Module) -> bool:
    """Whether this is a transposed convolution."""
    return isinstance(module, _ConvTransposeNd)


def _typed(module: nn.Module) -> Kind | None:
    if isinstance(module, _ConvNd):
        return Kind("conv", 1)
    if isinstance(module, nn.Linear | nn.Bilinear) or is_conv1d_of_transformers(module):
        return Kind("linear")
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return Kind("recurrent")
    if isinstance(module, nn.MultiheadAttention):
        return Kind("attention")
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return Kind("embedding")
    if isinstance(module, _NormBase | nn.GroupNorm | nn.LocalResponseNorm | nn.CrossMapLRN2d):
        return Kind("norm", 1)
    return Kind("norm") if isinstance(module, nn.LayerNorm | nn.RMSNorm) else None


def _named(module: nn.Module) -> Kind:
    names = " ".join(kind.__name__ for kind in type(module).__mro__ if kind not in (nn.Module, object))
    parameters = dict(module.named_parameters(recurse=False))
    shapes = [0 if is_lazy(parameter) else parameter.ndim for parameter in parameters.values()]
    channel_dim = 1 if _CHANNELS_FIRST.search(names) else -1
    if not shapes and _POOL.search(names):
        return Kind("pool", channel_dim)
    if not shapes and _DROPOUT.search(names):
        return Kind("dropout", 1 if re.search(r"Dropout\dd|FeatureAlpha", names) else -1)
    if _NORM.search(type(module).__name__) and max(shapes, default=0) <= 1:
        return Kind("norm", channel_dim)
    weight = parameters.get("weight")
    if weight is not None and not is_lazy(weight) and weight.ndim == 2:
        if tuple(weight.shape) == (getattr(module, "out_features", -1), getattr(module, "in_features", -1)):
            return Kind("linear")
        if "Embedding" in names and shapes == [2]:
            return Kind("embedding")
    return Kind("other", channel_dim)
