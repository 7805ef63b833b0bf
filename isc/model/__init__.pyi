from .copy_model import CopyModel as CopyModel
from .inference import InferenceModel as InferenceModel
from .load import load_model as load_model
from .load_inference import load_inference_model as load_inference_model
