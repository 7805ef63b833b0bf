"""Libraries that the server of `tests.forked` loads before it forks; none of them may start a thread."""

import jinja2  # noqa: F401
import torch.utils.tensorboard  # noqa: F401
from PIL import Image

import isc.data.groups
import isc.evaluate.report.page
import isc.extract.run
import isc.match.run
import isc.search.exact
import isc.search.kernels.faiss_kernel
import isc.search.multi_view
import isc.search.normalize.transforms
import isc.train.run  # noqa: F401
from isc.cli.hydra_app import plain
from isc.cli.verbs import SCHEMAS

Image.preinit()
plain(["queries='a b'", "k=3"], SCHEMAS["match"], "match")  # the first arguments take long: tables of the parser
