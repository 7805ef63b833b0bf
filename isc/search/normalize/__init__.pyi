from .files import NormalizationFile as NormalizationFile
from .files import stored_for as stored_for
from .fitted import Fitted as Fitted
from .fitted import fit as fit
