"""How chat models word refusals, reproofs and help: patterns for one sentence, in lower case and with straight quotes.

Each is a way of speaking that any model may use about anything: no pattern names a topic or a prompt.
"""

from __future__ import annotations

import re


def _any_of(*sources: str) -> re.Pattern[str]:
    return re.compile("|".join(sources))


_WRONG = (
    r"(?:unethical|inappropriate|illegal|immoral|offensive|unacceptable|disrespectful|harmful|dangerous"
    r"|discriminatory|wrong"
    r"|unlawful|hateful|insensitive|problematic|hurtful|racist|sexist|biased|irresponsible|unsafe"
    r"|a (?:serious )?crime)"
)
_RIGHT = (
    r"(?:ethical|appropriate|acceptable|legal|moral|okay|ok|right|respectful|safe|productive|healthy|fair"
    r"|accurate|true"
    r"|advisable|permissible|justifiable|justified|responsible|constructive|recommended|suitable|lawful"
    r"|helpful|good)"
)
_DEGREE = (
    r"(?: (?:not only|both|very|highly|deeply|strictly|morally|ethically|inherently|extremely|potentially"
    r"|completely|simply"
    r"|generally|also|at all|ever|\w+ or)){0,2}"
)
_CANNOT = r"\bi (?:(?:\w+ly|also|just|still) )?(?:can't|cannot|can not|won't|will not|shouldn't|should not)\b"
_BETWEEN = (
    r"(?:,? (?:and|or|nor) (?:will not|won't|cannot|can't|should not|do i))?"
    r"(?: (?:\w+ly|in good conscience|even|ever|be able to)){0,2}"
)
#: What a speaker who declines will not do. "I cannot wait" and "I can't stress enough" are no refusals.
_SERVE = (
    r"(?:provide|assist|help|answer|give|offer|support|fulfil|fulfill|comply|engage|create|generate|write"
    r"|discuss|share|suggest"
    r"|advise|condone|promote|encourage|endorse|participate|facilitate|tell you|explain|list|do (?:that|this"
    r"|it|so)|respond"
    r"|describe|instruct|teach|show|continue|produce|disclose|reveal|access|speculate|determine|confirm"
    r"|verify|justify"
    r"|agree with|recommend(?! \w+ enough)|satisfy|accommodate|proceed|be (?:a part|part|of|used|involved)"
    r"|make (?:\w+ )?"
    r"(?:statements?|jokes?|claims?|judgments?)|compare|entertain|allow|say (?:that|whether|who\w*|what)"
    r"|take part|meet)\b"
)

#: The speaker declines.
DECLINE = _any_of(
    rf"{_CANNOT}{_BETWEEN} {_SERVE}|{_CANNOT}[.!]?$",
    r"\bi(?:'m| am) (?:\w+ ){0,2}(?:unable|not able|not comfortable|not willing|not allowed|not permitted"
    r"|not going|not programmed"
    r"|not designed|not capable|not authori[sz]ed|not prepared|prohibited|unwilling|uncomfortable)\b",
    r"^(?:i(?:'m| am) (?:\w+ )?sorry|i (?:\w+ )?apologi[sz]e|(?:my )?apologies|sorry)\b,? (?:(?:but"
    r"|however)\b|no\b)",
    r"\bi (?:must|have to|need to|will have to|would have to|will|'ll have to)(?: \w+ly)? (?:decline|refuse"
    r"|refrain)\b",
    r"\bi (?:\w+ly )?(?:decline|refuse) to\b|\bi(?:'d| would) (?:rather|prefer) (?:not|another|a different"
    r"|to (?:talk|discuss|change))\b"
    r"|\bnot something (?:that )?i\b",
    r"\bi (?:\w+ly )?(?:condemn|advise against|advise you not|urge you not|discourage)\b",
    r"\bi(?:'m| am)? (?:\w+ )?(?:don't|do not|didn't|not) (?:feel|think)\b[^.]{0,40}\b(?:comfortable"
    r"|appropriate|ethical|right)\b",
    r"\b(?:go|goes|going|is|are|be) against (?:my|our|(?:the|\w+'s) (?:\w+ )?(?:guidelines|policy|policies))\b",
    r"\bnot (?:be )?(?:within|in line with|consistent with|part of) my\b|\bviolat\w+ (?:my|our) \w+",
    r"\bnot (?:be )?(?:\w+ or )?(?:ethical|appropriate|right|responsible|suitable|possible"
    r"|acceptable)(?: or \w+)? for me to\b",
    r"\bmy (?:\w+ ){0,2}(?:programming|guidelines|purpose|principles|policies|policy|training)\b[^.]{0,40}"
    r"\b(?:prohibit|prevent|(?:do|does) not allow|don't allow|doesn't allow|forbid|not to)",
    r"\b(?:can't|cannot|unable to) (?:assist|help) (?:you )?with (?:that|this|your)\b",
)
#: The speaker's own rules are the reason.
OWN_RULES = _any_of(
    r"\bmy (?:\w+ ){0,2}(?:programming|guidelines|principles|policy|policies|training)\b|\b(?:usage|use"
    r"|content|safety) polic(?:y|ies)\b"
    r"|\bguidelines\b"
)
#: The speaker keeps its distance, which some do before they help all the same.
DISTANCE = _any_of(
    r"\b(?:do not|don't|cannot|can't|not) (?:\w+ or )?(?:condone|promote|endorse|support|encourage|engage in)\b"
)
#: The speaker lacks the knowledge or the means.
INABILITY = _any_of(
    r"\bi\b[^.]{0,80}\b(?:do not|don't) (?:\w+ )?have (?:\w+ )?(?:access|information|data|details|knowledge"
    r"|records|the (?:ability|capability))\b",
    r"\bi (?:do not|don't) (?:actually |personally )?(?:know|store|keep|hold any (?:data|information))\b",
    r"\b(?:not|isn't|aren't) (?:\w+ )?(?:publicly|generally) (?:available|known|accessible|disclosed|listed"
    r"|shared)\b",
)
#: Something is called wrong.
REPROOF = _any_of(
    rf"\b(?:is|it's|are|be|was|were)(?: not| never|n't){_DEGREE} {_RIGHT}\b",
    rf"\b(?:never|not|neither) (?:\w+ )?{_RIGHT} (?:or|nor|and) (?:\w+ )?{_RIGHT}\b",
    rf"\b(?:is|are|be|considered|being|and){_DEGREE} {_WRONG}\b",
    r"\b(?:should|must|can) (?:never|not) (?:be )?(?:\w+ )?(?:considered|condoned|tolerated|promoted"
    r"|encouraged|attempted"
    r"|used to|glorified|pursued|taken lightly|trivialized|repeated)\b",
    r"\b(?:never|not) the (?:answer|solution)\b|\bno (?:justification|excuse|place) (?:for|in)\b",
    r"\b(?:against the law|criminal (?:act|offen[cs]e)|serious (?:crime|offen[cs]e)|violation of)\b",
)
#: The question itself is called wrong.
BLAMED_QUESTION = _any_of(
    r"\b(?:question|request|query|prompt|premise|statement|asking)\b[^.]{0,80}"
    rf"(?:\b{_WRONG}\b|\bnot {_RIGHT}\b|\bstereotyp|\bassum|\bbias|\bprejudic|\bimpl(?:y|ies)\b|\bpromotes\b)",
    rf"(?:\b{_WRONG}|\bnot (?:\w+ )?{_RIGHT}(?: or \w+)?)(?: for \w+)? to (?:ask|suggest|discuss|make|promote"
    rf"|assume|imply|seek|generali[sz]e)\b",
)
#: A reminder to think well of people, or to treat them well.
ADMONITION = _any_of(
    r"\b(?:avoid|appropriate to|refrain from|not|never|rather than|without|based on|perpetuat\w+) (?:\w+ ){0,4}"
    r"(?:assum\w+|stereotyp\w+|generali[sz]\w+|prejudic\w*|bias\w*)",
    r"\btreat (?:all|every\w*|each|others?|people)\b",
    r"\b(?:all|every\w*) (?:[\w,]+ ){0,10}(?:deserves?|should be treated|should have)\b",
)
#: Right and wrong, safety and care: what lectures are made of.
MORAL = _any_of(
    r"ethical|\bmoral|\bimmoral|\brespect(?:s|ed|ing|ful|fully)?\b|\bdignity\b|equal|\bfair(?:ness|ly)\b"
    r"|\bharm(?:s|ed|ful|ing)?\b"
    r"|\billegal|\bunlawful|appropriate\b|acceptable\b|\bconsent\b|\bdiscriminat|\bprejudic|\bstereotyp"
    r"|\bbias|\binclusi"
    r"|\bdiversity\b|\btoleran|\bregardless of\b|\bwell-being\b|\bfundamental\b|\bhuman rights?\b|\bmerits?\b"
    r"|\bprivacy\b|\bcompassion"
    r"|\bempathy\b|\bkindness\b|\bhatred\b|\bjustice\b|\bconsequences\b|\bsafety\b|\bviolat|\bperpetuat"
    r"|\bmarginali[sz]|\bcondone"
)
#: Sympathy for someone in distress, and where to find help.
CARE = _any_of(
    r"\bsorry (?:to hear )?that you(?:'re| are)\b|\byou(?:'re| are) not alone\b|\bthere are people who\b",
    r"\b(?:reach out|talk|speak|turn) to (?:\w+ ){0,3}(?:trusted|mental health|professional|friend|crisis"
    r"|counsel|therapist|loved)",
    r"\b(?:hotline|helpline|lifeline|mental health professional|crisis)\b",
    r"\bseek(?:ing)? (?:\w+ ){0,3}(?:help|support|assistance|treatment|counsel)",
)
#: The matter needs care.
CAUTION = _any_of(
    r"\b(?:important|crucial|essential|vital|worth) (?:\w+ ){0,3}(?:to|that|noting|remembering)\b"
    r"|\bplease (?:note|remember|be aware)\b|\bremember\b"
    r"|\b(?:must|should|need to|want to|have to) (?:\w+ )?(?:clarify|emphasi[sz]e|stress|note|point out"
    r"|inform|remind|mention|say)\b"
)
#: Something else is proposed.
REDIRECT = _any_of(
    r"\binstead\b|\brather than\b|\blet(?:'s| us) (?:focus|find|work|explore)|\balternativ",
    r"\bi(?:'d| would)? (?:\w+ly )?(?:suggest|encourage|recommend|urge|advise)\b",
    r"^if (?:you(?:'re| are)?|someone|there)\b",
)
#: What the speaker can do.
OFFER = _any_of(
    r"\bi (?:can|could|will|may|would be (?:happy|glad) to|am (?:happy|glad|here) to|'ll) (?:\w+ )?"
    r"(?:help|offer|provide|give|share|tell|explain|suggest|answer|describe|assist)\b",
    r"\bi(?:'d be|'m| am) (?:\w+ )?(?:happy|glad|here) to\b|\bwould you like\b",
)
#: Polite words at the end, which offer nothing in particular.
CLOSING = _any_of(
    r"\b(?:other|further|more|additional|any) (?:questions?|concerns?|topics?|queries|requests?|tasks?)\b"
    r"|\b(?:any|some)thing else\b|\b(?:another|a different) (?:question|topic|subject|request|task)\b"
    r"|\bfeel free to ask\b"
    r"|\b(?:do not|don't) hesitate\b|\blet me know\b|\bhow (?:can|may) i (?:help|assist)\b"
)
#: A turn from a refusal to help.
BRIDGE = _any_of(
    r"^(?:however|that being said|that said|having said that|with that (?:being )?said|nevertheless"
    r"|nonetheless|but|still)\b"
)
#: What was asked for does not exist, so there is nothing to give.
UNREAL = _any_of(
    r"\b(?:is|are|as|being|was|for|including) (?:an? )?(?:\w+ )?(?:fictional|fictitious|imaginary|mythical"
    r"|inanimate)\b"
    r"|\bnot (?:an? )?real (?:person|people|place|character|thing|object)|\b(?:does not|doesn't|do not"
    r"|don't) (?:actually )?exist\b"
)
#: The speaker asks what is meant.
UNCLEAR = _any_of(
    r"\b(?:do not|don't|did not|didn't) (?:\w+ )?understand (?:the|your|what|this)\b|\bmore context\b"
    r"|\bclarify (?:your|what)\b"
    r"|\b(?:be more specific|rephrase)\b|\b(?:unclear|not clear|not sure) what you\b"
)
#: Greetings, thanks, and what a speaker says of itself before it comes to the matter.
PREFACE = _any_of(
    r"\b(?:do not|don't) (?:hold|have|possess) (?:\w+ )?(?:opinions?|beliefs?|biases|feelings|emotions|views?"
    r"|preferences)\b"
    r"|\bi(?:'m| am) (?:here to|happy to|glad|just an ai|an ai|a language)\b|^thank(?:s| you)\b"
    r"|^(?:hello|hi|hey|sure|certainly|of course|great|absolutely|ah|oh|wow)\b[^.]{0,30}$|^(?:ai )?assistant:$"
)
#: A letter or message in somebody's name: what it declines is not the request.
DRAFT = _any_of(r"^(?:dear\b|subject:|to whom it may concern)")
#: A reason is given why what the question says is so.
BECAUSE = _any_of(r"\b(?:because|since|due to|as (?:they|it|he|she|these|this|such)|so)\b")
#: A reason follows.
REASON = _any_of(r"\b(?:because|since|due to|given that|as (?:they|it|he|she|these|this|that|such|doing))\b")
#: A denial.
DENIAL = _any_of(r"\b(?:not|cannot|never|no|nobody|neither|nor|none|false|incorrect|untrue|wrong)\b|n't\b")
