"""How an operator gets its backward pass.

What `torch.library.register_autograd` does, without the 80 us that it takes for each call: it walks
through the schema for arguments that were left out. Here that is done once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def _nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    del ctx, inputs, output


def register(
    library: torch.library.Library,
    name: str,
    backward: Callable[..., Any],
    *,
    setup_context: Callable[[Any, tuple[Any, ...], Any], None] = _nothing,
) -> None:
    """Make ``usconf::name`` differentiable.

    backward(ctx, *gradients) gives a gradient or None for each argument of the schema; it reads
    what setup_context(ctx, inputs, output) left. Arguments are positional; tensors stand alone, not
    in lists.
    """
    operator = getattr(torch.ops.usconf, name).default
    arguments = operator._schema.arguments
    if any(argument.kwarg_only for argument in arguments):
        raise ValueError(f"arguments of {name} must be positional, got {operator._schema}")
    # The dispatcher leaves out arguments that are as their defaults.
    defaults = [argument.default_value for argument in arguments]

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *given: Any) -> Any:
            *inputs, keyset = given
            output = below(keyset, *inputs)
            setup_context(ctx, (*inputs, *defaults[len(inputs) :]), output)
            return output

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            found = backward(ctx, *gradients)
            return *(found if isinstance(found, tuple) else (found,)), None

    def below(keyset: Any, *inputs: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return operator.redispatch(keyset & torch._C._after_autograd_keyset, *inputs)

    def dispatched(keyset: Any, *inputs: Any) -> Any:
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*inputs):
            return Differentiable.apply(*inputs, keyset)
        return below(keyset, *inputs)

    Differentiable.__name__ = Differentiable.__qualname__ = f"{name}_backward"
    library.impl(name, dispatched, "Autograd", with_keyset=True)
