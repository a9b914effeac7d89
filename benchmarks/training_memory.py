"""(p) Time and memory of training steps of two sizes, each library by itself.

A process for each library, which builds the network of question k, takes some steps and
tells the fastest, and by how much its memory had grown at the most. In the largest size
all contestants of question k at once would not leave room to tell.

    "nano"          4 layers of width 256, 4,096 tokens, batches of 8 x 256
    "gpt2-small"    12 layers of width 768, 50,257 tokens, batches of 1 x 128

And for the record: tokens a second through `training.fit` on one to eight simulated
devices, which share the cores that the machine has.
"""

import json
import os
import pathlib
import subprocess
import sys

from _layers import never_slower
from _measure import OURS, RAW, Result

SIZES = {"nano": (8, 256), "gpt2-small": (1, 128)}
FLAG = "--xla_force_host_platform_device_count="
DEVICES = 1, 2, 4, 8


def names():
    """Who takes part."""
    peers = ["Equinox", "Flax NNX", "Flax Linen", "PyTorch, eager", "PyTorch, compiled"]
    return [RAW, OURS, f"{OURS}, Stack", *peers]


def training(name, size, steps):
    """Seconds of each step, and megabytes that the process grew by."""
    import time

    import _gpt2
    import language_modelling
    from sharded_init import peak_memory

    _gpt2.resize(**(_gpt2.NANO if size == "nano" else _gpt2.SMALL))
    tokens = _gpt2.tokens(*SIZES[size])
    before = peak_memory()
    library = name.split(",")[0] if name.startswith("PyTorch") else name
    run = language_modelling.contestants(tokens)[library]
    run = (run(name) if library == "PyTorch" else run())[name]
    loss = run()
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    grown = (peak_memory() - before) / 1e6
    temporary = None
    if library != "PyTorch":
        temporary = run.step.memory_analysis().temp_size_in_bytes / 1e6
    return {
        "times": times,
        "grown": grown,
        "temporary": temporary,
        "is": [run.size, loss],
    }


def looping(count):
    """Tokens a second of the small model in `training.fit` over simulated devices."""
    import itertools

    import _gpt2
    import jax
    import jax.numpy as jnp
    import optax

    from linnet import nn, parallel, training

    _gpt2.resize(**_gpt2.NANO)
    tokens = _gpt2.tokens(8, 128)
    model = _gpt2.linnet(stacked=True)[1](tokens[:1]).params

    def loss_fn(model, tokens):
        logits = model(tokens)[:, :-1]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        return losses.mean()

    @jax.jit(donate_argnums=0)
    def step(state, tokens):
        grad_fn = nn.value_and_grad(lambda model: loss_fn(model, tokens))
        loss, grads = grad_fn(state.model)
        return state.apply_gradients(grads), {"loss": loss}

    class Rate:
        def on_log(self, run, values):
            self.value = values["steps_per_second"]

    with parallel.use(parallel.make_mesh(data=count), parallel.data_parallel()):
        model = jax.device_put(model, parallel.shardings(model))
        tokens = jax.device_put(tokens, parallel.shardings(tokens, axes=("batch",)))
        state = training.TrainState.create(model, optax.sgd(1e-2), jax.random.key(0))
        rate = Rate()
        training.fit(
            state, step, itertools.repeat(tokens), steps=20, hooks=[rate], log_every=10
        )
    return {"rate": rate.value * jnp.size(tokens)}


def measure(quick):
    """A race for each size, and the loop."""
    for size in ["nano"] if quick else SIZES:
        yield _race(size, 3 if quick else 8, 1 if quick else 3)
    rates = {
        f"{n} devices": ask(["loop", str(n)], XLA_FLAGS=f"{FLAG}{n}")["rate"]
        for n in DEVICES
    }
    times = {name: [1 / rate] for name, rate in rates.items()}
    columns = {"tokens a second": {name: f"{r:,.0f}" for name, r in rates.items()}}
    title = "a token through `training.fit`"
    yield Result("p", title, times, "us", base="1 devices", columns=columns)


def _race(size, steps, rounds):
    times, grown, temporary, left_out, first = {}, {}, {}, {}, {}
    for _ in range(rounds):
        for name in names():
            try:
                found = ask([name, size, str(steps)])
            except subprocess.CalledProcessError as error:
                left_out[name] = error.stderr.strip().splitlines()[-1]
                continue
            _require_same(name, first.setdefault("is", found["is"]), found["is"])
            times.setdefault(name, []).append(min(found["times"]))
            grown[name] = f"{found['grown']:,.0f}"
            kept = found["temporary"]
            temporary[name] = "" if kept is None else f"{kept:,.0f}"
    columns = {"process grew by (MB)": grown, "temporary (MB)": temporary}
    title = f"training step, {size}"
    result = Result("p", title, times, left_out=left_out, columns=columns)
    result.checks += never_slower(result)
    return result


def _require_same(name, first, found):
    """Refuses a race of different models: parameters, and the first loss."""
    (size, loss), (other_size, other_loss) = first, found
    if size != other_size or abs(loss / other_loss - 1) > 1e-3:
        raise ValueError(f"{name} has {found} where {RAW} has {first}")


def ask(arguments, **env):
    """What a process of its own tells."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parent.parent)}
        | env,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    first, *rest = sys.argv[1:]
    if first == "loop":
        print(json.dumps(looping(int(rest[0]))))
    else:
        print(json.dumps(training(first, rest[0], int(rest[1]))))
