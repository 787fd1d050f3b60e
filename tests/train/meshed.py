"""Runs a worker process with simulated devices, one of several that train together."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import a_dataset, random_params

import jaxnet
from jaxnet.train import fit as fit_module
from jaxnet.train import sharding
from jaxnet.train.checkpoints import Checkpoints
from jaxnet.train.sample_sources import SHARES, bytes_of

STEPS, ROWS = 20, 61  # no number of devices divides 61
EVALUATED = {"eval_every": 10, "weight_decay": 0.01}
SWEPT = {"learning_rates": (0.01, 0.1, 0.3), "init_stds": (0.1, 0.3, 0.5), "optimizer": "adam", "clip_norm": 5.0}
MESHES = [(1, 1), (2, 1), (8, 1), (8, 2), (4, 4)]  # devices, and parts of each large weight
SIDE, LETTERS, LENGTH = 8, 7, 6
NETWORKS = {  # functions, as no array may exist before the number of devices is set
    "two-layer": lambda: jaxnet.two_layer_net(SIDE**2, 8, 10),
    "deep": lambda: jaxnet.multi_layer_net(SIDE**2, [8, 8], 10, batch_norm=True, dropout=0.2),
    "simple-conv": lambda: jaxnet.simple_conv_net((1, SIDE, SIDE)),
    "deep-conv": lambda: jaxnet.deep_conv_net((1, SIDE, SIDE), dropout=0.5),
    "transformer": lambda: jaxnet.transformer(LETTERS, LENGTH, 8, 2, 1, dropout=0.2),
}


def fit_arguments():
    """Returns the positional arguments of `fit`, and the named ones that `initial_state` takes too.

    Pixels are stored as bytes; the network has BatchNorm and Dropout, the optimizer momentum.
    """
    data = a_dataset(np.random.default_rng(0), ROWS)
    data = data._replace(**{n: np.round(255 * _unit(getattr(data, n))) / 255 for n in ("x_train", "x_test")})
    net = jaxnet.multi_layer_net(12, [8], 5, batch_norm=True, dropout=0.2)
    batches = jaxnet.draw_batches(jax.random.key(7), ROWS, 16, STEPS)
    return (net, random_params(net), data, batches), {
        "optimizer": "momentum", "learning_rate": 0.1, "key": jax.random.key(3),
    }  # fmt: skip


def _unit(x):
    return (np.float64(x) - x.min()) / (x.max() - x.min())


def save(path, run):
    leaves = jax.tree_util.tree_leaves_with_path((run.state._replace(key=0), run.history))
    np.savez(path, **{jax.tree_util.keystr(at): np.asarray(leaf) for at, leaf in leaves})


def simulated(folder, *counts):
    """Trains on one device without a mesh, then over meshes of these numbers of devices."""
    arguments, settings = fit_arguments()
    save(folder / "alone.npz", jaxnet.fit(*arguments, **EVALUATED, **settings))
    for count in counts:
        run = jaxnet.fit(*arguments, mesh=sharding.mesh(count), **EVALUATED, **settings)
        save(folder / f"{count}.npz", run)
        assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(run.state))


def network_arguments(name):
    """Returns the positional and named arguments of `fit` for 6 steps of a network."""
    net, rng = NETWORKS[name](), np.random.default_rng(0)
    if name == "transformer":
        arrays = [rng.integers(0, LETTERS, (n, LENGTH)) for n in (ROWS, ROWS, 30, 30)]
    else:
        shape = (1, SIDE, SIDE) if name.endswith("conv") else (SIDE**2,)
        images = [rng.integers(0, 256, (n, *shape)) / 255 for n in (ROWS, 30)]
        arrays = [images[0], rng.integers(0, 10, ROWS), images[1], rng.integers(0, 10, 30)]
    batches = jaxnet.draw_batches(jax.random.key(7), ROWS, 16, 6)
    params = net.init(jax.random.key(0), "he")
    return (net, params, jaxnet.Dataset(*arrays), batches), {
        "optimizer": "momentum", "learning_rate": 0.05, "key": jax.random.key(3), "eval_every": 3,
    }  # fmt: skip


def few_bytes(arguments):
    """Returns room for as many samples as `fit` needs at least, so that it reads them from the host."""
    _, _, data, batches = arguments
    return SHARES * bytes_of(data, batches.shape[1], np.float64)


def network_over_meshes(folder, number, meshes):
    """Trains a network on one device without a mesh, then over the first of MESHES."""
    arguments, settings = network_arguments(list(NETWORKS)[number])
    save(folder / "alone.npz", jaxnet.fit(*arguments, **settings))
    for count, model in MESHES[:meshes]:
        run = jaxnet.fit(*arguments, mesh=sharding.mesh(count, model_devices=model), **settings)
        save(folder / f"{count}-{model}.npz", run)
        assert_weights_are_divided(run.state, model)
        jaxnet.predict(arguments[0], run.state.params, run.state.net_state, arguments[2].x_test)
    if meshes:
        mesh = sharding.mesh(2)
        save(folder / "read.npz", jaxnet.fit(*arguments, mesh=mesh, max_data_bytes=few_bytes(arguments), **settings))


def assert_weights_are_divided(state, model):
    """Fails unless each device has one part of each large array of a state, momentum included, and all of the rest."""
    for leaf in jax.tree.leaves(state._replace(key=0)):
        shape = np.shape(leaf)
        divided = len(shape) > 1 and np.prod(shape) >= sharding.LARGE_WEIGHT and any(n % model == 0 for n in shape)
        for shard in leaf.addressable_shards if hasattr(leaf, "addressable_shards") else ():
            assert shard.data.size == (leaf.size // model if divided else leaf.size), (shape, shard.data.shape)


def network_over_processes(folder, number):
    """Trains a network over all devices of all processes, with whole weights and with divided ones."""
    arguments, settings = network_arguments(list(NETWORKS)[number])
    for model in (1, 2):
        run = jaxnet.fit(*arguments, mesh=sharding.mesh(model_devices=model), **settings)
        save(folder / f"{model}-process{jax.process_index()}.npz", run)
    run = jaxnet.fit(*arguments, mesh=sharding.mesh(), max_data_bytes=few_bytes(arguments), **settings)
    save(folder / f"read-process{jax.process_index()}.npz", run)


def sweep_over_meshes(folder):
    """Sweeps 9 runs on one device without a mesh, and over meshes whose numbers of devices do not divide 9."""
    (net, _, data, batches), _ = fit_arguments()
    np.savez(folder / "alone.npz", **jaxnet.sweep(net, data, batches, **SWEPT)._asdict())
    for name, mesh in {"4": sharding.mesh(4), "8": sharding.mesh(8, model_devices=2)}.items():
        np.savez(folder / f"{name}.npz", **jaxnet.sweep(net, data, batches, mesh=mesh, **SWEPT)._asdict())


def sweep_over_processes(folder):
    """Sweeps the same runs over all devices of all processes."""
    (net, _, data, batches), _ = fit_arguments()
    result = jaxnet.sweep(net, data, batches, mesh=sharding.mesh(), **SWEPT)
    np.savez(folder / f"process{jax.process_index()}.npz", **result._asdict())


def one_of(folder, steps):
    """Trains over all devices of all processes, from the last checkpoint to this step."""
    fit_module.FIRST_CHUNK = 2
    fit_module.CHUNK_SECONDS = 1e9 * (jax.process_index() == 0)  # clocks differ, chunks must not
    (net, params, data, batches), settings = fit_arguments()
    mesh = sharding.mesh()
    checkpoints = Checkpoints(folder / "checkpoints", lambda: {"run": "the"}, seconds=0)
    written, steps_seen = [], []
    checkpoints._reserve = lambda size, reserve=checkpoints._reserve: (written.append(size), reserve(size))
    resume = checkpoints.latest(jaxnet.initial_state(net, params, **settings), print)
    for run in jaxnet.iter_fit(net, params, data, batches, mesh=mesh, resume=resume, **EVALUATED, **settings):
        checkpoints.offer(run)
        steps_seen.append(int(run.state.step))
        if int(run.state.step) >= steps:
            break
    checkpoints.finish()
    process, local = jax.process_index(), jax.local_device_count()
    save(folder / f"process{process}.npz", run)
    x = sharding.ManyDevices(mesh).shard_rows(data.x_train)
    shards = sorted((shard.index[0].start or 0, shard.data.shape[0]) for shard in x.addressable_shards)
    facts = {
        "from": int(resume.state.step) if resume else None,
        "written": len(written),
        "steps": steps_seen,
        "shards": shards,
        "padded": len(x),
        "local": local,
        "any": [sharding.any_process(process == 1), sharding.any_process(False)],
    }
    if steps < STEPS:
        facts["diverged"] = diverged_at(run, mesh)
    (folder / f"process{process}.json").write_text(json.dumps(facts))


def diverged_at(run, mesh):
    """Returns where a run with too high a rate ends; the first process also computes with a local copy of the state."""
    (net, params, data, batches), settings = fit_arguments()
    if jax.process_index() == 0:
        local = sharding.local_copy(run.state)
        assert jaxnet.predict(net, local.params, local.net_state, data.x_test).is_fully_addressable
        assert jax.random.bits(local.key) == jax.random.bits(settings["key"])
    with pytest.raises(jaxnet.DivergedError) as caught:
        jaxnet.fit(net, params, data, batches, mesh=mesh, **EVALUATED, **settings | {"learning_rate": 1e200})
    return caught.value.step, caught.value.what, int(caught.value.state.step)


def endless(folder):
    """Trains until a process is killed."""
    net, data = jaxnet.two_layer_net(12, 8, 5), a_dataset(np.random.default_rng(0), ROWS)
    batches = jaxnet.draw_batches(jax.random.key(7), ROWS, 16, 1_000_000)
    params = random_params(net, dtype=np.float32)
    with sharding.exit_on_failure():
        for run in jaxnet.iter_fit(net, params, data, batches, mesh=sharding.mesh(), eval_every=10):
            (folder / f"at{jax.process_index()}").write_text(str(int(run.state.step)))


def main():
    task, folder, local, port, processes, process, *rest = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", int(local))
    jax.config.update("jax_enable_x64", task != "endless")
    sharding.HEARTBEAT_SECONDS = 10
    sharding.join(f"localhost:{port}", int(processes), int(process))
    if task.startswith("network"):
        sharding.LARGE_WEIGHT = 64
    tasks = (
        simulated, network_over_meshes, network_over_processes, sweep_over_meshes, sweep_over_processes, one_of,
        endless,
    )  # fmt: skip
    next(function for function in tasks if function.__name__ == task)(Path(folder), *map(int, rest))


if __name__ == "__main__":
    main()
