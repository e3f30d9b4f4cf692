"""A second device without having one: its tensors refuse to meet those of the CPU, as a GPU's do.

What the engine does on a GPU can so be run where there is none: tensors that are made or moved
there report another device, and every operation checks where its operands are. The numbers
themselves are in the CPU's memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from backend.engine.architectures import decoder, family_of, unwrapped

aten = torch.ops.aten
SECOND = torch.device("lazy:0")
"""Of a kind that every build of torch knows, and that nothing else uses."""
_MOVES = {aten.copy_.default, aten._to_copy.default}
_INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}


class There(Tensor):
    """A tensor on the second device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> There:
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=SECOND,
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None):
        return _run(operation, args, kwargs or {})

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("A tensor on the second device cannot become an array: use cpu() first.")

    __array__ = numpy


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None):
        return _run(operation, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """What torch does in one go, before it looks at devices."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        kwargs = kwargs or {}
        if function is torch.tensor and kwargs.get("device") is not None:
            made = torch.tensor(*args, **(kwargs | {"device": "cpu"}))
            return made.to(kwargs["device"])
        if function in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], There):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            places = tuple(torch.tensor(i) if isinstance(i, list) else i for i in index)
            new = [each if isinstance(each, Tensor) else torch.tensor(each) for each in args[2:]]
            return function(args[0], places, *new)
        return function(*args, **kwargs)


@contextmanager
def second_device() -> Iterator[None]:
    """In the block there is a second device."""
    with _Operations(), _Functions():
        yield


def moved(model: nn.Module) -> nn.Module:
    """The model itself, now on the second device."""
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            module._parameters[name] = nn.Parameter(There(weight.data), requires_grad=False)
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = There(buffer)
    return model


class _InPlace(AlignDevicesHook):
    """Accelerate's hook, on a module that is already where it is to be."""

    def init_hook(self, module: nn.Module) -> nn.Module:
        return module


def spread(model: nn.Module) -> nn.Module:
    """The model itself, its lower layers on the CPU and the rest on the second device, held
    together as a model that is spread over GPUs is."""
    stack, family = decoder(model), family_of(model)
    blocks = [*getattr(stack, family.layers)]
    half = len(blocks) // 2
    head = getattr(stack, family.norm), unwrapped(model).get_output_embeddings()
    for module in (*blocks[half:], *head):
        add_hook_to_module(moved(module), _InPlace(SECOND))
    for module in blocks[:half]:
        add_hook_to_module(module, _InPlace(torch.device("cpu")))
    add_hook_to_module(unwrapped(model), _InPlace(torch.device("cpu"), io_same_device=True))
    return model


def _run(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    there = [each for each in tensors if isinstance(each, There)]
    # Single numbers may come from anywhere, and so may indices.
    here = [each for each in tensors if each.dim() and not isinstance(each, There)]
    is_index = operation in _INDEXING and isinstance(args[0], There)
    if there and here and operation not in _MOVES and not is_index:
        raise RuntimeError(f"Expected all tensors to be on the same device: {operation}")
    goes_there = bool(there)
    if operation is aten.copy_.default:
        goes_there = isinstance(args[0], There)
    if (device := kwargs.get("device")) is not None:
        goes_there = torch.device(device).type == SECOND.type
        kwargs = kwargs | {"device": torch.device("cpu")}
    if operation is aten._fused_sdp_choice.default:
        return 0  # attention by its definition, which every device has
    known = {id(each.inner): each for each in there}

    def bare(value: Any) -> Any:
        return value.inner if isinstance(value, There) else value

    def dressed(value: Any) -> Any:
        if not isinstance(value, Tensor) or not goes_there:
            return value
        return known[id(value)] if id(value) in known else There(value)

    return tree_map(dressed, operation(*tree_map(bare, args), **tree_map(bare, kwargs)))
