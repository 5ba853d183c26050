"""Small tokenizers with the quirks of large ones: merges across letters, chat control tokens, leading-space marks."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = ["The answer is: (A)", "The answer is: (B)", "a conversation between a human and an assistant"] * 20


def bpe(corpus=CORPUS, **names) -> PreTrainedTokenizerFast:
    """Byte-level BPE; splits only at newlines, so that it merges across letters, brackets and spaces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{"eos_token": "</s>", **names})


def chat() -> PreTrainedTokenizerFast:
    tokenizer = bpe(pad_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def prefixed() -> PreTrainedTokenizerFast:
    """Puts a space in front of every text, as SentencePiece models do; words are tokens with the space before them."""
    words = ["▁Yes", "▁No", "▁two", "Human", "Assistant", "▁(A", "▁(B"]
    letters = sorted({*"▁\n:.(),AB", *map(chr, range(97, 123)), *map(chr, range(65, 91))})
    merges = [(word[:end], word[end]) for word in words for end in range(1, len(word))]
    pieces = [*letters, *(left + right for left, right in merges)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(["<unk>", *pieces]))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(dict.fromkeys(merges)), unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def spaced() -> PreTrainedTokenizerFast:
    """Pieces with a leading-space mark, BOS and an unknown token, as in SentencePiece models."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator([text.replace(" ", "▁") for text in CORPUS], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
