"""Speed of training and evaluation beside plain TensorFlow and other libraries.

baselines   hand-written TensorFlow loops that do the same work
peers       PyTorch, ART, Foolbox, CleverHans doing the same work, where they are installed
counts      passes and operations of an update, counted while it runs
work        what engines do, and how they are asked; no framework
worker      one process of an engine on TensorFlow, timed from outside
peer_worker one of another library, which imports no TensorFlow
results     medians, ratios, table and picture
"""
