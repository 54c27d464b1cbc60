"""Sees every operation of a forward pass: torch functions, custom autograd functions, scripted and compiled parts.

`TorchFunctionMode` shows torch's functions and tensor methods. Three things slip past it and are patched for the
time of one forward pass: `autograd.Function.apply` (by its code object, so that `quantize = Q.apply` made at import is
seen too), `torch.from_numpy`, and scripted or compiled callables, which come as one opaque operation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch._C._functorch import peek_interpreter_stack
from torch._functorch import apis, eager_transforms
from torch.overrides import TorchFunctionMode

from .apply import ORIGINAL_APPLY, diverted
from .control_flow import as_python
from .graph_hooks import WatchedNode, backward_hooks_of
from .operations import QUESTIONS, TELLING, op_name
from .sites import is_user_file
from .user_types import Dispatches, as_handled, handled_by_the_user


class Interceptor(TorchFunctionMode):
    """Routes every operation of the code run under it through `on_call`.

    `kind` is `torch`, `function` (a custom `autograd.Function`), `source` (`torch.from_numpy`), `opaque` (scripted
    or compiled), or `hook` (a hook on a tensor's gradient, or a module with backward hooks, seen after all operations
    inside it). `call()` runs the operation on the arguments it was given.
    """

    keeps_inference_mode = False  # else it is `no_grad`: equal values, that a backward pass can take part in

    def on_call(
        self, kind: str, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Runs the operation, or something in its place, and returns its result."""
        raise NotImplementedError

    def on_hook(self, tensor: torch.Tensor, hook: Callable[..., Any]) -> Any:
        """Stands for `tensor.register_hook(hook)`: the hook acts while the network runs, for gradients of its own.

        Afterwards it is left out: what it would change is the gradient and nothing else.
        """
        return tensor.register_hook(self._while_running(hook))

    def on_graph_hook(self, tensor: torch.Tensor, hook: Callable[..., Any]) -> None:
        """Told of a hook on a node of the graph behind a tensor, as one on the tensor's gradient."""

    def _graph_hook(self, tensor: torch.Tensor, hook: Callable[..., Any]) -> None:
        self._busy += 1
        try:
            self.on_graph_hook(tensor, hook)
        finally:
            self._busy -= 1

    def _while_running(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *grads: None if self.over else hook(*grads)

    def on_question(self, name: str, tensor: torch.Tensor) -> None:
        """Told before a question about a tensor is answered: some answers are ways into its memory."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = op_name(func)
        if name in TELLING and not self._busy:
            self.on_question(name, args[0])
        if name == "grad_fn" and not self._busy and is_user_file(sys._getframe(1).f_code.co_filename):
            node = func(*args, **(kwargs or {}))
            return None if node is None else WatchedNode(node, args[0], self._while_running, self._graph_hook)
        # Inside a function transform there are no plain tensors.
        if self._busy or name in QUESTIONS or peek_interpreter_stack() is not None:
            return func(*args, **(kwargs or {}))
        if name == "register_hook":
            return self.on_hook(*args, **(kwargs or {}))
        if handled_by_the_user(types):
            return as_handled(self, func, types, args, kwargs or {})
        return self.on_call("torch", name, self._dispatches.seeing(func, args), args, kwargs or {})

    def __enter__(self) -> Interceptor:
        self._inside = 0
        self._busy = 0
        self.over = False
        self._end_of_apply = diverted(self._on_apply)
        self._dispatches = Dispatches(self)
        self._control_flow = as_python()
        self._control_flow.__enter__()
        self._from_numpy = torch.from_numpy
        torch.from_numpy = self._on_from_numpy
        self._backward = torch.autograd.backward
        torch.autograd.backward = self._on_backward
        self._outer_set = torch.Tensor.__dict__.get("set_")
        torch.Tensor.set_ = lambda t, *given: self._on_set(t, *given)  # type: ignore[method-assign]
        self._script_call = torch.jit.ScriptFunction.__call__
        torch.jit.ScriptFunction.__call__ = lambda f, *a, **k: self._on_script(f, a, k)  # pyright: ignore
        self._vmap = apis.vmap_impl  # pyright: ignore
        apis.vmap_impl = self._on_vmap  # pyright: ignore
        self._grad_impl = eager_transforms.grad_impl
        eager_transforms.grad_impl = self._on_transformed  # pyright: ignore
        self._new_parameter = nn.Parameter.__dict__["__new__"]
        nn.Parameter.__new__ = self._on_parameter  # type: ignore[method-assign]
        self._inference_enter = torch.inference_mode.__enter__
        self._inference_exit = torch.inference_mode.__exit__

        def enter(mode: torch.inference_mode) -> None:
            # Inference tensors cannot take part in a backward pass; no_grad gives the same values.
            mode._unmask_before = torch.is_grad_enabled()  # type: ignore[attr-defined]
            if self.keeps_inference_mode:
                self._inference_enter(mode)
            elif mode.mode:
                torch._C._set_grad_enabled(False)

        def leave(mode: torch.inference_mode, *_: object) -> None:
            if self.keeps_inference_mode:
                self._inference_exit(mode, None, None, None)
            else:
                torch._C._set_grad_enabled(mode._unmask_before)  # type: ignore[attr-defined]

        torch.inference_mode.__enter__ = enter  # type: ignore[method-assign]
        torch.inference_mode.__exit__ = leave  # type: ignore[method-assign]
        self._module_call = nn.Module.__call__
        nn.Module.__call__ = lambda m, *a, **k: self._on_module(m, a, k)  # type: ignore[method-assign]
        super().__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        self.over = True
        nn.Module.__call__ = self._module_call  # type: ignore[method-assign]
        nn.Parameter.__new__ = self._new_parameter  # type: ignore[method-assign]
        torch.inference_mode.__enter__ = self._inference_enter  # type: ignore[method-assign]
        torch.inference_mode.__exit__ = self._inference_exit  # type: ignore[method-assign]
        eager_transforms.grad_impl = self._grad_impl  # pyright: ignore
        apis.vmap_impl = self._vmap  # pyright: ignore
        torch.jit.ScriptFunction.__call__ = self._script_call
        torch.autograd.backward = self._backward
        if self._outer_set is None:
            del torch.Tensor.set_  # TensorBase's own
        else:
            torch.Tensor.set_ = self._outer_set  # type: ignore[method-assign]
        torch.from_numpy = self._from_numpy
        self._control_flow.__exit__(None, None, None)
        self._dispatches.end()
        self._end_of_apply()

    def _unseen(self, *call: Any) -> Any:
        # Kind, name, what to call, and its arguments, as of `on_call`.
        # A mode is switched off while it handles a call; what we patched ourselves has to do the same. Subclasses of
        # `Tensor` go on to handle theirs.
        if self._busy:
            return call[2](*call[3], **call[4])
        self._busy += 1
        try:
            return self.on_call(*call)
        finally:
            self._busy -= 1

    def _on_apply(self, cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._inside:
            return ORIGINAL_APPLY(cls, *args, **kwargs)

        def apply(*args: Any, **kwargs: Any) -> Any:
            self._inside += 1
            try:
                return ORIGINAL_APPLY(cls, *args, **kwargs)
            finally:
                self._inside -= 1

        apply.function = cls  # type: ignore[attr-defined]
        return self._unseen("function", cls.__name__, apply, args, kwargs)

    def _on_from_numpy(self, array: Any) -> Any:
        return self._unseen("source", "from_numpy", self._from_numpy, (array,), {})

    def _on_backward(self, tensors: Any, grad_tensors: Any = None, *given: Any, **kwargs: Any) -> None:
        # `Tensor.backward` ends here, too, and is seen by itself.
        kwargs.update(zip(("retain_graph", "create_graph", "grad_variables", "inputs"), given, strict=False))
        if kwargs.get("grad_variables") is not None or not is_user_file(sys._getframe(1).f_code.co_filename):
            return self._backward(tensors, grad_tensors, **kwargs)

        def call(tensors: Any, *, gradient: Any = None, **kwargs: Any) -> None:
            self._backward(tensors, gradient, **kwargs)

        return self._unseen("torch", "backward", call, (tensors,), {"gradient": grad_tensors, **kwargs})

    def _on_set(self, tensor: torch.Tensor, *given: Any) -> torch.Tensor:
        call = torch._C.TensorBase.set_
        if len(given) != 1 or not isinstance(given[0], torch.Tensor):
            return call(tensor, *given)
        return self._unseen("torch", "set_", call, (tensor, *given), {})

    def _on_parameter(self, cls: type, data: Any = None, requires_grad: bool = True) -> Any:
        def new(data: Any = None, requires_grad: bool = True) -> Any:
            return self._new_parameter.__func__(cls, data, requires_grad)

        if not isinstance(data, torch.Tensor):
            return new(data, requires_grad)
        return self._unseen("torch", "Parameter", new, (data, requires_grad), {})

    def _on_script(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._script_call(func, *args, **kwargs)

        return self._unseen("opaque", f"scripted {getattr(func, 'name', 'function')}", call, args, kwargs)

    def _on_vmap(
        self, func: Any, in_dims: Any, out_dims: Any, mode: str, chunks: Any, *args: Any, **kwargs: Any
    ) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._vmap(func, in_dims, out_dims, mode, chunks, *args, **kwargs)

        return self._unseen("opaque", f"vmap of {getattr(func, '__name__', 'function')}", call, args, kwargs)

    def _on_transformed(
        self, func: Any, argnums: Any, has_aux: bool, given: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        def call(*given: Any, **kwargs: Any) -> Any:
            return self._grad_impl(func, argnums, has_aux, given, kwargs)

        return self._unseen("opaque", f"grad of {getattr(func, '__name__', 'function')}", call, given, kwargs)

    def _on_module(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if backward_hooks_of(module):
            result = self.call_hooked(module, args, kwargs)

            def call(*_: Any, **__: Any) -> Any:
                return result

            call.hooked = module  # type: ignore[attr-defined]
            return self._unseen("hook", f"{type(module).__name__} with backward hooks", call, args, kwargs)
        return self._on_bare_module(module, args, kwargs)

    def call_hooked(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs a module that has backward hooks; afterwards it is seen as one operation more, of kind `hook`."""
        return self._on_bare_module(module, args, kwargs)

    def _on_bare_module(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        compiled = type(module).__name__ == "OptimizedModule"
        if not compiled and not isinstance(module, torch.jit.ScriptModule):
            return self._module_call(module, *args, **kwargs)

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._module_call(module, *args, **kwargs)

        name = f"{'compiled' if compiled else 'scripted'} {getattr(module, 'original_name', type(module).__name__)}"
        return self._unseen("opaque module", name, call, args, kwargs)
