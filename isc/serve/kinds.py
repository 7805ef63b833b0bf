"""The words that the tables, the API and the page have in common."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """A kind of metadata; each has a table of its own."""

    copy = "copy"
    label = "label"
    caption = "caption"
    product = "product"
    number = "number"


class ImageState(StrEnum):
    """The state of an image: negative pictures must never match, quarantined ones match too much."""

    active = "active"
    unreadable = "unreadable"
    negative = "negative"
    quarantined = "quarantined"


class RequestState(StrEnum):
    """The state of a request to a provider; a dead one waits for a person."""

    queued = "queued"
    leased = "leased"
    submitted = "submitted"  # the provider has it, and answers later
    done = "done"
    dead = "dead"
    superseded = "superseded"  # a newer version of the provider was asked instead


class SuggestionState(StrEnum):
    """The state of a suggestion; `hidden` ones are below the threshold at which a person is asked."""

    unreviewed = "unreviewed"
    accepted = "accepted"
    rejected = "rejected"
    withheld = "withheld"
    hidden = "hidden"


class Decision(StrEnum):
    """A vote: `undo` takes the reviewer's earlier vote back."""

    accept = "accept"
    reject = "reject"
    unsure = "unsure"
    undo = "undo"


class Question(StrEnum):
    """A question about a caption; the answers are decisions: yes (accept), no (reject), and unsure."""

    right = "right"
    helpful = "helpful"
    encyclopaedic = "encyclopaedic"


class Role(StrEnum):
    """The role of a token; each may do what those before it may."""

    upload = "upload"
    review = "review"
    admin = "admin"

    @property
    def rank(self) -> int:
        return list(Role).index(self)


class Verification(StrEnum):
    """The votes that verify a suggestion: one, two that agree, or one of a trusted reviewer."""

    one = "one"
    two = "two"
    trusted = "trusted"
