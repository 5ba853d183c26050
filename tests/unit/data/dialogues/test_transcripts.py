import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rlaif.data.dialogues.conversations import parse_conversation, parse_dialogue
from rlaif.data.rows import BadRow
from rlaif.records import Turn


def dialogue(*texts):
    return tuple(Turn(role=("human", "assistant")[i % 2], text=text) for i, text in enumerate(texts))


HH = "\n\nHuman: q1\n\nAssistant: a1\n\nHuman: q2\n\nAssistant:"


@pytest.mark.parametrize(
    "text",
    [
        HH,
        HH.replace("\n", "\r\n"),
        HH.replace("\n", "\r"),
        HH.replace("\n\n", "\n \t\n"),
        HH.replace("\n\n", "\n\u00a0\n"),
        HH.replace("\n\n", "\n\n\n"),
        HH.replace("\n\n", "\n"),
        HH.replace("\n\n", "\r\n"),
        HH.replace("\n\n", "\n").strip(),
        HH.replace("\n\nAssistant", "\nAssistant"),
        HH.replace("Human", "User"),
        HH.replace("Assistant", "AI"),
        HH.replace("Human", "USER").replace("Assistant", "ASSISTANT"),
        HH.replace("Human", "user").replace("Assistant", "assistant"),
        HH.replace("Human:", "Human :"),
        "BEGINNING OF CONVERSATION: USER: q1 ASSISTANT:a1 USER: q2 ASSISTANT:",
        "USER: q1 ASSISTANT: a1</s>USER: q2 ASSISTANT:",
        "<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\na1<|im_end|>\n<|im_start|>user\nq2<|im_end|>\n"
        "<|im_start|>assistant\n",
        "<s>[INST] q1 [/INST] a1 </s><s>[INST] q2 [/INST]",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nq1<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\na1<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nq2<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "<bos><start_of_turn>user\nq1<end_of_turn>\n<start_of_turn>model\na1<end_of_turn>\n<start_of_turn>user\n"
        "q2<end_of_turn>\n<start_of_turn>model\n",
        "<|user|>\nq1</s>\n<|assistant|>\na1</s>\n<|user|>\nq2</s>\n<|assistant|>\n",
        "<|prompter|>q1<|endoftext|><|assistant|>a1<|endoftext|><|prompter|>q2<|endoftext|><|assistant|>",
        "### Human: q1\n### Assistant: a1\n### Human: q2\n### Assistant:",
    ],
)
def test_dialogues_are_read_in_every_form(text):
    turns = parse_conversation(text, "prompt")
    assert (turns if turns[-1].text else turns[:-1]) == dialogue("q1", "a1", "q2")


def test_alpaca_as_rendered_is_one_turn():
    preamble = "Below is an instruction that describes a task. Write a response that completes it.\n\n"
    for text in ("### Instruction:\nq\n\n### Response:\n", f"{preamble}### Instruction:\nq\n\n### Response:"):
        assert parse_conversation(text, "prompt") == dialogue("q", "")


CODE = "    if x:\n        return 1"


@pytest.mark.parametrize(
    "text",
    [
        f"\n\nHuman: q\n\nAssistant:\n{CODE}",
        f"User: q\r\nAssistant: \r\n\r\n{CODE}\r\n".replace(CODE, CODE.replace("\n", "\r\n")),
        f"<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n{CODE}<|im_end|>\n",
        f"<|start_header_id|>user<|end_header_id|>\n\nq<|eot_id|>"
        f"<|start_header_id|>assistant<|end_header_id|>\n\n{CODE}<|eot_id|>",
    ],
)
def test_code_below_its_speaker_stays_indented(text):
    assert parse_conversation(text, "chosen") == dialogue("q", CODE)


@pytest.mark.parametrize("text", ["\n\nHuman:   q\n\nAssistant: \t a ", "[INST]  q [/INST]   a </s>"])
def test_spaces_behind_a_speaker_are_no_indentation(text):
    assert parse_conversation(text, "chosen") == dialogue("q", "a")


def test_a_dialogue_may_begin_with_the_assistant():
    assert parse_conversation("\n\nAssistant: hello\n\nHuman: q", "prompt") == dialogue("", "hello", "q")[1:]


@pytest.mark.parametrize(
    "text",
    [
        "What does Human: mean in a prompt?",
        "A story.\nHuman: is a word, and so is Assistant: here",
        "Is a Human: or an AI: meant?\n\nHuman: perhaps",
        "AI: what is it, and who made it?",
        "Assistant: a job description",
        "Userland: what is it?",
        "Team:\nManager: Ann\nAssistant: Bob\nTrainee: Cy",
        "System: Linux. Why does it not boot?",
        "Q: what is it, and what does A: mean?",
        "Answer: or Question: which is first?",
        "What does <|im_start|> mean? And [INST]?",
        "**User:** is a word in bold",
        "[User] may be a placeholder, [Assistant] another",
        "# Title\n### Instruction: is a heading",
        "    indented code\n        x = 1",
    ],
)
def test_prose_that_names_speakers_stays_prose(text):
    assert parse_conversation(text, "prompt") == dialogue(text)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("Be nice.\n\nHuman: q1\n\nAssistant:", "does not begin with a speaker"),
        ("Be nice.\nHuman: q1\nAI:", "does not begin with a speaker"),
        ("A chat between a user and a machine. USER: q1 ASSISTANT:", "does not begin with a speaker"),
        ("Be nice.\n\nHuman: q1\n\nAssistant: a1\n\nHuman: q2", "text before the first"),
        ("User: admin\nPassword: x", "no turn of an assistant follows"),
        ("\n\nH: q1\n\nA:", "its speakers are unknown"),
        ("H: q1\nA: a1\nH: q2", "its speakers are unknown"),
        ("Q: what?\nA: that\nQ: why?\nA:", "its speakers are unknown"),
        ("Question 1: what?\n\nAnswer:", "its speakers are unknown"),
        ("问：为什么？\n答：", "its speakers are unknown"),
        ("用户：你好\n助手：您好\n用户：再见", "its speakers are unknown"),
        ("Utilisateur: a ?\n\nAssistant: b\n\nUtilisateur : c", "its speakers are unknown"),
        ("[INST] q <<SYS>>Be nice.<</SYS>> [/INST]", "its system turn cannot be told apart"),
        ("<|im_start|>user\nq<|im_end|>\n<|im_start|>tool\n12C<|im_end|>", "tool turn in a rendered ChatML"),
        ("**User:** q1\n\n**Assistant:** a1\n\n**User:** q2", "its speakers are unknown"),
        ("[User]: q1\n[Assistant]: a1", "its speakers are unknown"),
        ("<user>q1</user>\n<assistant>", "its speakers are unknown"),
        ("## User\nq1\n\n## Assistant\n", "its speakers are unknown"),
        ("Human: q1\nHuman: q2\nAssistant: a", "do not alternate"),
        ("BEGINNING OF CONVERSATION: USER: q1 USER: q2 ASSISTANT:", "do not alternate"),
        ("Be nice. [INST] q1 [/INST]", "text before its first Llama 2 turn"),
        ("<|im_start|>user\nq<|im_end|> and <|im_end|> more", "cannot be told apart"),
        ("an answer<|im_end|>", "the mark of a chat template"),
        ("Human: q1 Assistant: a1 Human: q2", "`Assistant:` begins no line"),
        ("Human: q1<br><br>Assistant: a1", "`Assistant:` begins no line"),
        ("Human: q1\u2028Assistant: a1", "`Assistant:` begins no line"),
        ("\\n\\nHuman: q1\\n\\nAssistant: a1", "unescape them"),
        ("Be nice.\\n\\nHuman: q1\\n\\nAssistant: a1", "unescape them"),
    ],
)
def test_what_may_be_a_dialogue_is_refused_by_name(text, cause):
    with pytest.raises(BadRow, match=f"field `prompt`: .*{cause}"):
        parse_conversation(text, "prompt")


@pytest.mark.parametrize(
    "text",
    [
        "System: Be nice.\n\nHuman: q1\n\nAssistant: a1\n\nHuman: q2",
        "System：Be nice.\n\nHuman：q1\n\nAssistant：a1\n\nHuman：q2",
        "SYSTEM: Be nice.\nUSER: q1\nASSISTANT: a1\nUSER: q2",
    ],
)
def test_a_system_speaks_first_and_colons_may_be_wide(text):
    turns = parse_conversation(text, "prompt")
    assert [(turn.role, turn.text) for turn in turns] == [
        ("system", "Be nice."),
        ("human", "q1"),
        ("assistant", "a1"),
        ("human", "q2"),
    ]


@pytest.mark.parametrize("text", ["User: admin", "Sure:\n\nHuman: q\n\nAssistant: a", "It ends:\nAssistant:"])
def test_an_answer_may_quote_a_dialogue(text):
    assert parse_dialogue(text, "chosen") is None


mark = st.sampled_from(["Human:", "Assistant:", "User:", "AI :", "System:", "USER:", "ASSISTANT:", "[INST]", "[/INST]"])
pieces = st.lists(
    mark | st.sampled_from(["\n", "\r\n", "\n\n", " ", "\t"]) | st.text(st.characters(exclude_categories=["Cs"]))
)


@given(pieces.map("".join))
@example("### Response: x")
@example("[/INST]")
@example("Human:")
def test_any_text_is_read_or_refused_and_no_word_is_lost(text):
    try:
        turns = parse_conversation(text, "prompt")
    except BadRow:
        return
    assert turns
    # What was said is in the text, in order: only marks, ends of lines and white space go.
    rest = text.replace("\r\n", "\n").replace("\r", "\n")
    for turn in turns:
        said = turn.text.replace("\r\n", "\n").replace("\r", "\n")
        assert said in rest
        rest = rest[rest.index(said) + len(said) :]


@pytest.mark.parametrize(
    "text", ["\n" * 50_000, " \n" * 50_000, "\t" * 100_000, "Human:" + " " * 100_000, "[" * 50_000]
)
def test_long_white_space_takes_no_time(text):
    for whole in (f"{text}x", f"x{text}x", f"<|im_start|>user\n{text}x"):
        try:
            parse_conversation(whole, "prompt")
        except BadRow:
            continue
