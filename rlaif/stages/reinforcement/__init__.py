"""Step 5: reinforcement from the preference model's scores and, at the same time, feedback on the policy's new answers.

```
            draws of b           samples of b             scored b
 roll_out ─────────► generator ─────────► score ─► scorer ───────► learn ─► version v+1
     ▲ admitted when b <= v + S             ▲ model w(b)                        │
     └─────────────────────────── publish ◄─┼───────────────────────────────────┘
                                     │      └──────────────────────────────────────────────┐
                  every `every` versions                                                   │
                                     ▼                                                     │
     compare ─► generator ─► pairs of answers ─► label ─► labeller ─► labels ─► refit ─► model r
```
Loop      consumes              waits for                        unblocked by         produces
roll_out  the schedule          admission: b <= v + S            publish              samples, batch by batch
score     samples               model w(b)                       roll_out, refit      scored batches
learn     scored batches        the next batch in order          score                weights, rollouts, metrics
publish   weights               every engine's proof             learn                versions that are served
write     begun checkpoints     the ranks' files                 learn                checkpoints
compare   the schedule          policy version r * every         publish              comparisons, journalled
label     comparisons           the labeller's engines           compare              preferences, journalled
refit     preferences           the gate, the trainer's ranks    label                model r, re-centred

S is ``reinforcement.max_staleness``; w(b) follows from ``preference_model.refresh.max_lag`` (``preference_versions``).
With both 0 the loops take turns, which is the sequential algorithm; the code is the same. Batches form in the order of
the schedule, refreshes and publishing fire on counts, and nothing is dropped for its age. Scripted engines answer by
hash, so runs over them end with the same results however their loops interleave.

``reinforce`` opens pools and trainers and starts the loops; ``policy_loops`` holds the first five, ``preference_loops``
the others, and ``context`` what they share.
"""
