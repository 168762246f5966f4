"""torch.compile(backend="effcc"): weights that change, dynamic sizes, state in place, what is refused and how."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from effcc.frontends.torch import backend
from effcc.frontends.torch.dynamo import Compiled, FallbackWarning

INTERPRETER = {"target": "interpreter"}
TARGETS = pytest.mark.parametrize("target", ["interpreter", "cpu"])


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()


def compiled(function: Any, target: str = "interpreter", dynamic: bool | None = None, **options: Any) -> Any:
    return torch.compile(
        function, backend=backend, fullgraph=True, dynamic=dynamic, options={"target": target, **options}
    )


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)).eval()


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """One entry for each program that is built."""
    from effcc.frontends.torch import dynamo as module

    made: list[Any] = []
    build = module.program_of

    def counted(graph: Any, options: Any) -> Any:
        made.append(graph)
        return build(graph, options)

    monkeypatch.setattr(module, "program_of", counted)
    return made


# -- weights ---------------------------------------------------------------------------------------
@TARGETS
def test_weights_are_constants_until_they_change(target: str, builds: list[Any]) -> None:
    module, other, x = mlp(), mlp(), torch.randn(3, 8)
    fast = compiled(module, target)
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(fast(x), module(x))
        assert len(builds) == 1 and [v.shape for v in builds[0].inputs] == [(3, 8)]
        module.load_state_dict(other.state_dict())
        torch.testing.assert_close(fast(x), other(x))
        module[0].weight.mul_(2)
        module[2].bias[1] = 5.0
        torch.testing.assert_close(fast(x), module(x))
        module[2].weight.data.mul_(3)  # which torch does not count
        torch.testing.assert_close(fast(x), module(x))
        module[0].weight = nn.Parameter(torch.randn(16, 8))
        torch.testing.assert_close(fast(x), module(x))
    assert len(builds) == 5


def test_weights_that_keep_changing_become_inputs(builds: list[Any]) -> None:
    module, x = mlp(), torch.randn(3, 8)
    fast = compiled(module)
    with torch.no_grad():
        for _ in range(14):
            module[0].bias.add_(1)
            torch.testing.assert_close(fast(x), module(x))
    assert len(builds) == 9 and len(builds[-1].inputs) == 5


def test_weights_are_not_copied(builds: list[Any]) -> None:
    module, x = mlp(), torch.randn(3, 8)
    with torch.no_grad():
        compiled(module)(x)
    blobs = [n.op.attrs["blob"] for n in builds[0].nodes if n.op.name == "const"]
    pointers = {b.array.__array_interface__["data"][0] for b in blobs}
    assert {p.data_ptr() for p in module.parameters()} <= pointers


def test_tensors_made_in_inference_mode_stay_inputs(builds: list[Any]) -> None:
    with torch.inference_mode():
        module, x = mlp(), torch.randn(3, 8)
        fast = compiled(module)
        torch.testing.assert_close(fast(x), module(x))
        module[0].weight.mul_(2)
        torch.testing.assert_close(fast(x), module(x))
    assert len(builds) == 1 and len(builds[0].inputs) == 5


def test_running_statistics_and_eval_share_a_module() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    reference = copy.deepcopy(module)
    fast = compiled(module)
    for training in (True, True, False, True, False):
        module.train(training), reference.train(training)
        x = torch.randn(2, 3, 5, 5)
        with torch.no_grad():
            torch.testing.assert_close(fast(x), reference(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(module[1].running_var, reference[1].running_var)
    assert module[1].num_batches_tracked == 3


# -- dynamic sizes ---------------------------------------------------------------------------------
@TARGETS
def test_one_program_serves_every_batch_size(target: str, builds: list[Any]) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5)).eval()
    fast = compiled(module, target, dynamic=True)
    with torch.no_grad():
        for batch in (2, 3, 7, 5):
            x = torch.randn(batch, 3, 8, 8)
            torch.testing.assert_close(fast(x), module(x), rtol=1e-5, atol=1e-5)
    assert len(builds) == 1


def test_sizes_as_numbers_and_outputs(builds: list[Any]) -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> Any:
        n, m = x.shape
        rows = torch.arange(n).to(x.dtype) / n
        return x * rows[:, None] * (m**0.5), y.view(-1, m).sum(0), n * m + 1, torch.full((n + 1,), m)

    fast = compiled(function, dynamic=True)
    for n, m in ((3, 4), (5, 6), (2, 7)):
        x, y = torch.randn(n, m), torch.randn(n * m)
        for ours, theirs in zip(fast(x, y), function(x, y), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert len(builds) == 1


def test_a_size_that_no_tensor_has() -> None:
    fast = compiled(lambda x, n: (x[0] * n, torch.ones(n).cumsum(0) + x.sum()), dynamic=True)
    for n in (3, 5, 9):
        x = torch.randn(4, 2)
        torch.testing.assert_close(fast(x, n), (x[0] * n, torch.ones(n).cumsum(0) + x.sum()))


def test_training_with_dynamic_sizes(builds: list[Any]) -> None:
    module = mlp().train()
    fast = compiled(module, dynamic=True)
    for batch in (2, 5, 3):
        x = torch.randn(batch, 8)
        fast(x).square().mean().backward()
        ours = [p.grad.clone() for p in module.parameters()]
        module.zero_grad()
        module(x).square().mean().backward()
        for a, p in zip(ours, module.parameters(), strict=True):
            torch.testing.assert_close(a, p.grad)
        module.zero_grad()
    assert len(builds) == 2


# -- state in place --------------------------------------------------------------------------------
class Cache(nn.Module):
    """A key-value cache as buffers, and one as arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(2, 6, 4))

    def forward(self, x: torch.Tensor, at: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        self.keys.index_copy_(1, at, x)
        values[:, at] = x * 2
        return (self.keys * values).sum(1)


@TARGETS
def test_caches_are_updated_in_place(target: str) -> None:
    ours, theirs = Cache(), Cache()
    fast = compiled(ours, target)
    mine, other = torch.zeros(2, 6, 4), torch.zeros(2, 6, 4)
    pointers = (mine.data_ptr(), ours.keys.data_ptr())
    with torch.no_grad():
        for step in range(4):
            x, at = torch.randn(2, 1, 4), torch.tensor([step])
            torch.testing.assert_close(fast(x, at, mine), theirs(x, at, other))
            torch.testing.assert_close(ours.keys, theirs.keys)
            torch.testing.assert_close(mine, other)
    assert pointers == (mine.data_ptr(), ours.keys.data_ptr())


def test_updates_through_strided_arguments() -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.mul_(2).add_(y)
        return x.sum()

    fast = compiled(function)
    for view in (lambda t: t, lambda t: t.T, lambda t: t[:, ::2], lambda t: t[1:3]):
        base, again = torch.arange(24.0).reshape(4, 6), torch.arange(24.0).reshape(4, 6)
        torch.testing.assert_close(fast(view(base), 3 * torch.ones(())), function(view(again), 3 * torch.ones(())))
        torch.testing.assert_close(base, again)


def test_layouts_come_out_as_in_eager() -> None:
    def function(x: torch.Tensor) -> Any:
        y = F.relu(x)
        return y, x.permute(0, 2, 3, 1) + 1, y.transpose(0, 1) * 2

    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    for ours, theirs in zip(compiled(function)(x), function(x), strict=True):
        torch.testing.assert_close(ours, theirs)
        assert ours.stride() == theirs.stride()


def test_precision() -> None:
    """bf16 rounds the operands of products, and nothing where gradients are asked for."""
    layer, x = torch.nn.Linear(64, 32).eval(), torch.randn(5, 64)
    fast = torch.compile(layer, backend=backend, options={"precision": "bf16"})
    with torch.no_grad():
        off = (fast(x) - layer(x)).abs()
        bound = 2**-7 * (x.abs() @ layer.weight.abs().T)  # half a unit of 8 bits, of either factor
        assert 0 < off.max() and bool((off <= bound).all())
    with pytest.raises(Exception, match="gradients would not follow"):
        torch.compile(torch.nn.Linear(4, 4), backend=backend, options={"precision": "bf16"})(torch.randn(2, 4))
    with pytest.raises(Exception, match="precision='fp8' is not offered"), torch.no_grad():
        torch.compile(torch.nn.Linear(4, 4), backend=backend, options={"precision": "fp8"})(torch.randn(2, 4))


# -- sizes that depend on data ---------------------------------------------------------------------
def test_sizes_that_depend_on_data() -> None:
    def function(x: torch.Tensor) -> Any:
        return (
            x[x > 0] * 2,
            torch.nonzero(x),
            torch.masked_select(x, x < 0).sum(),
            *torch.unique(x.round(), return_counts=True),
            *torch.unique_consecutive(x.round(), return_inverse=True, return_counts=True),
            *torch.unique_consecutive((x > 0).sort(0)[0], return_counts=True, dim=0),
        )

    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        fast = compiled(function)
        for _ in range(3):
            x = torch.randn(4, 5)
            for ours, theirs in zip(fast(x), function(x), strict=True):
                torch.testing.assert_close(ours, theirs)


def test_the_axis_of_which_torch_infers_a_wrong_shape_is_refused() -> None:
    """docs/upstream/torch-unique-consecutive-of-the-last-axis.md; counted from the front it compiles."""
    x = torch.tensor([[1, 1, 2], [1, 1, 2]])
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        assert torch.equal(compiled(lambda x: torch.unique_consecutive(x, dim=1))(x), torch.tensor([[1, 2], [1, 2]]))
        with pytest.raises(Exception, match=r"dim=-1.*count the axis from the front"):
            compiled(lambda x: torch.unique_consecutive(x, dim=-1))(x)


def test_an_element_as_a_number() -> None:
    """`item` gives Python numbers; as an operand its value is data, and as a size it is refused."""

    def function(x, n, b):
        return x.sum().item(), n.item(), b.item(), x * n.item()

    with torch._dynamo.config.patch(capture_scalar_outputs=True):
        x, n, b = torch.randn(3), torch.tensor(7), torch.tensor(True)
        total, number, truth, scaled = compiled(function)(x, n, b)
        assert total == pytest.approx(x.sum().item()) and (number, truth) == (7, True)
        assert type(truth) is bool and torch.equal(scaled, x * 7)
        with pytest.raises(Exception, match="read from data"):
            compiled(lambda n: torch.zeros(n.item()) + 1)(n)


def test_a_graph_without_inputs_gives_tensors() -> None:
    made = compiled(lambda: (torch.arange(3), torch.ones(2, 2)))()
    assert torch.equal(made[0], torch.arange(3)) and torch.equal(made[1], torch.ones(2, 2))


# -- what is refused -------------------------------------------------------------------------------
def test_an_op_that_is_missing_is_named_with_its_line() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.inv(x + 1)  # the line that the message names

    line = function.__code__.co_firstlineno + 1
    with pytest.raises(Exception, match=rf"test_backend\.py:{line}.*linalg_inv_ex.*is not supported.*fallback"):
        compiled(function)(torch.eye(3))


def test_complex_functions_are_refused_by_name() -> None:
    with pytest.raises(Exception, match=r"aten\.exp.* on complex tensors is not supported"):
        compiled(lambda x: torch.exp(x * 1j).abs())(torch.ones(3))


def test_unknown_options_are_refused() -> None:
    with pytest.raises(Exception, match="unknown fallback 'maybe'"):
        compiled(lambda x: x + 1, fallback="maybe")(torch.ones(3))


@TARGETS
def test_eager_fallback_runs_what_is_missing_and_says_so(target: str) -> None:
    def function(x: torch.Tensor) -> Any:
        y = (x @ x.T + 3 * torch.eye(3)).relu()
        return torch.linalg.inv(y) * 2 + y.softmax(-1), y.sum()

    fast = compiled(function, target, fallback="eager")
    x = torch.randn(3, 3)
    with pytest.warns(
        FallbackWarning, match=r"2 compiled parts, torch runs the rest: aten\.linalg_inv_ex.*test_backend\.py"
    ):
        out = fast(x)
    for ours, theirs in zip(out, function(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_fallback_compiles_whole_graphs_silently(recwarn: pytest.WarningsRecorder) -> None:
    module, x = mlp(), torch.randn(2, 8)
    with torch.no_grad():
        torch.testing.assert_close(compiled(module, fallback="eager")(x), module(x))
    assert not [w for w in recwarn if issubclass(w.category, FallbackWarning)]


def test_options_reach_the_driver() -> None:
    with pytest.raises(Exception, match="no-such-pass"):
        compiled(lambda x: x + 1, "cpu", passes="no-such-pass")(torch.ones(3))


def test_locations_are_module_paths_and_lines() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4), nn.LayerNorm(4)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers[1](self.layers[0](x)).relu()

    seen: list[Any] = []

    def keep(self: Compiled, imported: Any, *rest: Any) -> None:
        seen.append(imported.graph)
        original(self, imported, *rest)

    original = Compiled.__init__
    Compiled.__init__ = keep  # type: ignore[method-assign]
    try:
        with torch.no_grad():
            compiled(Outer())(torch.ones(2, 4))
    finally:
        Compiled.__init__ = original  # type: ignore[method-assign]
    places = {n.op.name: n.loc for n in seen[0].nodes}
    assert places["matmul"].name == "layers.0" and places["layer_norm"].name == "layers.1"
    assert places["relu"].source.startswith("test_backend.py:")


def test_the_backend_keeps_its_name_when_its_module_is_loaded() -> None:
    """The entry point loads the attribute `backend` of the package; a module of that name would replace it."""
    import effcc.frontends.torch as package
    import effcc.frontends.torch.dynamo  # noqa: F401

    assert package.backend is backend and callable(package.backend)
