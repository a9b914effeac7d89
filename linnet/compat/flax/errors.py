"""The errors of Linen, under Flax's names: what happened, where, and how to fix it.

Each class is raised by the module that finds the mistake, with the facts; the words
are here. The first line keeps the phrase that programs and tests of Linen look for, the
rest is ours. `FlaxError` is the base of all of them.
"""

import textwrap
from typing import Any

__all__ = [
    "AlreadyExistsError",
    "ApplyModuleInvalidMethodError",
    "ApplyScopeInvalidVariablesStructureError",
    "ApplyScopeInvalidVariablesTypeError",
    "AssignSubModuleError",
    "CallCompactUnboundModuleError",
    "CallSetupUnboundModuleError",
    "CallShareScopeOnUnboundModuleError",
    "CallUnbindOnUnboundModuleError",
    "CursorFindError",
    "DescriptorAttributeError",
    "FlaxError",
    "ImmutableVariableError",
    "IncorrectPostInitOverrideError",
    "InvalidCheckpointError",
    "InvalidFilterError",
    "InvalidInstanceModuleError",
    "InvalidRngError",
    "InvalidScopeError",
    "JaxTransformError",
    "LazyInitError",
    "MPACheckpointingRequiredError",
    "MPARestoreDataCorruptedError",
    "MPARestoreTargetRequiredError",
    "ModifyScopeVariableError",
    "MultipleMethodsCompactError",
    "NameInUseError",
    "PartitioningUnspecifiedError",
    "ReservedModuleAttributeError",
    "ScopeCollectionNotFound",
    "ScopeParamNotFoundError",
    "ScopeParamShapeError",
    "ScopeVariableNotFoundError",
    "SetAttributeFrozenModuleError",
    "SetAttributeInModuleSetupError",
    "TraceContextError",
    "TransformTargetError",
    "TransformedMethodReturnValueError",
    "TraverseTreeError",
]


class FlaxError(Exception):
    """Base of the errors of `linnet.compat.flax`.

    Args:
        message: What happened, where, and how to fix it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), str(self))


def _rebuilt(cls: type[FlaxError], message: str) -> FlaxError:
    """An error of this class with this text, whatever its constructor takes."""
    error = cls.__new__(cls)
    FlaxError.__init__(error, message)
    return error


def _message(what: str, why: str = "", *fixes: tuple[str, str]) -> str:
    """One sentence that stands alone, the reason, and code for each remedy."""
    parts = [what]
    if why:
        parts.append(f"Why: {why}")
    if fixes:
        lines = ["Fix:" if len(fixes) == 1 else "Fix, one of:"]
        for when, code in fixes:
            lines += [f"  - {when}:", textwrap.indent(code, " " * 8)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


# ---- init and apply


class LazyInitError(FlaxError):
    """`lazy_init` needs the value of an argument of which it was given the shape.

    Args:
        partial_val: The value that is not known.

    An initial value may depend on the shapes of the inputs, not on the inputs.
    """

    def __init__(self, partial_val: Any) -> None:
        super().__init__(
            _message(
                "Lazy init cannot compute an initial value: it depends on the value "
                f"of an input, of which only the shape is known ({partial_val}).",
                "`lazy_init` runs with shapes for inputs, so that nothing but the "
                "variables is computed.",
                ("the input is small", "module.lazy_init(key, jnp.ones(shape))"),
                ("all inputs can be given", "module.init(key, x)"),
            )
        )


class InvalidRngError(FlaxError):
    """A key for random numbers is missing, or is none.

    Args:
        msg: What is wrong with which key.

    `init` takes one key, or a dict of them with an entry for each sequence;
    `apply` takes `rngs={"dropout": key}`.
    """

    def __init__(self, msg: str) -> None:
        super().__init__(msg)


class ApplyScopeInvalidVariablesTypeError(FlaxError):
    """The variables given to `apply` are no dict of dicts.

    They are as `init` returns them: `{"params": {...}, "batch_stats": {...}}`.
    """

    def __init__(self) -> None:
        super().__init__(
            _message(
                "The first argument of `apply` must be a dict of collections, each a "
                "dict with string keys, and it is not.",
                "Collections hold the variables of one kind, such as `params`.",
                (
                    "pass what `init` returned",
                    "variables = module.init(key, x)\nmodule.apply(variables, x)",
                ),
                ("there are parameters only", 'module.apply({"params": params}, x)'),
            )
        )


class ApplyScopeInvalidVariablesStructureError(FlaxError):
    """The variables given to `apply` have a level `params` too many.

    Args:
        variables: Those given.
    """

    def __init__(self, variables: Any) -> None:
        outer = ", ".join(map(str, variables)) if hasattr(variables, "keys") else ""
        super().__init__(
            _message(
                'The variables of `apply` should be {"params": ...}, but got a dict '
                f"with an extra params layer (collections: {outer or variables}).",
                "`init` returns the collections, of which `params` is one; wrapping "
                "them once more hides the parameters.",
                (
                    "the inner dict is what `init` returned",
                    'module.apply(variables["params"], x)',
                ),
            )
        )


class ApplyModuleInvalidMethodError(FlaxError):
    """`method` of `apply` or `init` is no function of the module.

    Args:
        method: What was given.
    """

    def __init__(self, method: Any) -> None:
        super().__init__(
            _message(
                f"Cannot call apply(): {method!r} is no method of the module.",
                "`method` is the name of a method, or a function that takes the "
                "module first.",
                ("by name", 'module.apply(variables, x, method="encode")'),
                ("by function", "module.apply(variables, x, method=Model.encode)"),
            )
        )


class InvalidInstanceModuleError(FlaxError):
    """`init` or `apply` was called on the class instead of on an instance."""

    def __init__(self) -> None:
        super().__init__(
            _message(
                "Can only call init, init_with_output or apply methods on an instance "
                "of the Module class, and this is the class itself.",
                "The class has no attributes such as `features` yet.",
                (
                    "make an instance first",
                    "module = Dense(features=3)\nmodule.init(key, x)",
                ),
            )
        )


# ---- variables


class ScopeParamNotFoundError(FlaxError):
    """A parameter is not among the variables given to `apply`.

    Args:
        param_name: Its name.
        scope_path: The path of the module that asks for it.
    """

    def __init__(self, param_name: str, scope_path: str) -> None:
        super().__init__(
            _message(
                f'Could not find parameter named "{param_name}" in scope '
                f'"{scope_path}".',
                "`apply` uses parameters and never makes them. These come from "
                "another model, from before a module was renamed or added, or the "
                "module was not run by `init` (behind an `if`, or in another method).",
                ("the model has changed", "variables = module.init(key, x)"),
                (
                    "compare the names",
                    "jax.tree.map(jnp.shape, variables)\n"
                    "jax.eval_shape(module.init, key, x)",
                ),
            )
        )


class ScopeCollectionNotFound(FlaxError):
    """A variable is read from a collection that was not given.

    Args:
        col_name: The collection.
        var_name: The variable.
        scope_path: The path of the module that asks for it.
    """

    def __init__(self, col_name: str, var_name: str, scope_path: str) -> None:
        super().__init__(
            _message(
                f'Tried to access "{var_name}" from collection "{col_name}" in '
                f'"{scope_path}" but the collection is empty.',
                f'The variables given to `apply` hold no "{col_name}" for this '
                "module, and a collection that is not mutable is not filled.",
                (
                    "pass the collection along",
                    f"module.apply({{**variables, {col_name!r}: state}}, x)",
                ),
                (
                    "it is to be made in this call",
                    f"y, updates = module.apply(variables, x, mutable=[{col_name!r}])",
                ),
            )
        )


class ScopeParamShapeError(FlaxError):
    """A parameter has another shape than its initialiser gives.

    Args:
        param_name: Its name.
        scope_path: The path of the module that asks for it.
        value_shape: Its shape.
        init_shape: The shape that the initialiser gives.
    """

    def __init__(
        self, param_name: str, scope_path: str, value_shape: Any, init_shape: Any
    ) -> None:
        super().__init__(
            _message(
                f'For parameter "{param_name}" in "{scope_path}", the given '
                f"initializer is expected to generate shape {init_shape}, but the "
                f"existing parameter it received has shape {value_shape}.",
                "Shapes follow from the attributes of the module and the shape of "
                "the input; one of them is not as it was when `init` ran.",
                (
                    "the input should be as before",
                    "x.shape  # compare with that given to `init`",
                ),
                ("the model has changed", "variables = module.init(key, x)"),
            )
        )


class ScopeVariableNotFoundError(FlaxError):
    """A variable is read that does not exist.

    Args:
        name: The variable.
        col: Its collection.
        scope_path: The path of the module that asks for it.
    """

    def __init__(self, name: str, col: str, scope_path: str) -> None:
        super().__init__(
            _message(
                f'No Variable named "{name}" for collection "{col}" exists in '
                f'"{scope_path}".',
                "It was not among the variables given, and is not made without an "
                "initialiser or in a collection that is not mutable.",
                (
                    "it is to be made where it is missing",
                    f"self.variable({col!r}, {name!r}, init_fn)",
                ),
                (
                    "it may be absent",
                    f"self.has_variable({col!r}, {name!r})",
                ),
            )
        )


class InvalidFilterError(FlaxError):
    """A filter of collections is none.

    Args:
        filter_like: What was given.
    """

    def __init__(self, filter_like: Any) -> None:
        super().__init__(
            _message(
                f'Invalid Filter: "{filter_like}" of type '
                f"{type(filter_like).__name__} names no collections.",
                "A filter is a bool, a name, a list of names, or a `DenyList`.",
                ("some", 'mutable=["batch_stats"]'),
                ("all but some", 'mutable=DenyList("params")'),
            )
        )


class InvalidScopeError(FlaxError):
    """A scope is used after the call that it belonged to.

    Args:
        scope_name: Its name.
    """

    def __init__(self, scope_name: str) -> None:
        super().__init__(
            _message(
                f'The scope "{scope_name}" is no longer valid: the call or the '
                "transformation that it belonged to has ended.",
                "Variables live as long as `init`, `apply` or the transformed "
                "function runs. A module was kept for longer, such as by returning "
                "it.",
                (
                    "keep the values",
                    "y, updates = module.apply(variables, x, mutable=True)",
                ),
            )
        )


class ModifyScopeVariableError(FlaxError):
    """A variable of a collection that is not mutable is changed.

    Args:
        col: The collection.
        variable_name: The variable.
        scope_path: The path of the module that changes it.
    """

    def __init__(self, col: str, variable_name: str, scope_path: str) -> None:
        super().__init__(
            _message(
                f'Cannot update variable "{variable_name}" in "{scope_path}" because '
                f'collection "{col}" is immutable.',
                "`apply` returns changes of the collections that it is told are "
                "mutable, and forbids all others.",
                (
                    "the change is meant",
                    f"y, updates = module.apply(variables, x, mutable=[{col!r}])",
                ),
            )
        )


class ImmutableVariableError(FlaxError):
    """A value that cannot be changed is changed.

    Args:
        message: Which one.
    """


class JaxTransformError(FlaxError):
    """A function transformed by JAX uses a module from outside of it."""

    def __init__(self) -> None:
        super().__init__(
            _message(
                "Jax transforms and Flax models cannot be mixed: a module was made "
                "outside of the transformed function, and is used inside.",
                "Variables that are made or changed inside would leak traced values.",
                ("use the lifted transformation", "nn.jit(Model)  # for jax.jit"),
                (
                    "transform a pure function",
                    "jax.jit(lambda variables, x: module.apply(variables, x))",
                ),
            )
        )


# ---- meta data


class PartitioningUnspecifiedError(FlaxError):
    """A lifted transformation adds an axis to a partitioned variable without a name.

    Args:
        target: The partitioned value.
    """

    def __init__(self, target: Any) -> None:
        super().__init__(
            _message(
                'Trying to transform a Partitioned variable but "partition_name" is '
                f"not specified in metadata_params: {target}",
                "The new axis needs a name, or None, to be placed on a mesh.",
                (
                    "name the axis",
                    'nn.scan(Block, ..., metadata_params={"partition_name": "layers"})',
                ),
            )
        )


# ---- modules


class NameInUseError(FlaxError):
    """A name is given twice in one module.

    Args:
        key_type: Of what: `param`, `variable` or `submodule`.
        value: The name.
        module_name: The class of the module.
    """

    def __init__(self, key_type: str, value: Any, module_name: str) -> None:
        super().__init__(
            _message(
                f'Could not create {key_type} "{value}" in Module {module_name}: '
                "Name in use.",
                "Parameters, variables, sub-modules and attributes of one module "
                "share their names.",
                ("it is another one", f'name="{value}_2"'),
                ("it is the same one", "keep the first in a local variable"),
            )
        )


class AssignSubModuleError(FlaxError):
    """A sub-module is made outside of `setup` and of a compact method.

    Args:
        cls: Its class.
    """

    def __init__(self, cls: Any) -> None:
        super().__init__(
            _message(
                f"Submodule {cls} must be defined in `setup()` or in a method wrapped "
                "in `@compact`.",
                "Elsewhere a sub-module would get another name at each call.",
                ("in `setup`", f"def setup(self):\n    self.part = {cls}(...)"),
                ("where it is used", "@nn.compact\ndef __call__(self, x): ..."),
            )
        )


class SetAttributeInModuleSetupError(FlaxError):
    """`setup` or a compact method changes an attribute given at construction."""

    def __init__(self) -> None:
        super().__init__(
            _message(
                "Module construction attributes are frozen: one is changed in `setup` "
                "or in a compact method.",
                "Fields of a module are its configuration, which stays as written.",
                (
                    "use another name",
                    "def setup(self):\n    self._features = self.features or 3",
                ),
            )
        )


class SetAttributeFrozenModuleError(FlaxError):
    """An attribute of a module is set outside of `setup`.

    Args:
        module_cls: The class of the module.
        attr_name: The attribute.
        attr_val: The value.
    """

    def __init__(self, module_cls: str, attr_name: str, attr_val: Any) -> None:
        super().__init__(
            _message(
                f"Can't set {attr_name}={attr_val} for Module of type {module_cls}: "
                "Module instance is frozen outside of setup method.",
                "The same module is used by many calls, which must not see each "
                "other's attributes.",
                (
                    "another configuration",
                    f"module = module.clone({attr_name}=...)",
                ),
                (
                    "state that changes from call to call",
                    'self.variable("state", "name", init_fn).value = ...',
                ),
            )
        )


class MultipleMethodsCompactError(FlaxError):
    """Two methods of a class are compact."""

    def __init__(self) -> None:
        super().__init__(
            _message(
                "Only one method per class can be @compact.",
                "Sub-modules of a compact method get their names by counting, and "
                "two methods would count from the start.",
                (
                    "several methods",
                    "def setup(self):\n    self.encoder = nn.Dense(8)",
                ),
                ("one is for sharing code", "@nn.nowrap  # without sub-modules"),
            )
        )


class ReservedModuleAttributeError(FlaxError):
    """A module declares a field that every module has.

    Args:
        annotations: Those of the class.
    """

    def __init__(self, annotations: Any) -> None:
        super().__init__(
            _message(
                "properties `parent` and `name` are reserved, and the class declares "
                f"one of them: {annotations}",
                "Every module has them: they say where it stands in the model.",
                ("give yours another name", "label: str"),
            )
        )


class CallCompactUnboundModuleError(FlaxError):
    """A compact method is called on a module that has no variables."""

    def __init__(self) -> None:
        super().__init__(
            _message(
                "Can't call compact methods on unbound modules.",
                "A module on its own is a description. Its variables come from "
                "`init`, and are given to `apply`.",
                ("call it with variables", "module.apply(variables, x)"),
                ("several calls", "bound = module.bind(variables)\nbound(x)"),
            )
        )


class CallSetupUnboundModuleError(FlaxError):
    """`setup` is called by hand."""

    def __init__(self) -> None:
        super().__init__(
            _message(
                "`setup` is called on an unbound module.",
                "It runs by itself when the module gets its variables, before the "
                "first method or attribute that needs it.",
                (
                    "look at what it makes",
                    "bound = module.bind(variables)\nbound.submodule",
                ),
            )
        )


class CallUnbindOnUnboundModuleError(FlaxError):
    """`unbind` is called on a module that has no variables."""

    def __init__(self) -> None:
        super().__init__(
            _message(
                "Can't call `unbind()` on unbound modules.",
                "It takes a bound module apart: into module and variables.",
                (
                    "bind it first",
                    "module, variables = module.bind(variables).unbind()",
                ),
            )
        )


class CallShareScopeOnUnboundModuleError(FlaxError):
    """`share_scope` is called on a module that has no variables."""

    def __init__(self) -> None:
        super().__init__(
            _message(
                "Can't call `share_scope` on unbound modules.",
                "It lets a bound module keep its variables where another one has them.",
                (
                    "inside a module",
                    "def setup(self):\n"
                    "    self.inner = Inner()\n"
                    "    nn.share_scope(self, self.inner)",
                ),
            )
        )


class IncorrectPostInitOverrideError(FlaxError):
    """A module overrides `__post_init__` without calling that of `nn.Module`."""

    def __init__(self) -> None:
        super().__init__(
            _message(
                "Overrode `.__post_init__()` without calling "
                "`super().__post_init__()`.",
                "That of `nn.Module` registers the module with its parent.",
                (
                    "call it at the end",
                    "def __post_init__(self):\n    ...\n    super().__post_init__()",
                ),
            )
        )


class DescriptorAttributeError(FlaxError):
    """A property of a module reads an attribute that does not exist."""

    def __init__(self) -> None:
        super().__init__(
            _message(
                "Trying to access a property that reads an attribute which does not "
                "exist.",
                "The first error above says which one. What `setup` assigns exists "
                "only in a bound module.",
                ("the module is not bound", "module.bind(variables).the_property"),
            )
        )


class TraceContextError(FlaxError):
    """A value crosses the border of a transformation of JAX.

    Args:
        message: Which one, and where.
    """


# ---- lifted transformations


class TransformedMethodReturnValueError(FlaxError):
    """A transformed method returns a module or a variable.

    Args:
        name: The method.
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            _message(
                f"Transformed module method {name} cannot return Modules or Variables.",
                "They belong to the inside of the transformation; arrays may leave.",
                ("return the value", "return variable.value"),
            )
        )


class TransformTargetError(FlaxError):
    """A lifted transformation is applied to neither a module class nor a function.

    Args:
        target: What was given.
    """

    def __init__(self, target: Any) -> None:
        super().__init__(
            _message(
                "Linen transformations must be applied to Modules classes or functions "
                f"taking a Module instance as the first argument, not to: {target}",
                "An instance has its attributes already, and cannot be derived from.",
                ("the class", "nn.jit(nn.Dense)(features=3)"),
                ("the instance", "nn.jit(lambda module, x: module(x))(dense, x)"),
            )
        )


# ---- checkpoints


class AlreadyExistsError(FlaxError):
    """A file is there that would be overwritten.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Any) -> None:
        super().__init__(
            _message(
                f'The file "{path}" is there already, and is not overwritten.',
                "",
                ("it may go", "overwrite=True"),
            )
        )


class InvalidCheckpointError(FlaxError):
    """A checkpoint is stored for a step that is not after the last one.

    Args:
        path: Of the checkpoint.
        step: That was asked for.
    """

    def __init__(self, path: Any, step: Any) -> None:
        super().__init__(
            _message(
                f'The checkpoint of step {step} would be stored at "{path}", where '
                "one of the same or a later step is.",
                "The latest checkpoint is the one that is restored, so an older one "
                "would be lost.",
                ("start again from this step", "overwrite=True"),
                ("keep both runs", "ckpt_dir=another_folder"),
            )
        )


class MPACheckpointingRequiredError(FlaxError):
    """An array of several processes needs a manager to be stored or restored.

    Args:
        path: Of the checkpoint.
        step: Of the checkpoint.
    """

    def __init__(self, path: Any, step: Any) -> None:
        super().__init__(
            _message(
                f'The checkpoint of step {step} at "{path}" holds an array that is '
                "spread over several processes, which one process cannot store or "
                "restore.",
                "",
                (
                    "with Orbax",
                    "checkpointer = orbax.checkpoint.PyTreeCheckpointer()\n"
                    "checkpoints.save_checkpoint_multiprocess(\n"
                    "    folder, target, step, orbax_checkpointer=checkpointer\n"
                    ")",
                ),
            )
        )


class MPARestoreTargetRequiredError(FlaxError):
    """An array of several processes is restored without saying where to.

    Args:
        path: Of the checkpoint.
        step: Of the checkpoint.
        key: Of the array.
    """

    def __init__(self, path: Any, step: Any, key: Any = None) -> None:
        at = f', at key "{key}"' if key is not None else ""
        super().__init__(
            _message(
                f'The checkpoint of step {step} at "{path}" holds an array that is '
                f"spread over several processes{at}, and the target has no array to "
                "say how to place it.",
                "",
                ("give a target", "restore_checkpoint(folder, target=state)"),
                ("leave it out", "allow_partial_mpa_restoration=True"),
            )
        )


class MPARestoreDataCorruptedError(FlaxError):
    """An array of several processes was not stored to its end.

    Args:
        step: Of the checkpoint.
        path: Of the array.
    """

    def __init__(self, step: Any, path: Any) -> None:
        super().__init__(
            _message(
                f'The array at "{path}" of the checkpoint of step {step} was not '
                'stored to its end: "commit_success.txt" is not in its folder.',
                "The file is written last, by the first process.",
                ("an earlier one", "restore_checkpoint(folder, target, step=...)"),
            )
        )


# ---- cursors


class TraverseTreeError(FlaxError):
    """A tree is walked with neither or both of `update_fn` and `cond_fn`.

    Args:
        update_fn: What was given as such.
        cond_fn: What was given as such.
    """

    def __init__(self, update_fn: Any, cond_fn: Any) -> None:
        both = "not None" if update_fn is not None or cond_fn is not None else "None"
        super().__init__(
            f"Both update_fn and cond_fn are {both}. Exactly one of them must be "
            f"{both}."
        )


class CursorFindError(FlaxError):
    """`Cursor.find` finds nothing, or more than one thing.

    Args:
        cursor: The first that was found, if any.
        cursor2: The second.
    """

    def __init__(self, cursor: Any = None, cursor2: Any = None) -> None:
        if cursor is None or cursor2 is None:
            what = "No object found given the conditions of the cond_fn."
            fix = ("see all that do", "list(cursor.find_all(cond_fn))")
        else:
            what = (
                "More than one object found given the conditions of the cond_fn. The "
                "first two objects found have the following paths: "
                f"{cursor._path} and {cursor2._path} ."
            )
            fix = ("take them all", "for found in cursor.find_all(cond_fn): ...")
        super().__init__(_message(what, "`find` gives the only one.", fix))
