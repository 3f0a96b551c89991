from experiments.benchmark_peers import *  # noqa
