"""Speed of training and evaluation beside plain TensorFlow and other libraries: `python -m experiments.benchmark`.

baselines   hand-written TensorFlow loops that do the same work
peers       PyTorch, ART, Foolbox, CleverHans doing the same work, where they are installed
counts      passes and operations of an update, counted while it runs
worker      one process of one engine, timed from outside
results     medians, ratios, table and picture
"""
