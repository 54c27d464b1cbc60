"""What the page's technical words mean, in a sentence or two each."""

from __future__ import annotations

TERMS = {
    "adversarial example": "An input that the adversary may reach, by a change inside the threat model, and that the "
    "network gets wrong.",
    "accuracy under attack": "The share of examples for which no attack that was tried found an adversarial example. "
    "The true robust accuracy is at most that.",
    "threat model": "What the adversary may do: how far he may move an input, measured by a norm and a radius.",
    "radius": "The largest change that counts, epsilon. Under L∞ that of every number alone; under L2 the Euclidean "
    "length of the change; under L1 the sum of all changes.",
    "standard attack": "Auto-PGD on the cross-entropy along the network's own gradient: what a usual evaluation runs.",
    "repaired attack": "The same kind of attack, along a gradient in which the operations that hid it were replaced, "
    "on the way back only; every success is judged on the network as it is.",
    "gradient masking": "The network's gradient does not show where its loss grows, so that attacks that follow it "
    "fail although adversarial examples are there.",
    "shattered gradient": "A step or another operation whose derivative is zero, wrong or missing.",
    "vanishing gradient": "A derivative so small that it drowns in rounding, such as that of a saturated sigmoid.",
    "stochastic gradient": "Every pass draws random numbers, so that one gradient says little about the next pass.",
    "95 % interval": "The exact (Clopper-Pearson) range of accuracies of the whole population from which so many "
    "examples may be drawn without a rare accident.",
    "control": "A check on the audit itself. A sound attack passes it, whatever the network.",
    "symptom": "A control failed because of the masking that was found; the attack was repaired and went on.",
    "open control": "A control failed and nothing that was found explains it: that attacks do not break the network "
    "proves nothing then.",
    "forward and backward pass": "One evaluation of the network on one example, and one gradient of it.",
    "certified": "Proved by bounds on the network's operations, for every input inside the threat model.",
    "distance": "How far the nearest known failure of an example lies, drawn back from the points that attacks found. "
    "Nearer ones may exist.",
}
