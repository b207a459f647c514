"""How an operator gets its backward pass, and how this package calls it.

What `torch.library.register_autograd` does, without the 80 us that it takes for each call: it walks
through the schema for arguments that were left out. Here that is done once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def _nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    del ctx, inputs, output


def _ask(name: str) -> Callable[[], Any]:
    """A question to torch; one that this version does not know is answered with yes."""
    found: Callable[[], Any] = getattr(torch._C, name, lambda: True)
    return found


# Who sees operators pass: modes, transforms, torch.jit.trace.
_modes = _ask("_len_torch_dispatch_stack"), _ask("_len_torch_function_stack")
_transforms = _ask("_are_functorch_transforms_active")
_trace = _ask("_get_tracing_state")
_profiler = getattr(torch.autograd, "_profiler_enabled", lambda: True)
_PLAIN = (torch.Tensor, torch.nn.Parameter)


def _watched(inputs: tuple[Any, ...]) -> bool:
    """Whether anybody would miss the operator: tracers, modes, profilers, types of tensors."""
    if torch.compiler.is_compiling():
        return True
    if _modes[0]() or _modes[1]() or _transforms() or _trace() or _profiler():
        return True
    return any(isinstance(x, torch.Tensor) and not _plain(x) for x in inputs)


def _plain(x: torch.Tensor) -> bool:
    """Torch's own type, and in memory what it says: a dispatcher resolves lazy signs and zeros."""
    return type(x) in _PLAIN and not x.is_neg() and not x._is_zerotensor()


def register(
    library: torch.library.Library,
    name: str,
    backward: Callable[..., Any],
    *,
    setup_context: Callable[[Any, tuple[Any, ...], Any], None] = _nothing,
    real: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Make ``usconf::name`` differentiable; the operator, for calls from this package.

    backward(ctx, *gradients) gives a gradient or None for each argument of the schema; it reads
    what setup_context(ctx, inputs, output) left, and ctx.ours: outputs are in the hands of this
    package alone. Arguments are positional; tensors stand alone, not in lists.

    real: the operator's implementation on all devices. Calls go to it directly, past the
    dispatcher, unless somebody watches; they give all arguments of the schema.
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
            ctx.ours = False
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
    return operator if real is None else _directly(operator, real, backward, setup_context)


def _directly(
    operator: Callable[..., Any],
    real: Callable[..., Any],
    backward: Callable[..., Any],
    setup_context: Callable[[Any, tuple[Any, ...], Any], None],
) -> Callable[..., Any]:
    class Direct(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = real(*inputs)
            ctx.ours = True
            setup_context(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return backward(ctx, *gradients)

    # Without what Function.apply does for transforms, of which there are none.
    apply = super(torch.autograd.Function, Direct).apply  # type: ignore[misc]

    def call(*inputs: Any) -> Any:
        if _watched(inputs):
            return operator(*inputs)
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*inputs):
            return apply(*inputs)
        return real(*inputs)

    return call
