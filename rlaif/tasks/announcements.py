"""Revisions that speak of themselves: "Here is a safer response: ...", "**Revision:**", "I apologize for my previous
answer".

A revision is trained on as the answer to the human, who saw neither the first answer nor the critique. Each pattern is
one way in which models show that they did. They are matched at the start of a text, and ask for words that belong to
revising: a text that is merely about answers or versions must pass. The name of a speaker at the start counts, too.
"""

from __future__ import annotations

import re

_ANSWER = r"(?:response|answer|reply)"
_TEXT = rf"(?:{_ANSWER}|version|revision|rewrite|draft|text|message|statement|paragraph|wording|attempt)"
_REVISED = r"(?:revised|re-?written|reworded|rephrased)"
_CHANGED = r"(?:improved|updated|edited|corrected|modified|amended|adjusted|refined|cleaned[- ]up)"
_REVISE = r"(?:revis|re-?writ|re-?wrote|reword|rephras)\w*"
_COMPARED = (
    r"(?:(?:more|less) [\w-]+(?:,? and (?:more |less )?[\w-]+)?|better|safer|kinder|gentler|clearer|politer|new|another"
    r"|alternative|different|possible|suggested|proposed|safe|harmless|appropriate|respectful|ethical|non-harmful)"
)
_EARLIER = r"(?:previous|earlier|prior|initial|original|last)"
_I = r"(?:i|i['’]ve|i have|i['’]d|i would|i will|i['’]ll|let me|let['’]s|let us)"
_BE = r"(?: (?:would|could|might|should|can|may))?(?: (?:be|is|reads?))?"

#: Pleasantries, of which several may come first.
_OPENING = (
    r"(?:(?:sure(?: thing)?|certainly|of course|okay|ok|absolutely|got it|understood|all ?right|right|great|no problem"
    r"|noted|i (?:understand|see)|you(?:['’]re| are) (?:absolutely )?right)\b[ \t]*+[,.!:;–—-]*+\s*+){0,3}"
)
_CLAUSE = r"(?:(?:to|based|taking|in|with|as|considering|given|after|following)\b[^\n.:]{0,80},\s*)?"
#: As all repetitions next to each other, possessive: matching must stay linear.
_MARKS = r"(?:[\s*_#>\[(\"“`-]|\d++[.)])*+"
_CLOSING = r"[*_\])\"”]"
#: After a heading: a colon or a dash, a closing mark, or the end of its line.
_ENDS = rf"(?:{_CLOSING}*\s*[:–—]|\s+-\s|{_CLOSING}+\s|[ \t]*\n)"

_HEADINGS = (
    rf"(?:(?:my|the|an?|one|final|new|possible|suggested|proposed) ){{0,3}}(?:revision|rewrite|{_REVISED}|{_CHANGED})"
    rf"(?: (?:assistant |ai )?{_TEXT})?(?: ?#?\d+)?"
    rf"(?: \([^)\n]{{0,60}}\)|(?: with(?:out)?| that) [^\n.:]{{0,60}}(?=:))?{_ENDS}",
    rf"(?:(?:my|the|an?|one) )?(?:(?:final|original|previous|{_COMPARED}) ){{1,2}}"
    rf"(?:{_ANSWER}|version){_CLOSING}*\s*[:\n]",
    rf"(?:{_ANSWER}|assistant|ai assistant|ai|human|user){_CLOSING}*:",
    rf"(?:{_ANSWER} \({_REVISED}\)|revision request){_CLOSING}*:",
    r"</?(?:revis|rewrit|response|answer|reply|final)\w*>",
)
_HERE = (
    r"(?:here(?:['’]s| is| are)|below (?:is|are)|this is|the following is|what follows is"
    r"|below you(?:['’]ll| will) find|please find(?: below)?)"
)
_SENTENCES = (
    # Here is a revised ...; here's how the response could be rewritten; here is my attempt at a revision
    rf"{_HERE} (?:(?:an?|the|my|your|one|another|possible|attempt|at|how|way|to|i|we|you|would|could|can|might|be|it"
    rf"|{_ANSWER}|more|and|{_COMPARED}) ){{0,8}}(?:{_REVISE}\b|{_CHANGED} (?:\w+ ){{0,2}}{_TEXT})",
    # Here is a safer response: ...; here's my answer without the harmful parts: ...
    rf"{_HERE} (?:an?|the|my|your|one) {_COMPARED} {_TEXT}\b",
    rf"{_HERE} (?:another|one) (?:{_ANSWER}|version)\b",
    rf"{_HERE} (?:an?|the|my|your) {_ANSWER},? {_REVISE}\b",
    rf"{_HERE} (?:an?|the|my|your) (?:{_ANSWER}|version) (?:with|without|that|which)\b[^\n.:]{{0,60}}:",
    # The revised response would be: ...; this revision removes ...; the response could be rewritten as follows
    rf"(?:an?|the|my|one|this|your) (?:possible )?(?:{_REVISED} {_TEXT}|{_CHANGED} {_ANSWER})\b",
    r"this (?:revision|rewrite)\b",
    rf"(?:an?|the) {_COMPARED} {_ANSWER}{_BE}\s*[:\"“]",
    rf"(?:the|my|this|your) (?:\w+['’]?s? )?{_ANSWER}"
    rf" (?:has been|(?:could|should|can|might|would|may) be|was|is) {_REVISE}",
    # I have rewritten the answer; let me rephrase that; I would respond with: ...
    rf"{_I} {_REVISE} (?:(?:the|my|this|that) [^\n.:]{{0,30}}{_ANSWER}\b|(?:it|that|this|as follows)\b)",
    rf"{_I} (?:change|modif\w+|edit(?:ed)?|adjust(?:ed)?|updated?|improved?|corrected?)"
    rf" (?:the|my|this|that) (?:\w+ )?{_ANSWER}\b",
    r"let me (?:rephrase|reword|rewrite|revise)\s*[.:,]|let me try (?:that )?again",
    r"i(?:['’]d| would) (?:instead )?(?:respond|answer|reply|say)(?: instead)?"
    r"(?: with| like this| as follows| by saying)?\s*:",
    # To make the response less harmful, ...; my previous response ...; thank you for the feedback
    rf"to (?:make|keep) (?:the|my|this) (?:\w+ )?{_ANSWER} (?:\w+ )?(?:less|more|safe|harmless|ethical|appropriate)",
    r"to address (?:the|this|that|your) (?:\w+ )?(?:critique|criticism|feedback)\b",
    r"(?:in (?:the )?light of|based on|considering|given) (?:the|this|that|your) (?:\w+ )?"
    r"(?:critique|criticism|feedback)\s*[,:]",
    rf"(?:in )?my {_EARLIER} {_ANSWER}\b|(?:in )?the {_EARLIER} {_ANSWER} (?:was|is|had|has|contain|could)\b",
    rf"(?:i apologi[sz]e|(?:i['’]m |i am )?(?:so |very )?sorry|(?:my )?apologies) (?:for|if|that)\b[^\n.]{{0,60}}"
    rf"\b{_EARLIER} (?:{_ANSWER}|message|statement|comment|suggestion|advice)",
    r"(?:thank you|thanks)(?: so much| very much)? for"
    r" (?:pointing (?:this|that|it) out|(?:your|the|this) (?:\w+ )?(?:feedback|critique|criticism|correction))",
)
_ANNOUNCEMENT = re.compile(
    rf"{_MARKS}{_OPENING}{_MARKS}(?:{'|'.join(_HEADINGS)}|{_CLAUSE}(?:{'|'.join(_SENTENCES)}))", re.IGNORECASE
)


def announces_itself(text: str) -> bool:
    """Whether a revision begins with words about revising instead of the revised answer."""
    return _ANNOUNCEMENT.match(text) is not None
