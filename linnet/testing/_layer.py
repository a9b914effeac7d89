"""`check_layer`: what every layer must do, each property a short function."""

import copy
import dataclasses
import functools
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linnet import nn
from linnet.testing._shape import documented_parameters, shape_complaints

KEY = 0


class Alone(nn.Module):
    """A model that has the layer at the path `inner`, and nothing else."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, *args: Any) -> Any:
        return self.inner(*args)


class Among(nn.Module):
    """A model that has the layer at the path `inner`, among others."""

    def __init__(self, inner: Any) -> None:
        self.before = nn.param(nn.initializers.normal(1.0), (2,))
        self.inner = inner
        self.later = nn.param(nn.initializers.normal(1.0), (3,))

    def __call__(self, *args: Any) -> Any:
        return self.inner(*args), self.before, self.later


class Traced:
    """A function under `jax.jit` that counts how often it is traced."""

    def __init__(self, f: Callable[..., Any]) -> None:
        self.count = 0

        def counted(*args: Any) -> Any:
            self.count += 1
            return f(*args)

        self.call = jax.jit(counted)


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer with what is known about it."""

    layer: Any
    args: tuple[Any, ...]
    random: bool
    state: bool
    vmaps: bool
    pickles: bool
    refuses: Sequence[str]
    precisions: Sequence[str]
    tolerance: float

    @functools.cached_property
    def model(self) -> Any:
        """The layer with arrays."""
        return nn.init(self.layer, jax.random.key(KEY), *self.args)

    @functools.cached_property
    def out(self) -> Any:
        """What it predicts."""
        return self.model(*self.args)

    @functools.cached_property
    def predict(self) -> Traced:
        """Prediction, compiled."""
        return Traced(lambda model, *args: model(*args))

    @functools.cached_property
    def train(self) -> Traced:
        """Training, compiled."""
        return Traced(lambda model, key, *args: nn.training(model, key)(*args))


def check_layer(
    layer: Any,
    sample: Any,
    *,
    random: bool = False,
    state: bool = False,
    vmaps: bool = True,
    pickles: bool = True,
    refuses: Sequence[str] = ("rank", "width", "dtype"),
    precisions: Sequence[str] = ("bfloat16", "float16"),
    tolerance: float = 1e-5,
) -> None:
    """Checks that a layer does what every layer must do.

    It has the shapes that its docstring promises. It gives the same under `jax.jit`,
    under `jax.vmap`, in low precision, and sharded over four devices where there are
    as many. Prediction is pure and deterministic; training returns a new model. Its
    gradients are finite and none is zero. Initial values depend on the path alone. It
    is compiled once, leaks no tracer, is pickled, printed, compared and hashed. A
    wrong input is refused by an error that names the path.

    Args:
        layer: A module without arrays, as its constructor returns it.
        sample: An array, or a tuple of the arguments of its call. The first axis of
            each array is the batch; two examples or more, an even number.
        random: Whether training draws random numbers.
        state: Whether training writes state.
        vmaps: Whether predicting one example at a time gives the same.
        pickles: Whether it can be pickled. Python cannot if it is a local class.
        refuses: Which wrong inputs are refused: no axes at all (`"rank"`), one
            feature too many (`"width"`), integers for numbers or the reverse
            (`"dtype"`).
        precisions: Dtypes in which `nn.cast` may run it.
        tolerance: Relative and absolute, for float32.

    Raises:
        AssertionError: A property does not hold. The text says which one, and how.

    Example:
        >>> from linnet.testing import check_layer
        >>> check_layer(nn.Dense(4), jnp.ones((8, 3)))
        >>> check_layer(nn.Dropout(0.5), jnp.ones((8, 3)), refuses=["dtype"])
        Traceback (most recent call last):
        AssertionError: a layer needs a key in training only if ..., but Dropout ...
    """
    args = sample if isinstance(sample, tuple) else (sample,)
    case = Case(
        layer,
        args,
        random,
        state,
        vmaps,
        pickles,
        tuple(refuses),
        tuple(precisions),
        tolerance,
    )
    for sentence, check in CHECKS.items():
        try:
            check(case)
        except Exception as error:
            detail = "\n".join(f"    {line}" for line in str(error).splitlines())
            raise AssertionError(
                f"a layer {sentence}, but {type(layer).__name__} does not:\n{detail}"
            ) from error


def has_promised_shapes(case: Case) -> None:
    cls, arrays = type(case.model), nn.to_paths(case.model)
    first = jax.tree.leaves(case.args)[0]
    complaints = list(shape_complaints(cls, first, case.out, arrays))
    documented = documented_parameters(cls)
    made = {path.split("/")[0] for path in arrays}
    if documented:
        complaints += [f"`{name}` is not documented" for name in made - documented]
    complaints += [
        f"`{name}` is documented, but there is none"
        for name in documented - made
        if not isinstance(getattr(case.model, name, case), nn.Module | None)
    ]
    require(not complaints, "; ".join(complaints))


def jits(case: Case) -> None:
    require_close(case.predict.call(case.model, *case.args), case.out, case.tolerance)


def vmaps(case: Case) -> None:
    if not case.vmaps:
        return
    leaves, treedef = jax.tree.flatten(case.args)
    axes = [0 if getattr(leaf, "ndim", 0) else None for leaf in leaves]

    def one(*leaves: Any) -> Any:
        return case.model(*treedef.unflatten(leaves))

    rows = jax.jit(jax.vmap(one, in_axes=axes))(*leaves)
    require_close(rows, case.out, case.tolerance)


def has_gradients(case: Case) -> None:
    if not jax.tree.leaves(nn.params(case.model)):
        return

    def loss(model: Any, key: Any, args: Any) -> Any:
        out, model = nn.training(model, key)(*args)
        return sum(map(_weighed, jax.tree.leaves(out))), model

    gradient = jax.jit(nn.grad(loss, has_aux=True))
    grads, _ = gradient(case.model, jax.random.key(KEY), case.args)
    for path, array in nn.to_paths(grads).items():
        if array is None:
            continue
        require(bool(jnp.isfinite(array).all()), f"that of `{path}` is not finite")
        require(bool((array != 0).any()), f"that of `{path}` is zero")


def _weighed(out: Any) -> Any:
    """A sum to which every entry contributes differently."""
    weights = jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)
    return (
        (out * weights).real.sum() if jnp.iscomplexobj(out) else (out * weights).sum()
    )


def predicts_purely(case: Case) -> None:
    before = copy.deepcopy(case.model)
    one, two = case.model(*case.args), case.model(*case.args)
    require_same(one, two, "two calls differ")
    require(case.model == before, "the model has changed")


def trains(case: Case) -> None:
    key = jax.random.key(KEY)
    out, model = case.train.call(case.model, key, *case.args)
    require(
        jax.tree.structure(model) == jax.tree.structure(case.model),
        "the model that training returned has another structure",
    )
    _, fixed = nn.partition(model, nn.State)
    require_same(
        fixed, nn.partition(case.model, nn.State)[1], "more than state changed"
    )
    changed = model != case.model
    require(
        changed == case.state,
        f"state is {'' if changed else 'not '}written, and `state={case.state}`",
    )
    again, _ = case.train.call(case.model, key, *case.args)
    require_same(out, again, "one key gives two results")


def draws_as_declared(case: Case) -> None:
    try:
        without, _ = jax.eval_shape(lambda m: nn.training(m)(*case.args), case.model)
    except nn.ScopeError:
        require(case.random, "it asks for a key")
    else:
        require(not case.random, "it asks for none")
        require(without is not None, "training returns nothing")
        return
    outs = [
        case.train.call(case.model, jax.random.key(seed), *case.args)[0]
        for seed in (KEY, KEY + 1)
    ]
    require(not same(*outs), "two keys give one result")


def starts_by_path_alone(case: Case) -> None:
    key = jax.random.key(KEY)
    alone = nn.init(Alone(case.layer), key, *case.args).inner
    among = nn.init(Among(case.layer), key, *case.args).inner
    require_same(alone, among, "other modules change the values")


def has_abstract_form(case: Case) -> None:
    shapes = nn.abstract(case.layer, *case.args)
    made = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), case.model)
    require(
        jax.tree.structure(shapes) == jax.tree.structure(made)
        and jax.tree.leaves(shapes) == jax.tree.leaves(made),
        f"nn.abstract gives {shapes}, nn.init {made}",
    )


def compiles_once(case: Case) -> None:
    key = jax.random.key(KEY)
    for _ in range(2):
        case.predict.call(copy.deepcopy(case.model), *case.args)
    _, model = case.train.call(case.model, key, *case.args)
    case.train.call(model, key, *case.args)
    for name, count in (
        ("predicting", case.predict.count),
        ("training", case.train.count),
    ):
        require(count == 1, f"{name} was traced {count} times")


def runs_in_low_precision(case: Case) -> None:
    for dtype in map(jnp.dtype, case.precisions):
        args = jax.tree.map(lambda x, dtype=dtype: _in_dtype(x, dtype), case.args)
        out = jax.jit(lambda m, *a: m(*a))(nn.cast(case.model, dtype), *args)
        desired = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), case.out)
        bound = 20 * float(jnp.finfo(dtype).eps)
        actual = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), out)
        require_close(actual, desired, bound, f"in {dtype}: ")


def _in_dtype(x: Any, dtype: Any) -> Any:
    return x.astype(dtype) if _is_floating(x) else x


def _is_floating(x: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)


def leaks_nothing(case: Case) -> None:
    with jax.checking_leaks():
        jax.eval_shape(
            lambda m, k, a: nn.training(m, k)(*a),
            case.model,
            jax.random.key(KEY),
            case.args,
        )


def pickles(case: Case) -> None:
    if case.pickles:
        for value in (case.layer, case.model):
            require(pickle.loads(pickle.dumps(value)) == value, "the copy differs")


def prints(case: Case) -> None:
    for value in (case.layer, case.model):
        require(type(value).__name__ in repr(value), f"its repr is {repr(value)!r}")


def is_a_static_value(case: Case) -> None:
    twin = copy.deepcopy(case.layer)
    require(twin == case.layer, "a copy is not equal")
    require(hash(twin) == hash(case.layer), "a copy has another hash")
    described = nn.describe(case.model)
    require(described == case.layer, f"nn.describe gives {described!r}")


def shards(case: Case) -> None:
    devices = jax.devices()[:4]
    if len(devices) < 4:
        return
    mesh = jax.sharding.Mesh(np.array(devices).reshape(2, 2), ("data", "model"))
    args = jax.tree.map(lambda x: _spread(x, mesh, 0, "data"), case.args)
    model = jax.tree.map(lambda x: _spread(x, mesh, -1, "model"), case.model)
    out = jax.jit(lambda m, *a: m(*a))(model, *args)
    require_close(out, case.out, case.tolerance)


def _spread(x: Any, mesh: Any, axis: int, name: str) -> Any:
    if not getattr(x, "ndim", 0):
        return x
    names: list[str | None] = [None] * x.ndim
    if x.shape[axis] % 2 == 0:
        names[axis] = name
    spec = jax.sharding.PartitionSpec(*names)
    return jax.device_put(x, jax.sharding.NamedSharding(mesh, spec))


def refuses_wrong_inputs(case: Case) -> None:
    model = Alone(case.layer)
    model = nn.init(model, jax.random.key(KEY), *case.args)
    leaves, treedef = jax.tree.flatten(case.args)
    for kind in case.refuses:
        wrong = treedef.unflatten([_WRONG[kind](leaves[0]), *leaves[1:]])
        try:
            jax.eval_shape(lambda a: model(*a), wrong)
        except nn.LinnetError as error:
            first = str(error).splitlines()[0]
            require("inner" in first, f"the error does not name the path: {first}")
        else:
            require(False, f"a wrong {kind} is accepted")


def _another_kind(x: Any) -> Any:
    return jnp.zeros(x.shape, jnp.int32 if _is_floating(x) else jnp.float32)


_WRONG = {
    "rank": lambda x: jnp.zeros((), x.dtype),
    "width": lambda x: jnp.zeros((*x.shape[:-1], x.shape[-1] + 1), x.dtype),
    "dtype": _another_kind,
}

CHECKS: dict[str, Callable[[Case], None]] = {
    "has the shapes that its docstring promises": has_promised_shapes,
    "gives the same under `jax.jit`": jits,
    "gives the same for one example at a time": vmaps,
    "predicts without changing anything": predicts_purely,
    "needs a key in training only if it is `random`": draws_as_declared,
    "returns in training a model that differs in its state only": trains,
    "has finite gradients that are not zero": has_gradients,
    "starts with values that depend on its path alone": starts_by_path_alone,
    "has the shapes of `nn.abstract` after `nn.init`": has_abstract_form,
    "is traced once": compiles_once,
    "gives nearly the same in low precision": runs_in_low_precision,
    "leaks no tracer": leaks_nothing,
    "is pickled": pickles,
    "is printed": prints,
    "is compared and hashed": is_a_static_value,
    "gives the same sharded over 2 x 2 devices": shards,
    "refuses wrong inputs with an error that names its path": refuses_wrong_inputs,
}


def require(holds: bool, text: str) -> None:
    if not holds:
        raise AssertionError(text)


def same(a: Any, b: Any) -> bool:
    """Whether two trees hold the same numbers, bit for bit."""
    one, two = jax.tree.leaves(a), jax.tree.leaves(b)
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(np.asarray(x), np.asarray(y), equal_nan=_is_floating(x))
        for x, y in zip(one, two, strict=True)
    )


def require_same(a: Any, b: Any, text: str) -> None:
    require(same(a, b), text)


def require_close(actual: Any, desired: Any, tolerance: float, text: str = "") -> None:
    """Two trees have one structure and nearly the same numbers."""
    require(
        jax.tree.structure(actual) == jax.tree.structure(desired),
        f"{text}{jax.tree.structure(actual)}, not {jax.tree.structure(desired)}",
    )
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True)
    for x, y in pairs:
        require(x.shape == y.shape, f"{text}shape {x.shape}, not {y.shape}")
        error = np.abs(np.asarray(x) - np.asarray(y))
        bound = tolerance * (1 + np.abs(np.asarray(y)))
        worst = float(np.max(error - bound, initial=-1.0))
        require(worst <= 0, f"{text}largest error {float(np.max(error)):.3g}")
