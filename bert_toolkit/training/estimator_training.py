"""How an Estimator trains on several hosts, for versions of TensorFlow that dropped it.

Stands in for `tensorflow.python.distribute.estimator_training` (see estimator_api.py), a thin layer
over TensorFlow's distribute coordinator, which is still there. The coordinator starts this host's
server and calls a function under the strategy. Every host runs this same program ("independent
workers"); a client that commands the hosts is not supported.
"""

from typing import Any

from tensorflow.python.distribute import distribute_coordinator as coordinator
from tensorflow.python.distribute import distribute_coordinator_context
from tensorflow.python.training import server_lib

CHIEF, WORKER = "chief", "worker"
INDEPENDENT_WORKERS = coordinator.CoordinatorMode.INDEPENDENT_WORKER


def init_run_config(config: Any, tf_config: dict[str, Any]) -> None:
    """Completes a RunConfig that has a strategy by what TF_CONFIG says of the cluster."""
    cluster_spec = server_lib.ClusterSpec(tf_config.get("cluster", {}))
    if not cluster_spec or not config._train_distribute:
        config._distribute_coordinator_mode = None
        config._init_distributed_setting_from_environment_var(tf_config)
        config._maybe_overwrite_session_config_for_distributed_training()
        return
    # This host's place in the cluster comes later, from the coordinator.
    config._init_distributed_setting_from_environment_var({})
    config._cluster_spec = cluster_spec
    config._distribute_coordinator_mode = INDEPENDENT_WORKERS


def should_run_distribute_coordinator(config: Any) -> bool:
    """Returns whether `train_and_evaluate` runs on the hosts of a cluster."""
    mode = getattr(config, "_distribute_coordinator_mode", None)
    return mode == INDEPENDENT_WORKERS and bool(config.cluster_spec)


def train_and_evaluate(estimator: Any, train_spec: Any, eval_spec: Any, executor_cls: Any) -> None:
    """Trains as one of the hosts of TF_CONFIG.

    Args:
      estimator: an Estimator whose RunConfig has a strategy for several hosts.
      train_spec: as for `tf.estimator.train_and_evaluate`.
      eval_spec: not used: there is no host whose task is to evaluate.
      executor_cls: not used, for the same reason.
    """
    del eval_spec, executor_cls

    def train(strategy):
        context = distribute_coordinator_context.get_current_worker_context()
        _take_place(estimator._config, context)
        estimator._config._train_distribute = strategy
        estimator._train_distribution = strategy
        estimator.train(
            train_spec.input_fn, hooks=list(train_spec.hooks), max_steps=train_spec.max_steps
        )

    coordinator.run_distribute_coordinator(
        train,
        estimator.config.train_distribute,
        mode=INDEPENDENT_WORKERS,
        session_config=estimator.config.session_config,
    )


def _take_place(config: Any, context: Any) -> None:
    """Writes this host's place in the cluster into a RunConfig."""
    hosts = [
        (role, index)
        for role in (CHIEF, WORKER)
        for index in range(len(context.cluster_spec.as_dict().get(role, [])))
    ]
    config._cluster_spec = context.cluster_spec
    config._task_type, config._task_id = context.task_type, context.task_id
    config._is_chief = context.is_chief
    config._master = config._evaluation_master = context.master_target
    config._num_ps_replicas, config._num_worker_replicas = 0, len(hosts)
    config._global_id_in_cluster = hosts.index((context.task_type, context.task_id))
    # `estimator.train` is to train here and now, not to look for a coordinator again.
    config._distribute_coordinator_mode = None


def estimator_train(estimator: Any, train_distributed_fn: Any, hooks: Any) -> None:
    """Refuses `Estimator.train` on several hosts, which only a commanding client could call."""
    raise ValueError("on several hosts an Estimator trains by train_and_evaluate")


def estimator_evaluate(estimator: Any, evaluate_distributed_fn: Any, hooks: Any) -> None:
    """Refuses `Estimator.evaluate` on several hosts, which only a commanding client could call."""
    raise ValueError("on several hosts an Estimator does not evaluate; do so on one")
