"""Training recipes, from the undefended network upwards."""

from .adversarial import AdversarialTraining
from .alternating import Alternating
from .base import Epoch, History, Trainer
from .danskin import Danskin, danskin
from .fast import FastTraining
from .free import FreeTraining
from .loop import Loop, Seen
from .penalty import Penalised
from .pretraining import Pretraining
from .processes import Processes
from .run import Run
from .saturated import Saturated
from .selftraining import SelfTraining
from .standard import Standard
from .tensorboard import tensorboard
from .toy import RobustAndWeakFeatures
from .trades import TRADES
from .yopo import YOPO

__all__ = [
    "TRADES",
    "YOPO",
    "AdversarialTraining",
    "Alternating",
    "Danskin",
    "Epoch",
    "FastTraining",
    "FreeTraining",
    "History",
    "Loop",
    "Penalised",
    "Pretraining",
    "Processes",
    "RobustAndWeakFeatures",
    "Run",
    "Saturated",
    "Seen",
    "SelfTraining",
    "Standard",
    "Trainer",
    "danskin",
    "tensorboard",
]
