"""The story, one file per step: read, revise, supervise, label, fit the preference model, reinforce, evaluate.

Each stage is a coroutine over the Protocols in ``rlaif.interfaces``; it knows neither Ray nor vLLM. The runner decides
where pools and trainers come from: ``actors.driver`` for a cluster, ``in_process`` for one process. ``pipeline``
declares all stages in one table, ``run`` is what each is given, and ``bookkeeping`` sees that no row is lost.
"""
