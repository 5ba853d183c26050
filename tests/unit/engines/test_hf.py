"""The transformers backend by itself; what every engine promises is in tests/contract."""

from rlaif.config.schema import PoolSettings
from rlaif.engines.hf import HFBackend
from rlaif.engines.models import read_model
from rlaif.engines.requests import GenerateRequest
from rlaif.engines.stop_strings import REPLACEMENT_CHARACTER
from rlaif.records import Sampling
from tests.tiny_models import saved, tiny_lm, tiny_tokenizer

NUM_TOKENS = 60


class CountingTokenizer:
    """Remembers the lengths of what it decoded."""

    def __init__(self) -> None:
        self._tokenizer = tiny_tokenizer()
        self.lengths: list[int] = []

    def decode(self, token_ids, **options) -> str:
        self.lengths.append(len(token_ids))
        return self._tokenizer.decode(token_ids, **options)


def test_an_answer_is_decoded_only_where_a_stop_string_may_have_ended(tmp_path, monkeypatch):
    """Not after every token, which is quadratic in its length."""
    tokenizer = CountingTokenizer()
    monkeypatch.setattr("rlaif.engines.hf.load_tokenizer", lambda path: tokenizer)
    path = saved(tiny_lm(0, tied=True), tmp_path / "lm")
    model = read_model(path, field="generator.model", max_length=128, pooling=False)
    backend = HFBackend(model, PoolSettings(engine="hf", max_length=128))
    sampling = Sampling(max_tokens=NUM_TOKENS, temperature=1.0, seed=3, stop=("\n\nHuman:",))
    backend.admit(0, GenerateRequest(prompt_ids=tuple(range(40, 60)), sampling=sampling))
    finished = []
    while not finished:
        finished = backend.step()
    backend.close()
    ((_, sampled),) = finished
    texts = [tiny_tokenizer().decode([id]) for id in sampled.token_ids]
    candidates = [end for end, text in enumerate(texts, start=1) if ":" in text or REPLACEMENT_CHARACTER in text]
    assert len(sampled.token_ids) > NUM_TOKENS // 2
    assert 0 < len(candidates) < len(sampled.token_ids)
    assert [length for length in tokenizer.lengths if length > 1] == [end for end in candidates if end > 1]
