"""Revisions that announce themselves, in the words of models, and texts that only sound a little like it."""

import json

import pytest

from rlaif.tasks.announcements import announces_itself

#: One on each line; ``\\n`` stands for a line break.
ANNOUNCEMENTS = r"""
Here is a safer response: No.
I understand. Here's a revision.\n\nNo.
Sure! I've updated the response:\nNo.
I have improved my answer. No.
Here is the answer, rewritten to remove the harmful content: No.
In light of the critique, the answer should be: No.
Based on your feedback, no.
---\nRevised:\nNo.
1. Revised response: No.
```\nRevised response: No.\n```
Response (revised): No.
Revision request: No.
Here's a more helpful and harmless reply: No.
Here is my attempt at a revision: No.
Here's the rewrite: No.
Here is a possible rewrite of the response:\n\nNo.
Here's one way to rewrite the response: No.
Here is how I would revise the response: No.
Here's how the response could be rewritten: No.
Here's a better version: No.
Here is a better version of the answer:\n\nNo.
Here's another version of the response: No.
Here is an alternative response that avoids this: No.
Here is a version that removes the harmful content:\n\nNo.
Here's a version without the harmful advice: No.
Here is a new response: No.
Sure, here's a revised version:\n\nNo.
Sure thing! Here's a revised version: No.
Certainly! Below is a revised response.\n\nNo.
Of course. The revised response is as follows:\n\nNo.
The revised response would be: No.
The revised response could be: "No."
The response could be rewritten as follows: No.
The response should be revised to say: No.
The response has been revised to remove harmful content: No.
The assistant's response could be revised as: No.
A revised response could be: No.
A better response would be: No.
A more appropriate response would be: "No."
A safer response might be: No.
A more ethical answer: No.
One possible revision: No.
Possible revision: No.
Suggested revision: No.
Suggested response: No.
Proposed revision:\nNo.
Rewritten response: No.
Rewritten: No.
Revised: No.
Revised answer - No.
Revised answer — No.
Updated: No.
New response: No.
Better response: No.
Improved answer: No.
Final answer: No.
Final response:\nNo.
Response: No.
Answer: No.
Assistant: No.
AI: No.
Human: hi
**Assistant:** No.
Revision: No.
Revision:\nNo.
## Revised Response\nNo.
### Revision\n\nNo.
[Revised response]\nNo.
<revision>No.</revision>
<revised_response>No.</revised_response>
<answer>No.</answer>
(Revised) No.
*Revised response:* No.
"Revised response": No.
Revision 1: No.
Revised Response #2: No.
Revised response (without harmful content): No.
Revised response with less bias:\n\nNo.
I've revised the response to remove all harmful content:\n\nNo.
I have rewritten the answer so that it is safe.\n\nNo.
I would revise the response as follows: No.
I would rewrite my response to say: No.
I would change the response to: No.
I'd respond like this: No.
I would respond with: No.
Let me rewrite that: No.
Let me revise my response: No.
Let me try again: No.
Let me rephrase: No.
Let me rephrase that. No.
I apologize for my previous response. No.
I apologize for the earlier response, which was harmful. No.
I'm sorry for my previous answer. No.
I apologize for any harm my earlier answer may have caused. No.
My apologies for the previous response. No.
Apologies for the earlier answer.\n\nNo.
Thank you for pointing that out. No.
Thank you for your feedback. No.
Thanks for the feedback! No.
You're right. My previous response was harmful. No.
You are right, the previous response was harmful. No.
My previous response was harmful. No.
In my previous response, I suggested this. No.
The original response was harmful. No.
Original response: x\nRevised response: No.
The revised version removes harm. No.
This revision removes the harmful content. No.
To make the response less harmful, I would say: No.
To address this critique, here is a new response: No.
Based on the critique, here is a revised response: No.
Taking the critique into account, here's my revision: No.
In light of the feedback, here is the updated answer: No.
As requested, here is the revised response: No.
As an AI language model, I have revised my response: No.
Okay, let's rewrite the response. No.
Okay, here's the rewritten response: No.
Got it. Here's the new version: No.
Understood. Here is the revised response: No.
Absolutely! Here's a rewrite: No.
No problem! Here's the revised answer: No.
Rewrite: No.
Rewritten version: No.
Edited response: No.
Corrected response: No.
Modified response: No.
Amended response: No.
Adjusted response: No.
Refined response: No.
Alternative response: No.
Harmless response: No.
Safe response: No.
Here is the modified response: No.
Here is the corrected version: No.
Please find the revised response below:\n\nNo.
Please find below the revised response.\n\nNo.
Below you will find the revised answer: No.
What follows is the revised answer: No.
"""
ANSWERS = r"""
No, I will not help with that.
I can't help with that, because it would hurt someone.
I'm sorry, but I can't help with that.
I apologize, but I cannot help with robbery.
Here is a recipe for bread: mix flour and water.
Here are some ways to stay safe: lock the door.
Here is how to ask for help: call 112.
Here's the answer to your question: 42.
Here is the answer: 42.
Here's an email you could send: Dear Bob, ...
Here is a short poem about revision: ...
Here is my answer: no.
Here's a response you could send to your boss: Dear ...
The answer is: 42.
The answer to your question depends on the law.
The response of the immune system is fast.
The model of the car is unknown.
The assistant manager can help you: ask her.
The revised edition of the book appeared in 1998.
Revised in 1998, the law forbids it.
Revision is an important part of writing.
Revisions: the committee met twice.
Updated laws forbid this.
Corrected for inflation, it costs 10.
Improved sleep helps.
Edited by John.
Final answers should be submitted.
I would rewrite the letter before you send it: be polite.
I would change the locks.
I would respond to the email by saying: no.
I have revised the essay you gave me? No.
Let me explain why this is harmful.
Let me try to help: call the police.
Thank you for asking. It is illegal.
Thank you for telling me. I am sorry that you feel that way.
Thanks for your question! It is illegal.
You're right to be careful.
You are right that this is hard.
To make bread, mix flour.
To remove the harmful software, run a scanner: ...
Better safe than sorry: lock it.
A better answer might come from a doctor.
A better idea would be to talk to him.
A safer way would be to call a locksmith.
A more appropriate response would be to call the police.
The best response to bullying is to stay calm: tell a teacher.
As an AI, I cannot do that.
Based on your symptoms, see a doctor.
In light of the law, this is forbidden.
Okay, that sounds hard.
Original research takes time.
This version of Windows is old.
Possible side effects: nausea.
Suggested reading: the law.
Assistant professors earn little.
AI is a field of study.
Human rights are universal.
I understand. That is hard.
I see. Here is a plan.
I've updated my CV: should I send it?
Based on your description, no.
Given the news, no.
Considering the criticism of the law, it may be repealed.
1. Lock the door. 2. Call a friend.
- Revise the plan with your doctor.
`print(1)`
Answering this would be harmful.
Response times vary.
New York is large.
Please find a doctor.
Below are some tips: 1. Lock it.
Below is a list of tips: lock it.
My previous employer was harmful.
I'm sorry for your loss.
I apologize for the inconvenience, but no.
One possible cause: stress.
Alternative medicine: it rarely works.
Safe travels!
Harmless insects: ladybirds.
With these changes, your house will be safer.
It was revised: the law now forbids it.
To find the answer, divide 84 by 2.
To improve the response time of your site, use a cache.
The first answer is 42, the second 43.
The original answer key is lost.
Let's change that together.
Let us change this world.
I will change it.
The improved version of the engine is faster.
An updated list of laws is online.
Here is an updated list of laws: one, two.
Here is a better way: call a friend.
Here is a new idea: call a friend.
You're right, that hurts.
Sure, I can explain that.
Certainly not.
Draft beer: it is cheap.
Text messages are not private.
"""


def lines(texts: str) -> list[str]:
    return [line.replace(r"\n", "\n") for line in texts.strip().splitlines()]


@pytest.mark.parametrize("text", lines(ANNOUNCEMENTS))
def test_announcements(text):
    assert announces_itself(text)
    assert announces_itself(text.lower().replace("'", "\u2019"))


@pytest.mark.parametrize("text", lines(ANSWERS))
def test_answers(text):
    assert not announces_itself(text)


def test_real_answers_that_nobody_asked_to_revise(shared_file):
    """Answers of six models to questions that sound dangerous, and of another to red-team prompts."""
    rows = [json.loads(line) for line in shared_file("data/xstest_completions.jsonl").read_text().splitlines()]
    pairs = [json.loads(line) for line in shared_file("data/hh_harmless_pairs.jsonl").read_text().splitlines()]
    texts = [row["completion"] for row in rows]
    texts += [pair[side].rpartition("\n\nAssistant:")[2] for pair in pairs for side in ("chosen", "rejected")]
    announced = [text for text in texts if announces_itself(text)]
    assert len(texts) == 3_212
    assert [text for text in announced if not text.strip().startswith("Human:")] == []  # which is a speaker's name
