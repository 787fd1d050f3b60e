"""A process of its own, with as many simulated devices as it is told, and as many others beside it."""

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

STEPS, ROWS = 20, 61  # which no number of devices divides


def the_run():
    """The arguments of `fit`, its settings; pixels that lie as bytes, BatchNorm, Dropout, momentum."""
    data = a_dataset(np.random.default_rng(0), ROWS)
    data = data._replace(**{n: np.round(255 * _unit(getattr(data, n))) / 255 for n in ("x_train", "x_test")})
    net = jaxnet.multi_layer_net(12, [8], 5, batch_norm=True, dropout=0.2)
    batches = jaxnet.draw_batches(jax.random.key(7), ROWS, 16, STEPS)
    return (net, random_params(net), data, batches), {
        "optimizer": "momentum", "learning_rate": 0.1, "eval_every": 10, "decay": 0.01, "key": jax.random.key(3),
    }  # fmt: skip


def _unit(x):
    return (np.float64(x) - x.min()) / (x.max() - x.min())


def saved(path, stage):
    leaves = jax.tree_util.tree_leaves_with_path((stage.state._replace(key=0), stage.history))
    np.savez(path, **{jax.tree_util.keystr(at): np.asarray(leaf) for at, leaf in leaves})


def simulated(folder, *counts):
    """The run on one device without a mesh, then over meshes of these numbers of devices."""
    arguments, settings = the_run()
    saved(folder / "alone.npz", jaxnet.fit(*arguments, **settings))
    for count in counts:
        stage = jaxnet.fit(*arguments, mesh=sharding.mesh(count), **settings)
        saved(folder / f"{count}.npz", stage)
        assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(stage.state))


def one_of(folder, steps):
    """The run over all devices of all processes, from its last checkpoint to this step."""
    fit_module.FIRST_STRIDE = 2
    fit_module.STRIDE_SECONDS = 1e9 * (jax.process_index() == 0)  # clocks that disagree: the strides must not
    (net, params, data, batches), settings = the_run()
    mesh = sharding.mesh()
    checkpoints = Checkpoints(folder / "checkpoints", lambda: {"run": "the"}, seconds=0)
    wrote, at = [], []
    checkpoints._make_room = lambda size, make=checkpoints._make_room: (wrote.append(1), make(size))
    resume = checkpoints.latest(jaxnet.initial_state(net, params, **settings), print)
    for stage in jaxnet.stages(net, params, data, batches, mesh=mesh, resume=resume, **settings):
        checkpoints.offer(stage)
        at.append(int(stage.state.step))
        if int(stage.state.step) >= steps:
            break
    checkpoints.finish()
    me, local = jax.process_index(), jax.local_device_count()
    saved(folder / f"process{me}.npz", stage)
    x = sharding.ManyDevices(mesh).rows(data.x_train)
    mine = sorted((shard.index[0].start or 0, shard.data.shape[0]) for shard in x.addressable_shards)
    facts = {
        "from": int(resume.state.step) if resume else None,
        "wrote": len(wrote),
        "at": at,
        "shards": mine,
        "padded": len(x),
        "local": local,
        "any": [sharding.any_process(me == 1), sharding.any_process(False)],
    }
    if steps < STEPS:
        facts["diverged"] = diverged_at(stage, mesh)
    (folder / f"process{me}.json").write_text(json.dumps(facts))


def diverged_at(stage, mesh):
    """Where a run with too high a rate ends; and the first process makes something of a state alone."""
    (net, params, data, batches), settings = the_run()
    if jax.process_index() == 0:
        own = sharding.here(stage.state)
        assert jaxnet.predict(net, own.params, own.net_state, data.x_test).is_fully_addressable
        assert jax.random.bits(own.key) == jax.random.bits(settings["key"])
    with pytest.raises(jaxnet.DivergedError) as caught:
        jaxnet.fit(net, params, data, batches, mesh=mesh, **settings | {"learning_rate": 1e200})
    return caught.value.step, caught.value.what, int(caught.value.state.step)


def endless(folder):
    """A run that ends with one of its processes."""
    net, data = jaxnet.two_layer_net(12, 8, 5), a_dataset(np.random.default_rng(0), ROWS)
    batches = jaxnet.draw_batches(jax.random.key(7), ROWS, 16, 1_000_000)
    params = random_params(net, dtype=np.float32)
    with sharding.together():
        for stage in jaxnet.stages(net, params, data, batches, mesh=sharding.mesh(), eval_every=10):
            (folder / f"at{jax.process_index()}").write_text(str(int(stage.state.step)))


def main():
    what, folder, local, port, processes, process, *rest = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", int(local))
    jax.config.update("jax_enable_x64", what != "endless")
    sharding.HEARTBEAT_SECONDS = 10
    sharding.join(f"localhost:{port}", int(processes), int(process))
    {"simulated": simulated, "one_of": one_of, "endless": endless}[what](Path(folder), *map(int, rest))


if __name__ == "__main__":
    main()
