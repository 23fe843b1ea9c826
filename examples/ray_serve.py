"""The service on a Ray cluster: the same application in replicas that Ray Serve starts, watches and scales.

    pip install 'emotion-yolo[api]' 'ray[serve]'
    python -m examples.ray_serve --port 8000      # a cluster of this machine, or the one at RAY_ADDRESS
    serve run examples.ray_serve:app              # on the cluster of `ray start`

Settings are the variables EMOTION_… of the nodes. A replica has one core, one thread and a model of its own.
"""

import argparse
import os
import signal

import ray
from ray import serve

from api.main import create_app

REPLICA_ENVIRONMENT = {"EMOTION_THREADS": "1", "EMOTION_WORKERS": "1"}

# Ray Serve calls `create_app` in each replica. Its own queue is short, so that the service's refusals (503 with
# Retry-After) reach the client, and it scales before they do.
EmotionYolo = serve.deployment(
    name="emotion-yolo",
    ray_actor_options={"num_cpus": 1, "runtime_env": {"env_vars": REPLICA_ENVIRONMENT}},
    autoscaling_config={"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 2},
    max_ongoing_requests=16,
)(serve.ingress(create_app)())

app = EmotionYolo.bind()


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    ended = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ended)  # held until `sigwait` takes them
    ray.init(address=os.environ.get("RAY_ADDRESS"), include_dashboard=False)
    serve.start(http_options={"host": given.host, "port": given.port})
    serve.run(app)
    print(f"running on http://{given.host}:{given.port}", flush=True)
    signal.sigwait(ended)
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
