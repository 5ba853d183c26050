"""The story, one file per step: revise, supervise, label, fit the preference model, reinforce, evaluate.

Each stage is a coroutine over the Protocols in ``rlaif.interfaces``; it knows neither Ray nor vLLM. Where pools and
trainers come from is the runner's business: ``actors.driver`` for a cluster, ``in_process`` for one process.
"""
