"""Jobs travel between processes, and the driver, which loads no torch, imports them."""

import pickle
import subprocess
import sys

from tests.unit.training.conftest import ppo_job, preference_job, sft_job


def test_jobs_are_picklable():
    for job in (sft_job("base", "out"), preference_job("base", "out"), ppo_job("policy", "scorer")):
        assert pickle.loads(pickle.dumps(job)) == job


def test_importing_jobs_loads_no_torch():
    code = "import sys, rlaif.jobs; sys.exit(int(bool({'torch', 'deepspeed', 'ray'} & set(sys.modules))))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
