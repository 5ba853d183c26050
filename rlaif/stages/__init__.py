"""The story, one file per step, in the order of the table in ``pipeline``.

Each stage is a coroutine over the Protocols in ``rlaif.interfaces``; it knows neither Ray nor vLLM. The runner decides
where pools and trainers come from: ``actors.driver`` for a cluster, ``in_process`` for one process. ``run`` is what
each stage is given, and ``bookkeeping`` sees that no row is lost.
"""
